"""What was measured of features in two contexts or more, and the guides' levels that come out of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from .guide_levels import guide_levels
from .lattice_draws import lattice_curves, lattice_evidence, tables_of
from .pair_likelihood import Curves, Pair, log_likelihood
from .shapes import Shapes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import TransPriors
    from dream_sc._core.types import Axis

    from .guide_levels import Sums
    from .shapes import Dosages

    Floats = NDArray[np.float64]

ABOUT_CURVE = 0.2  # sd of a guide's level about its curve, in units of the priors


@dataclass(frozen=True)
class Measured:
    """Sums of `T` features in two contexts, the reference first, or in several; guides have the same numbers in all."""

    sums: tuple[Sums, ...]
    dosages: tuple[Dosages, ...]  # of the targeting guides, in their order
    targeting: NDArray[np.bool_]  # (G,)
    axis: Axis  # of all contexts together
    priors: TransPriors  # in the unit of the likelihood
    loadings: Floats | None = None  # (F, C, G) errors of dosages that go together; those of the NTC levels if None

    def take(self, features: Any) -> Measured:
        """Those of some features."""
        return self.with_sums(*(each.take(features) for each in self.sums))

    def with_sums(self, *sums: Sums) -> Measured:
        """The same guides at the same dosages with other sums; what rests on dosages alone is kept."""
        out = replace(self, sums=sums)
        for name in ("shapes", "lattice_curves"):
            out.__dict__[name] = getattr(self, name)
        return out

    def with_dosages(self, dosages: tuple[Dosages, ...], loadings: Floats) -> Measured:
        """The same guides at other dosages, with errors that go together ``(F, C, G)``; the axis stays."""
        out = replace(self, dosages=dosages, loadings=loadings)
        out.__dict__["shapes"] = self.shapes
        return out

    @cached_property
    def shapes(self) -> Shapes:
        """The curves over the axis."""
        return Shapes(self.axis, self.priors)

    @cached_property
    def lattice_curves(self) -> tuple[Floats, ...]:
        """The curves of the lattice ``(K N B, G)`` at the dosages of each context, of targeting guides."""
        return lattice_curves(self.shapes, self.dosages)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """Guides, targeting ones first."""
        return np.argsort(~self.targeting, kind="stable")

    @property
    def full(self) -> float:
        """Log2 dosage of the strongest effect that all contexts reach: of a knock-down, if there is one, or a dose."""
        ends = [d.at[:, 1] for d in self.dosages]
        low, high = max(float(e.min()) for e in ends), min(float(e.max()) for e in ends)
        return high if self.axis.from_zero or -low < high / 4 else low

    @property
    def n_targeting(self) -> int:
        """Number of targeting guides."""
        return int(self.targeting.sum())


@dataclass(frozen=True)
class Levels:
    """Levels of the guides, where they came from, and the sd of guide effects about which to look for curves."""

    pair: Pair
    level: Floats  # (T, C) that the levels of the guides are less
    base: tuple[Floats, ...]  # (T, R) of each context: predictor of the rows without levels
    tables: Floats  # (T, C, K, N, B) log likelihood of each context on the lattice
    start: Floats  # (T,)

    def without_tables(self) -> Levels:
        """The same without the tables, which are larger than all else."""
        return replace(self, tables=self.tables[:0].copy())


def levels_of(measured: Measured, taus: Floats, rho: float) -> Levels:
    """Levels of the guides, first about the level of all, then about the curves that these suggest."""
    shapes, usual = measured.shapes, np.full(len(measured.sums[0].overdispersion), np.exp(measured.priors.tau_log_mean))
    pair, level, base = _pair(measured, [None] * len(measured.sums), None)
    tables = tables_of(shapes, pair, usual, measured.lattice_curves)
    curves = _expected(measured, tables)
    pair, level, base = _pair(measured, curves, ABOUT_CURVE)
    start = _likeliest_tau(measured, pair, tables_of(shapes, pair, usual, measured.lattice_curves), taus, rho)
    return Levels(pair, level, base, tables_of(shapes, pair, start, measured.lattice_curves), start)


def _pair(measured: Measured, curves: list[Floats | None], sd: float | None) -> tuple[Pair, Floats, tuple[Floats, ...]]:
    """Levels of the guides about curves ``(T, G)`` of each context."""
    n, order, unit = measured.n_targeting, measured.order, measured.priors.unit
    mean, variance, base, level = [], [], [], []
    for sums, curve in zip(measured.sums, curves, strict=True):
        found, rest = guide_levels(sums, curve) if sd is None else guide_levels(sums, curve, sd)
        z, v = found.mean[:, order], found.variance[:, order]
        some = slice(n, None) if n < len(order) else slice(None)
        at = (z / v)[:, some].sum(1) / (1.0 / v)[:, some].sum(1)
        mean.append(z - at[:, None])
        variance.append(v)
        base.append(rest)
        level.append(at)
    level_sd = measured.priors.level_sd
    pair = Pair(np.stack(mean, 1), np.stack(variance, 1), measured.dosages, level_sd, unit, measured.loadings)
    return pair, np.stack(level, 1), tuple(base)


def _expected(measured: Measured, tables: Floats) -> list[Floats | None]:
    """Curves ``(T, G)`` of each context, averaged over the lattice, over no response, equal curves and free ones."""
    shapes, by_lattice = measured.shapes, lattice_evidence(measured.shapes, tables)
    share = softmax(by_lattice[:, [0, 1, 4]], axis=1)
    flat = tables.reshape(*tables.shape[:2], -1) + shapes.lattice.log_prior.reshape(-1)
    same = softmax(tables.sum(1).reshape(len(tables), -1) + shapes.lattice.log_prior.reshape(-1), axis=1)
    out: list[Floats | None] = []
    for c, f in enumerate(measured.lattice_curves):
        curve = share[:, 1:2] * (same @ f) + share[:, 2:] * (softmax(flat[:, c], axis=1) @ f)
        every = np.zeros((len(curve), len(measured.order)))
        every[:, measured.order[: measured.n_targeting]] = curve
        out.append(every)
    return out


def _likeliest_tau(measured: Measured, pair: Pair, tables: Floats, taus: Floats, rho: float) -> Floats:
    """The sd of guide effects ``(T,)`` that goes best with the best curves of the lattice."""
    shapes = measured.shapes
    best = (tables + shapes.lattice.log_prior).reshape(*tables.shape[:2], -1).argmax(-1)
    theta = shapes.lattice.theta.reshape(-1, 3)[best]
    found = [shapes.with_errors(theta[:, c], each) for c, each in enumerate(pair.dosages)]
    responds = (lattice_evidence(shapes, tables).max(1) > 0)[:, None, None, None]
    curves = Curves(*(np.stack([f[i] for f in found], 1)[:, None] * responds for i in range(3)))
    z = (np.log(taus) - measured.priors.tau_log_mean) / measured.priors.tau_log_sd
    return np.asarray(taus[(log_likelihood(pair, curves, taus, rho)[:, 0] - 0.5 * z**2).argmax(1)])
