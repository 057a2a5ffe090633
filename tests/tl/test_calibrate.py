"""Calibration of the trans step: what every null writes, replaced p-values, files, MuData, and input that is wrong."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import stats as st
from statsmodels.stats.multitest import multipletests

import dream_sc as ds
from dream_sc._core.response import calibration as core
from dream_sc.tl import _calibration_tables as tables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NULLS: dict[str, dict[str, Any]] = {
    "ntc_guides": {"null": "ntc_guides"},
    "permutation": {"null": "permutation"},
    "cell": {"null": "permutation", "within": "cell"},
    "simulation": {"null": "simulation"},
}
TABLES = ("fpr", "regroupings", "features", "qq")
N = 3  # regroupings of a test
N_TARGETING, N_NTC = 8, 8


class Replaced(NamedTuple):
    """An object after `replace=True`; the null refits of all NTC guides, of one half and of the other; who posed."""

    adata: ad.AnnData
    nulls: list[core.Nulls]
    sources: list[list[np.ndarray]]
    seconds: float  # in all refits


@pytest.fixture(scope="module", autouse=True)
def _few_null_features() -> Iterator[None]:
    """The p-values of regroupings rest on fewer simulated features, which is most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "N_NULL", 120)
        yield


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    adata = ds.datasets.titration(1500, 50, rng=3, n_guides=N_TARGETING, n_ntc_guides=N_NTC, mean_range=(-1.0, 4.0))
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=50)
    return adata


@pytest.fixture(scope="module")
def runs(fitted: ad.AnnData) -> dict[str, ad.AnnData]:
    return {name: ds.tl.calibrate(fitted, n=N, copy=True, **keywords) for name, keywords in NULLS.items()}


@pytest.fixture(scope="module")
def replaced(fitted: ad.AnnData) -> Replaced:
    """After `replace=True`, with what was refitted on the way."""
    seen: dict[str, list[Any]] = {"null_refits": [], "posing_sources": []}
    seconds: list[float] = []

    def spy(name: str) -> Any:
        whole = getattr(core, name)

        def call(*args: Any, **keywords: Any) -> Any:
            started = perf_counter()
            seen[name].append(whole(*args, **keywords))
            seconds.append(perf_counter() - started)
            return seen[name][-1]

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in seen:
            patch.setattr(core, name, spy(name))
        adata = ds.tl.calibrate(fitted, n=N, replace=True, copy=True)
    return Replaced(adata, seen["null_refits"], seen["posing_sources"], sum(seconds))


def _tables(data: Any, key: str = "calibration", mod: str | None = None) -> dict[str, pd.DataFrame]:
    return {name: ds.get.calibration(data, name, key=key, mod=mod) for name in TABLES}


def _same_tables(a: dict[str, pd.DataFrame], b: dict[str, pd.DataFrame]) -> None:
    for name, one in a.items():
        text = dict.fromkeys([c for c in one if not pd.api.types.is_numeric_dtype(one[c].dtype)], str)
        pd.testing.assert_frame_equal(
            one.astype(text).reset_index(drop=True), b[name].astype(text).reset_index(drop=True), rtol=1e-9
        )


def _keys(adata: ad.AnnData) -> dict[str, set[str]]:
    return {slot: set(getattr(adata, slot)) for slot in ("obs", "var", "uns", "obsm", "varm", "layers")}


def _likely_null(adata: ad.AnnData) -> pd.Index:
    lfdr = ds.get.trans(adata)["lfdr"]
    return lfdr.index[lfdr > 0.5]


# what is written


