"""Covariates of cells: bins of cells that are alike in them, and what they do to the exposure of rows of cells.

A cell's expected count has the factor ``exp(z b)``, `z` its covariates and `b` the feature's coefficients. Of a row of
cells it becomes the mean of that factor over the row's cells. Cells are put in bins within which `z` is the same or
nearly so; the mean over the bins then needs the share of each bin in each row, and is right for effects of any size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np

from .parallel import blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MOST_BINS = 256
MOST_DIRECTIONS, LEAST_SPREAD = 3, 0.1  # of the rows' mean covariates, in their unit
LEAST_ERROR = 1e-4  # of a coefficient
TOLERANCE = 1e-9  # of the norm of a column, below which what is left of it is rounding
EQUAL = 1e-18  # variance of points that are equal but for rounding
SMALL_SHARE = 1e-6  # of a column in the combination that makes another one


@dataclass(frozen=True)
class CovariateEffects:
    """Coefficients of `T` features, and what the cells of `R` rows are like: their shares of `K` bins of cells."""

    coefficients: Floats  # (T, Q) natural log per unit of the points
    points: Floats  # (K, Q) covariates of each bin
    shares: Floats  # (R, K) of the sum of size factors
    shares2: Floats  # (R, K) of the sum of their squares
    errors: Floats | None = None  # (T, Q) sds of the coefficients, None where they are known

    def take(self, features: Any) -> CovariateEffects:
        """Those of some features."""
        errors = None if self.errors is None else self.errors[features]
        return replace(self, coefficients=self.coefficients[features], errors=errors)

    def drawn(self, rng: np.random.Generator) -> CovariateEffects:
        """With coefficients drawn around these by their errors."""
        if self.errors is None:
            return self
        return replace(self, coefficients=self.coefficients + self.errors * rng.normal(size=self.errors.shape))

    def some_rows(self, rows: Any) -> CovariateEffects:
        """Those of some rows."""
        return replace(self, shares=self.shares[rows], shares2=self.shares2[rows])

    def _factors(self) -> tuple[Floats, Floats]:
        """Factor ``(T, K)`` of each bin over the feature's largest one, and the log ``(T, 1)`` of that."""
        log_factor = self.coefficients @ self.points.T
        top = log_factor.max(1, keepdims=True)
        return np.exp(log_factor - top), top

    def log_rows(self) -> Floats:
        """Log of the factor ``(T, R)`` that the covariates put on the exposure of each row."""
        factor, top = self._factors()
        return np.asarray(np.log(factor @ self.shares.T) + top)

    def log_total(self, exposure: Floats) -> Floats:
        """Log of the factor ``(T,)`` on the exposure ``(R,)`` of all rows together."""
        mean, out = exposure @ self.shares / exposure.sum(), np.empty(len(self.coefficients))
        for s in blocks(len(out)):
            factor, top = self.take(s)._factors()
            out[s] = np.log(factor @ mean) + top[:, 0]
        return out

    def uncertain(self, exposure: Floats) -> tuple[Floats, Floats]:
        """What the coefficients' errors may do to rows: loadings ``(R, D)`` and the covariance ``(T, D, D)`` of each.

        An error moves the log exposures of rows by their mean covariates times the error. Of these the `D` directions
        in which rows differ are kept; where guides are alike in their covariates there is none. `exposure` is ``(R,)``.
        """
        none = np.zeros((len(exposure), 0)), np.zeros((len(self.coefficients), 0, 0))
        if self.errors is None:
            return none
        weight, mean = exposure / exposure.sum(), self.shares @ self.points
        mean = mean - weight @ mean
        spread, ways = np.linalg.eigh((mean * weight[:, None]).T @ mean)
        keep = [i for i in reversed(range(len(spread))) if spread[i] > LEAST_SPREAD**2][:MOST_DIRECTIONS]
        if not keep:
            return none
        ways = ways[:, keep]
        ways = ways * np.sign(ways[np.abs(ways).argmax(0), np.arange(len(keep))])
        covariance = np.einsum("qd,tq,qe->tde", ways, np.maximum(self.errors, LEAST_ERROR) ** 2, ways)
        return np.ascontiguousarray(mean @ ways), covariance

    def leaning(self, sums: Floats, rows: Ints) -> Floats:
        """Sums ``(T, W)`` over bins of `sums` ``(W, K)`` times their factor, over the factor of `rows` ``(W,)``."""
        factor, _ = self._factors()
        return np.asarray(factor @ sums.T / (factor @ self.shares[rows].T))

    def noise(self, exposure: Floats) -> Floats:
        """Factor ``(T,)`` on the overdispersion, as cells of a row differ in what is expected of them.

        The squared overdispersion of a row is that of a cell times ``sum m_i^2 / (sum m_i)^2``, `m_i` expected of
        each cell. What covariates do to that sum is averaged over rows, weighted by their exposure ``(R,)``.
        """
        weight, out = exposure / exposure.sum(), np.empty(len(self.coefficients))
        for s in blocks(len(out)):
            factor, _ = self.take(s)._factors()
            out[s] = (factor**2 @ self.shares2.T / (factor @ self.shares.T) ** 2) @ weight
        return np.sqrt(out)


