"""Status and note of features, and the confidence of calls."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dream_sc._core.response import status
from dream_sc._core.response.confidence import LEVELS, confidence

GOOD: dict[str, float | str] = {
    "class": "increasing",
    "qvalue": 1e-4,
    "lfdr": 1e-3,
    "log_bf_loo": 5.0,
    "n_guides_support": 5.0,
    "p_trend_within_targeting": 1e-3,
    "pareto_k": 0.3,
}


def _prepared(reason: list[str], few: list[bool], *, one_dosage: bool = False) -> SimpleNamespace:
    reasons = np.array(reason, dtype=object)
    return SimpleNamespace(reason=reasons, fitted=reasons == "", few_guides=np.array(few), one_dosage=one_dosage)


def _went(n: int, **given: list[float]) -> status.Went:
    values = {"converged": [1.0] * n, "pareto_k": [np.nan] * n, "single_gap": [0.0] * n} | given
    return status.Went(
        np.array(values["converged"]) > 0, np.array(values["pareto_k"]), np.array(values["single_gap"]) > 0
    )


def test_the_first_status_that_holds() -> None:
    prepared = _prepared([status.OF_CIS_GENE, "too few counts", "too few counts", *[""] * 6], [False] * 7 + [True] * 2)
    asked = np.array([True, True, False, False, True, True, True, True, True])
    went = _went(5, converged=[0, 1, 1, 1, 1], pareto_k=[0.9, 0.9, np.nan, np.nan, 0.9], single_gap=[0, 0, 1, 1, 0])
    told = status.told(prepared, asked, went)
    assert list(told["status"]) == [
        "cis_gene",
        "filtered",
        "not_asked",
        "not_asked",
        "not_converged",
        "low_accuracy",
        "converged",
        "few_guides",
        "low_accuracy",
    ]
    assert set(told["status"]) <= set(status.STATUSES)
    notes = told["note"]
    assert notes[1] == "too few counts"
    assert notes[2] == status.OF_NOT_ASKED
    assert "raise niters" in notes[4]
    assert "pareto_k" in notes[4]
    assert "compare with inference='nuts'" in notes[5]
    assert notes[6].startswith("a single gap of dosages")
    assert notes[7] == status.OF_FEW_GUIDES
    assert status.OF_FEW_GUIDES in notes[8]


def test_one_dosage_is_said_in_place_of_a_gap() -> None:
    prepared = _prepared(["", ""], [False, True], one_dosage=True)
    told = status.told(prepared, np.ones(2, dtype=bool), _went(2, single_gap=[1, 1]))
    assert list(told["status"]) == ["converged", "few_guides"]
    assert list(told["note"]) == [status.OF_ONE_DOSAGE, status.OF_FEW_GUIDES]


def test_a_gap_is_of_no_interest_without_a_response() -> None:
    kinds = np.array(["null", "increasing", "a_class_of_tomorrow"], dtype=object)
    found = {"class": kinds, "pareto_k": np.full(3, np.nan), "single_gap": np.ones(3)}
    assert list(status.went(found, np.ones(3, dtype=bool)).single_gap) == [False, True, True]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "high"),
        ({"pareto_k": np.nan}, "high"),
        ({"lfdr": 0.0099}, "high"),
        ({"n_guides_support": 3.0}, "high"),
        ({"log_bf_loo": 2.31}, "high"),  # 10 to 1
        ({"log_bf_loo": 2.29}, "moderate"),
        ({"p_trend_within_targeting": 0.049}, "high"),
        ({"pareto_k": 0.69}, "high"),
        ({"qvalue": 0.0499}, "high"),
        ({"lfdr": 0.02}, "moderate"),
        ({"lfdr": 0.19}, "moderate"),
        ({"lfdr": 0.21}, "low"),
        ({"class": "switch"}, "moderate"),
        ({"log_bf_loo": 1.0}, "moderate"),
        ({"n_guides_support": 2.0}, "moderate"),
        ({"p_trend_within_targeting": 0.2}, "moderate"),
        ({"p_trend_within_targeting": np.nan}, "moderate"),
        ({"log_bf_loo": np.nan}, "moderate"),
        ({"log_bf_loo": -0.1}, "low"),
        ({"n_guides_support": 1.0}, "low"),
        ({"pareto_k": 0.71}, "low"),
        ({"qvalue": 0.05}, None),
        ({"qvalue": np.nan}, None),
    ],
)
def test_confidence_follows_its_rule(changes: dict[str, float | str], expected: str | None) -> None:
    columns = {name: np.array([value]) for name, value in (GOOD | changes).items()}
    assert confidence(columns)[0] == expected
    assert LEVELS == ("high", "moderate", "low")