@pytest.mark.parametrize("name", NULLS)
def test_only_the_entry_is_written(fitted: ad.AnnData, runs: dict[str, ad.AnnData], name: str) -> None:
    adata, before = runs[name], _keys(fitted)
    assert _keys(adata) == before | {"uns": before["uns"] | {"calibration"}}
    pd.testing.assert_frame_equal(adata.varm["trans"], fitted.varm["trans"], check_exact=True)
    info = adata.uns["calibration"]
    keywords = {"n": N, "within": None, "key": "trans", "replace": False} | NULLS[name]
    assert info["params"] == keywords
    assert (info["step"], info["seed"], info["cis_gene"], info["warning"]) == ("tl.calibrate", 0, "GFI1B", "")
    with pytest.raises(ValueError, match=r"no table 'held_out'.*replace=True"):
        ds.get.calibration(adata, "held_out")


@pytest.mark.parametrize("name", NULLS)
def test_the_tables_agree_with_each_other(fitted: ad.AnnData, runs: dict[str, ad.AnnData], name: str) -> None:
    adata = runs[name]
    info, found = adata.uns["calibration"], _tables(adata)
    fitted_names = fitted.var_names[ds.get.trans(fitted)["lfdr"].notna()]
    names = {"ntc_guides": fitted_names, "simulation": fitted_names}.get(name, _likely_null(fitted))
    assert (info["n_regroupings"], info["n_features"]) == (N, len(names))
    assert (info["n_targeting"], info["n_ntc_guides"]) == (N_TARGETING, N_NTC)
    fpr, each, features = found["fpr"], found["regroupings"], found["features"]
    assert list(fpr["level"]) == [0.05, 1e-3, 1e-5]
    assert (fpr["n_tests"] == N * len(names)).all()
    np.testing.assert_allclose(fpr.loc[0, ["fpr", "se"]].tolist(), [each["fpr"].mean(), st.sem(each["fpr"])])
    assert (fpr["fpr"].diff().dropna() <= 0).all()
    np.testing.assert_allclose(info["mean_calls"], each["n_calls"].mean())
    np.testing.assert_allclose(info["any_call"], (each["n_calls"] > 0).mean())
    np.testing.assert_allclose(info["any_call_se"], (each["n_calls"] > 0).std(ddof=0) / np.sqrt(N))
    assert each["min_pvalue"].between(0, 1, inclusive="right").all()
    assert each["null_weight"].between(0.5, 1, inclusive="neither").all()
    if name == "simulation":
        assert features.empty
    else:
        assert set(features["feature"]) == set(names)
        np.testing.assert_allclose(features["share"], features["n_calls"] / N)
        assert features["n_calls"].sum() == each["n_calls"].sum()
        np.testing.assert_allclose(features["min_pvalue"].min(), each["min_pvalue"].min())
        order = features.sort_values(["n_calls", "min_pvalue"], ascending=[False, True], kind="stable")
        pd.testing.assert_frame_equal(order, features)


@pytest.mark.parametrize("name", NULLS)
def test_quantiles_are_in_thirds_of_expression(runs: dict[str, ad.AnnData], name: str) -> None:
    table = ds.get.calibration(runs[name], "qq")
    assert list(table["stratum"].unique()) == ["low", "middle", "high"]
    groups = table.groupby("stratum", sort=False)
    size = groups["n_tests"].first()
    assert size.sum() == ds.get.calibration(runs[name])["n_tests"][0]
    assert size.max() - size.min() <= N * 2
    assert (groups["mean_high"].first().to_numpy()[:-1] <= groups["mean_low"].first().to_numpy()[1:]).all()
    for stratum, part in groups:
        np.testing.assert_allclose(part["expected"].iloc[[0, -1]], [1 / (size[stratum] + 1), 1])
        assert part["observed"].is_monotonic_increasing
        assert ((part["lower"] <= part["observed"]) & (part["observed"] <= part["upper"])).all()


