"""A switch, a curve or neither: which model describes a feature, and what says so."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from dream_sc._core.curves import NULL, SWITCH, curve
from dream_sc._core.priors import TransPriors
from dream_sc._core.response.decision import decide
from dream_sc._core.response.describe import calls_of, of_draws
from dream_sc._core.response.evidence import gather
from dream_sc._core.response.graded import described_by, graded_of
from dream_sc._core.response.learned import Prior
from dream_sc._core.response.prepare import Prepared
from dream_sc._core.response.problem import problem
from dream_sc._core.response.settings import Settings
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-3, 0.8, 8), np.zeros(6)]
CURVES = [NULL, SWITCH, curve("single_hill")]


def _prepared(log_f: np.ndarray, doses: np.ndarray, error: float = 0.05, escape: float = 0.0) -> Prepared:
    """Sums with these log curves ``(T, G)``, as expected, of guides at these dosages; the last six are controls."""
    rng, n_g = np.random.default_rng(0), len(doses)
    control = np.arange(n_g) >= n_g - 6
    w = np.full(n_g, 150.0)
    mean = np.exp(rng.uniform(0, 2, len(log_f))[:, None] + rng.normal(0, 0.03, log_f.shape))
    share = np.where(control, 0.0, escape)
    counts = rng.poisson(mean * (share + (1 - share) * np.exp(log_f)) * w).astype(float)
    stats = GuideStats(counts, w, w, np.arange(n_g), np.zeros(n_g, int), n_g, 1)
    errors = np.where(control, 0.0, error)
    dosage = RowDosage(doses, np.where(control, 0.0, 0.2), errors, control, escape=share)
    axis = Axis.of(doses[~control])
    return Prepared.of_sums(stats, dosage, np.full(len(log_f), 0.3), axis=axis, group_effect_sd=0.3)


@pytest.fixture(scope="module")
def fitted() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Forty nulls, ten switches, ten Hills."""
    d = np.random.default_rng(1).choice([-1, 1], 20) * np.random.default_rng(2).uniform(0.8, 1.6, 20)
    acts = (np.arange(len(DOSES)) < 8).astype(float)
    hill = 1 / (1 + 2.0 ** (2.5 * (DOSES + 1.0)))  # of the knock-down
    log_f = np.concatenate([np.zeros((40, len(DOSES))), d[:10, None] * acts, d[10:, None] * 1.5 * hill])
    found = decide(gather(_prepared(log_f, DOSES), Settings(nsamples=200)))
    described = of_draws(found, None, progress=lambda x: x, kept=None)
    return d, calls_of(found) | described.columns | {"best": found.best}


