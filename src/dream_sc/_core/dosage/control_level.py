"""The level of the cis gene in control cells: the joint likelihood of the NTC guides, each with an effect of its own.

Few counts have no useful log ratio, so none is averaged: the effect of each NTC guide is integrated at every level and
sd of the effects.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp

from dream_sc._core.curves import LN2

from .lattice import log_density

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import CisPriors
    from dream_sc._core.types import CisCells

    from .lattice import Lattice

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SDS = np.geomspace(0.01, 0.64, 12)  # log2, of the effects
ENOUGH = 100.0  # counts of an NTC guide from which on its likelihood is taken for normal
N_LEVELS, LEVEL_SDS = 41, 6.0
LEAST_LEVEL = -5.0  # log2, of controls whose counts are about all ambient
WIDE = 0.3  # log2: sd of the effects that the range of levels allows for
NODES, _RAW = np.polynomial.hermite_e.hermegauss(17)
WEIGHTS = _RAW / _RAW.sum()
CELLS = 4096


class ControlLevel(NamedTuple):
    """Posterior of the level and of the NTC guides' effects around it, log2."""

    level: float
    error: float  # sd of the level
    sd: float  # of the effects
    mean: Floats  # (C,) effect of each NTC guide
    var: Floats  # (C,)


class _Likelihood(NamedTuple):
    """Log likelihood of the level of each NTC guide: normal ones, and curves of those with few counts."""

    few: NDArray[np.bool_]  # (C,)
    mode: Floats  # (C - F,) of the others
    var: Floats  # (C - F,)
    curves: CubicSpline[np.float64]  # of F guides

    def levels(self, levels: Floats, sd: float) -> Floats:
        """Log likelihood ``(L,)`` of levels, effects of this sd integrated."""
        v = self.var + sd**2
        out = -0.5 * (np.log(v) + (levels[:, None] - self.mode) ** 2 / v).sum(1)
        if self.few.any():
            at = self.curves(levels[:, None] + sd * NODES)
            out += logsumexp(at, axis=1, b=WEIGHTS[:, None]).sum(1)
        return np.asarray(out)

    def effects(self, level: float, sd: float) -> tuple[Floats, Floats]:
        """Mean and mean square ``(C,)`` of the guides' effects."""
        mean, square = np.zeros((2, len(self.few)))
        shrink = sd**2 / (sd**2 + self.var)
        mean[~self.few] = shrink * (self.mode - level)
        square[~self.few] = mean[~self.few] ** 2 + shrink * self.var
        if self.few.any():
            at = self.curves(level + sd * NODES)
            weight = np.exp(at - at.max(0)) * WEIGHTS[:, None]
            weight /= weight.sum(0)
            mean[self.few], square[self.few] = (sd * NODES) @ weight, (sd * NODES) ** 2 @ weight
        return mean, square


def control_level(lat: Lattice, cells: CisCells, priors: CisPriors) -> ControlLevel:
    """Level of the NTC guides from all counts of their cells.

    Ambient counts are a part of what is expected of these cells; the rest then moves by so much more.
    """
    if cells.floor is None:
        return _of_all_counts(lat, cells, priors)
    use = np.append(cells.is_control, np.zeros(len(cells.sets), dtype=bool))[cells.guide]
    found = _of_all_counts(lat, replace(cells, exposure=cells.exposure + cells.floor, floor=None), priors)
    more = 1.0 + float(cells.floor[use].sum() / cells.exposure[use].sum())
    level = float(np.log2(max(more * 2.0**found.level - (more - 1.0), 2.0**LEAST_LEVEL)))
    return ControlLevel(level, more * found.error, more * found.sd, more * found.mean, more**2 * found.var)


def _of_all_counts(lat: Lattice, cells: CisCells, priors: CisPriors) -> ControlLevel:
    controls = np.flatnonzero(cells.is_control)
    use = np.append(cells.is_control, np.zeros(len(cells.sets), dtype=bool))[cells.guide]
    code, n = np.searchsorted(controls, cells.guide[use]), len(controls)
    y, e = cells.counts[use].astype(float), cells.exposure[use].astype(float)
    centre, var = (float(a[0]) for a in _modes(lat, y, e, np.zeros(len(y), dtype=np.int64), 1))
    # one label is one effect: nothing tells its sd
    sds = SDS if n > 1 else np.array([priors.control_sd_scale / 2])
    half = LEVEL_SDS * (var + max(WIDE, sds[0]) ** 2 / n) ** 0.5
    levels = centre + np.linspace(-half, half, N_LEVELS)
    found = _likelihood(lat, y, e, code, n, levels, sds)
    log_prior = -0.5 * (sds / priors.control_sd_scale) ** 2 + np.log(sds)
    value = np.stack([found.levels(levels, float(s)) for s in sds], 1) + log_prior
    p = np.exp(value - logsumexp(value))
    level = float(p.sum(1) @ levels)
    error = float((p.sum(1) @ (levels - level) ** 2) ** 0.5)
    moments = np.array([found.effects(level, float(s)) for s in sds])
    mean, square = np.einsum("s,skc->kc", p.sum(0), moments)
    return ControlLevel(level, error, float(p.sum(0) @ sds), mean, square - mean**2)


def _likelihood(lat: Lattice, y: Floats, e: Floats, code: Ints, n: int, levels: Floats, sds: Floats) -> _Likelihood:
    """The likelihoods of the NTC guides: those with counts enough are taken for normal."""
    few = np.bincount(code, y, n) < ENOUGH
    mode, var = _modes(lat, y, e, code, n)
    mine = few[code]
    of_few = (np.cumsum(few) - 1)[code[mine]]
    curves = _splines(lat, y[mine], e[mine], of_few, int(few.sum()), levels, sds)
    return _Likelihood(few, mode[~few], var[~few], curves)


def _modes(lat: Lattice, y: Floats, e: Floats, code: Ints, n: int) -> tuple[Floats, Floats]:
    """Mode and variance ``(n,)`` of each guide's level by its counts alone, by Newton's method."""
    total, expected = np.bincount(code, y, n), np.bincount(code, e, n)
    x = np.log2((total + 0.5) / (expected + 0.5))
    h = np.ones(n)
    for _ in range(30):
        m = e * np.exp2(x[code])
        q = m / (m + lat.phi)
        g = LN2 * np.bincount(code, y - (y + lat.phi) * q, n)
        h = np.maximum(LN2**2 * np.bincount(code, (y + lat.phi) * q * (1 - q), n), 1e-6)
        step = np.clip(g / h, -1.0, 1.0)
        x += step
        if np.abs(step[total > 0]).max(initial=0.0) < 1e-8:
            break
    return x, 1 / h


def _splines(
    lat: Lattice, y: Floats, e: Floats, code: Ints, n: int, levels: Floats, sds: Floats
) -> CubicSpline[np.float64]:
    """Log likelihood of the guides with few counts as functions of their level, one column each."""
    reach = float(sds[-1] * NODES[-1]) + 2 * lat.step
    z = np.arange(levels[0] - reach, levels[-1] + reach + lat.step, lat.step)
    value = np.zeros((len(z), n))
    for some in range(0, len(y), CELLS):
        part = slice(some, some + CELLS)
        log_p = log_density(lat, y[part], e[part], z)
        for i in range(len(z)):
            value[i] += np.bincount(code[part], log_p[:, i], n)
    return CubicSpline(z, value)