def test_the_guides_that_stand_for_targeting_ones(fitted: ad.AnnData, runs: dict[str, ad.AnnData]) -> None:
    guides = ds.get.guides(fitted)
    ntc = set(guides.index[guides["is_control"].astype(bool)])
    posing = [set(t.split("; ")) for t in ds.get.calibration(runs["ntc_guides"], "regroupings")["targeting"]]
    assert [len(p) for p in posing] == [N_NTC // 2] * N
    assert all(p < ntc for p in posing)
    assert len({frozenset(p) for p in posing}) == N
    assert runs["ntc_guides"].uns["calibration"]["n_posing"] == N_NTC // 2
    permuted = [set(t.split("; ")) for t in ds.get.calibration(runs["permutation"], "regroupings")["targeting"]]
    assert [len(p) for p in permuted] == [N_TARGETING] * N
    assert all(p & ntc and p - ntc for p in permuted)
    for name in ("cell", "simulation"):
        assert (ds.get.calibration(runs[name], "regroupings")["targeting"] == "").all()
        assert runs[name].uns["calibration"]["n_posing"] == 0


def test_the_mean_of_a_feature_is_its_count_by_size_factor(fitted: ad.AnnData, runs: dict[str, ad.AnnData]) -> None:
    """Over NTC cells where their guides pose, over all cells else; offsets of guides move it by little.

    Where cells are permuted, each keeps the offset of its own guide.
    """
    size, ntc = fitted.obs["size_factor"].to_numpy(), (fitted.obs["target"] == "NTC").to_numpy()
    every = np.ones(len(ntc), dtype=bool)
    for name, cells in (("ntc_guides", ntc), ("permutation", every), ("cell", every)):
        table = ds.get.calibration(runs[name], "features").set_index("feature")["mean"]
        total = np.asarray(fitted[:, table.index].X[cells].sum(0)).ravel()
        np.testing.assert_allclose(table, total / size[cells].sum(), rtol=0.05)
    offset = fitted.uns["trans"]["guides"].set_index("guide")["offset"].loc[fitted.obs["guide"]].to_numpy()
    np.testing.assert_allclose(table, total / (size * 2.0**offset).sum(), rtol=1e-9)


# random numbers


@pytest.mark.parametrize("name", NULLS)
def test_the_same_seed_gives_the_same_tables(fitted: ad.AnnData, runs: dict[str, ad.AnnData], name: str) -> None:
    first, again = _tables(runs[name]), {}
    for seed in (0, 1):
        adata = ds.tl.calibrate(fitted, n=N if seed == 0 else 1, rng=seed, copy=True, **NULLS[name])
        again[seed] = _tables(adata)
    _same_tables(first, again[0])
    assert again[1]["regroupings"]["min_pvalue"][0] not in set(first["regroupings"]["min_pvalue"])
    assert np.isnan(again[1]["fpr"]["se"]).all()  # of one regrouping


def test_a_generator_moves_on_and_its_seed_is_stored(fitted: ad.AnnData) -> None:
    rng, same = np.random.default_rng(8), np.random.default_rng(8)
    for _ in range(2):
        adata = ds.tl.calibrate(fitted, null="permutation", n=1, rng=rng, copy=True)
        assert adata.uns["calibration"]["seed"] == int(same.integers(2**31))


def test_calibrations_side_by_side(fitted: ad.AnnData, runs: dict[str, ad.AnnData]) -> None:
    adata = fitted.copy()
    for name in ("permutation", "cell"):
        assert ds.tl.calibrate(adata, n=N, key_added=name, **NULLS[name]) is None
        _same_tables(_tables(adata, key=name), _tables(runs[name]))
    assert "calibration" not in adata.uns
    assert "permutation" not in fitted.uns


# p-values


def test_p_values_of_simulated_nulls_are_uniform(fitted: ad.AnnData) -> None:
    """Within the Monte Carlo error of these tests and of the null features that the p-values rest on."""
    adata = ds.tl.calibrate(fitted, null="simulation", n=16, copy=True)
    n = 16 * adata.uns["calibration"]["n_features"]
    hyper = fitted.uns["trans"]["hyper"]
    body = next(np.asarray(v) for name, v in hyper.items() if name.startswith("null_") and np.ndim(v))
    table = ds.get.calibration(adata, "qq")
    shares = {0.05: ds.get.calibration(adata)["fpr"][0]}
    for level in (0.1, 0.2, 0.3, 0.5):
        # observed quantiles read the other way: the share of p-values below the level
        each = [np.interp(level, part["observed"], part["expected"]) for _, part in table.groupby("stratum")]
        shares[level] = np.mean(each)
    for level, share in shares.items():
        assert abs(share - level) < 4 * np.sqrt(level * (1 - level) * (1 / n + 1 / len(body))), (level, share)


def test_replaced_p_values_are_ranks_among_the_regroupings(fitted: ad.AnnData, replaced: Replaced) -> None:
    adata, seen = replaced.adata, replaced.nulls
    table, before = ds.get.trans(adata), ds.get.trans(fitted)
    new = ["pvalue", "qvalue", "qvalue_graded"]
    for name in new:
        np.testing.assert_array_equal(table[f"{name}_theory"], before[name])
        assert list(table.columns).index(f"{name}_theory") == list(table.columns).index(name) + 1
    of_calls = ["class", "on_knockdown", "confidence"]
    rest = table.drop(columns=[*new, *(f"{name}_theory" for name in new), *of_calls])
    pd.testing.assert_frame_equal(rest, before.drop(columns=[*new, *of_calls]))
    # what follows the dosage responds, and what is said of calls is of the new ones
    np.testing.assert_array_equal(table["qvalue_graded"], np.maximum(before["qvalue_graded"], table["qvalue"]))
    called = table["qvalue"] < 0.05
    assert (table["class"][called] != "null").all()
    assert table["confidence"].notna().tolist() == called.tolist()
    done = before["pvalue"].notna()
    np.testing.assert_array_equal(table["pvalue"].notna(), done)
    np.testing.assert_array_equal(table["qvalue"].notna(), done)
    theory, p = before["pvalue"][done].to_numpy(), table["pvalue"][done].to_numpy()
    null = seen[0].pvalue.ravel()
    body = theory > np.quantile(null, 0.06)
    assert 10 < body.sum() < len(body)
    rank = (1 + (null <= theory[body, None] * (1 + 1e-12)).sum(1)) / (1 + len(null))
    np.testing.assert_allclose(p[body], rank)
    assert ((p > 0) & (p <= 1)).all()
    order = np.argsort(theory)
    assert (np.diff(p[order]) >= 0).all()
    assert (p[~body] < 0.07).all()


def test_replaced_q_values_are_step_up(replaced: Replaced) -> None:
    table = ds.get.trans(replaced.adata).dropna(subset=["pvalue"])
    step_up = multipletests(table["pvalue"], method="fdr_bh")[1]
    likely = table["lfdr"] <= 0.5
    np.testing.assert_allclose(
        table["qvalue"], np.where(likely, step_up, np.maximum(step_up, table["lfdr"])), rtol=1e-12
    )
    assert table[likely].sort_values("pvalue")["qvalue"].is_monotonic_increasing
    assert 3 < likely.sum() < len(table)


def test_held_out_rates_are_of_the_other_half(replaced: Replaced) -> None:
    """Each half of the NTC guides by ranks among the other's p-values; the mean of both ways."""
    adata, seen = replaced.adata, replaced.nulls
    table = ds.get.calibration(adata, "held_out")
    assert len(seen) == 3
    first, second = (nulls.pvalue for nulls in seen[1:])
    assert (table["n_tests"] == first.size + second.size).all()
    np.testing.assert_allclose(table["fpr_theory"][0], np.mean([(p <= 0.05).mean() for p in (first, second)]))
    each = []
    for test, learned in ((first, second), (second, first)):
        rank = (1 + (learned.ravel() <= test[..., None] * (1 + 1e-12)).sum(-1)) / (1 + learned.size)
        each.append((rank <= 0.05).mean(1))
    info = adata.uns["calibration"]
    assert info["params"]["replace"]
    assert info["seconds"] > replaced.seconds
    # ranks at the tail's threshold are smoothed, which moves a test or two
    np.testing.assert_allclose(table["fpr"][0], np.mean([e.mean() for e in each]), atol=2.5 / first.size)
    assert (table["se"].to_numpy() >= 0).all()
    assert ds.get.calibration(adata)["n_tests"][0] == seen[0].pvalue.size


def test_held_out_halves_share_no_guide(replaced: Replaced) -> None:
    taking_part = [set(np.flatnonzero(sources[0] >= 0)) for sources in replaced.sources]
    assert [len(t) for t in taking_part] == [N_NTC, N_NTC // 2, N_NTC // 2]
    assert taking_part[1] | taking_part[2] == taking_part[0]
    for part, sources in zip(taking_part, replaced.sources, strict=True):
        assert all(set(np.flatnonzero(s >= 0)) == part for s in sources)


def test_replacing_twice_does_not_stack(fitted: ad.AnnData, replaced: Replaced) -> None:
    adata = replaced.adata.copy()
    ds.tl.calibrate(adata, n=N, replace=True)
    pd.testing.assert_frame_equal(ds.get.trans(adata), ds.get.trans(replaced.adata), rtol=1e-9)
    ds.tl.calibrate(adata, n=1, null="permutation")
    pd.testing.assert_frame_equal(ds.get.trans(adata), ds.get.trans(replaced.adata), rtol=1e-9)
    hyper = fitted.uns["trans"]["hyper"]
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=50, hyper=hyper)
    assert not [c for c in ds.get.trans(adata) if c.endswith("_theory")]


@pytest.mark.parametrize(
    "options",
    [{"dosage": "cell"}, {"guide_effects": False}, {"no_offsets": True}, {"features": "gene_0004"}],
    ids=lambda o: next(iter(o)),
)
def test_fits_with_other_options(fitted: ad.AnnData, options: dict[str, Any]) -> None:
    """A permutation recomputes the fit's evidence and refuses where it is not what was stored."""
    adata, hyper, keywords = fitted.copy(), fitted.uns["trans"]["hyper"], dict(options)
    if keywords.pop("no_offsets", False):
        keywords["guide_offsets"] = False
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=20, hyper=hyper, key_added="other", **keywords)
    for within in (None, "cell"):
        ds.tl.calibrate(adata, null="permutation", n=1, within=within, key="other")
        info = adata.uns["calibration"]
        assert info["n_features"] > 20
        assert info["params"]["key"] == "other"
        assert 0 <= ds.get.calibration(adata)["fpr"][0] < 0.5


