"""The first pass at every feature against sums over exact densities, and the draws made from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from dream_sc._core.curves import curve
from dream_sc._core.laplace.lookup import MOVES, log_ratios
from dream_sc._core.priors import TransPriors
from dream_sc._core.response import learned, summary
from dream_sc._core.response.comparison import Lattice, compare
from dream_sc._core.response.draws import draws
from dream_sc._core.response.first_pass import Columns, null_of, start_at, sum_by_shape
from dream_sc._core.response.first_pass_draws import quick_draws, shifted, table_of, what_is_said
from dream_sc._core.response.problem import Problem, evidence, problem
from dream_sc._core.response.wide_effects import with_wide
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-3, 1.2, 6), np.zeros(4)]
AXIS = Axis(-3.0, 1.2, DOSES[:6])
TAUS = np.array([[0.05]])


def _problem(log_mean: np.ndarray, rng: np.random.Generator, wide: float = 0.0, spread: float = 0.0) -> Problem:
    """One group, features ``(T, G)`` of these log means per unit of exposure, without errors of the dosages."""
    n_g = len(DOSES)
    w = rng.uniform(80, 120, n_g)
    counts = rng.poisson(np.exp(log_mean) * w).astype(float)
    stats = GuideStats(counts, w, 1.1 * w, np.arange(n_g), np.zeros(n_g, int), n_g, 1)
    dosage = RowDosage(DOSES, np.where(DOSES != 0, spread, 0.0), np.zeros(n_g), DOSES == 0)
    p = problem(stats, dosage, np.full(len(counts), 0.4), group_effect_sd=0.3, axis=AXIS, priors=TransPriors())
    return with_wide(p, wide, 0.4)


def _log_marginal(p: Problem, moves: np.ndarray, tau: float, wide: float) -> float:
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
    start, _ = start_at(p, null, tau, np.zeros(1, int))
    moves = size * np.stack([0.15 * DOSES, -0.1 * DOSES, 0.4 * (DOSES < -1)])
    got = log_ratios(p, start, (moves[:, :6] - MOVES[0]) / (MOVES[1] - MOVES[0]))[0][0]
    base = _log_marginal(p, np.zeros(10), 0.1, wide)
    want = np.array([_log_marginal(p, m, 0.1, wide) - base for m in moves])
    assert (want > -10).all()
    np.testing.assert_allclose(got, want, atol=0.1)


@pytest.mark.parametrize("name", ["single_hill", "additive_hill"])
def test_columns_move_as_they_say(name: str, rng: np.random.Generator) -> None:
    """Movements between the ends of the axis, positions of the guides, and a prior of mass 1."""
    p = replace(_problem(np.zeros((1, 10)), rng), several=name == "additive_hill")
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
        start, _ = start_at(q, null_of(q, taus), taus, np.zeros(len(q.counts), int))
        found.append(log_ratios(q, start, columns.positions)[0])
    np.testing.assert_array_equal(found[0][17], found[1][0])


GRID = np.array(TransPriors().tau_grid)
PRIOR = learned.Prior(np.array([0.8, 0.2]), np.log(0.06), 0.9)


def _weak(rng: np.random.Generator, n: int, level_error: float = 0.0) -> Problem:
    """Weak responses, a tenth of the dosage's."""
    p = _problem(rng.normal(-1, 1, (n, 1)) + 0.1 * DOSES, rng, 0.05, spread=0.2)
    return replace(p, level_error=level_error)


def _set_up(p: Problem) -> tuple[Columns, Lattice, tuple[np.ndarray, np.ndarray]]:
    """The first pass's curves, the lattice and the log masses of shapes and taus on all of it."""
    kind = curve("single_hill")
    c = compare(p, [curve("null"), kind], GRID, 6)
    lattice, taus = c.lattices["single_hill"], np.repeat(GRID[None], len(p.counts), 0)
    log_z = evidence(p, kind, lattice.shapes[None], lattice.consts[None], taus)[0]
    log_post = log_z + lattice.log_weight[:, None] + PRIOR.log_tau(GRID)
    assert c.columns is not None
    return c.columns["single_hill"], lattice, (logsumexp(log_post, axis=2), logsumexp(log_post, axis=1))


