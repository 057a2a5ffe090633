"""Dosages under size factors that follow the perturbation, and what is stored of them."""

from __future__ import annotations

import numpy as np
import pytest

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

GENE = "GFI1B"


@pytest.fixture(scope="module")
def screen():
    """Half of the genes respond, all guides are strong, and size factors are totals."""
    adata = ds.datasets.titration(
        1500, 150, rng=3, n_guides=6, n_ntc_guides=4, dosage_range=(-3.0, -1.5), single_fraction=0.4
    )
    ds.pp.size_factors(adata, method="total")
    ds.tl.fit_technical(adata, batch_key="batch")
    return adata


def _error(adata) -> np.ndarray:
    table = ds.get.guides(adata)
    truth = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"][table.index]
    return (table["log2_dosage"] - truth).to_numpy()[~table["is_control"].to_numpy()]


def test_offsets_free_the_dosage_of_totals(screen) -> None:
    with_offsets, without = (ds.tl.fit_cis(screen, GENE, guide_offsets=use, copy=True) for use in (True, False))
    assert abs(_error(without).mean()) > 0.2
    assert abs(_error(with_offsets).mean()) < 0.1
    assert with_offsets.uns["cis"]["params"]["guide_offsets"] is True
    assert without.uns["cis"]["params"]["guide_offsets"] is False


def test_true_size_factors_leave_nothing_to_take_off() -> None:
    adata = ds.datasets.titration(1500, 150, rng=4, n_guides=6, n_ntc_guides=4, single_fraction=0.0)
    ds.tl.fit_technical(adata, batch_key="batch")
    one, other = (ds.tl.fit_cis(adata, GENE, guide_offsets=use, copy=True) for use in (True, False))
    np.testing.assert_allclose(_error(one), _error(other), atol=0.03)


def test_a_panel_has_no_offsets(screen) -> None:
    panel = screen[:, :20].copy()
    one, other = (ds.tl.fit_cis(panel, GENE, guide_offsets=use, copy=True) for use in (True, False))
    np.testing.assert_array_equal(_error(one), _error(other))


def test_intervals_and_sd_say_the_same_where_counts_are_many(screen) -> None:
    adata = ds.tl.fit_cis(screen, GENE, copy=True)
    table, level = ds.get.guides(adata), adata.uns["cis"]["diagnostics"]["ntc_level_sd"]
    acting = table[~table["is_control"] & (table["escaper_fraction"] == 0)]
    half = 1.96 * np.hypot(acting["sd"], level)
    np.testing.assert_allclose(acting["log2fc_q975"] - acting["log2fc_q025"], 2 * half, rtol=0.03)
    assert (acting["log2fc_q025"] < acting["log2_dosage"]).all()
    assert (acting["log2_dosage"] < acting["log2fc_q975"]).all()
    np.testing.assert_array_equal(acting["log2fc"], acting["log2_dosage"])
