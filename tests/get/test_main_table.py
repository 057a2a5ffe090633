"""The short table, and the order of the long one."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds
from dream_sc._core.response.status import STATUSES
from dream_sc._keys import trans_columns
from dream_sc.get._main_table import ec50_in_words

AXIS = {"low": -2.9, "high": 1.1}
ROW: dict[str, Any] = {
    "class": "increasing",
    "log2_ec50": -1.2,
    "log2_ec50_q025": -1.4,
    "log2_ec50_q975": -1.0,
    "p_ec50_inside": 0.99,
    "log2_ec50_b": np.nan,
    "log2_ec50_b_q025": np.nan,
    "log2_ec50_b_q975": np.nan,
}
BELOW = {"log2_ec50": -4.0, "log2_ec50_q025": -6.0, "log2_ec50_q975": -3.0, "p_ec50_inside": 0.01}
ABOVE = {"log2_ec50": 2.0, "log2_ec50_q025": 1.5, "log2_ec50_q975": 5.0, "p_ec50_inside": 0.0}
SECOND = {"log2_ec50_b": 0.1, "log2_ec50_b_q025": -0.2, "log2_ec50_b_q975": 0.4}
NO_EC50 = dict.fromkeys(("log2_ec50", "log2_ec50_q025", "log2_ec50_q975", "p_ec50_inside"), np.nan)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "-1.20 (-1.40 to -1.00)"),
        (SECOND, "-1.20 (-1.40 to -1.00), second 0.10 (-0.20 to 0.40)"),
        (BELOW, "below -2.9"),
        (ABOVE, "above 1.1"),
        ({"p_ec50_inside": 0.95}, "not determined"),
        (NO_EC50, "not determined"),
        (NO_EC50 | {"class": "switch"}, "none: one level for all guides that act"),
        ({"class": "null"}, ""),
        ({"class": np.nan}, ""),
    ],
)
def test_an_ec50_is_told_where_it_is_determined(changes: dict[str, Any], text: str) -> None:
    assert ec50_in_words(ROW | changes, AXIS) == text


def test_all_columns_come_in_reading_order(titration_fit: ad.AnnData) -> None:
    table = ds.get.trans(titration_fit)
    assert list(table)[:5] == ["on_knockdown", "qvalue", "confidence", "log2fc_full", "log2fc_full_q025"]
    order = trans_columns("log2fc")
    known = [name for name in table if name in order]
    assert known == [name for name in order if name in known]
    assert set(table["status"]) <= set(STATUSES)
    assert table["note"].notna().all()


def test_the_short_table_has_twelve_columns_at_most(titration_fit: ad.AnnData) -> None:
    table, short = ds.get.trans(titration_fit), ds.get.trans(titration_fit, columns="main")
    assert len(short.columns) <= 12
    assert list(short.index) == list(table.index)
    shown = (table["p_ec50_inside"] > 0.95).to_numpy()
    np.testing.assert_array_equal(short["log2_ec50"].notna(), shown)
    np.testing.assert_array_equal(short["log2_ec50"][shown], table["log2_ec50"][shown])
    null = (table["class"].isna() | (table["class"] == "null")).to_numpy()
    assert (short["ec50"][null] == "").all()
    assert (short["ec50"][~null] != "").all()
    pd.testing.assert_series_equal(short["log2fc_full"], table["log2fc_full"])
    one = ds.get.trans(titration_fit, short.index[3], columns="main")
    assert one["ec50"].iloc[0] == short["ec50"].iloc[3]
    with pytest.raises(ValueError, match="columns"):
        ds.get.trans(titration_fit, columns="few")


@pytest.mark.slow
def test_the_short_table_of_other_distributions(modalities: Any) -> None:
    for mod, effect in (("psi", "delta_p"), ("score", "delta"), ("usage", "delta_p"), ("layers", "delta_p")):
        short = ds.get.trans(modalities, mod=mod, columns="main")
        assert f"{effect}_full" in short
        assert len(short.columns) <= 12
        assert ("category" in short) == (mod in ("usage", "layers"))
    rows = ds.get.trans(modalities, mod="usage", by="category", columns="main")
    assert list(rows)[:2] == ["feature", "leading"]
    assert len(rows) == 24


def test_dosages_of_the_ends(titration_fit: ad.AnnData) -> None:
    table, axis = ds.get.trans(titration_fit), titration_fit.uns["trans"]["axis"]
    fitted = table["lfdr"].notna()
    assert (table.loc[fitted, "log2_dosage_full"] == axis["low"]).all()
    assert (table.loc[fitted, "log2_dosage_max"] == axis["high"]).all()
    assert table.loc[~fitted, "log2_dosage_full"].isna().all()
    name = ds.get.responders(titration_fit).index[0]
    curve = ds.get.dose_response(titration_fit, name, doses=[axis["low"]], scale="log2fc")
    assert abs(curve["median"].iloc[0] - table.loc[name, "log2fc_full"]) < 0.1


def test_an_activation_alone_shows_its_effect() -> None:
    adata = ds.datasets.titration(
        800, 12, rng=2, dosage_range=(0.2, 1.5), single_fraction=0.5, mean_range=(1.0, 4.0), n_guides=5
    )
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    table, short = ds.get.trans(adata), ds.get.trans(adata, columns="main")
    assert table["log2fc_full"].isna().all()
    assert list(short)[3:6] == ["log2fc_max", "log2fc_max_q025", "log2fc_max_q975"]
    assert table["log2_dosage_full"].isna().all()
    called = ds.get.responders(adata)
    assert len(called) > 0
    strong = ds.get.responders(adata, min_log2fc=0.2)
    assert (strong["log2fc_max"].abs() > 0.2).all()
    assert (ds.get.doses(adata)["log2_dosage"].dropna() > 0).all()
    np.testing.assert_array_equal(np.sign(called["score"]), -np.sign(called["log2fc_max"]))
