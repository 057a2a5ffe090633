"""The first look at every feature against sums over exact densities, and the draws made from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from dream_sc._core import calls
from dream_sc._core.dose_response import curve
from dream_sc._core.engines import laplace
from dream_sc._core.engines.laplace.screen import MOVES, look
from dream_sc._core.evidence import compare
from dream_sc._core.priors import TransPriors
from dream_sc._core.quick import quick_draws
from dream_sc._core.screening import Columns, look_from, null_of, sum_by_shape
from dream_sc._core.tail import with_tail
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-3, 1.2, 6), np.zeros(4)]
AXIS = Axis(-3.0, 1.2, DOSES[:6])
TAUS = np.array([[0.05]])


def _problem(log_mean: np.ndarray, rng: np.random.Generator, wide: float = 0.0, spread: float = 0.0) -> laplace.Problem:
    """One group, features ``(T, G)`` of these log means per unit of exposure, without errors of the dosages."""
    n_g = len(DOSES)
    w = rng.uniform(80, 120, n_g)
    counts = rng.poisson(np.exp(log_mean) * w).astype(float)
    stats = GuideStats(counts, w, 1.1 * w, np.arange(n_g), np.zeros(n_g, int), n_g, 1)
    dosage = RowDosage(DOSES, np.where(DOSES != 0, spread, 0.0), np.zeros(n_g), DOSES == 0)
    p = laplace.problem(stats, dosage, np.full(len(counts), 0.4), alpha_sd=0.3, axis=AXIS, priors=TransPriors())
    return with_tail(p, wide, 0.4)


def _log_marginal(p: laplace.Problem, moves: np.ndarray, tau: float, wide: float) -> float:
    """Level and guide effects on fine grids: of one feature, up to a constant."""
    phi = 1 / (p.overdispersion[0] ** 2 * p.design.scale2)
    levels, u = np.linspace(p.level[0] - 1.2, p.level[0] + 1.2, 121), np.linspace(-2.5, 2.5, 2001)
    prior = (1 - wide) * norm.pdf(u, 0, tau) + wide * norm.pdf(u, 0, np.hypot(tau, 0.4))
    out = norm(p.level[0], p.priors.level_sd).logpdf(levels)
    for g in range(len(DOSES)):
        y, base = p.counts[0, g], np.exp(p.design.log_w[g]) / phi[g]
        eta = (levels + moves[g])[:, None] + u
        log_like = y * (eta - p.level[0]) - (y + phi[g]) * np.log1p(base * np.exp(eta))
        out += logsumexp(log_like, b=prior, axis=1)
    return float(logsumexp(out))


@pytest.mark.parametrize("wide", [0.0, 0.1])
@pytest.mark.parametrize(("level", "size"), [(-3.5, 1.0), (0.0, 0.3)])
def test_look_equals_integration(level: float, size: float, wide: float, rng: np.random.Generator) -> None:
    """Log likelihood ratios of three curves, level and guide effects integrated."""
    tau = np.array([[0.1]])
    p = _problem(level + 0.15 * size * DOSES[None], rng, wide)
    null = null_of(p, tau)
    start, _ = look_from(p, null, tau, np.zeros(1, int))
    moves = size * np.stack([0.15 * DOSES, -0.1 * DOSES, 0.4 * (DOSES < -1)])
    got = look(p, start, (moves[:, :6] - MOVES[0]) / (MOVES[1] - MOVES[0]))[0][0]
    base = _log_marginal(p, np.zeros(10), 0.1, wide)
    want = np.array([_log_marginal(p, m, 0.1, wide) - base for m in moves])
    assert (want > -10).all()
    np.testing.assert_allclose(got, want, atol=0.1)


@pytest.mark.parametrize("name", ["single_hill", "additive_hill"])
def test_columns_move_as_they_say(name: str, rng: np.random.Generator) -> None:
    """Movements between the ends of the axis, positions of the guides, and a prior of mass 1."""
    p = replace(_problem(np.zeros((1, 10)), rng), turn=name == "additive_hill")
    c = compare(p, [curve("null"), curve("single_hill"), curve("additive_hill")], TAUS[0], 6)
    kind, lattice, columns = curve(name), c.lattices[name], c.columns[name]
    n_a = kind.n_amplitudes
    params = np.concatenate([np.zeros((len(columns.shape), 1)), columns.amplitudes, lattice.shapes[columns.shape]], 1)
    consts = lattice.consts[columns.shape]
    curves = kind.log_curve(np.r_[DOSES[:6], 0.0], params, consts)
    expected = np.clip((curves[:, :6] - curves[:, 6:] - MOVES[0]) / (MOVES[1] - MOVES[0]), 0, len(MOVES) - 1)
    np.testing.assert_allclose(columns.positions, expected, atol=1e-6)
    if n_a == 1:
        ends = kind.log_curve(np.array([AXIS.low, AXIS.high]), params, consts)
        np.testing.assert_allclose(ends[:, 1] - ends[:, 0], columns.move[:, 0], rtol=1e-6)
    np.testing.assert_allclose(logsumexp(columns.log_weight), 0.0, atol=0.15)


def test_sum_by_shape_is_a_sum(rng: np.random.Generator) -> None:
    shape = np.repeat(np.arange(3), [2, 0, 3])
    one = np.zeros((5, 1))
    columns = Columns(shape, one, rng.normal(size=5), one, np.array([0, 2, 2]), one)
    ratio = rng.normal(size=(2, 5)).astype(np.float32)
    got = sum_by_shape(ratio, columns)
    for s in (0, 2):
        at = shape == s
        np.testing.assert_allclose(got[:, s], logsumexp(ratio[:, at] + columns.log_weight[at], axis=1), rtol=1e-6)
    assert (got[:, 1] < -600).all()


def test_a_block_does_not_change_a_feature(rng: np.random.Generator) -> None:
    p = _problem(rng.normal(0, 1, (20, 1)) + rng.normal(0, 0.1, (20, 10)), rng, 0.05)
    columns = compare(p, [curve("null"), curve("single_hill")], TAUS[0], 6).columns["single_hill"]
    found = []
    for q in (p, p.take([17])):
        taus = np.repeat(TAUS, len(q.counts), 0)
        start, _ = look_from(q, null_of(q, taus), taus, np.zeros(len(q.counts), int))
        found.append(look(q, start, columns.positions)[0])
    np.testing.assert_array_equal(found[0][17], found[1][0])


def test_quick_draws_agree_with_the_engine(rng: np.random.Generator) -> None:
    """What weak responses say of fold changes: quantiles of the movement between the ends of the axis."""
    p = _problem(rng.normal(-1, 1, (12, 1)) + 0.1 * DOSES, rng, 0.05, spread=0.2)
    grid = np.array(TransPriors().tau_grid)
    kind = curve("single_hill")
    c = compare(p, [curve("null"), kind], grid, 6)
    lattice, prior = c.lattices["single_hill"], calls.Prior(np.array([0.8, 0.2]), np.log(0.06), 0.9)
    log_z = laplace.evidence(p, kind, lattice.shapes[None], lattice.consts[None], np.repeat(grid[None], 12, 0))[0]
    log_post = log_z + lattice.log_weight[:, None] + prior.log_tau(grid)
    shapes = lattice.shapes, lattice.consts
    marginals = logsumexp(log_post, axis=2), logsumexp(log_post, axis=1)
    full = laplace.draws(p, kind, shapes, *marginals, grid, prior, n=1000, seed=0)
    quick = quick_draws(p, kind, lattice.shapes, c.columns["single_hill"], (np.log(grid), marginals[1]), prior, 0)
    assert np.mean(quick.pareto_k < 0.7) >= 0.9
    ends = []
    for drawn in (full, quick):
        curves = kind.log_curve(np.array([AXIS.low, 0.0]), drawn.params, drawn.consts[:, None])
        ends.append(np.quantile(curves[..., 0] - curves[..., 1], [0.1, 0.5, 0.9], axis=1))
    width = ends[0][2] - ends[0][0]
    assert np.median(np.abs(ends[1] - ends[0]) / width, axis=1).max() < 0.12
    np.testing.assert_allclose(quick.tau, full.tau, rtol=0.5)
