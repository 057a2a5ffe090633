"""Designs and nuisances that have made false calls elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")


def _fit(adata):
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=50)
    return ds.get.trans(adata)


def test_large_shifts_of_a_few_guides_make_no_calls() -> None:
    """One guide in ten shifts a gene by half a log2; a normal prior takes that for responses."""
    adata = ds.datasets.titration(
        2500,
        150,
        rng=4,
        single_fraction=0.2,
        additive_fraction=0.0,
        guide_shift_sd=0.5,
        guide_shift_fraction=0.1,
        mean_range=(0.0, 5.0),
    )
    table = _fit(adata)
    null = (adata.var["true_model"] == "null").to_numpy()
    called = (table["qvalue"] < 0.05).to_numpy()
    assert adata.uns["trans"]["hyper"]["wide_weight"] >= 0.06
    assert (called & null).sum() <= 3
    assert called[~null].mean() > 0.8


def test_a_lane_with_hardly_any_control_cells_makes_no_calls() -> None:
    adata = ds.datasets.titration(2500, 120, rng=5, single_fraction=0.0, additive_fraction=0.0, group_effect_sd=0.6)
    rng = np.random.default_rng(0)
    drop = (adata.obs["target"] == "NTC") & (adata.obs["batch"] == "batch_2") & (rng.random(adata.n_obs) < 0.985)
    adata = adata[~drop.to_numpy()].copy()
    left = ((adata.obs["target"] == "NTC") & (adata.obs["batch"] == "batch_2")).sum()
    assert 3 <= left <= 15
    assert (_fit(adata)["qvalue"] < 0.05).sum() <= 1


def test_lanes_that_follow_the_guides_make_no_calls() -> None:
    """Targeting guides only in lane 2, NTC guides in both: an effect of the lane is not one of the dosage."""
    adata = ds.datasets.titration(2500, 120, rng=6, single_fraction=0.0, additive_fraction=0.0, group_effect_sd=0.6)
    targeting = (adata.obs["target"] != "NTC").to_numpy()
    adata = adata[~targeting | (adata.obs["batch"] == "batch_2").to_numpy()].copy()
    assert (_fit(adata)["qvalue"] < 0.05).sum() <= 1


def test_one_dosage_gives_calls_without_an_ec50() -> None:
    adata = ds.datasets.titration(
        2000,
        60,
        rng=7,
        n_guides=4,
        dosage_range=(-2.0, -2.0),
        single_fraction=0.4,
        additive_fraction=0.0,
        mean_range=(1.0, 5.0),
    )
    table = _fit(adata)
    moved = (adata.var["true_log2fc_full"].abs() > 1.5).to_numpy()
    assert (table.loc[moved, "qvalue"] < 0.05).mean() > 0.8
    assert (table.loc[moved, "status"] == "converged").all()
    assert table.loc[moved, "note"].str.startswith("all targeting guides have about one dosage").all()
    assert table[["log2_ec50", "hill_n", "p_ec50_inside"]].isna().all(axis=None)
    assert table.loc[moved, "log2fc_full"].notna().all()


@pytest.mark.parametrize(
    ("fraction", "n_genes", "changes"),
    [(1.0, 120, {}), (0.0, 120, {}), (0.0, 10, {}), (0.4, 10, {}), (0.3, 100, {"n_ntc_guides": 1})],
    ids=["all respond", "none responds", "ten genes, none", "ten genes", "one NTC guide"],
)
def test_what_is_learned_does_not_collapse(fraction: float, n_genes: int, changes: dict[str, int]) -> None:
    adata = ds.datasets.titration(
        2500, n_genes, rng=1, single_fraction=fraction, additive_fraction=0.0, guide_shift_sd=0.1, **changes
    )
    table = _fit(adata)
    null = (adata.var["true_model"] == "null").to_numpy()
    called = (table["qvalue"] < 0.05).to_numpy()
    moves = (adata.var["true_log2fc_range"] > 1.5).to_numpy() & ~null
    assert (called & null).sum() <= max(1, 0.1 * called.sum())
    assert not moves.any() or called[moves].mean() > 0.9
    hyper = adata.uns["trans"]["hyper"]
    assert abs(hyper["model_weights"][0] - null.mean()) < 0.3
    assert 0.01 < np.exp(hyper["tau_log_mean"]) < 0.2
