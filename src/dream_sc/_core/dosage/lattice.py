"""Log likelihood of a guide's mean log2 dosage on a lattice, its cells integrated over their spread.

The density of each count is computed once at the points of the lattice. A spread between cells is then a convolution
along it, so that the likelihood at many means and spreads is a product of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.linalg import toeplitz

from dream_sc._core.curves import LN2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SPREADS = np.geomspace(0.03, 2.4, 15)  # log2, between the cells of a guide
LOW = -16.0  # log2: one count in 65,000 expected; no guide is looked for below
MARGIN = 3.0  # log2 above the largest ratio of a guide's counts to those expected
STEP, LEAST_STEP = 0.125, 0.02  # log2
SHARPNESS = 0.7  # steps per sd of the sharpest density of one count
REACH = 4.5  # sds of a spread
STRIDE, COARSE, ROUND = 2, 4, 16  # points of the lattice from one mean to the next, in a first look, widths
WINDOW, FINE_WINDOW = 30.0, 18.0  # natural log below the largest value, where a guide's mean is looked for
N_FINE = 121  # points on which a guide's mean is integrated
EVEN = 0.4  # of them are spread evenly
LEAST_EXTRA, EXTRA_RATIO = 1e-3, 0.35  # log2^2; log2: variances from other guides that are taken for the same
CELLS = 1024  # at a time
FACTORS = 4  # densities multiplied before the logarithm is taken
LEAST_DENSITY = 1e-70  # so that their product is a number


@dataclass(frozen=True)
class Lattice:
    """Points of log2 dosage and the weights by which a spread reaches to the points beside."""

    z: Floats  # (Z,) the reach of the largest spread beyond what is looked for at both ends
    step: float
    phi: float
    spreads: Floats  # (S,)
    inside: slice  # points at which the mean of a guide is looked for
    bands: dict[tuple[float, int, int], Floats] = field(default_factory=dict)  # made once for guides of equal width

    def band(self, sd: float, n: int, stride: int) -> Floats:
        """Weights ``(n + 2 r, X)`` of the points for each of the means, `r` the reach of a normal of this sd."""
        if (key := (sd, n, stride)) not in self.bands:
            kernel = self.kernel(sd)
            r, row = len(kernel) // 2, np.zeros(n)
            column = np.zeros(n + 2 * r)
            column[: 2 * r + 1], row[0] = kernel, kernel[0]
            self.bands[key] = np.ascontiguousarray(toeplitz(column, row)[:, ::stride])
        return self.bands[key]

    def kernel(self, sd: float) -> Floats:
        """Weights ``(2 r + 1,)`` of the points up to `r` steps away under a normal of this sd."""
        ratio = sd / self.step
        if ratio < 0.75:  # the same moments up to the fourth on five points: the density is smooth on this scale
            outer = (3 * ratio**4 - ratio**2) / 24
            inner = ratio**2 / 2 - 4 * outer
            return np.array([outer, inner, 1 - 2 * inner - 2 * outer, inner, outer])
        r = int(np.ceil(REACH * ratio))
        weights = np.exp(-0.5 * (np.arange(-r, r + 1) / ratio) ** 2)
        return np.asarray(weights / weights.sum())


def lattice(
    counts: Floats, exposure: Floats, guide: NDArray[np.int64], phi: float, spreads: Floats = SPREADS
) -> Lattice:
    """The lattice for these cells; its step follows the sharpest density of a count."""
    most = float(max(counts.max(initial=0.0), 1.0))
    sharpest = ((most + phi) / (most * phi)) ** 0.5 / LN2
    step = float(np.clip(SHARPNESS * sharpest, LEAST_STEP, STEP))
    total, expected = np.bincount(guide, counts), np.bincount(guide, exposure)
    ratio = (total + 1.0)[expected > 0] / expected[expected > 0]
    high = max(float(np.log2(ratio.max(initial=1.0))), 0.0) + MARGIN
    pad = int(np.ceil(REACH * max(spreads.max(), 1.0) / step)) + 3
    n = int(np.ceil((high - LOW) / step / COARSE)) * COARSE + 1
    z = np.asarray(LOW + step * np.arange(-pad, n + pad), dtype=np.float64)
    return Lattice(z, step, phi, spreads, slice(pad, pad + n))


def log_density(lat: Lattice, y: Floats, e: Floats, at: Floats, floor: Floats | None = None) -> Floats:
    """Log density ``(N, X)`` of each count at each log2 dosage, less its terms without a mean.

    `floor` ``(N,)``: ambient counts expected beside those of the cell itself.
    """
    ratio = (e / lat.phi)[:, None] * np.exp2(at)
    if floor is not None:
        ratio += (floor / lat.phi)[:, None]
    out = np.log(ratio)
    out *= y[:, None]
    np.log1p(ratio, out=ratio)
    ratio *= (y + lat.phi)[:, None]
    out -= ratio
    return np.asarray(out)


@dataclass(frozen=True)
class Guide:
    """Counts of a guide's cells, and what else moves their dosage."""

    counts: Floats  # (N,)
    exposure: Floats  # (N,) expected at log2 dosage 0
    extra: Floats | None = None  # (N,) variance of each cell beside the spread, of other guides of its
    offset: float = 0.0  # log2, in the exposure of all its cells
    known: tuple[float, float] | None = None  # mean and sd of what is known of its mean before
    floor: Floats | None = None  # (N,) ambient counts expected beside those of the cell itself, of cells with one guide

    def parts(self) -> list[tuple[Floats, Floats, float]]:
        """Cells with the same variance beside the spread."""
        if self.extra is None:
            return [(self.counts, self.exposure, 0.0)]
        code = np.round(np.log2(self.extra + LEAST_EXTRA) / EXTRA_RATIO).astype(np.int64)
        each = [code == c for c in np.unique(code)]
        return [(self.counts[i], self.exposure[i], float(self.extra[i].mean())) for i in each]