def alike(points: Floats, most: int) -> Ints:
    """Bin ``(N,)`` of each point ``(N, P)``: at most `most` bins, each of points that are as much alike as can be.

    The bin with the largest sum of squares along an axis is split at its mean along that axis, again and again. Points
    that take few values, as those of factors do, end in bins of equal ones. Axes have to be in comparable units.
    """
    members = [np.arange(len(points))]
    heap: list[tuple[float, int, int]] = []

    def enter(i: int) -> None:
        squares = points[members[i]].var(0) * len(members[i])
        axis = int(squares.argmax()) if squares.size else 0
        if squares.size and squares[axis] > EQUAL * len(members[i]):
            heappush(heap, (-float(squares[axis]), i, axis))

    enter(0)
    while heap and len(members) < most:
        _, i, axis = heappop(heap)
        cells = members[i]
        upper = points[cells, axis] > points[cells, axis].mean()
        if not upper.any():
            continue
        members[i] = cells[~upper]
        members.append(cells[upper])
        enter(i)
        enter(len(members) - 1)
    out = np.empty(len(points), dtype=np.int64)
    for i, cells in enumerate(members):
        out[cells] = i
    return out


def means(values: Floats, bins: Ints, n: int, weight: Floats) -> Floats:
    """Weighted means of the columns of `values` ``(N, Q)`` in each of `n` bins, ``(n, Q)``."""
    total = np.maximum(np.bincount(bins, weight, n), 1e-300)
    return np.stack([np.bincount(bins, weight * column, n) / total for column in values.T], 1)


def covariate_effects(
    coefficients: Floats,
    z: Floats,
    bins: Ints,
    row: Ints,
    n_rows: int,
    size_factor: Floats,
    errors: Floats | None = None,
) -> CovariateEffects:
    """What covariates do to rows of cells.

    Parameters
    ----------
    coefficients, errors
        ``(T, Q)`` natural log per unit of `z`, and their sds; NaN, of features without an estimate, counts as 0.
    z, bins, row, size_factor
        ``(N, Q)`` and ``(N,)`` of the cells: covariates, bin of alike ones (see `alike`), row, and size factor. Cells
        that take no part are left out.
    """
    one, two = (sums_by_bin(size_factor**k, bins, row, n_rows) for k in (1, 2))
    return CovariateEffects(
        np.nan_to_num(coefficients),
        means(z, bins, one.shape[1], size_factor),
        one / one.sum(1, keepdims=True),
        two / two.sum(1, keepdims=True),
        None if errors is None else np.nan_to_num(errors),
    )


def sums_by_bin(values: Floats, bins: Ints, row: Ints, n_rows: int) -> Floats:
    """Sums ``(R, K)`` of the cells' values ``(N,)`` by row and bin."""
    n_bins = int(bins.max()) + 1
    return np.bincount(row * n_bins + bins, values, n_rows * n_bins).reshape(n_rows, n_bins).astype(np.float64)


@dataclass(frozen=True)
class CellBins:
    """The cells of rows, sorted by their covariates into bins of alike ones."""

    used: NDArray[np.bool_]  # (N,)
    z: Floats  # (n used, Q) in sds
    bins: Ints  # (n used,)
    coefficients: Floats  # (T, Q) natural log per sd
    errors: Floats  # (T, Q)

    def effects(self, row: Ints, n_rows: int, size_factor: Floats) -> CovariateEffects:
        """What the covariates do to the exposure of rows of cells, given the row and size factor ``(N,)`` of each."""
        rows, s = row[self.used], size_factor[self.used]
        return covariate_effects(self.coefficients, self.z, self.bins, rows, n_rows, s, self.errors)

    def sums(self, values: Floats, row: Ints, n_rows: int) -> Floats:
        """Sums ``(R, K)`` of the cells' values ``(N,)`` by row and bin."""
        return sums_by_bin(values[self.used], self.bins, row[self.used], n_rows)


def dependent(design: Floats, names: list[str]) -> list[tuple[str, list[str]]]:
    """Columns of a design ``(N, P)`` that are combinations of the ones before them, each with the names of these."""
    kept: list[int] = []
    out = []
    scale = np.sqrt((design**2).mean(0))
    columns = design / np.where(scale > 0, scale, 1.0)
    for j in range(columns.shape[1]):
        before = columns[:, kept]
        weight = np.linalg.lstsq(before, columns[:, j], rcond=None)[0] if kept else np.zeros(0)
        rest = columns[:, j] - before @ weight
        if np.sqrt((rest**2).mean()) > 1e3 * TOLERANCE:
            kept.append(j)
        else:
            out.append((names[j], [names[i] for i, w in zip(kept, weight, strict=True) if abs(w) > SMALL_SHARE]))
    return out
