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
    np.testing.assert_array_equal(
        ds.datasets.true_curve(read, "gene_0001", [-1.0]), ds.datasets.true_curve(adata, "gene_0001", [-1.0])
    )


def test_seeds_and_generators() -> None:
    def counts(rng: int | np.random.Generator) -> np.ndarray:
        return ds.datasets.titration(60, 8, rng=rng).X.toarray()

    np.testing.assert_array_equal(counts(5), counts(np.random.default_rng(5)))
    assert not np.array_equal(counts(5), counts(6))
    rng = np.random.default_rng(5)
    assert not np.array_equal(counts(rng), counts(rng))


def test_fold_changes_in_the_table_are_those_of_the_curves(adata: ad.AnnData) -> None:
    names = list(adata.var_names[1:])
    curves = np.log2(ds.datasets.true_curve(adata, names, np.append(np.linspace(-3.3, 1.5, 200), 0.0)))
    kind = adata.var["true_model"][names]
    assert np.ptp(curves[kind == "null"], axis=1).max() < 1e-12
    assert np.ptp(curves[kind == "single_hill"], axis=1).min() > 0.1
    one = adata.var.loc[kind.index[kind == "single_hill"]]
    rising = curves[kind == "single_hill", -2] > curves[kind == "single_hill", 0]
    np.testing.assert_array_equal(rising, one["true_hill_n"] > 0)


def test_fold_changes_in_the_table_by_their_definition(adata: ad.AnnData) -> None:
    names = list(adata.var_names[1:])
    doses = adata.uns["titration"]["guides"]["log2_dosage"].to_numpy()
    low, high = doses.min(), doses.max()
    curves = np.log2(ds.datasets.true_curve(adata, names, np.r_[np.linspace(low, high, 101), 0.0]))
    curves -= curves[:, -1:]
    var = adata.var.loc[names]
    np.testing.assert_allclose(var["true_log2fc_full"], curves[:, 0], atol=1e-9)
    np.testing.assert_allclose(var["true_log2fc_max"], curves[:, -2], atol=1e-9)
    np.testing.assert_allclose(var["true_log2fc_range"], np.ptp(curves[:, :-1], axis=1), atol=1e-9)
    np.testing.assert_allclose(ds.datasets.true_curve(adata, names, [0.0])[:, 0], var["true_baseline"])


def test_a_true_curve_by_hand(adata: ad.AnnData) -> None:
    """A single Hill: halfway between its asymptotes at the EC50, their ratio the amplitude."""
    one = adata.var.index[adata.var["true_model"] == "single_hill"]
    for name in one:
        k = adata.var.loc[name, "true_log2_ec50"]
        bottom, middle, top = ds.datasets.true_curve(adata, name, [k - 60, k, k + 60])[0]
        assert middle == pytest.approx((bottom + top) / 2)
        rising = adata.var.loc[name, "true_hill_n"] > 0
        assert np.log2(top / bottom) * (1 if rising else -1) > 0
    assert ds.datasets.true_curve(adata, "GFI1B", [0.0, -2.0])[0] == pytest.approx([6.0, 1.5])


