"""What the trans step takes from other steps and fits: escaping cells, the NTC level's error, learned numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

if TYPE_CHECKING:
    import anndata as ad

pytestmark = pytest.mark.usefixtures("few_null_features")


def _fit(adata: ad.AnnData, **options: object) -> ad.AnnData:
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=200, **options)  # type: ignore[arg-type]
    return adata


@pytest.fixture(scope="module")
def ready() -> ad.AnnData:
    return _fit(ds.datasets.titration(1500, 60, rng=5, single_fraction=0.4, additive_fraction=0.0, mean_range=(0, 4)))


def test_escaping_cells_do_not_move_ec50s() -> None:
    """A part of the guides escapes, so that rows with and without such cells are fitted together."""
    adata = _fit(
        ds.datasets.titration(
            4000,
            80,
            rng=3,
            escaper_fraction=0.3,
            cis_mean=20.0,
            dosage_range=(-3.0, 1.0),
            mean_range=(2.0, 5.0),
            single_fraction=0.6,
            additive_fraction=0.0,
        )
    )
    guides = ds.get.guides(adata)
    escaping = guides["escaper_fraction"] > 0
    assert 2 <= escaping.sum() < (~guides["is_control"]).sum()
    np.testing.assert_allclose(guides.loc[escaping, "escaper_fraction"], 0.3, atol=0.15)
    table, truth = ds.get.trans(adata), adata.var
    inside = (truth["true_model"] == "single_hill") & truth["true_log2_ec50"].between(-2.0, 0.5)
    clear = (inside & (truth["true_log2fc_range"].abs() > 1.5)).to_numpy()
    off = (table["log2_ec50"] - truth["true_log2_ec50"])[clear]
    assert clear.sum() >= 12
    assert off.abs().median() < 0.3
    assert abs(off.median()) < 0.2


def test_error_of_the_ntc_level_moves_curves_along_the_axis(ready: ad.AnnData) -> None:
    adata = ready.copy()
    adata.uns["cis"]["diagnostics"]["ntc_level_sd"] = 0.4
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=200, key_added="wide")
    before, after = ds.get.trans(adata), ds.get.trans(adata, key="wide")
    called = (before["qvalue"] < 0.05) & (before["p_ec50_inside"] > 0.9)
    assert called.sum() >= 5
    width = [(t["log2_ec50_q975"] - t["log2_ec50_q025"])[called] for t in (before, after)]
    np.testing.assert_allclose(width[1], np.hypot(width[0], 3.92 * 0.4), rtol=0.2)
    for column in ("hill_n", "hill_n_q025", "amplitude", "baseline", "qvalue", "log_bf"):
        np.testing.assert_allclose(before[column], after[column], rtol=1e-12)
    width = [(t["log2fc_full_q975"] - t["log2fc_full_q025"])[called] for t in (before, after)]
    assert (width[1] > width[0]).mean() > 0.8


def test_slope_within_guides_does_not_depend_on_offsets(ready: ad.AnnData) -> None:
    table = ds.get.trans(ready)
    assert np.isfinite(table.loc[table["pvalue"].notna(), "slope_within"]).all()
    adata = ready.copy()
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=50, guide_offsets=False, key_added="raw")
    raw = ds.get.trans(adata, key="raw")
    fitted = table["pvalue"].notna()
    assert adata.uns["trans"]["guides"]["offset"].abs().max() > 0.03
    z = (table["slope_within"] - raw["slope_within"])[fitted] / raw["slope_within_sd"][fitted]
    assert z.abs().max() < 0.3


def test_learned_numbers_of_another_fit_are_refused(ready: ad.AnnData) -> None:
    hyper = ready.uns["trans"]["hyper"]
    with pytest.raises(ValueError, match=r"compared .*single_hill.*additive_hill"):
        ds.tl.fit_trans(ready.copy(), hyper=hyper)
    other = dict(hyper) | {"guides": ["unknown", *hyper["guides"][1:]]}
    with pytest.raises(ValueError, match="without the guides"):
        ds.tl.fit_trans(ready.copy(), function_type="single_hill", hyper=other)


def test_offsets_are_taken_by_name_and_can_be_left_out(ready: ad.AnnData) -> None:
    hyper = dict(ready.uns["trans"]["hyper"])
    turned = hyper | {"guides": hyper["guides"][::-1], "guide_offsets": hyper["guide_offsets"][::-1]}
    adata = ready.copy()
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=200, hyper=turned, key_added="turned")
    np.testing.assert_array_equal(ds.get.trans(adata, key="turned")["log_bf"], ds.get.trans(adata)["log_bf"])
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=50, hyper=hyper, guide_offsets=False, key_added="no")
    assert (adata.uns["no"]["guides"]["offset"] == 0).all()


def test_features_that_cannot_be_fitted_are_refused(ready: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="can be fitted"):
        ds.tl.fit_trans(ready.copy(), function_type="single_hill", features="GFI1B")


def test_offsets_may_be_a_numpy_bool(ready: ad.AnnData) -> None:
    adata = ready.copy()
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=200, guide_offsets=np.True_, key_added="same")
    np.testing.assert_array_equal(ds.get.trans(adata, key="same")["baseline"], ds.get.trans(adata)["baseline"])


@pytest.mark.parametrize("mod", ["rna", "usage"])
def test_the_order_of_features_changes_nothing(mod: str, modalities: Any) -> None:
    """What is learned, null features that are simulated among it, depends on the features and not on their order."""
    one = modalities.mod[mod].copy()
    names = one.var_names.to_numpy()
    if mod == "usage":  # categories of a feature follow each other
        donors = one.var["donor"].unique()
        order = [n for d in np.random.default_rng(0).permutation(donors) for n in names[one.var["donor"] == d]]
    else:
        order = np.random.default_rng(0).permutation(names).tolist()
    other = one[:, order].copy()
    for adata in (one, other):
        if mod == "usage":
            adata.obsm["cis"] = modalities.mod["rna"].obsm["cis"].loc[adata.obs_names]
            adata.uns["cis"] = modalities.mod["rna"].uns["cis"]
        ds.tl.fit_trans(adata, function_type="single_hill", nsamples=100)
    columns = ["lfdr", "qvalue", "pvalue", "log_bf"]
    a, b = (ds.get.trans(adata)[columns] for adata in (one, other))
    pd.testing.assert_frame_equal(a, b.loc[a.index], rtol=1e-6, atol=1e-9)
