"""Counts that leaked from other cells: with their share given, dosages and fold changes are those of the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds

if TYPE_CHECKING:
    from pathlib import Path

    import anndata as ad

pytestmark = pytest.mark.usefixtures("few_null_features")

SHARE = 0.3
OPTIONS: dict[str, Any] = {"function_type": "single_hill", "nsamples": 50, "progress": False}


def _screen(shares: tuple[float, float] = (SHARE, SHARE)) -> ad.AnnData:
    """A screen of which this share of the counts in each batch is replaced by counts from the whole batch."""
    adata = ds.datasets.titration(1500, 80, rng=5, mean_range=(0.0, 4.0))
    rng, y = np.random.default_rng(1), adata.X.toarray()
    batch = (adata.obs["batch"].to_numpy() == "batch_2").astype(int)
    share = np.array(shares)[batch]
    total, profile = y.sum(1), np.stack([y[batch == b].sum(0) for b in (0, 1)])
    profile /= profile.sum(1, keepdims=True)
    leaked = rng.poisson((share * total)[:, None] * profile[batch])
    adata.X = sparse.csr_matrix((rng.binomial(y.astype(int), (1 - share)[:, None]) + leaked).astype(np.float32))
    adata.obs["soup"] = share
    return adata


def _fit(adata: ad.AnnData, key: str, ambient: Any) -> None:
    ds.tl.fit_technical(adata, batch_key="batch", ambient=ambient, key_added=f"technical_{key}")
    ds.tl.fit_cis(adata, "GFI1B", technical_key=f"technical_{key}", key_added=f"cis_{key}")
    steps = {"technical_key": f"technical_{key}", "cis_key": f"cis_{key}", "key_added": f"trans_{key}"}
    ds.tl.fit_trans(adata, **steps, **OPTIONS)


def _slope(adata: ad.AnnData, key: str) -> float:
    """Of the guides' dosages on the true ones."""
    guides = adata.uns[f"cis_{key}"]["guides"]
    acts = ~guides["is_control"].to_numpy(bool)
    truth = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"]
    return float(np.polyfit(truth[guides["guide"][acts]], guides["log2_dosage"][acts], 1)[0])


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    adata = _screen()
    for key, ambient in (("without", None), ("number", SHARE)):
        _fit(adata, key, ambient)
    return adata


def test_dosages_are_those_of_the_cells(screen: ad.AnnData) -> None:
    assert _slope(screen, "without") < 0.75
    assert 0.85 < _slope(screen, "number") < 1.18  # with 60 cells for each guide
    cells = screen.obsm["cis_number"]["log2_x_true"]
    of_guide = screen.uns["cis_number"]["guides"].set_index("guide")["log2_dosage"]
    middle = (of_guide + 1.5).abs().idxmin()
    mine = (screen.obs["guide"] == middle).to_numpy()
    assert cells[mine].median() == pytest.approx(of_guide[middle], abs=0.3)


def test_the_lowest_guide_bounds_the_share(screen: ad.AnnData) -> None:
    found = screen.uns["cis_without"]["diagnostics"]["ambient_at_most"]
    lowest = 2.0 ** screen.uns["cis_without"]["guides"]["log2fc_q975"].min()
    assert SHARE < found < 1.8 * SHARE
    assert lowest <= found < 1.5 * lowest  # all cells together have fewer counts of the cis gene than controls
    assert "ambient_at_most" not in screen.uns["cis_number"]["diagnostics"]


def test_fold_changes_are_those_of_the_cells(screen: ad.AnnData) -> None:
    truth = screen.uns["titration"]["guides"]
    low = truth["log2_dosage"].min()
    curve = np.log2(ds.datasets.true_curve(screen, list(screen.var_names), np.array([low, 0.0])))
    fold = curve[:, 0] - curve[:, 1]
    strong = (np.abs(fold) > 0.7) & (np.asarray(screen.X.mean(0)).ravel() > 0.5) & (screen.var_names != "GFI1B")
    assert strong.sum() > 5
    ratio = {}
    for key in ("without", "number"):
        found = ds.get.trans(screen, key=f"trans_{key}")["log2fc_full"].to_numpy()
        ratio[key] = np.median(found[strong] / fold[strong])
    assert 0.8 < ratio["number"] < 1.2
    assert ratio["without"] < ratio["number"] - 0.2


def test_points_are_those_of_the_curve(screen: ad.AnnData) -> None:
    gene = ds.get.trans(screen, key="trans_number")["lfdr"].drop("GFI1B").idxmin()
    guides = ds.get.guide_effects(screen, gene, key="trans_number")
    name = next(c for c in guides.columns if c.startswith("log2fc"))
    acts = guides.loc[guides["log2_dosage"] < -1]
    found = ds.get.trans(screen, key="trans_number").loc[gene, "log2fc_full"]
    assert np.sign(acts[name]).mode()[0] == np.sign(found)


def test_a_number_a_column_and_a_mapping_say_the_same(screen: ad.AnnData) -> None:
    for ambient in ("soup", {"batch_1": SHARE, "batch_2": SHARE}):
        ds.tl.fit_technical(screen, batch_key="batch", ambient=ambient, key_added="other")
        for slot in (screen.varm, screen.obsm):
            np.testing.assert_allclose(slot["other_ambient"], slot["technical_number_ambient"])
    pd.testing.assert_frame_equal(screen.varm["other"], screen.varm["technical_without"])  # of all counts


def test_shares_that_differ_between_batches() -> None:
    adata = _screen((0.1, 0.4))
    _fit(adata, "column", "soup")
    assert 0.88 < _slope(adata, "column") < 1.12