def test_true_curve_says_what_it_lacks(adata: ad.AnnData) -> None:
    with pytest.raises(KeyError, match=r"did you mean \['gene_0079'"):
        ds.datasets.true_curve(adata, "gene_007", [0.0])
    with pytest.raises(ValueError, match="titration"):
        ds.datasets.true_curve(ad.AnnData(np.ones((3, 2), dtype=np.float32)), "0", [0.0])


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("n_cells", 0, "1 or more"),
        ("n_genes", 2.5, "whole number"),
        ("n_guides", 0, "1 or more"),
        ("n_ntc_guides", 0, "1 or more"),
        ("ntc_fraction", 1.5, "between 0 and 1"),
        ("single_fraction", 0.96, "more than 1 together"),
        ("guide_shift_sd", -0.1, "negative"),
        ("escaper_fraction", 1.2, "between 0 and 1"),
        ("group_confounding", -0.1, "between 0 and 1"),
        ("size_factor_sd", np.nan, "finite number"),
        ("dosage_range", (1.0, -3.0), "reversed"),
        ("cis_mean", 0.0, "above 0"),
    ],
)
def test_what_cannot_be_simulated(keyword: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        ds.datasets.titration(**({"n_cells": 50, "n_genes": 5} | {keyword: value}))
    assert keyword in str(error.value)


def test_size_design_and_ranges() -> None:
    adata = ds.datasets.titration(
        4000,
        30,
        rng=2,
        n_guides=4,
        n_ntc_guides=3,
        n_groups=3,
        ntc_fraction=0.5,
        dosage_range=(-2.0, 0.0),
        mean_range=(-1.0, 2.0),
        single_fraction=0.6,
        additive_fraction=0.4,
    )
    assert adata.shape == (4000, 30)
    assert adata.obs["guide"].nunique() == 7
    assert list(adata.obs["batch"].cat.categories) == ["batch_1", "batch_2", "batch_3"]
    assert abs((adata.obs["target"] == "NTC").mean() - 0.5) < 0.03
    assert adata.var["true_baseline"].iloc[1:].between(0.5, 4.0).all()
    assert set(adata.var["true_model"].iloc[1:]) == {"single_hill", "additive_hill"}
    guides = adata.uns["titration"]["guides"]
    assert guides.loc[guides["target"] == "GFI1B", "log2_dosage"].between(-2.4, 0.4).all()
    ntc = adata.obs["target"] == "NTC"
    assert (adata.obs.loc[ntc, "true_log2_dosage"] == 0).all()
    assert adata.obs["true_size_factor"].mean() == pytest.approx(1.0)


def test_group_effects_are_those_of_the_truth() -> None:
    adata = ds.datasets.titration(
        6000, 30, rng=9, group_effect_sd=0.8, single_fraction=0.0, additive_fraction=0.0, mean_range=(2.0, 5.0)
    )
    y = adata.X.toarray()[:, 1:] / adata.obs["true_size_factor"].to_numpy()[:, None]
    first = (adata.obs["batch"] == "batch_1").to_numpy()
    found = np.log2(y[~first].mean(0) / y[first].mean(0))
    np.testing.assert_allclose(found, adata.varm["true_technical_effects"][1:, 1], atol=0.12)


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


def test_switches_leave_the_rest_of_the_truth_as_it_is() -> None:
    adata = ds.datasets.titration(300, 40, rng=3)
    assert "true_escaper" not in adata.obs
    on = ds.datasets.titration(300, 40, rng=3, escaper_fraction=0.3, group_confounding=0.5)
    pd.testing.assert_frame_equal(on.var, adata.var)
    pd.testing.assert_series_equal(on.obs["guide"], adata.obs["guide"])
    np.testing.assert_array_equal(on.obs["true_size_factor"], adata.obs["true_size_factor"])


def test_escapers_have_the_dosage_of_ntc_cells() -> None:
    adata = ds.datasets.titration(6000, 5, rng=1, escaper_fraction=0.3, dosage_range=(-3.0, -2.0), cis_mean=20.0)
    escaper, targeting = adata.obs["true_escaper"].to_numpy(), (adata.obs["target"] != "NTC").to_numpy()
    assert not escaper[~targeting].any()
    assert abs(escaper[targeting].mean() - 0.3) < 0.03
    assert (adata.obs.loc[escaper, "true_log2_dosage"] == 0).all()
    assert (adata.obs.loc[targeting & ~escaper, "true_log2_dosage"] < -1).all()
    y = adata.X[:, 0].toarray().ravel() / adata.obs["true_size_factor"].to_numpy()
    assert y[escaper].mean() / y[~targeting].mean() == pytest.approx(1.0, abs=0.1)
    assert y[targeting & ~escaper].mean() < 0.3 * y[escaper].mean()


@pytest.mark.parametrize("confounding", [0.5, 1.0])
def test_groups_that_follow_the_class_of_the_guide(confounding: float) -> None:
    adata = ds.datasets.titration(
        6000,
        30,
        rng=8,
        n_groups=3,
        group_confounding=confounding,
        group_effect_sd=0.8,
        single_fraction=0.0,
        additive_fraction=0.0,
        mean_range=(2.0, 5.0),
    )
    targeting = (adata.obs["target"] != "NTC").to_numpy()
    last = (adata.obs["batch"] == "batch_3").to_numpy()
    assert list(adata.obs["batch"].cat.categories) == ["batch_1", "batch_2", "batch_3"]
    assert abs(last[targeting].mean() - (confounding + (1 - confounding) / 3)) < 0.03
    assert abs(last[~targeting].mean() - 1 / 3) < 0.03
    # counts carry the effects of the groups the cells are in now
    y = adata.X.toarray()[:, 1:] / adata.obs["true_size_factor"].to_numpy()[:, None]
    found = np.log2(y[targeting & last].mean(0) / y[~targeting & last].mean(0))
    np.testing.assert_allclose(found, 0.0, atol=0.15)


def test_groups_cannot_be_confounded_where_there_is_one() -> None:
    with pytest.raises(ValueError, match="n_groups is 1"):
        ds.datasets.titration(50, 5, n_groups=1, group_confounding=1.0)
