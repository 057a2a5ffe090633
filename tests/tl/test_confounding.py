"""Checks for confounding: rare flags where there is nothing, and each planted confounder found."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc.tl import _confounding

pytestmark = pytest.mark.usefixtures("few_null_features")

COLUMNS = ["what", "statistic", "estimate", "pvalue", "pvalue_adjusted", "flag", "advice"]


def _screen(seed: int, n_cells: int = 1500, n_genes: int = 60, **keywords) -> ad.AnnData:
    adata = ds.datasets.titration(n_cells, n_genes, rng=seed, guide_shift_sd=0.05, mean_range=(-1.0, 4.0), **keywords)
    gen = np.random.default_rng(seed + 1000)
    adata.obs["mito"] = gen.gamma(4.0, 0.5, n_cells)
    adata.obs["phase"] = gen.choice(["G1", "S", "G2M"], n_cells, p=[0.5, 0.3, 0.2])
    return adata


def _checked(adata: ad.AnnData, batch_of_fit: str | None = "batch", **keywords) -> pd.DataFrame:
    ds.tl.fit_technical(adata, batch_key=batch_of_fit)
    ds.tl.fit_cis(adata, "GFI1B")
    return ds.tl.check_confounding(adata, covariates=["mito", "phase"], **keywords)


def _flagged(table: pd.DataFrame) -> set[str]:
    return set(table.loc[table["flag"], "what"])


@pytest.fixture(scope="module")
def clean() -> ad.AnnData:
    adata = _screen(0)
    _checked(adata)
    return adata


def test_flags_are_rare_where_nothing_is_confounded() -> None:
    tables = pd.concat([_checked(_screen(seed, 600, 40)).assign(seed=seed) for seed in range(40)])
    by_itself = tables["what"] == _confounding.EXPRESSION
    # two rules of 5 %: of 40, 2 each are expected, and more than 6 are seen in less than 1 % of cases
    assert tables[~by_itself].groupby("seed")["flag"].any().sum() <= 6
    assert tables[by_itself]["flag"].sum() <= 6
    p = tables.loc[~by_itself, "pvalue"].dropna()
    assert 0.02 < (p < 0.05).mean() < 0.09
    assert tables.loc[tables["flag"] == False, "advice"].isin(["none needed"]).mean() > 0.9  # noqa: E712


def test_the_table_and_what_is_stored(clean: ad.AnnData, tmp_path) -> None:
    adata = clean.copy()
    table = ds.tl.check_confounding(adata, covariates="mito", key_added="again")
    assert list(table.columns) == COLUMNS
    assert list(dict.fromkeys(table["what"])) == [
        "size factor",
        "depth",
        "batch",
        "mito",
        "offset of stable features",
        "expression at NTC dosage",
    ]
    assert table["flag"].dtype == bool
    entry = adata.uns["again"]
    pd.testing.assert_frame_equal(entry["checks"], table)
    assert entry["step"] == "tl.check_confounding"
    guides = entry["guides"]
    assert (guides.groupby(["what", "level"], sort=False).size() == 18).all()
    s = np.log2(adata.obs["size_factor"]).groupby(adata.obs["guide"], observed=True).mean()
    mine = guides[guides["what"] == "size factor"].set_index("guide")["mean"]
    np.testing.assert_allclose(mine, s[mine.index])
    features = adata.varm["again"]
    assert list(features.columns) == ["log2_difference", "se", "pvalue"]
    assert np.isnan(features.loc["GFI1B", "pvalue"])
    share = (features["pvalue"].dropna() < 0.05).mean()
    assert share == pytest.approx(table.set_index("what").loc["expression at NTC dosage", "estimate"])
    adata.write_h5ad(tmp_path / "x.h5ad")
    read = ad.read_h5ad(tmp_path / "x.h5ad")
    pd.testing.assert_frame_equal(ds.pl.confounding_data(read, key="again"), ds.pl.confounding_data(adata, key="again"))
    pd.testing.assert_frame_equal(ds.tl.check_confounding(read, covariates="mito", key_added="again"), table)


def test_leaking_size_factors_are_found_and_the_depth_is_not_blamed() -> None:
    adata = _screen(1)
    adata.obs["size_factor"] *= 2.0 ** (0.1 * adata.obs["true_log2_dosage"])
    table = _checked(adata)
    assert {"size factor", "offset of stable features"} <= _flagged(table)
    assert "depth" not in _flagged(table)
    rows = table[table["what"] == "size factor"]
    assert rows["estimate"].iloc[0] == pytest.approx(0.1, abs=0.03)
    assert "stable" in rows["advice"].iloc[0]


def test_totals_that_follow_the_dosage_are_found_and_stable_factors_pass() -> None:
    adata = _screen(2, 2000, 160, single_fraction=0.5, additive_fraction=0.0)
    rising = (adata.var["true_hill_n"] > 0).to_numpy()
    null = np.flatnonzero((adata.var["true_model"] == "null").to_numpy())[: rising.sum() + 1]
    adata = adata[:, np.sort(np.r_[null, np.flatnonzero(rising)])].copy()
    ds.pp.size_factors(adata)
    assert {"size factor", "offset of stable features"} <= _flagged(_checked(adata))
    ds.pp.size_factors(adata, method="stable")
    assert not {"size factor", "depth", "offset of stable features"} & _flagged(_checked(adata))


def test_real_depth_is_found_and_its_size_factors_do_not_leak() -> None:
    adata = _screen(3)
    keep = np.minimum(2.0 ** (0.15 * (adata.obs["true_log2_dosage"].to_numpy() - 1.5)), 1.0)
    x = adata.X.tocoo()
    thinned = np.random.default_rng(0).binomial(x.data.astype(int), keep[x.row]).astype(np.float32)
    adata.X = sparse.csr_matrix((thinned, (x.row, x.col)), adata.shape)
    adata.obs["size_factor"] *= keep
    found = _flagged(_checked(adata))
    assert {"size factor", "depth"} <= found
    assert "offset of stable features" not in found


@pytest.mark.parametrize("name", ["mito", "phase", "batch"])
def test_covariates_that_follow_the_dosage_are_found(name: str) -> None:
    adata = _screen(4)
    x, gen = adata.obs["true_log2_dosage"], np.random.default_rng(5)
    if name == "mito":
        adata.obs["mito"] += 0.15 * x
    elif name == "phase":
        moved = (adata.obs["phase"] == "G1") & (gen.random(len(x)) < np.clip(0.12 * (x + 3), 0, 1))
        adata.obs.loc[moved, "phase"] = "S"
    else:
        adata.obs["batch"] = np.where(gen.random(len(x)) < 0.5 + 0.08 * (x + 1), "b", "a")
    table = _checked(adata)
    assert _flagged(table) == {name}
    assert name in table.loc[table["flag"], "advice"].iloc[0]
    if name == "phase":
        assert any(f"fraction in {group!r}" in table.loc[table["flag"], "statistic"].iloc[0] for group in ("G1", "S"))


def test_controls_of_one_lane_are_found_and_the_lane_named() -> None:
    adata = _screen(6)
    targeted = (adata.obs["target"] != "NTC").to_numpy()
    lane = np.where(targeted & (np.arange(len(targeted)) % 2 > 0), "lane_b", "lane_a")
    adata.obs["lane"] = lane
    table = _checked(adata, None, batch_key="lane")
    row = table[(table["what"] == "lane") & table["statistic"].str.startswith("Cramér")].iloc[0]
    assert row["flag"]
    assert row["estimate"] > 0.3
    assert "none in ['lane_b']" in row["statistic"]
    assert "batch_key" in row["advice"]


def test_targeted_cells_that_differ_at_equal_dosage_are_found() -> None:
    """A lane that only targeted cells are in, and that nobody has named."""
    table = _checked(_screen(7, 2000, 100, group_confounding=0.8), None)
    assert _flagged(table) >= {"expression at NTC dosage"}
    assert table["estimate"].iloc[-1] > 0.1


def test_few_guides_are_not_tested(clean: ad.AnnData) -> None:
    adata = clean[clean.obs["guide"].isin(["NTC_01", "NTC_02", "GFI1B_g01", "GFI1B_g02"])].copy()
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    table = ds.tl.check_confounding(adata).set_index("what")
    row = table.loc["expression at NTC dosage"]
    assert np.isnan(row["estimate"])
    assert row["advice"].startswith("not tested: no targeting guide is within 0.5 log2")
    assert not row["flag"]
    assert adata.varm["confounding"].isna().all(axis=None)
    ds.tl.check_confounding(adata, near=5.0)
    assert adata.varm["confounding"]["pvalue"].notna().any()


def test_modalities_with_cells_in_another_order(clean: ad.AnnData) -> None:
    rna = clean.copy()
    other = rna[::-1][:1200].copy()
    for key in ("cis",):
        del other.uns[key], other.obsm[key]
    other.var_names = [f"other_{name}" for name in other.var_names]
    del other.uns["technical"]["made_from"]  # of other names of features
    both = md.MuData({"rna": rna, "other": other})
    table = ds.tl.check_confounding(both, mod="other", cis_mod="rna", covariates=["mito"])
    assert "confounding" in both["other"].uns
    part = rna[np.isin(rna.obs_names, other.obs_names)].copy()
    wanted = ds.tl.check_confounding(part, covariates=["mito"])
    same = table["what"].isin(["size factor", "batch", "mito"])
    np.testing.assert_allclose(table["estimate"][same], wanted["estimate"][same], rtol=1e-6)


def test_what_cannot_be_checked(clean: ad.AnnData, modalities: md.MuData) -> None:
    adata = clean.copy()
    del adata.uns["confounding"]
    with pytest.raises(KeyError, match="mitochondrial"):
        ds.tl.check_confounding(adata, covariates="mitochondrial")
    with pytest.raises(KeyError, match="fit_cis"):
        ds.tl.check_confounding(adata, cis_key="none")
    with pytest.raises(ValueError, match="near=0"):
        ds.tl.check_confounding(adata, near=0)
    with pytest.raises(ValueError, match="names a result of"):
        ds.tl.check_confounding(adata, key_added="cis")
    with pytest.raises(ValueError, match="binomial"):
        ds.tl.check_confounding(modalities, mod="psi", cis_mod="rna")
    assert "confounding" not in adata.uns
    with pytest.raises(KeyError, match="check_confounding"):
        ds.pl.confounding(adata)


def test_plots(clean: ad.AnnData) -> None:
    table = ds.pl.confounding_data(clean)
    ax = ds.pl.confounding(clean)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(table["label"])
    np.testing.assert_allclose(table["height"].dropna(), -np.log10(table["pvalue_adjusted"].dropna()))
    drawn = np.concatenate([line.get_xdata() for line in ax.get_lines() if line.get_marker() == "o"])
    assert len(drawn) == len(table)
    guides = ds.pl.confounding_data(clean, what="mito")
    ax = ds.pl.confounding(clean, what="mito")
    points = np.concatenate([c.lines[0].get_xydata() for c in ax.containers])
    wanted = guides.sort_values("is_control", kind="stable")[["log2_dosage", "mean"]]
    np.testing.assert_allclose(points, wanted)
    assert "mito" in ax.get_ylabel()
    assert len(ds.pl.confounding(clean, what="phase").containers) == 6
    with pytest.raises(ValueError, match="what='lane' is not known"):
        ds.pl.confounding(clean, what="lane")


def test_guides_of_the_table_without_cells_and_a_matrix_of_guides(clean: ad.AnnData) -> None:
    part = clean[clean.obs["cis_guide"] != "GFI1B_g01"].copy()
    table = ds.tl.check_confounding(part)
    assert np.isfinite(table["pvalue"]).sum() > 3
    adata = ds.datasets.high_moi(2000, 60, moi=4, rng=0, n_ntc_guides=20, n_other_guides=30)
    ds.tl.fit_technical(adata, batch_key="batch", guides="guides", use_all_cells=True)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    table = ds.tl.check_confounding(adata)
    assert not table["flag"].any()
    assert np.isfinite(table["pvalue"]).sum() > 3


def test_covariates_with_the_name_of_a_check_or_without_a_spread(clean: ad.AnnData) -> None:
    adata = clean.copy()
    adata.obs["depth"] = np.random.default_rng(0).normal(size=adata.n_obs)
    with pytest.raises(ValueError, match="have the names of checks"):
        ds.tl.check_confounding(adata, covariates="depth")
    with pytest.raises(KeyError, match="batch_key='zz'"):
        ds.tl.check_confounding(adata, batch_key="zz")
    adata.obs["flat"] = 1.0 / 3
    table = ds.tl.check_confounding(adata, covariates="flat")
    assert table.loc[table["what"] == "flat", "pvalue"].isna().all()


def test_a_copy_is_written_to_and_the_table_is_read_from_it(clean: ad.AnnData) -> None:
    adata = clean.copy()
    before = set(adata.uns)
    copied = ds.tl.check_confounding(adata, covariates="mito", key_added="there", copy=True)
    assert isinstance(copied, ad.AnnData)
    assert set(adata.uns) == before
    assert "there" in copied.varm
    table = ds.tl.check_confounding(adata, covariates="mito", key_added="here")
    found = ds.get.confounding(copied, key="there")
    pd.testing.assert_frame_equal(found, table)
    assert found.attrs["cis_gene"] == "GFI1B"
    assert found is not copied.uns["there"]["checks"]


def test_the_means_of_guides_are_read(clean: ad.AnnData) -> None:
    adata = clean.copy()
    ds.tl.check_confounding(adata, covariates="mito", key_added="here")
    means = ds.get.confounding(adata, "mito", key="here")
    assert {"guide", "is_control", "log2_dosage", "mean", "se", "n_cells"} <= set(means.columns)
    assert len(means) == adata.obs["guide"].nunique()
    with pytest.raises(ValueError, match="what='mitochondria'"):
        ds.get.confounding(adata, "mitochondria", key="here")
    with pytest.raises(KeyError, match=r"call dream_sc.tl.check_confounding\(data\) first"):
        ds.get.confounding(adata, key="nowhere")