# files and MuData


@pytest.mark.parametrize("name", ["ntc_guides", "cell", "replaced"])
def test_h5ad_round_trip(runs: dict[str, ad.AnnData], replaced: Replaced, name: str, tmp_path: Path) -> None:
    adata = replaced.adata if name == "replaced" else runs[name]
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    _same_tables(_tables(adata), _tables(again))
    if name == "replaced":
        pd.testing.assert_frame_equal(ds.get.calibration(adata, "held_out"), ds.get.calibration(again, "held_out"))
    drawn = [
        [line.get_xydata() for panel in ds.pl.calibration(a) for line in panel.get_lines()] for a in (adata, again)
    ]
    assert len(drawn[0]) > 4
    for one, two in zip(*drawn, strict=True):
        np.testing.assert_allclose(one, two)
    ds.tl.calibrate(again, n=N, replace=name == "replaced", **NULLS.get(name, {}))
    _same_tables(_tables(adata), _tables(again))


def test_a_modality_gives_what_an_anndata_gives(fitted: ad.AnnData, runs: dict[str, ad.AnnData]) -> None:
    other = fitted[np.random.default_rng(0).permutation(fitted.n_obs)[:1200]].copy()
    other.var_names = [f"o_{n}" for n in other.var_names]
    del other.obsm["cis"], other.uns["cis"]
    both = md.MuData({"rna": fitted.copy(), "other": other})
    ds.tl.fit_technical(both, mod="other", batch_key="batch")
    hyper = fitted.uns["trans"]["hyper"]
    ds.tl.fit_trans(both, mod="other", cis_mod="rna", function_type="single_hill", nsamples=20, hyper=hyper)
    for name in ("permutation", "cell"):
        ds.tl.calibrate(both, mod="rna", n=N, **NULLS[name])
        _same_tables(_tables(both, mod="rna"), _tables(runs[name]))
        assert len(ds.pl.calibration(both, mod="rna")) == 2
    for name in NULLS:
        ds.tl.calibrate(both, mod="other", n=1, **NULLS[name])
        features = set(ds.get.calibration(both, "features", mod="other")["feature"])
        assert all(f.startswith("o_") for f in features)
        assert bool(features) == (name != "simulation")
    with pytest.raises(ValueError, match=r"name the modality.*rna"):
        ds.tl.calibrate(both)
    assert "calibration" not in fitted.uns


