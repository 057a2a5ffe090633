"""The main job on a small simulated titration: recovery, storage, plots, bad input."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

TEXTS = dict.fromkeys(("model", "on_knockdown", "confidence", "class", "status", "note"), str)


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    adata = ds.datasets.titration(2000, 60, rng=3)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    return adata


def test_technical_effects_are_recovered(fitted: ad.AnnData) -> None:
    table = ds.get.technical(fitted)
    groups = fitted.uns["technical"]["groups"]
    columns = [int(g.split("_")[1]) - 1 for g in groups]
    truth = fitted.varm["true_technical_effects"][:, columns]
    truth = truth - truth[:, :1]
    z = (fitted.varm["technical_effects"][:, 1] - truth[:, 1]) / fitted.varm["technical_effects_sd"][:, 1]
    assert np.abs(z).mean() < 1.2
    ratio = table["overdispersion"] / fitted.var["true_overdispersion"]
    assert abs(np.log(ratio[table["mu"] > 1]).median()) < 0.15


def test_guide_dosages_are_recovered(fitted: ad.AnnData) -> None:
    guides = ds.get.guides(fitted)
    truth = fitted.uns["titration"]["guides"].set_index("guide")["log2_dosage"].reindex(guides.index)
    z = (guides["log2_dosage"] - truth) / guides["sd"]
    assert (z.abs() < 4).all()
    cells = ds.get.cis(fitted)
    inside = (cells["log2_q025"] < fitted.obs["true_log2_dosage"]) & (
        fitted.obs["true_log2_dosage"] < cells["log2_q975"]
    )
    assert inside[fitted.obs["target"] == "GFI1B"].mean() > 0.88


def test_responders_are_called_and_others_not(fitted: ad.AnnData) -> None:
    table = ds.get.trans(fitted)
    called = table["qvalue"] < 0.05
    null = (fitted.var["true_model"] == "null") & (fitted.var_names != "GFI1B")
    movers = ~null & (fitted.var["true_log2fc_range"] > 1.5) & (fitted.var["true_baseline"] > 1)
    movers &= fitted.var_names != "GFI1B"
    assert movers.sum() >= 3
    assert called[movers].mean() > 0.9
    assert called[null].sum() <= 3
    error = (table["log2fc_full"] - fitted.var["true_log2fc_full"])[movers]
    assert error.abs().median() < 0.3


def test_results_survive_h5ad_and_a_subset(fitted: ad.AnnData, tmp_path: Any) -> None:
    fitted.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(ds.get.trans(again), ds.get.trans(fitted))
    genes = list(fitted.var_names[[5, 9]])
    pd.testing.assert_frame_equal(ds.get.dose_response(again, genes), ds.get.dose_response(fitted, genes))
    part = fitted[:, genes].copy()
    pd.testing.assert_frame_equal(
        ds.get.trans(part).astype(TEXTS),
        ds.get.trans(fitted, genes).astype(TEXTS),
    )
    alone = ds.get.posterior(fitted, genes[1], nsamples=7).sel(feature=genes[1])
    both = ds.get.posterior(fitted, genes, nsamples=7).sel(feature=genes[1])
    for name in alone:
        np.testing.assert_array_equal(alone[name], both[name])


def test_learned_numbers_reproduce_a_feature_alone(fitted: ad.AnnData) -> None:
    genes = [*fitted.var_names[[4, 8]]]
    part = fitted[:, genes].copy()
    holder = fitted.copy()
    holder.varm["technical"].loc[~holder.var_names.isin(genes), "overdispersion"] = np.nan
    del holder.uns["technical"]["made_from"]  # what is edited by hand would be refused
    del part
    ds.tl.fit_trans(holder, hyper=fitted.uns["trans"]["hyper"], key_added="again")
    new = holder.varm["again"].loc[genes].drop(columns=[*TEXTS, "qvalue", "qvalue_graded"]).astype(float)
    old = fitted.varm["trans"].loc[genes].drop(columns=[*TEXTS, "qvalue", "qvalue_graded"]).astype(float)
    pd.testing.assert_frame_equal(new, old, rtol=1e-6)


def test_plots_draw(fitted: ad.AnnData) -> None:
    import matplotlib.pyplot as plt

    name = str(ds.get.trans(fitted, sort=True).index[0])
    ax = ds.pl.dose_response(fitted, name)
    assert name in ax.get_title()
    assert len(ds.pl.dose_response_data(fitted, name)) == len(ds.get.guides(fitted))
    assert len(ds.pl.dose_response(fitted, list(fitted.var_names[1:4]))) == 3
    assert len(ds.pl.cis(fitted).get_yticks()) == 18
    assert ds.pl.technical(fitted).get_xscale() == "log"
    plt.close("all")


@pytest.mark.parametrize("guide", ["GFI1B_g01", "NTC_06"])
def test_a_part_without_a_guide(guide: str) -> None:
    adata = ds.datasets.titration(1500, 40, rng=0)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    part = adata[adata.obs["guide"] != guide].copy()
    ds.tl.fit_trans(part, function_type="single_hill", nsamples=50)
    table = part.uns["trans"]["guides"].set_index("guide")
    assert table.loc[guide, "offset"] == 0
    assert (table["offset"].drop(guide) != 0).all()
    assert np.isfinite(ds.get.trans(part)["qvalue"]).sum() > 30
