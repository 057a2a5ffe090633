"""Effects of single guides against NTC, beside the curve."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pytest

import dream_sc as ds


def test_effects_are_log_ratios_of_what_was_observed(titration_fit: ad.AnnData) -> None:
    name = str(ds.get.responders(titration_fit).index[0])
    effects = ds.get.guide_effects(titration_fit, name).set_index("guide")
    points = ds.pl.dose_response_data(titration_fit, name).set_index("guide")
    assert list(effects.index) == list(points.index)
    control = points["is_control"]
    level = np.average(points.loc[control, "mean"], weights=points.loc[control, "n_cells"])
    direct = np.log2(points["mean"] / level)[~control]
    assert (effects.loc[~control, "log2fc"] - direct).abs().max() < 0.1
    assert (effects.loc[control, "fitted"] == 0).all()
    knocked = effects.index[effects["log2_dosage"].argmin()]
    full = ds.get.trans(titration_fit).loc[name, "log2fc_full"]
    assert abs(effects.loc[knocked, "fitted"] - full) < 0.1
    assert effects.loc[knocked, "pvalue"] < 1e-3
    assert np.sign(effects.loc[knocked, "log2fc"]) == np.sign(full)


def test_p_values_of_null_genes_hold_their_rate(titration_fit: ad.AnnData) -> None:
    null = [name for name in titration_fit.var_names[titration_fit.var["true_model"] == "null"] if name != "GFI1B"]
    effects = ds.get.guide_effects(titration_fit, list(null))
    assert len(effects) == 18 * len(null)
    assert (effects["pvalue"] < 0.05).mean() < 0.1
    assert (effects["p_fitted"] < 0.05).mean() < 0.1


def test_a_guide_that_disagrees_has_a_small_p(titration_fit: ad.AnnData) -> None:
    name = str(ds.get.responders(titration_fit).index[0])
    adata = titration_fit.copy()
    guide = str(ds.get.guides(adata).query("not is_control")["log2_dosage"].abs().idxmin())
    cells = np.flatnonzero((adata.obs["guide"] == guide).to_numpy())
    column = adata.var_names.get_loc(name)
    x = adata.X.tolil()
    x[cells, column] = 8.0 * x[cells, column].toarray()
    adata.X = x.tocsr()
    before, after = (ds.get.guide_effects(a, name).set_index("guide") for a in (titration_fit, adata))
    assert after["p_fitted"].idxmin() == guide
    assert after.loc[guide, "p_fitted"] < 1e-3 * before.loc[guide, "p_fitted"]
    assert abs(after.loc[guide, "log2fc"] - before.loc[guide, "log2fc"] - 3.0) < 0.2


def test_a_guide_without_counts_has_a_fold_change(titration_fit: ad.AnnData) -> None:
    name, adata = str(ds.get.responders(titration_fit).index[0]), titration_fit.copy()
    guide = str(ds.get.guides(adata).index[0])
    x = adata.X.tolil()
    x[np.flatnonzero((adata.obs["guide"] == guide).to_numpy()), adata.var_names.get_loc(name)] = 0.0
    adata.X = x.tocsr()
    effect = ds.get.guide_effects(adata, name).set_index("guide").loc[guide]
    assert np.isfinite(effect[["log2fc", "se", "pvalue"]].astype(float)).all()
    assert effect["log2fc"] < -3


@pytest.mark.slow
def test_effects_of_other_distributions(modalities: Any) -> None:
    for mod, effect, feature in (("psi", "delta_p", "e0"), ("score", "delta", "s0"), ("robust", "delta", "t0")):
        effects = ds.get.guide_effects(modalities, feature, mod=mod)
        points = ds.pl.dose_response_data(modalities, feature, mod=mod)
        targeting = ~points["is_control"].to_numpy(bool)
        steps = np.diff(effects[effect][targeting])
        np.testing.assert_allclose(steps, np.diff(points["mean"][targeting]), atol=1e-9)
        assert (effects[effect] - effects["fitted"]).abs().median() < effects["se"].median() * 2
    usage = ds.get.guide_effects(modalities, "d0", mod="usage")
    assert set(usage["category"]) == {"j0_p", "j0_q", "j0_r"}
    total = usage.groupby("guide")["delta_p"].sum()
    assert total.abs().max() < 0.02


def test_nothing_called_gives_an_empty_table(titration_fit: ad.AnnData) -> None:
    adata = titration_fit.copy()
    adata.varm["trans"]["qvalue"] = 1.0
    for table in (ds.get.guide_effects(adata), ds.get.doses(adata), ds.get.responders(adata)):
        assert len(table) == 0
    assert list(ds.get.guide_effects(adata)) == list(ds.get.columns("guide_effects"))
    assert list(ds.get.doses(adata)) == list(ds.get.columns("doses"))