# input that is wrong


def test_no_fit_yet(fitted: ad.AnnData) -> None:
    adata = fitted.copy()
    del adata.uns["trans"]
    with pytest.raises(KeyError, match=r"'trans'.*fit_trans\(data\) first"):
        ds.tl.calibrate(adata)
    with pytest.raises(KeyError, match=r"'mine'.*fit_trans\(data\) first"):
        ds.tl.calibrate(fitted, key="mine")
    with pytest.raises(ValueError, match=r"'technical'.*not a result of tl.fit_trans"):
        ds.tl.calibrate(fitted, key="technical")
    with pytest.raises(KeyError, match=r"tl.calibrate\(data\) first"):
        ds.get.calibration(fitted)
    with pytest.raises(KeyError, match=r"tl.calibrate\(data\) first"):
        ds.pl.calibration(fitted)
    adata = fitted.copy()
    del adata.uns["cis"]
    with pytest.raises(KeyError, match="fit_cis"):
        ds.tl.calibrate(adata)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"null": "shuffle"}, "'shuffle'.*'ntc_guides', 'permutation', 'simulation'"),
        ({"n": 0}, "n=0.*1 or more"),
        ({"n": 2.5}, "n=2.5.*whole number"),
        ({"within": "guide"}, "within='guide'.*'cell'"),
        ({"within": "cell"}, "within='cell' is of a permutation, but null='ntc_guides': leave it out"),
        ({"null": "simulation", "within": "cell"}, "null='simulation': leave it out"),
        ({"null": "permutation", "replace": True}, "replace=True.*null='permutation'.*use null='ntc_guides'"),
        ({"null": "simulation", "replace": True}, "replace=True.*null='simulation'"),
        ({"key_added": "a/b"}, "cannot be stored"),
        ({"key_added": "trans"}, "result of tl.fit_trans: choose another name"),
        ({"key_added": "cis"}, "result of tl.fit_cis: choose another name"),
        ({"key_added": "technical"}, "result of tl.fit_technical: choose another name"),
        ({"rng": -1}, "a seed is 0 or more"),
        ({"mod": "rna"}, "no MuData"),
    ],
)
def test_arguments_that_are_wrong(fitted: ad.AnnData, keywords: dict[str, Any], message: str) -> None:
    before = _keys(fitted)
    with pytest.raises(ValueError, match=message):
        ds.tl.calibrate(fitted, **keywords)
    assert _keys(fitted) == before


