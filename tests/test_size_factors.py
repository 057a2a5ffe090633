"""Size factors: each method against its definition and against the truth."""

from __future__ import annotations

import numpy as np
import pytest

import dream_sc as ds


@pytest.fixture(scope="module")
def adata():
    """Two genes that hold most counts and follow the perturbation."""
    adata = ds.datasets.titration(800, 120, rng=3, single_fraction=0.0, additive_fraction=0.0, mean_range=(-2, 3))
    x = adata.X.toarray()
    rng = np.random.default_rng(0)
    rise = np.where(adata.obs["target"] == "GFI1B", 3.0, 1.0) * adata.obs["true_size_factor"].to_numpy()
    x[:, 50:52] = rng.poisson(rng.gamma(4, 1 / 4, (800, 2)) * 150 * rise[:, None])
    adata.X = type(adata.X)(x)
    return adata


def _error(adata, **keywords) -> float:
    """Log ratio of the mean size factor of targeted over control cells to the true one."""
    ds.pp.size_factors(adata, key_added="s", **keywords)
    ratio = np.log(adata.obs["s"] / adata.obs["true_size_factor"])
    targeted = adata.obs["target"] == "GFI1B"
    return abs(ratio[targeted].mean() - ratio[~targeted].mean())


def test_total_is_the_total(adata) -> None:
    ds.pp.size_factors(adata, key_added="s")
    total = np.asarray(adata.X.sum(1)).ravel()
    np.testing.assert_allclose(adata.obs["s"], total / total.mean())


def test_excluded_features_do_not_count(adata) -> None:
    names = list(adata.var_names[50:52])
    ds.pp.size_factors(adata, key_added="s", exclude=names)
    total = np.asarray(adata.X.sum(1) - adata.X[:, 50:52].sum(1)).ravel()
    np.testing.assert_allclose(adata.obs["s"], total / total.mean())
    with pytest.raises(KeyError, match="gene_0105"):
        ds.pp.size_factors(adata, exclude=["gene_005"])


def test_median_ratio_by_its_definition(adata) -> None:
    ds.pp.size_factors(adata, key_added="s", method="median_ratio")
    x = adata.X.toarray()
    ratio = np.where(x > 0, x / x.mean(0), np.nan)
    want = np.nanmedian(ratio, axis=1)
    np.testing.assert_allclose(adata.obs["s"], want / want.mean(), rtol=1e-5)


def test_stable_features_resist_a_dominating_responder(adata) -> None:
    assert _error(adata) > 0.4
    assert _error(adata, method="stable") < 0.1
    assert _error(adata, method="stable") < _error(adata) / 4


def test_stable_features_resist_many_responders() -> None:
    adata = ds.datasets.titration(2000, 300, rng=4, group_effect_sd=0.0, single_fraction=0.5, additive_fraction=0.1)
    assert _error(adata) > 0.15
    assert _error(adata, method="stable") < _error(adata) / 4


def test_what_dominates_does_not_change_the_stable_factors(adata) -> None:
    ds.pp.size_factors(adata, key_added="s", method="stable")
    other = adata.copy()
    rng = np.random.default_rng(1)
    x = other.X.toarray()
    x[:, 50:52] = rng.poisson(x[:, 50:52] * np.where(adata.obs["target"] == "GFI1B", 2.0, 1.0)[:, None])
    other.X = type(adata.X)(x)
    ds.pp.size_factors(other, key_added="s", method="stable")
    np.testing.assert_allclose(other.obs["s"], adata.obs["s"], rtol=0.02)
    assert np.corrcoef(adata.obs["s"], adata.obs["true_size_factor"])[0, 1] > 0.9


@pytest.mark.parametrize("method", ["total", "median_ratio", "stable"])
def test_excluded_features_never_count(adata, method: str) -> None:
    names = list(adata.var_names[10:20])
    ds.pp.size_factors(adata, key_added="s", method=method, exclude=names)
    without = adata[:, ~adata.var_names.isin(names)].copy()
    ds.pp.size_factors(without, key_added="s", method=method)
    np.testing.assert_allclose(adata.obs["s"], without.obs["s"], rtol=1e-6)


@pytest.mark.parametrize("method", ["total", "median_ratio", "stable"])
def test_twice_the_counts_is_twice_the_factor(method: str) -> None:
    """Mean 1, and a cell's factor follows its depth."""
    adata = ds.datasets.titration(400, 100, rng=8, mean_range=(0.0, 4.0), size_factor_sd=0.0)
    deep = np.arange(400) < 200
    adata.X = adata.X.multiply(np.where(deep, 2.0, 1.0)[:, None]).tocsr()
    ds.pp.size_factors(adata, method=method)
    s = adata.obs["size_factor"].to_numpy()
    assert s.mean() == pytest.approx(1.0)
    assert s[deep].mean() / s[~deep].mean() == pytest.approx(2.0, rel=0.05)


def test_it_writes_where_it_is_told(adata, caplog: pytest.LogCaptureFixture) -> None:
    given = adata.obs["size_factor"].copy()
    layered = adata.copy()
    layered.layers["counts"], layered.X = layered.X, layered.X.log1p()
    out = ds.pp.size_factors(layered, layer="counts", key_added="depth", copy=True)
    ds.pp.size_factors(adata, key_added="s")
    np.testing.assert_array_equal(out.obs["depth"], adata.obs["s"])
    assert "depth" not in layered.obs
    assert out.obs["size_factor"].equals(given)
    with caplog.at_level("INFO", "dream_sc"):
        ds.pp.size_factors(out, layer="counts")
    assert ".obs['size_factor'] is overwritten" in caplog.text
    assert ".obs['size_factor']" in caplog.messages[-1]


def test_what_cannot_be_done(adata) -> None:
    with pytest.raises(ValueError, match="total"):
        ds.pp.size_factors(adata, method="deconvolution")
    with pytest.raises(ValueError, match="median_ratio"):
        ds.pp.size_factors(adata[:, :10].copy(), method="stable")
    empty = adata[:50].copy()
    keep = np.ones(50)
    keep[3] = 0
    empty.X = empty.X.multiply(keep[:, None]).tocsr()
    before = empty.obs.copy()
    for method in ("total", "median_ratio", "stable"):
        with pytest.raises(ValueError, match=r"1 cells have no count.*filter_cells"):
            ds.pp.size_factors(empty, method=method)
    with pytest.raises(ValueError, match="50 cells have no count in the features used"):
        ds.pp.size_factors(empty, exclude=list(empty.var_names))
    assert empty.obs.equals(before)