def log_likelihood(
    lat: Lattice, guide: Guide, points: slice, stride: int, spreads: Floats, shares: Floats, level: float
) -> Floats:
    """Log likelihood ``(X, S, K)`` of the mean at some points of the lattice.

    Parameters
    ----------
    points, stride
        Which of the lattice, and every how many of these.
    spreads
        ``(S,)`` between cells.
    shares
        ``(K,)`` of the cells that are at `level`, whatever the guide's mean.
    """
    n = len(range(*points.indices(len(lat.z))))
    out = np.zeros((len(range(0, n, stride)), len(spreads), len(shares)))
    for y, e, extra in guide.parts():
        bands = [lat.band(float((s * s + extra) ** 0.5), n, stride) for s in spreads]
        reach = (max(len(b) for b in bands) - n) // 2
        first, last = max(points.start - reach, 0), min(points.stop + reach, len(lat.z))
        placed = [_placed(b, points.start - first - (len(b) - n) // 2, last - first) for b in bands]
        at = np.append(lat.z[first:last], level)
        for some in range(0, len(y), CELLS):
            floor = None if guide.floor is None else guide.floor[some : some + CELLS]
            log_p = log_density(lat, y[some : some + CELLS], e[some : some + CELLS], at, floor)
            top = log_p.max(1, keepdims=True)
            p = np.exp(log_p - top)
            for j, (low, band) in enumerate(placed):
                acting = np.maximum(p[:, low : low + len(band)] @ band, LEAST_DENSITY)
                for k, share in enumerate(shares):
                    both = acting if share == 0 else (1 - share) * acting + share * p[:, -1:]
                    out[:, j, k] += _sum_of_logs(both)
            out += top.sum()
    return out


def _placed(band: Floats, low: int, length: int) -> tuple[int, Floats]:
    """First point of `length` that a spread reaches, and the weights from there on; what is beyond is cut off."""
    return max(low, 0), band[max(-low, 0) : length - low]


def _sum_of_logs(values: Floats) -> Floats:
    """Sum of the logs along the first axis, by logs of products."""
    n = len(values) // FACTORS * FACTORS
    product = values[:n:FACTORS].copy()
    for i in range(1, FACTORS):
        product *= values[i:n:FACTORS]
    return np.asarray(np.log(product).sum(0) + np.log(values[n:]).sum(0))


def look(lat: Lattice, guide: Guide, shares: Floats, level: float) -> slice:
    """Points of the lattice where the likelihood of the guide's mean is not negligible."""
    some = np.array([lat.spreads[0], 1.0])
    value = log_likelihood(lat, guide, lat.inside, COARSE, some, shares, level)
    near = (value > value.max((0, 1)) - WINDOW).any((1, 2))
    if guide.known is not None:
        at = lat.z[lat.inside][::COARSE]
        near |= np.abs(at - guide.known[0]) < REACH * guide.known[1] + COARSE * lat.step
    kept = np.flatnonzero(near)
    first = lat.inside.start + COARSE * max(kept[0] - 1, 0)
    n = COARSE * (kept[-1] + 2 - max(kept[0] - 1, 0))
    n = -(-n // ROUND) * ROUND + 1  # few widths, so that bands are shared
    return slice(first, min(first + n, lat.inside.stop))


def fine(
    lat: Lattice, points: slice, value: Floats, log_prior: Floats, known: tuple[float, float] | None = None
) -> tuple[Floats, Floats]:
    """Means ``(N_FINE,)``, and the log likelihood ``(N_FINE, S, K)`` at each with the log of the width it stands for.

    The values between the points of the lattice are those of a spline, one for each spread and share: each of these
    is smooth, their sum is not. Points are close where means are likely by `log_prior` ``(S, K)`` and what is `known`
    of them; means far less likely than the best are left out.
    """

    def best(x: Floats) -> Floats:
        """Log of the best likelihood ``(1 or 2, X)``, without and with what is known, each against its largest."""
        out = (spline(x) + log_prior).max((1, 2))[None]
        if known is not None:
            out = np.concatenate([out, out - 0.5 * ((x - known[0]) / known[1]) ** 2])
        return np.asarray(out - out.max(1, keepdims=True))

    z = lat.z[points][::STRIDE]
    spline = CubicSpline(z, value)
    x = np.linspace(z[0], z[-1], 8 * (len(z) - 1) + 1)
    kept = np.flatnonzero((best(x) > -FINE_WINDOW).any(0))
    low, high = x[max(kept[0] - 1, 0)], x[min(kept[-1] + 1, len(x) - 1)]
    x = np.linspace(low, high, 4 * N_FINE)
    wide = np.exp(0.5 * best(x))  # wider than the likelihood
    density = EVEN / len(x) + (1 - EVEN) * (wide / wide.sum(1, keepdims=True)).mean(0)
    reached = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    x = np.interp(np.linspace(0, reached[-1], N_FINE), reached, x)
    return x, np.asarray(spline(x) + np.log(np.diff(edges(x[None])[0]))[:, None, None])


def edges(x: Floats) -> Floats:
    """Ends ``(G, X + 1)`` of the intervals that points ``(G, X)`` stand for."""
    return np.concatenate([x[:, :1], 0.5 * (x[:, 1:] + x[:, :-1]), x[:, -1:]], 1)