def test_another_step_does_not_overwrite_a_calibration(runs: dict[str, ad.AnnData]) -> None:
    with pytest.raises(ValueError, match=r"result of tl.calibrate: choose another name"):
        ds.tl.fit_cis(runs["cell"], "GFI1B", key_added="calibration")


def test_unknown_tables_name_the_known_ones(runs: dict[str, ad.AnnData]) -> None:
    with pytest.raises(ValueError, match=r"'rates'.*'fpr', 'regroupings', 'features', 'qq', 'held_out'"):
        ds.get.calibration(runs["cell"], "rates")


def test_a_table_is_a_copy(runs: dict[str, ad.AnnData]) -> None:
    before = ds.get.calibration(runs["cell"])
    table = ds.get.calibration(runs["cell"])
    table["fpr"] = 9.0
    pd.testing.assert_frame_equal(ds.get.calibration(runs["cell"]), before)


def test_a_view_is_refused(fitted: ad.AnnData, runs: dict[str, ad.AnnData]) -> None:
    with pytest.raises(ValueError, match=r"view.*\.copy\(\)"):
        ds.tl.calibrate(fitted[:, :40])
    view = runs["cell"][:100]
    assert len(ds.get.calibration(view)) == 3  # to read from, one will do
    with pytest.raises(TypeError, match="AnnData or a MuData"):
        ds.tl.calibrate(np.zeros((3, 3)))


