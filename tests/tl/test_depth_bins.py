"""Sums over guides where size factors vary much: binned, so that they lose little."""

from __future__ import annotations

import numpy as np
import pytest

import dream_sc as ds
from dream_sc._core.sums import guide_sums

pytestmark = pytest.mark.usefixtures("few_null_features")


def test_bins_of_equal_numbers() -> None:
    rng = np.random.default_rng(0)
    s, row = rng.lognormal(0, 1, 1000), rng.integers(0, 7, 1000)
    bins = guide_sums.depth_bins(s, row, 4)
    for r in range(7):
        mine = row == r
        size = np.bincount(bins[mine], minlength=4)
        assert size.max() - size.min() <= 1
        assert all(s[mine & (bins == b)].max() < s[mine & (bins == b + 1)].min() for b in range(3))
    spreads = (0.25, 0.5, 0.75, 0.85, 1.0)
    assert [guide_sums.n_depth_bins(rng.lognormal(0, sd, 100_000)) for sd in spreads] == [1, 1, 2, 3, 5]


@pytest.mark.parametrize("n_ntc", [6, 60])
def test_bins_change_nothing_where_cells_are_alike(monkeypatch: pytest.MonkeyPatch, n_ntc: int) -> None:
    adata = ds.datasets.titration(2500, 40, rng=1, size_factor_sd=0.0, n_ntc_guides=n_ntc)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    plain = ds.tl.fit_trans(adata, copy=True)
    monkeypatch.setattr(guide_sums, "DEPTH_VARIATION", (-1.0, -1.0))
    ds.tl.fit_trans(adata)
    a, b = (ds.get.trans(each).iloc[1:] for each in (plain, adata))
    # a sum of equally distributed counts says all that the counts say
    np.testing.assert_allclose(b["log_bf"], a["log_bf"], atol=0.05, rtol=2e-3)
    np.testing.assert_allclose(b["lfdr"], a["lfdr"], atol=0.01)
    assert (a["class"] == b["class"]).mean() > 0.95


def test_bins_bring_back_what_sums_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    adata = ds.datasets.titration(3000, 80, rng=2, size_factor_sd=1.0, mean_range=(0.0, 4.0), single_fraction=0.6)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    binned = ds.get.trans(adata)
    monkeypatch.setattr(guide_sums, "DEPTH_VARIATION", ())
    ds.tl.fit_trans(adata, guide_offsets=True)
    sums = ds.get.trans(adata)
    clear = sums["log_bf"] > 5
    assert clear.sum() > 20
    assert (binned["log_bf"] / sums["log_bf"])[clear].median() > 1.02