def test_both_are_called_and_told_apart(fitted: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    _, found = fitted
    assert (found["qvalue"][40:] < 0.05).all()
    assert (found["qvalue"][:40] < 0.05).sum() <= 1
    assert (found["model"][40:50] == "switch").all()
    assert (found["qvalue_graded"][50:] < 0.05).all()
    assert not (found["model"][50:] == "switch").any()
    assert (found["log_bf_graded"][50:] > 0).all()
    assert (found["log_bf_graded"][40:50] < 0).all()
    assert (found["qvalue_graded"] >= found["qvalue"]).all()
    assert (found["lfdr_graded"] >= found["lfdr"]).all()


def test_a_switch_has_a_size_and_no_ec50(fitted: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    d, found = fitted
    some = slice(40, 50)
    want = d[:10] / np.log(2)
    for part in ("full", "half", "max"):
        np.testing.assert_allclose(found[f"log2fc_{part}"][some], want, atol=0.2)
    np.testing.assert_allclose(found["log2fc_range"][some], np.abs(want), atol=0.2)
    assert ((found["log2fc_full_q025"][some] < want) & (want < found["log2fc_full_q975"][some])).mean() >= 0.8
    for name in ("log2_ec50", "log2_ec50_q025", "hill_n", "p_ec50_inside", "slope_ntc", "inflection", "amplitude"):
        assert np.isnan(found[name][some]).all(), name
    assert (found["class"][some] == "switch").all()
    assert np.isfinite(found["log2_ec50"][50:]).all()


@pytest.mark.parametrize("escape", [0.0, 0.3])
def test_guides_of_one_level_compare_the_switch_alone(escape: float) -> None:
    rng = np.random.default_rng(3)
    doses = np.r_[rng.normal(-2.0, 0.1, 6), np.zeros(6)]
    log_f = np.r_[np.zeros((20, 12)), np.where(np.arange(12) < 6, 1.0, 0.0) * np.ones((8, 1))]
    e = gather(_prepared(log_f, doses, error=0.15, escape=escape), Settings(nsamples=200))
    assert [c.name for c in e.comparison.curves] == ["null", "switch"]
    found = decide(e)
    assert (found.q_value[20:] < 0.05).all()
    assert np.isnan(found.graded.log_bf).all()
    assert np.isnan(found.q_graded).all()
    columns = of_draws(found, None, progress=lambda x: x, kept=None).columns
    # cells without effect take part in the level of a guide, not in the change where it acts
    np.testing.assert_allclose(columns["log2fc_full"][20:], 1.0 / np.log(2), atol=0.2)
    named = decide(gather(_prepared(log_f, doses, error=0.15), Settings(function_type="single_hill", nsamples=200)))
    np.testing.assert_allclose(named.graded.lfdr, named.lfdr, rtol=1e-9)
    np.testing.assert_allclose(named.graded.log_bf, named.log_bf, rtol=1e-9)


def test_a_switch_sees_only_where_guides_act() -> None:
    prepared = _prepared(np.zeros((3, len(DOSES))), DOSES, escape=0.25)
    p = problem(
        prepared.stats,
        prepared.dosage,
        prepared.overdispersion,
        group_effect_sd=0.3,
        axis=prepared.axis,
        priors=TransPriors(),
    )
    q = p.seen_by(SWITCH)
    assert p.seen_by(curve("single_hill")) is p
    at = q.design.nodes[q.design.dose], q.design.node_weights[q.design.dose]
    acting = (at[0] * at[1]).sum(1)
    np.testing.assert_allclose(acting, np.where(p.targeting[p.guide], 0.75, 0.0))
    assert (q.design.error == 0).all()
    np.testing.assert_array_equal(q.counts, p.counts)
    again = q.seen_by(SWITCH)
    np.testing.assert_array_equal(again.design.nodes, q.design.nodes)


def test_graded_evidence_is_against_the_better_of_null_and_switch() -> None:
    prior = Prior(np.array([0.6, 0.3, 0.1]), np.log(0.05), 0.5)
    marginal = np.array([[0.0, -4.0, 1.0], [0.0, 6.0, 7.0], [0.0, 0.1, -50.0]])
    found = graded_of(marginal, prior, CURVES)
    np.testing.assert_allclose(found.log_bf, [1.0, 1.0, -50.0])
    joint = marginal + np.log(prior.weights)
    np.testing.assert_allclose(found.lfdr, 1 - np.exp(joint[:, 2] - logsumexp(joint, axis=1)), rtol=1e-9)
    none = graded_of(marginal[:, :2], Prior(np.array([0.6, 0.4]), 0.0, 1.0), CURVES[:2])
    assert np.isnan(none.lfdr).all()


def test_a_call_is_a_switch_unless_it_follows_the_dosage() -> None:
    best, of_curves = np.array([1, 2, 2, 1]), np.array([2, 2, 2, 2])
    called, follows = np.array([True, True, False, True]), np.array([False, False, False, True])
    got = described_by(best, of_curves, CURVES, called=called, follows=follows)
    np.testing.assert_array_equal(got, [1, 1, 2, 2])
    np.testing.assert_array_equal(described_by(best, of_curves, CURVES[:2], called=called, follows=follows), best)