def _with_ntc_guides(fitted: ad.AnnData, n: int) -> ad.AnnData:
    """The same cells, their NTC guides under `n` names."""
    adata = fitted.copy()
    guide = adata.obs["guide"].astype(str)
    number = guide.str.extract(r"NTC_(\d+)")[0].astype(float)
    names = {f"NTC_{i:02.0f}": f"NTC_{(i - 1) % n + 1:02.0f}" for i in number.dropna().unique()}
    adata.obs["guide"] = guide.replace(names)
    ds.tl.fit_cis(adata, "GFI1B")
    guides = ds.get.guides(adata).index.tolist()
    hyper = fitted.uns["trans"]["hyper"] | {"guides": guides, "guide_offsets": np.zeros(N_TARGETING + n)}
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=20, hyper=hyper)
    return adata


def test_one_ntc_guide_is_refused(fitted: ad.AnnData) -> None:
    adata = _with_ntc_guides(fitted, 1)
    before = _keys(adata)
    with pytest.raises(ValueError, match=r"1 NTC guide.*\['NTC_01'\].*at least 2.*guide_key=.*null='permutation'"):
        ds.tl.calibrate(adata)
    assert _keys(adata) == before
    ds.tl.calibrate(adata, null="permutation", n=1)  # what the message offers
    assert adata.uns["calibration"]["n_ntc_guides"] == 1


def test_three_ntc_guides_cannot_tell_everything(fitted: ad.AnnData) -> None:
    adata = _with_ntc_guides(fitted, 3)
    with pytest.warns(UserWarning, match="3 NTC guides") as caught:
        ds.tl.calibrate(adata, n=20)
    assert [w.filename for w in caught] == [__file__]
    text = str(caught[0].message)
    for part in ("1 pose(s) as targeting, 2 stay(s) control", "far below 0.05 cannot be known", "6 or more NTC guides"):
        assert part in text
    info = adata.uns["calibration"]
    assert info["warning"] == text
    assert (info["n_ntc_guides"], info["n_posing"], info["n_regroupings"]) == (3, 1, 3)  # each poses once
    assert set(ds.get.calibration(adata, "regroupings")["targeting"]) == {"NTC_01", "NTC_02", "NTC_03"}
    with pytest.raises(ValueError, match=r"3 NTC guides: replace=True needs at least 4.*leave\s+replace out"):
        ds.tl.calibrate(adata, replace=True)


def test_four_ntc_guides_can_be_replaced(fitted: ad.AnnData) -> None:
    adata = _with_ntc_guides(fitted, 4)
    with pytest.warns(UserWarning, match="only 4 NTC guides: 2 pose"):
        ds.tl.calibrate(adata, n=2, replace=True)
    assert ds.get.calibration(adata, "held_out")["fpr"].between(0, 1).all()
    assert "pvalue_theory" in ds.get.trans(adata)