def test_quick_draws_agree_with_the_engine(rng: np.random.Generator) -> None:
    """Medians and ends of 95 % intervals, in widths of the intervals from importance-sampled draws."""
    p, kind = _weak(rng, 24), curve("single_hill")
    columns, lattice, masses = _set_up(p)
    full = draws(p, kind, (lattice.shapes, lattice.consts), *masses, GRID, PRIOR, n=2000, seed=0)
    table = table_of(p, curve("single_hill"), lattice.shapes, columns, 0)
    looked = quick_draws(p, columns, table, (np.log(GRID), masses[1]), 0)
    like, said = p.likelihood, what_is_said(table, kind, AXIS, p.likelihood.unit)
    want = summary.summarise(full.params, kind, full.consts, AXIS, like)
    got = summary.summarise_said(looked.draws.params, kind, said, looked.column, looked.place, AXIS, like)
    assert np.isnan(looked.draws.pareto_k).all()
    np.testing.assert_allclose(looked.draws.tau, full.tau, rtol=0.5)
    for name in ("log2_ec50", "log2fc_full", "log2fc_half", "log2fc_max"):
        width = want[f"{name}_q975"] - want[f"{name}_q025"]
        assert 0.85 < np.median((got[f"{name}_q975"] - got[f"{name}_q025"]) / width) < 1.15, name
        assert np.median(np.abs(got[name] - want[name]) / width) < 0.05, name
        for end in ("_q025", "_q975"):
            # the table's EC50s end 2.75 log2 beyond the axis, where the priors' tails are
            most = 0.2 if name == "log2_ec50" else 0.1
            assert np.median(np.abs(got[name + end] - want[name + end]) / width) < most, name + end
    np.testing.assert_allclose(got["baseline"], want["baseline"], rtol=0.05)
    assert np.mean(got["class"] == want["class"]) >= 0.8


def test_what_is_looked_up_is_what_the_draws_say(rng: np.random.Generator) -> None:
    """Columns from the table, and from the parameters of the same draws."""
    p, kind = _weak(rng, 5, level_error=0.1), curve("single_hill")
    columns, lattice, masses = _set_up(p)
    table = shifted(table_of(p, curve("single_hill"), lattice.shapes, columns, 0))
    looked = quick_draws(p, columns, table, (np.log(GRID), masses[1]), 0)
    params, like = looked.draws.params, p.likelihood
    said = what_is_said(table, kind, AXIS, like.unit)
    got = summary.summarise_said(params, kind, said, looked.column, looked.place, AXIS, like)
    want = summary.summarise(params, kind, looked.draws.consts, AXIS, like)
    assert got.keys() == want.keys()
    for name in want:
        if name.startswith(("log2", "hill", "amplitude", "baseline", "p_ec50")):
            np.testing.assert_allclose(got[name], want[name], rtol=1e-9, atol=1e-9, err_msg=name)
    # of the first place in each cell alone
    np.testing.assert_allclose(got["slope_ntc"], want["slope_ntc"], atol=0.1)


def test_places_are_within_their_cells(rng: np.random.Generator) -> None:
    p = _weak(rng, 2, level_error=0.2)
    columns, lattice, _ = _set_up(p)
    table = table_of(p, curve("single_hill"), lattice.shapes, columns, 3)
    base = lattice.shapes[columns.shape]
    steps = np.array([np.diff(np.unique(axis)).min() for axis in lattice.shapes.T])
    assert (np.abs(table.params[..., 1:] - base[:, None]) <= 0.5 * steps + 1e-9).all()
    assert sorted(table.order) == list(range(len(base)))
    ends = curve("single_hill").log_curve(
        np.array([AXIS.low, AXIS.high]), np.pad(table.params, ((0, 0), (0, 0), (1, 0))), np.zeros(2)
    )
    ratio = (ends[..., 1] - ends[..., 0]) / columns.move
    moves = curve("single_hill").moves
    cell = (moves[1] / moves[0]) ** 0.5
    assert ((ratio > 0.999 / cell) & (ratio < 1.001 * cell)).mean() > 0.99  # but where a place cannot move so far
    np.testing.assert_allclose(table.error.mean(), 0.0, atol=1e-12)
    moved = shifted(table).params - table.params
    np.testing.assert_allclose(moved[..., 1], np.tile(table.error, (len(base), 1)), atol=1e-12)
    assert 0.8 < table.error.std() / 0.2 < 1.0


def test_a_block_does_not_change_quick_draws(rng: np.random.Generator) -> None:
    p = _weak(rng, 20)
    columns, lattice, masses = _set_up(p)
    table = table_of(p, curve("single_hill"), lattice.shapes, columns, 0)
    together = quick_draws(p, columns, table, (np.log(GRID), masses[1]), 0)
    alone = quick_draws(p.take([17]), columns, table, (np.log(GRID), masses[1][[17]]), 0)
    np.testing.assert_array_equal(together.draws.params[17], alone.draws.params[0])
    other = quick_draws(p, columns, table, (np.log(GRID), masses[1]), 1)
    assert (other.draws.params != together.draws.params).any()
