"""What a feature does on knock-down has one answer: in the table, the score, the fold change and the title."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dream_sc as ds
from dream_sc._core.response.direction import with_direction
from dream_sc._core.response.summary import CLASSES, knockdown_change
from dream_sc.pl._dose_response import _in_words

WORDS = {"down": "falls on knock-down", "up": "rises on knock-down"}
TURNS = {"biphasic_min": "trough", "biphasic_max": "peak"}
effects = st.one_of(st.just(np.nan), st.floats(-5, 5).filter(lambda x: x != 0))


def _agree(row: pd.Series, effect: str) -> None:
    """All that is said of one row that responds."""
    change = float(knockdown_change({k: np.float64(v) for k, v in row.items() if k.startswith(effect)}, effect))
    way, kind, title = str(row["on_knockdown"]), str(row["class"]), _in_words(row)
    if not np.isfinite(change):
        assert way in ("None", "nan")
        return
    assert way in ("down", "up", "mixed")
    assert (way == "mixed") == kind.startswith("biphasic")
    if row["score"] != 0:
        assert np.sign(row["score"]) == np.sign(change)
    if way == "mixed":
        assert title == TURNS[kind]
        return
    assert way == ("down" if change < 0 else "up")
    assert title == WORDS[way]


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(CLASSES),
    full=effects,
    most=effects,
    log_bf=st.floats(-5, 50),
    lfdr=st.floats(0, 1),
    q=st.one_of(st.just(np.nan), st.floats(0, 1)),
    effect=st.sampled_from(["log2fc", "delta_p", "delta"]),
)
def test_whatever_is_found(
    kind: str, full: float, most: float, log_bf: float, lfdr: float, q: float, effect: str
) -> None:
    columns: dict[str, Any] = {
        "class": np.array([kind], dtype=object),
        "p_class": np.array([0.8]),
        "lfdr": np.array([lfdr]),
        "qvalue": np.array([q]),
        "log_bf": np.array([log_bf]),
        f"{effect}_full": np.array([full]),
        f"{effect}_max": np.array([most]),
    }
    row = pd.DataFrame(with_direction(columns, effect)).iloc[0]
    if row["class"] == "null":
        assert row["on_knockdown"] is None
        assert _in_words(row) == "no response"
        assert not q < 0.05
        return
    _agree(row, effect)


def test_every_feature_of_a_titration(titration_fit: ad.AnnData) -> None:
    table = ds.get.trans(titration_fit)
    responds = table[table["class"].notna() & (table["class"] != "null")]
    assert len(responds) >= 10
    for name, row in responds.iterrows():
        _agree(row, "log2fc")
        # as dosage rises, the class says the opposite
        if str(row["class"]).endswith("increasing"):
            assert row["on_knockdown"] == "down"
        if str(row["class"]).endswith("decreasing"):
            assert row["on_knockdown"] == "up"
        if name in responds.index[:3]:
            title = ds.pl.dose_response(titration_fit, str(name)).get_title()
            assert _in_words(row) in title


@pytest.mark.slow
def test_every_feature_of_other_distributions(modalities: Any) -> None:
    for mod, effect in (("psi", "delta_p"), ("score", "delta"), ("robust", "delta"), ("usage", "delta_p")):
        table = ds.get.trans(modalities, mod=mod)
        for _, row in table[table["class"].notna() & (table["class"] != "null")].iterrows():
            _agree(row, effect)