def test_no_share_is_as_without(screen: ad.AnnData) -> None:
    _fit(screen, "zero", 0.0)
    found, kept = (ds.get.trans(screen, key=f"trans_{k}").select_dtypes("number") for k in ("zero", "without"))
    np.testing.assert_allclose(found["log_bf"], kept["log_bf"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found["log2fc_full"], kept["log2fc_full"], rtol=1e-6, atol=1e-6)


def test_results_survive_a_file(screen: ad.AnnData, tmp_path: Path) -> None:
    import anndata

    screen[:, :40].copy().write_h5ad(tmp_path / "screen.h5ad")
    again = anndata.read_h5ad(tmp_path / "screen.h5ad")
    assert again.uns["technical_number"]["params"]["ambient"] == SHARE
    ds.tl.fit_cis(again, "GFI1B", technical_key="technical_number", key_added="again")
    table = again.uns["again"]["guides"]["log2_dosage"]
    np.testing.assert_allclose(table, screen.uns["cis_number"]["guides"]["log2_dosage"], atol=0.15)


def test_groups_with_a_slash_survive_a_file(screen: ad.AnnData, tmp_path: Path) -> None:
    import anndata

    adata = screen[:, :20].copy()
    adata.obs["lane"] = adata.obs["batch"].astype(str).str.replace("_", "/")
    for key in [*adata.uns]:
        del adata.uns[key]
    ds.tl.fit_technical(adata, batch_key="lane", ambient={"batch/1": 0.1, "batch/2": 0.2})
    adata.write_h5ad(tmp_path / "screen.h5ad")
    again = anndata.read_h5ad(tmp_path / "screen.h5ad")
    assert sorted(again.uns["technical"]["groups"]) == ["batch/1", "batch/2"]
    shares = again.uns["technical"]["params"]["ambient"]
    assert dict(zip(shares["group"], shares["share"], strict=True)) == {"batch/1": 0.1, "batch/2": 0.2}
    found = ds.get.technical(again)
    pd.testing.assert_frame_equal(found, ds.get.technical(adata))
    assert any("batch/2" in name for name in found)


def test_calibration_takes_the_same_off(screen: ad.AnnData) -> None:
    ds.tl.calibrate(screen, null="permutation", within="cell", n=1, key="trans_number", key_added="calibrated")
    assert len(ds.get.calibration(screen, key="calibrated")) > 0


def test_ntc_guides_that_pose_are_counted_by_their_counts(screen: ad.AnnData) -> None:
    ds.tl.calibrate(screen, n=1, key="trans_number", key_added="posing")
    n_fitted = ds.get.trans(screen, key="trans_number")["qvalue"].notna().sum()
    assert ds.get.calibration(screen, key="posing")["n_tests"].iloc[0] >= 0.9 * n_fitted


def test_a_screen_takes_the_same_off(screen: ad.AnnData) -> None:
    table = ds.tl.screen(screen, technical_key="technical_number", progress=False)
    assert (ds.get.screen(table, "targets")["status"] == "fitted").all()
    assert (table["qvalue"] < 0.05).sum() > 0
    with pytest.raises(ValueError, match="control_group='complement' is for cells with several guides"):
        ds.tl.screen(screen, technical_key="technical_number", control_group="complement", progress=False)


def test_a_fit_without_a_share_leaves_none_behind(screen: ad.AnnData) -> None:
    adata = screen.copy()
    ds.tl.fit_technical(adata, batch_key="batch", key_added="technical_number")
    assert "technical_number_ambient" not in adata.varm
    assert "technical_number_ambient" not in adata.obsm


def test_what_is_no_share_is_refused(screen: ad.AnnData) -> None:
    adata = screen.copy()
    adata.obs["gaps"], adata.obs["large"] = np.nan, 0.95
    adata.obsm["guides"] = pd.get_dummies(adata.obs["guide"])
    target = adata.obs.drop_duplicates("guide").set_index("guide")["target"].astype(str)
    adata.uns["guides_target"] = target[adata.obsm["guides"].columns].tolist()

    def refused(error: type[Exception], text: str, **given: Any) -> None:
        with pytest.raises(error, match=text):
            ds.tl.fit_technical(adata, **({"batch_key": "batch"} | given), key_added="new")

    refused(ValueError, "from 0 to 0.9", ambient=1.2)
    refused(ValueError, "from 0 to 0.9", ambient="gaps")
    refused(ValueError, "0.95 for 1500 of 1500 cells", ambient="large")
    refused(KeyError, "lacking", ambient="lacking")
    refused(KeyError, "batch_2", ambient={"batch_1": 0.1})
    refused(ValueError, "ambient=True, a bool, is not allowed", ambient=True)
    refused(ValueError, "of counts", ambient=0.1, distribution="normal")
    refused(ValueError, "assign_guides", ambient=0.1, guides="guides", batch_key=None)
    for given in ({"inference": "svi"}, {"guides": "guides", "guide_key": "guide"}):
        with pytest.raises(ValueError, match="ambient="):
            ds.tl.fit_cis(adata, "GFI1B", technical_key="technical_number", key_added="new", **given)
    del adata.obsm["technical_number_ambient"]
    with pytest.raises(KeyError, match="call it again"):
        ds.tl.fit_cis(adata, "GFI1B", technical_key="technical_number", key_added="new")
    adata.obs["soup"] = 0.2
    ds.tl.fit_technical(adata, batch_key="batch", ambient="soup", key_added="new")
    adata.obs["soup"] = 0.1
    with pytest.raises(ValueError, match="soup"):
        ds.tl.fit_cis(adata, "GFI1B", technical_key="new", key_added="newer")
