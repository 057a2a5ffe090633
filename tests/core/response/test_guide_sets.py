"""Effects that sets of guides share: against a normal density in closed form, and in simulated features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from dream_sc._core.priors import TransPriors
from dream_sc._core.response import guide_sets, importance
from dream_sc._core.response.learned import Prior
from dream_sc._core.response.problem import Problem, null_evidence, problem
from dream_sc._core.response.simulated_nulls import simulate_null
from dream_sc._core.types import Axis, GuideStats, RowDosage

N_NTC = 6
MEMBERS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1]], dtype=float)
DOSAGE = MEMBERS @ np.array([-2.0, -1.0, -0.4])
PRIORS = TransPriors().in_unit(0.01)


def _of_scores(rng: np.random.Generator, n: int = 3) -> Problem:
    """Six labels of three guides and six NTC guides; scores, whose density has a closed form."""
    n_labels = len(MEMBERS) + N_NTC
    precision = rng.uniform(0.5, 2.0, (n, n_labels)) / 0.01**2
    y = rng.normal(0, 0.02, (n, n_labels))
    one, guide = np.ones(n_labels), np.arange(n_labels)
    stats = GuideStats(y, one, one, guide, np.zeros(n_labels, np.int64), n_labels, 1, precision, "normal")
    mean, none = np.append(DOSAGE, np.zeros(N_NTC)), np.zeros(n_labels)
    members = np.concatenate([MEMBERS, np.zeros((N_NTC, 3))])
    dosage = RowDosage(mean, none, none, guide >= len(MEMBERS), members=members)
    axis = Axis(-3.4, 0.05, np.sort(DOSAGE))
    return problem(stats, dosage, np.ones(n), group_effect_sd=1.0, axis=axis, priors=PRIORS)


def _summed_up(p: Problem) -> Problem:
    return replace(p, background=p.summed_up(np.array(PRIORS.tau_grid)))


def _log_density(p: Problem, t: int, tau: float) -> float:
    """Rows of feature `t` under the null: the level, the effects of guides and the noise are normal."""
    shared = np.asarray(p.shared)
    effects = tau**2 * (shared @ shared.T + np.diag((~p.targeting).astype(float)))
    covariance = effects + p.design.level_sd**2 + np.diag(1.0 / p.weights[t])
    return float(multivariate_normal(np.full(len(covariance), p.level[t]), covariance).logpdf(p.counts[t]))


def test_the_evidence_is_that_of_effects_that_add_up(rng: np.random.Generator) -> None:
    p = _summed_up(_of_scores(rng))
    taus = np.array(PRIORS.tau_grid)
    found = null_evidence(p, np.repeat(taus[None], len(p.counts), 0), tol=1e-8)[0]
    want = np.array([[_log_density(p, t, tau) for tau in taus] for t in range(len(p.counts))])
    # the kernel leaves out what depends on the data alone
    np.testing.assert_allclose(found - found[:, :1], want - want[:, :1], atol=2e-3)
    assert np.ptp(want, axis=1).min() > 0.5


def test_simulated_sets_share_the_effects_of_their_guides(rng: np.random.Generator) -> None:
    p, grid = _of_scores(rng, 1), np.array([0.1])
    sure = replace(p, weights=p.weights * 1e6)
    out = simulate_null(sure, grid, np.zeros((1, 1, 1)), np.ones(1), Prior.start(PRIORS), 400, 0)
    effects = out.counts[:, : len(MEMBERS)]
    x = effects - effects.mean(0)
    both = np.corrcoef(x.T)
    assert both[0, 3] == pytest.approx(0.5**0.5, abs=0.12)
    assert abs(both[0, 4]) < 0.2
    np.testing.assert_allclose(x[:, 3], x[:, 0] + x[:, 1], atol=1e-3)


def test_which_labels_a_guide_is_in(rng: np.random.Generator) -> None:
    p = _of_scores(rng)
    assert guide_sets.carriers(p)[1].tolist() == [False, True, False, True, True, True] + [False] * N_NTC
    assert guide_sets.one_guide(p).sum() == 3
    # the second guide is in four labels, the first in three
    assert np.asarray(guide_sets.repeats(p))[:5].tolist() == [3.0, 4.0, 3.0, 7.0, 7.0]
    alone = guide_sets.alone(p)
    assert alone.shared is None
    assert alone.design.loads.shape[1] == 0
    assert guide_sets.repeats(alone) == 1.0
    assert len(guide_sets.carriers(alone)) == len(MEMBERS)


def test_a_normal_density_at_another_sd_of_the_effects(rng: np.random.Generator) -> None:
    n, tau = 3, 0.2
    a = rng.normal(size=(5, 5, 5))
    likelihood, pull = a @ np.swapaxes(a, 1, 2), rng.normal(size=(5, 5))  # of the data alone
    move = rng.normal(0, 0.7, 5)

    def posterior(sds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prior = np.stack([np.diag([1.0, 1.0, *[sd**-2.0] * n]) for sd in sds])
        cov = np.linalg.inv(likelihood + prior)
        return np.einsum("nij,nj->ni", cov, pull), cov

    mode, cov = posterior(np.full(5, tau))
    found = importance._at_other_tau(mode, cov, np.full(5, tau), move, n)
    for got, want in zip(found, posterior(tau * np.exp(move)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-12)
