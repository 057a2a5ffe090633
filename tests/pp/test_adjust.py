"""Size factors free of guides or of the dosage, and the features that "stable" takes."""

from __future__ import annotations

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds


@pytest.fixture(scope="module")
def half() -> ad.AnnData:
    """Half of the genes rise with the dosage, so that totals do; depth itself does not."""
    adata = ds.datasets.titration(2400, 240, rng=1, single_fraction=0.5, additive_fraction=0.0, mean_range=(-2.0, 4.0))
    rising = (adata.var["true_hill_n"] > 0).to_numpy()
    null = np.flatnonzero((adata.var["true_model"] == "null").to_numpy())[: rising.sum() + 1]
    return adata[:, np.sort(np.r_[null, np.flatnonzero(rising)])].copy()


def _by_guide(adata: ad.AnnData, key: str = "s") -> tuple[pd.Series, pd.Series]:
    """Mean log2 error of the size factors of each guide, and its mean dosage."""
    error = np.log2(adata.obs[key] / adata.obs["true_size_factor"])
    by = adata.obs["guide"]
    return error.groupby(by, observed=True).mean(), adata.obs["true_log2_dosage"].groupby(by, observed=True).mean()


def _slope(adata: ad.AnnData, key: str = "s") -> float:
    error, dosage = _by_guide(adata, key)
    return float(np.polyfit(dosage, error, 1)[0])


def test_stable_features_are_found_where_half_of_them_rise(half: ad.AnnData) -> None:
    ds.pp.size_factors(half, key_added="s")
    assert _slope(half) > 0.15
    ds.pp.size_factors(half, key_added="s", method="stable", guide_key=None, target_key=None)
    assert _slope(half) > 0.05  # without labels, what follows the total is taken for stable
    for keys in ({}, {"target_key": None}):
        ds.pp.size_factors(half, key_added="s", method="stable", **keys)
        assert abs(_slope(half)) < 0.02
    ds.pp.size_factors(half, key_added="s", method="stable", guide_key=None)
    assert abs(_slope(half)) < 0.05  # one targeted gene: two groups of cells tell less than its guides


def test_stable_needs_labels_that_tell_cells_apart(half: ad.AnnData) -> None:
    bare = half.copy()
    del bare.obs["guide"]
    before = bare.obs.copy()
    with pytest.raises(KeyError, match=r"guide_key='guide' is not a column.*in Python, None stands for one"):
        ds.pp.size_factors(bare, method="stable")
    with pytest.raises(ValueError, match="ntc"):
        ds.pp.size_factors(half.copy(), method="stable", control="ntc")
    bare.obs["guide"] = "one"
    with pytest.raises(ValueError, match="only one"):
        ds.pp.size_factors(bare, method="stable", target_key=None)
    assert bare.obs.drop(columns="guide").equals(before)
    ds.pp.size_factors(bare, method="total", guide_key="unused")


def test_cells_without_a_guide_get_factors_too(half: ad.AnnData) -> None:
    other = half.copy()
    guide = other.obs["guide"].astype(object)
    guide[::10] = None
    other.obs["guide"] = guide
    ds.pp.size_factors(other, method="stable", key_added="s")
    assert (other.obs["s"] > 0).all()
    assert abs(_slope(other[other.obs["guide"].notna()])) < 0.02


def test_adjusted_means_are_those_of_control_cells(half: ad.AnnData) -> None:
    ds.pp.size_factors(half, key_added="old")
    old = half.obs["old"].copy()
    ds.pp.adjust_size_factors(half, by="batch", size_factor_key="old", key_added="s")
    assert half.obs["old"].equals(old)
    control = half.obs["target"] == "NTC"
    level = old[control].groupby(half.obs["batch"], observed=True).mean()
    mean = half.obs.groupby(["batch", "guide"], observed=True)["s"].mean()
    for batch, wanted in level.items():
        np.testing.assert_allclose(mean[batch], wanted)
    assert abs(_slope(half)) < 0.02
    ratio = half.obs["s"] / old
    assert ratio.groupby([half.obs["batch"], half.obs["guide"]], observed=True).std().max() < 1e-12
    for by in (["batch", "guide"], ["guide", "batch"]):
        ds.pp.adjust_size_factors(half, by=by, size_factor_key="old", key_added="again")
        assert half.obs["again"].equals(half.obs["s"].rename("again"))
    out = ds.pp.adjust_size_factors(half, by=None, size_factor_key="old", key_added="whole", copy=True)
    np.testing.assert_allclose(out.obs.groupby("guide", observed=True)["whole"].mean(), old[control].mean())
    assert "whole" not in half.obs


def test_adjusting_erases_real_depth(half: ad.AnnData) -> None:
    """What the docstring warns of."""
    other = half.copy()
    deep = np.where(other.obs["target"] == "NTC", 1.0, 0.5)
    other.obs["depth"] = other.obs["true_size_factor"] * deep
    ds.pp.adjust_size_factors(other, by=None, size_factor_key="depth", key_added="s")
    targeted = other.obs["target"] != "NTC"
    assert (other.obs["s"] / other.obs["depth"])[targeted].mean() == pytest.approx(2.0, rel=0.03)


