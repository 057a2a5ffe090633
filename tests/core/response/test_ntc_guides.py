"""Many NTC guides summed up as Gaussians against the kernel that sees each of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dream_sc._core.curves import curve
from dream_sc._core.priors import TransPriors
from dream_sc._core.response import decision, learned
from dream_sc._core.response.comparison import set_up
from dream_sc._core.response.evidence import evaluate
from dream_sc._core.response.problem import Problem, evidence, problem
from dream_sc._core.response.settings import Settings
from dream_sc._core.response.wide_effects import with_wide
from dream_sc._core.types import Axis, GuideStats, RowDosage

N_CIS, N_NTC, N_GROUPS = 6, 60, 2
DOSES = np.r_[np.linspace(-2.5, 1.0, N_CIS), np.zeros(N_NTC)]
GRID = np.array(TransPriors().tau_grid)


@pytest.fixture(scope="module")
def pooled() -> Problem:
    rng = np.random.default_rng(3)
    n, n_g = 24, len(DOSES)
    guide, group = np.repeat(np.arange(n_g), N_GROUPS), np.tile(np.arange(N_GROUPS), n_g)
    slope = np.r_[np.zeros(12), rng.normal(0, 0.4, 12)]
    u = rng.normal(0, 0.1, (n, n_g))
    log_mean = np.linspace(-4, 2, n)[rng.permutation(n), None] + (slope[:, None] * DOSES + u)[:, guide] + 0.2 * group
    w = rng.uniform(20, 40, len(guide))
    counts = rng.poisson(np.exp(log_mean) * w).astype(float)
    stats = GuideStats(counts, w, 1.1 * w, guide, group, n_g, N_GROUPS)
    dosage = RowDosage(DOSES[guide], np.where(DOSES[guide] != 0, 0.2, 0), np.where(DOSES != 0, 0.1, 0), DOSES == 0)
    axis = Axis.of(DOSES[:N_CIS])
    p = problem(stats, dosage, np.full(n, 0.4), group_effect_sd=0.3, axis=axis, priors=TransPriors())
    return with_wide(p, 0.02, 0.35)


def test_only_many_ntc_guides_are_summed_up(pooled: Problem) -> None:
    assert pooled.pooled
    few = np.arange(len(DOSES)) < N_CIS + 40
    d = pooled.design
    stats = GuideStats(pooled.counts, np.exp(d.log_w), d.scale2, pooled.guide, d.group, len(DOSES), N_GROUPS)
    keep = few[pooled.guide]
    dosage = RowDosage(DOSES[pooled.guide][keep], np.zeros(keep.sum()), np.zeros(N_CIS + 40), (DOSES == 0)[few])
    stats = replace(
        stats,
        counts=stats.counts[:, keep],
        exposure=stats.exposure[keep],
        exposure2=stats.exposure2[keep],
        guide=stats.guide[keep],
        group=stats.group[keep],
    )
    p = problem(stats, dosage, pooled.overdispersion, group_effect_sd=0.3, axis=pooled.axis, priors=pooled.priors)
    assert not p.pooled


@pytest.mark.parametrize("name", ["null", "single_hill"])
def test_evidence_is_that_of_every_guide(pooled: Problem, name: str) -> None:
    """The same constant is left out in both; curves that matter lose little."""
    c = curve(name)
    shapes, _, consts = c.lattice(pooled.axis, pooled.priors)
    some = np.linspace(0, len(shapes) - 1, 12).astype(int) if name != "null" else np.array([0])
    taus = np.repeat(GRID[None], len(pooled.counts), 0)
    summed = replace(pooled, background=pooled.summed_up(GRID))
    assert summed.in_kernel().counts.shape[1] == N_CIS * N_GROUPS
    want = evidence(pooled, c, shapes[None, some], consts[None, some], taus)[0]
    got = evidence(summed, c, shapes[None, some], consts[None, some], taus)[0]
    near = want > want.max(axis=(1, 2), keepdims=True) - 8
    error = np.abs(got - want)[near]
    assert np.median(error) < 0.02
    assert np.quantile(error, 0.95) < 0.1


def test_gaussians_between_the_knots(pooled: Problem) -> None:
    """Splines over log tau against the evidence of the NTC guides at taus between."""
    between = np.repeat(np.sqrt(GRID[1:] * GRID[:-1])[None], len(pooled.counts), 0)
    alone = pooled.guides(~pooled.targeting)
    want = evidence(alone, curve("null"), np.zeros((1, 1, 0)), np.zeros((1, 1, 2)), between)[0][:, 0]
    got = pooled.summed_up(GRID).evidence(between)
    near = want > want.max(1, keepdims=True) - 6
    error = np.abs(got - want)[near]
    assert np.median(error) < 0.1
    assert error.max() < 1.0  # of the evidence of 60 guides


def test_grid_of_tau_follows_what_the_ntc_guides_know(pooled: Problem) -> None:
    p, c = set_up(pooled, Settings(), (0.02, 0.35))
    n_used = np.isfinite(p.tau_weight).sum(1)
    assert set(n_used) <= {7, 13, 25}
    known = pooled.counts.sum(1)
    assert n_used[known.argmax()] > n_used[known.argmin()] == 7
    # each point stands for as many as are left out: the prior keeps its mass
    prior = learned.Prior(np.ones(1), np.log(0.08), 0.7)
    mass = np.exp(p.tau_weight + prior.log_tau(c.grid)).sum(1)
    np.testing.assert_allclose(mass, 1.0, atol=0.02)


def test_calls_are_those_of_every_guide(pooled: Problem) -> None:
    found = []
    for q in (pooled, replace(pooled, pooled=False)):
        e = evaluate(q, Settings(), (0.02, 0.35))
        prior = learned.Prior(np.array([0.7, 0.03, 0.24, 0.03]), np.log(0.08), 0.5)
        found.append(decision.log_bayes_factor(decision.marginals(e.values, e.comparison.grid, prior), prior))
    np.testing.assert_allclose(found[0], found[1], atol=0.6, rtol=0.05)
