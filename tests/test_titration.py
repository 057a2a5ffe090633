"""The simulated titration is what its truth says."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds


@pytest.fixture(scope="module")
def adata() -> ad.AnnData:
    return ds.datasets.titration(6000, 80, rng=11, within_guide_sd=0.0, mean_range=(0.0, 4.0))


def _expected(adata: ad.AnnData) -> np.ndarray:
    """Mean of every count given the truth, ``(cells, genes)``."""
    guides = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"]
    names = [n for n in adata.var_names if n != "GFI1B"]
    doses = guides.to_numpy()
    curves = ds.datasets.true_curve(adata, names, doses)
    row = guides.index.get_indexer(adata.obs["guide"])
    group = adata.obs["batch"].cat.codes.to_numpy()
    effects = adata.varm["true_technical_effects"][1:, group].T
    return curves[:, row].T * 2.0**effects * adata.obs["true_size_factor"].to_numpy()[:, None]


def test_moments_are_those_of_the_truth(adata: ad.AnnData) -> None:
    y, mean = adata.X.toarray()[:, 1:], _expected(adata)
    np.testing.assert_allclose(y.sum(0) / mean.sum(0), 1.0, atol=0.08)
    o2 = ((y - mean) ** 2 - mean).sum(0) / (mean**2).sum(0)
    ratio = np.sqrt(np.maximum(o2, 0)) / adata.var["true_overdispersion"].to_numpy()[1:]
    assert abs(np.median(ratio) - 1) < 0.03


def test_cis_gene_follows_its_guides(adata: ad.AnnData) -> None:
    guides = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"]
    guide = adata.obs["guide"].astype(str).to_numpy()
    effect = adata.varm["true_technical_effects"][0][adata.obs["batch"].cat.codes]
    size = adata.var["true_baseline"].iloc[0] * adata.obs["true_size_factor"].to_numpy()
    mean = size * 2.0 ** (effect + guides[guide].to_numpy())
    o = adata.var["true_overdispersion"].iloc[0]
    cells = pd.DataFrame({"y": adata.X[:, 0].toarray().ravel(), "m": mean, "v": mean + o**2 * mean**2})
    sums = cells.groupby(guide).sum()
    z = (sums["y"] - sums["m"]) / np.sqrt(sums["v"])
    assert (z.abs() < 4.5).all()
    assert 0.5 < z.std() < 1.6


def test_it_is_sparse_reproducible_and_survives_h5ad(adata: ad.AnnData, tmp_path) -> None:
    again = ds.datasets.titration(6000, 80, rng=11, within_guide_sd=0.0, mean_range=(0.0, 4.0))
    assert sparse.issparse(adata.X)
    assert (adata.X != again.X).nnz == 0
    pd.testing.assert_frame_equal(adata.var, again.var)
    adata.write_h5ad(tmp_path / "a.h5ad")
    read = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(read.uns["titration"]["guides"], adata.uns["titration"]["guides"])


def test_fold_changes_in_the_table_are_those_of_the_curves(adata: ad.AnnData) -> None:
    names = list(adata.var_names[1:])
    curves = np.log2(ds.datasets.true_curve(adata, names, np.append(np.linspace(-3.3, 1.5, 200), 0.0)))
    kind = adata.var["true_model"][names]
    assert np.ptp(curves[kind == "null"], axis=1).max() < 1e-12
    assert np.ptp(curves[kind == "single_hill"], axis=1).min() > 0.1
    one = adata.var.loc[kind.index[kind == "single_hill"]]
    rising = curves[kind == "single_hill", -2] > curves[kind == "single_hill", 0]
    np.testing.assert_array_equal(rising, one["true_hill_n"] > 0)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_guide_shifts_make_guides_differ(shift: float) -> None:
    adata = ds.datasets.titration(
        6000, 60, rng=4, guide_shift_sd=shift, single_fraction=0.0, additive_fraction=0.0, mean_range=(2.0, 5.0)
    )
    y = adata.X.toarray() / adata.obs["true_size_factor"].to_numpy()[:, None]
    y = y / 2.0 ** adata.varm["true_technical_effects"][:, adata.obs["batch"].cat.codes].T
    ntc = (adata.obs["target"] == "NTC").to_numpy()
    by_guide = pd.DataFrame(y[ntc]).groupby(adata.obs["guide"].to_numpy()[ntc], observed=True).mean()
    spread = np.median(np.log2(by_guide).std().to_numpy()[1:])
    assert (spread > 0.2) == (shift > 0)


def test_cell_state_ties_cis_and_trans_within_guides() -> None:
    correlation = {}
    for sd in (0.0, 0.6):
        adata = ds.datasets.titration(3000, 40, rng=5, cell_state_sd=sd, mean_range=(2.0, 4.0), cis_mean=20.0)
        ntc = adata[adata.obs["target"] == "NTC"]
        y = ntc.X.toarray() / ntc.obs["true_size_factor"].to_numpy()[:, None]
        correlation[sd] = np.abs(np.corrcoef(np.log1p(y).T)[0, 1:]).mean()
    assert correlation[0.0] < 0.05 < 0.15 < correlation[0.6]


def test_size_factor_errors_and_a_rare_cis_gene() -> None:
    adata = ds.datasets.titration(2000, 20, rng=6, size_factor_error_sd=0.3, cis_mean=0.5)
    error = np.log2(adata.obs["size_factor"] / adata.obs["true_size_factor"])
    assert abs(error.std() - 0.3) < 0.02
    ntc = adata[adata.obs["target"] == "NTC"]
    assert 0.3 < ntc.X[:, 0].mean() < 0.8
    plain = ds.datasets.titration(2000, 20, rng=6)
    np.testing.assert_array_equal(plain.obs["size_factor"], plain.obs["true_size_factor"])