def test_a_fit_older_than_its_dosages_is_refused(fitted: ad.AnnData) -> None:
    adata = fitted.copy()
    ds.tl.fit_technical(adata, key_added="flat")
    ds.tl.fit_cis(adata, "GFI1B", technical_key="flat")
    for keywords in NULLS.values():
        with pytest.raises(ValueError, match=r"'cis'.*other dosages than 'trans'.*fit_trans\(data\) again first"):
            ds.tl.calibrate(adata, **keywords)
    adata = fitted.copy()
    adata.obs["guide"] = adata.obs["guide"].astype(str).replace({"NTC_08": "NTC_07"})
    ds.tl.fit_cis(adata, "GFI1B")
    with pytest.raises(ValueError, match="other dosages"):
        ds.tl.calibrate(adata)


@pytest.mark.parametrize("change", ["counts", "size factors"])
def test_changed_counts_are_refused(fitted: ad.AnnData, change: str) -> None:
    adata = fitted.copy()
    if change == "counts":
        x = adata.X.tolil()
        x[:, 20] = x[::-1, 20]
        adata.X = x.tocsr()
    else:
        adata.obs["size_factor"] = adata.obs["size_factor"].to_numpy()[::-1]
    changed = [NULLS["permutation"], NULLS["cell"], NULLS["simulation"], {"replace": True, "n": 1}]
    for keywords in changed if change == "counts" else changed[:1]:
        with pytest.raises(ValueError, match=r"not those of the trans fit any more.*fit_trans\(data\) again"):
            ds.tl.calibrate(adata, **keywords)
    assert "calibration" not in adata.uns


# nothing is half-written


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("name", [*NULLS, "replace", "last"])
def test_nothing_is_half_written(
    runs: dict[str, ad.AnnData], error: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = runs["cell"].copy()
    before, table, entry = _keys(adata), adata.varm["trans"].copy(), _tables(adata)
    counts = adata.X.copy()
    target, after = {"simulation": ("simulated", 1), "replace": ("null_refits", 1), "last": ("step_up", 0)}.get(
        name, ("refit", 2)
    )
    whole, calls = getattr(core, target), []

    def fail(*args: Any, **keywords: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            raise error
        return whole(*args, **keywords)

    monkeypatch.setattr(core, target, fail)
    with pytest.raises(error):
        ds.tl.calibrate(adata, n=1 if name == "last" else 3, rng=5, **NULLS.get(name, {"replace": True}))
    assert len(calls) == after + 1
    assert _keys(adata) == before
    pd.testing.assert_frame_equal(adata.varm["trans"], table, check_exact=True)
    _same_tables(_tables(adata), entry)
    assert adata.uns["calibration"]["params"]["within"] == "cell"
    assert (adata.X != counts).nnz == 0


# tables


def _nulls(mean: np.ndarray) -> core.Nulls:
    rng = np.random.default_rng(0)
    p = rng.random(mean.shape)
    return core.Nulls(p, p < 0.1, mean, np.full(len(p), 0.9))


def test_few_features_are_one_stratum() -> None:
    table = tables.quantile_table(_nulls(np.tile(np.arange(29.0), (3, 1))), 0)
    assert list(table["stratum"].unique()) == ["all"]
    assert (table["n_tests"] == 3 * 29).all()


def test_features_of_one_mean_fill_fewer_strata() -> None:
    mean = np.tile(np.r_[np.full(25, 0.01), np.linspace(1, 2, 15)], (3, 1))
    table = tables.quantile_table(_nulls(mean), 0)
    size = table.groupby("stratum", sort=False)["n_tests"].first()
    assert size.sum() == 3 * 40
    assert list(size.index) == ["middle", "high"]
    same = tables.quantile_table(_nulls(np.ones((2, 40))), 0)
    assert list(same["stratum"].unique()) == ["high"]


def test_at_most_fifty_features_are_listed() -> None:
    nulls = _nulls(np.ones((4, 80)))
    names = np.array([f"f{i}" for i in range(80)])
    table = tables.feature_table(nulls, names)
    assert len(table) == 50
    calls = pd.Series(nulls.called.sum(0), names)
    assert table["n_calls"].min() >= calls.drop(table["feature"]).max()
    np.testing.assert_array_equal(table["n_calls"], calls[table["feature"]])
