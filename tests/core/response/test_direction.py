"""Direction on knock-down: the sign of the fold change, the score, the class and the title always agree."""

from __future__ import annotations

import numpy as np
import pytest

import dream_sc as ds
from dream_sc._core.response.direction import of_calls, with_direction


def _columns(**given: list[object]) -> dict[str, np.ndarray]:
    n = len(next(iter(given.values())))
    base = {
        "class": ["increasing"] * n,
        "p_class": [0.9] * n,
        "lfdr": [0.01] * n,
        "qvalue": [0.01] * n,
        "log_bf": [5.0] * n,
        "log2fc_full": [-1.0] * n,
        "log2fc_max": [0.5] * n,
    }
    return {name: np.array(values) for name, values in (base | given).items()}


def test_direction_and_score() -> None:
    out = with_direction(
        _columns(
            **{"class": ["increasing", "decreasing", "biphasic_max", "increasing", "decreasing"]},
            log2fc_full=[-1.0, 2.0, -0.5, -0.1, np.nan],
            log2fc_max=[0.5, -0.2, -0.5, 0.1, -1.5],
            lfdr=[0.01, 0.7, 0.01, 0.9, 0.01],
            qvalue=[0.01, 0.04, 0.01, 0.3, 0.01],
            log_bf=[5.0, 2.0, 6.0, -1.0, 4.0],
        ),
        "log2fc",
    )
    assert list(out["on_knockdown"]) == ["down", "up", "mixed", None, "up"]
    assert list(out["class"]) == ["increasing", "decreasing", "biphasic_max", "null", "decreasing"]
    np.testing.assert_array_equal(out["score"], [-5.0, 2.0, -6.0, 0.0, 4.0])
    np.testing.assert_allclose(out["p_class"], [0.9 * 0.99, 0.9 * 0.3, 0.9 * 0.99, 0.9, 0.9 * 0.99])


def test_a_feature_that_may_well_not_respond_has_a_class_where_its_q_value_is_below_0_05_only() -> None:
    out = with_direction(_columns(lfdr=[0.6, 0.6, 0.6, 0.4], qvalue=[0.049, 0.05, 0.06, 0.06]), "log2fc")
    assert list(out["class"]) == ["increasing", "null", "null", "increasing"]
    lost = of_calls(out | {"qvalue": np.array([0.06, 0.04, 0.04, 0.06])})
    assert list(lost["class"]) == ["null", "null", "null", "increasing"]
    assert list(lost["on_knockdown"]) == [None, None, None, "down"]


@pytest.mark.slow
@pytest.mark.parametrize("span", [(-3.0, 0.8), (0.2, 2.0)])
def test_signs_agree_in_a_fit(span: tuple[float, float]) -> None:
    adata = ds.datasets.titration(2500, 60, rng=2, dosage_range=span, single_fraction=0.5)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    table = ds.get.trans(adata)
    called = table[table["qvalue"] < 0.05]
    assert len(called) > 5
    assert (called["class"] != "null").all()
    change = called["log2fc_full"].where(called["log2fc_full"].notna(), -called["log2fc_max"])
    has_score = called["log_bf"] > 0
    np.testing.assert_array_equal(np.sign(called["score"]), np.sign(change) * has_score)
    plain = called[called["on_knockdown"] != "mixed"]
    np.testing.assert_array_equal(plain["on_knockdown"] == "down", change[plain.index] < 0)
    np.testing.assert_array_equal(plain["class"].str.endswith("increasing"), plain["on_knockdown"] == "down")
    assert set(called.loc[called["on_knockdown"] == "mixed", "class"]) <= {"biphasic_min", "biphasic_max"}
    name = plain.index[0]
    (ax,) = np.atleast_1d(ds.pl.dose_response(adata, name))
    falls = plain.loc[name, "on_knockdown"] == "down"
    assert ("falls" if falls else "rises") + " on knock-down" in ax.get_title()