def test_what_cannot_be_adjusted(half: ad.AnnData) -> None:
    other = half.copy()
    other.obs["lane"] = np.where(other.obs["target"] == "NTC", "a", "b")
    before = other.obs.copy()
    with pytest.raises(ValueError, match=r"\['b'\] of by='lane' have no control cells"):
        ds.pp.adjust_size_factors(other, by="lane")
    with pytest.raises(KeyError, match="batch"):
        ds.pp.adjust_size_factors(other, by="batsh")
    with pytest.raises(KeyError, match="size_factors"):
        ds.pp.adjust_size_factors(other, by=None, size_factor_key="none")
    assert other.obs.equals(before)
    other.obs["lane"] = other.obs["lane"].where(np.arange(len(other)) > 5)
    with pytest.raises(ValueError, match="missing labels"):
        ds.pp.adjust_size_factors(other, by="lane")


@pytest.fixture(scope="module")
def fitted(half: ad.AnnData) -> ad.AnnData:
    adata = half.copy()
    ds.pp.size_factors(adata)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    return adata


def test_refitted_factors_keep_control_cells(fitted: ad.AnnData) -> None:
    adata = fitted.copy()
    ds.pp.refit_size_factors(adata, key_added="s")
    control = (adata.obs["target"] == "NTC").to_numpy()
    np.testing.assert_allclose(adata.obs["s"][control], adata.obs["size_factor"][control], rtol=1e-12)
    assert _slope(adata, "size_factor") > 0.15
    assert abs(_slope(adata)) < 0.02
    before = adata.obs["size_factor"].copy()
    ds.pp.refit_size_factors(adata)
    np.testing.assert_array_equal(adata.obs["size_factor"], adata.obs["s"])
    assert not before.equals(adata.obs["size_factor"])
    ds.pp.refit_size_factors(adata, key_added="twice")  # nothing is left to take off
    np.testing.assert_allclose(adata.obs["twice"], adata.obs["size_factor"], rtol=0.02)


def test_refitting_leaves_single_guides_alone(fitted: ad.AnnData) -> None:
    """One guide of shallow cells stays shallow: it is no trend."""
    adata = fitted.copy()
    one = (adata.obs["guide"] == "GFI1B_g05").to_numpy()
    adata.obs["size_factor"] = adata.obs["true_size_factor"] * np.where(one, 0.7, 1.0)
    ds.pp.refit_size_factors(adata, key_added="s")
    error, _ = _by_guide(adata)
    assert error["GFI1B_g05"] < -0.3
    assert error.drop("GFI1B_g05").abs().max() < 0.2


def test_cells_outside_the_cis_fit_stay(fitted: ad.AnnData) -> None:
    adata = fitted[:, :120].copy()
    other = adata.obs["guide"].astype(str).where(np.arange(len(adata)) % 7 > 0)
    adata.obs["guide"] = other
    ds.tl.fit_cis(adata, "GFI1B", key_added="fewer")
    ds.pp.refit_size_factors(adata, cis_key="fewer", key_added="s")
    out = adata.obs["guide"].isna().to_numpy()
    assert (adata.obs["s"] == adata.obs["size_factor"])[out].all()
    assert (adata.obs["s"] != adata.obs["size_factor"])[~out].any()


def test_factors_of_a_modality_follow_the_dosage_of_another(fitted: ad.AnnData) -> None:
    rna = fitted.copy()
    other = ad.AnnData(rna.X[::-1].copy(), obs=rna.obs.iloc[::-1][["true_size_factor", "true_log2_dosage", "guide"]])
    other = other[:2000].copy()
    other.obs["size_factor"] = rna.obs["size_factor"].reindex(other.obs_names)
    both = md.MuData({"rna": rna, "other": other})
    ds.pp.refit_size_factors(both, mod="other", cis_mod="rna", key_added="mine")
    assert abs(_slope(both["other"], "mine")) < 0.03
    assert "mine" not in both["rna"].obs
    ds.pp.adjust_size_factors(both, mod="rna", by="batch", key_added="t")
    assert "t" in both["rna"].obs


def test_what_cannot_be_refitted(fitted: ad.AnnData, half: ad.AnnData) -> None:
    with pytest.raises(KeyError, match="fit_cis"):
        ds.pp.refit_size_factors(half.copy())
    adata = fitted[fitted.obs["guide"].astype(str).str.startswith("NTC") | (fitted.obs["guide"] == "GFI1B_g03")].copy()
    before = adata.obs.copy()
    with pytest.raises(ValueError, match="two targeting guides"):
        ds.pp.refit_size_factors(adata)
    with pytest.raises(ValueError, match="is a view"):
        ds.pp.refit_size_factors(fitted[:100])
    with pytest.raises(ValueError, match="/"):
        ds.pp.refit_size_factors(adata, key_added="a/b")
    assert adata.obs.equals(before)
