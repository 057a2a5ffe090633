"""The plot of a calibration: its table against what was stored, and what is drawn against both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds
from dream_sc._core.response import calibration as core
from dream_sc._core.response import decision

if TYPE_CHECKING:
    import anndata as ad
    from matplotlib.axes import Axes

STRATA = ["low", "middle", "high"]


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    adata = ds.datasets.titration(700, 40, rng=4, n_guides=5, n_ntc_guides=6, mean_range=(0.0, 4.0))
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decision, "N_NULL", 100)  # features behind the p-values, which take most of the time
        ds.tl.fit_trans(adata, function_type="single_hill", nsamples=20)
    return adata


@pytest.fixture(scope="module")
def calibrated(fitted: ad.AnnData) -> ad.AnnData:
    """Three calibrations: NTC guides, the same with replaced p-values, and a single permutation."""
    adata = fitted.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "N_NULL", 60)
        ds.tl.calibrate(adata, n=3)
        ds.tl.calibrate(adata, n=2, replace=True, key_added="replaced")
    ds.tl.calibrate(adata, n=1, null="permutation", key_added="one")
    return adata


def _labels(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def _drawn(ax: Axes, marker: str) -> np.ndarray:
    """Points of a marker, in the order of their x."""
    points = np.concatenate([line.get_xydata() for line in ax.get_lines() if line.get_marker() == marker])
    return points[points[:, 0].argsort(kind="stable")]


@pytest.mark.parametrize("key", ["calibration", "replaced", "one"])
def test_data_are_the_quantiles_on_the_log_scale(calibrated: ad.AnnData, key: str) -> None:
    stored, table = ds.get.calibration(calibrated, "qq", key=key), ds.pl.calibration_data(calibrated, key=key)
    columns = ["stratum", "mean_low", "mean_high", "n_tests", "expected", "observed", "lower", "upper"]
    assert sorted(table.columns) == sorted(columns)
    for name, of in (("expected", "expected"), ("observed", "observed"), ("lower", "upper"), ("upper", "lower")):
        np.testing.assert_allclose(10.0 ** -table[name], stored[of], rtol=1e-12)
    for name in ("stratum", "mean_low", "mean_high", "n_tests"):
        pd.testing.assert_series_equal(table[name], stored[name])
    assert ((table["lower"] <= table["observed"]) & (table["observed"] <= table["upper"])).all()
    again = ds.get.calibration(calibrated, "qq", key=key)
    pd.testing.assert_frame_equal(again, stored)  # what is stored stays on its scale


def test_a_p_value_of_zero_can_be_drawn(calibrated: ad.AnnData) -> None:
    adata = calibrated.copy()
    adata.uns["calibration"]["qq"].loc[0, ["observed", "lower"]] = 0.0
    table = ds.pl.calibration_data(adata)
    assert table.loc[0, "observed"] > 300
    assert np.isfinite(ds.pl.calibration(adata)[0].get_ylim()).all()


def test_quantiles_by_expression(calibrated: ad.AnnData) -> None:
    ax = ds.pl.calibration(calibrated)[0]
    table = ds.pl.calibration_data(calibrated)
    lines = [line for line in ax.get_lines() if line.get_marker() == "o"]
    for line, label, name in zip(lines, _labels(ax), STRATA, strict=True):
        part = table[table["stratum"] == name]
        np.testing.assert_allclose(line.get_xydata(), part[["expected", "observed"]])
        assert label.startswith(f"{name}: ")
        low, high = label.removeprefix(f"{name}: ").split(" to ")
        np.testing.assert_allclose([float(low), float(high)], part[["mean_low", "mean_high"]].iloc[0], rtol=0.06)
    assert len({line.get_color() for line in lines}) == 3
    assert ax.get_legend().get_title().get_text() == "mean count"
    diagonal = next(line for line in ax.get_lines() if line.get_linestyle() == ":")
    np.testing.assert_allclose(diagonal.get_xdata(), diagonal.get_ydata())
    limits = np.array([ax.get_xlim(), ax.get_ylim()])
    assert (limits[:, 0] == 0).all()
    assert limits[1, 1] > table["observed"].max()


def test_shades_are_the_band_of_the_refits_and_of_independent_tests(calibrated: ad.AnnData) -> None:
    ax = ds.pl.calibration(calibrated)[0]
    table = ds.pl.calibration_data(calibrated)
    independent, *bands = (c.get_paths()[0].vertices for c in ax.collections)
    for vertices, name in zip(bands, STRATA, strict=True):
        part = table[table["stratum"] == name]
        ends = [part["lower"].min(), part["upper"].max()]
        np.testing.assert_allclose([vertices[:, 1].min(), vertices[:, 1].max()], ends)
    at_half = independent[np.abs(independent[:, 0] - np.log10(2)) < 0.01, 1]
    low, high = -np.log10(core.independent_band(np.array([0.5]), int(table["n_tests"].max())))[::-1, 0]
    np.testing.assert_allclose([at_half.min(), at_half.max()], [low, high], atol=0.02)


def test_labels_and_titles_of_both_panels(calibrated: ad.AnnData) -> None:
    left, right = ds.pl.calibration(calibrated)
    assert left.figure is right.figure
    assert "expected" in left.get_xlabel()
    assert "observed" in left.get_ylabel()
    assert all("log" in label for label in (left.get_xlabel(), left.get_ylabel()))
    assert left.get_title() == "NTC guides regrouped, 3 times"
    assert right.get_xlabel() == "level of $p$"
    assert right.get_ylabel() == "share of null tests below it"
    share = 100 * calibrated.uns["calibration"]["any_call"]
    assert right.get_title() == f"any call at q < 0.05 in {share:.0f} % of them"
    assert ds.pl.calibration(calibrated, key="one")[0].get_title() == "dosages permuted, 1 times"


@pytest.mark.parametrize("key", ["calibration", "one"])
def test_rates_and_what_is_not_seen(calibrated: ad.AnnData, key: str) -> None:
    """A point for a rate, an open triangle where there is none, the level as a bar, two standard errors."""
    ax = ds.pl.calibration(calibrated, key=key)[1]
    table = ds.get.calibration(calibrated, key=key)
    assert ax.get_yscale() == "log"
    some = (table["fpr"] > 0).to_numpy()
    assert not some.all()
    np.testing.assert_allclose(_drawn(ax, "o"), np.column_stack([np.arange(3), table["fpr"]])[some])
    none = _drawn(ax, "v")
    np.testing.assert_array_equal(none[:, 0], np.arange(3)[~some])
    assert (none[:, 1] < 1 / table["n_tests"].max()).all()
    levels, bars = ax.collections[:2]
    np.testing.assert_allclose([s[0, 1] for s in levels.get_segments()], table["level"])
    wanted = (table["fpr"] + 2 * table["se"].fillna(0))[some]
    np.testing.assert_allclose([s[:, 1].max() for s in bars.get_segments()], wanted)
    assert [float(t.get_text()) for t in ax.get_xticklabels()[:2]] == [0.05, 0.001]
    assert "10^{-5}" in ax.get_xticklabels()[2].get_text()
    assert {"level", "observed", "none"} == set(_labels(ax))
    assert ax.get_ylim()[0] < min(none[:, 1].min(), 1e-5)


def test_rates_before_and_after_on_guides_held_out(calibrated: ad.AnnData) -> None:
    left, ax = ds.pl.calibration(calibrated, key="replaced")
    table = ds.get.calibration(calibrated, "held_out", key="replaced")
    assert _labels(ax) == ["level", "theoretical", "none", "replaced, held out"]
    by_label = {line.get_label(): line for line in ax.get_lines()}
    for label, name in (("theoretical", "fpr_theory"), ("replaced, held out", "fpr")):
        np.testing.assert_allclose(by_label[label].get_ydata(), table.loc[table[name] > 0, name])
    assert by_label["theoretical"].get_color() != by_label["replaced, held out"].get_color()
    before, after = (by_label[k].get_xdata()[0] for k in ("theoretical", "replaced, held out"))
    assert -0.5 < before < 0 < after < 0.5
    assert left.get_title() == "NTC guides regrouped, 2 times"


def test_one_axes_takes_the_quantiles_alone(calibrated: ad.AnnData) -> None:
    _, mine = plt.subplots()
    ax = ds.pl.calibration(calibrated, ax=mine)
    assert ax is mine
    assert len(plt.get_fignums()) == 1
    assert len(mine.figure.axes) == 1
    both = ds.pl.calibration(calibrated)[0]
    assert _labels(mine) == _labels(both)
    np.testing.assert_allclose(_drawn(mine, "o"), _drawn(both, "o"))


@pytest.mark.parametrize("read", [ds.pl.calibration, ds.pl.calibration_data])
def test_no_calibration_names_the_call(fitted: ad.AnnData, calibrated: ad.AnnData, read: Any) -> None:
    with pytest.raises(KeyError, match=r"'calibration'.*tl.calibrate\(data\) first, or name another key="):
        read(fitted)
    with pytest.raises(KeyError, match=r"'mine'"):
        read(calibrated, key="mine")
    with pytest.raises(ValueError, match="no MuData"):
        read(calibrated, mod="rna")
    assert not plt.get_fignums()
