"""Sums over the cells of each row: of pairs (numerator, denominator), and of scores with missing values.

Each takes blocks of cells x features. Sums of counts are exact; those of scores run in the order of cells whatever the
block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


LOG_CHANCE = float(np.log(1e-4))  # of a group without a category, below which it is structural
MOST_STEPS, SMALL_STEP = 100, 1e-6  # of the EM of a location, in scales


@dataclass(frozen=True)
class PairStats:
    """Sums of `S` sticks over the cells of `R` rows."""

    numerator: Floats  # (S, R) sum of y
    denominator: Floats  # (S, R) sum of n
    pairs: Floats  # (S, R) sum of n (n - 1)


@dataclass(frozen=True)
class ScoreStats:
    """Sums of `T` features over the cells of `R` rows; scores are taken relative to the feature's mean over all."""

    n_cells: Floats  # (T, R) with a score
    total: Floats  # (T, R) sum of y - centre
    squares: Floats  # (T, R) sum of (y - centre)^2
    centre: Floats  # (T,) NaN where no cell has a score

    @property
    def mean(self) -> Floats:
        """``(T, R)``, NaN where a row has no score."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.centre[:, None] + self.total / self.n_cells


def structural_zeros(y: Floats, n: Floats) -> NDArray[np.bool_]:
    """Groups ``(S, C)`` in which a stick has none of its reads, or all, and chance cannot be why.

    By the share in the other groups: where a few reads happen to be of one category, a group says what it can.
    """
    rest = np.maximum(n.sum(1, keepdims=True) - n, 0.0)
    share = np.divide(y.sum(1, keepdims=True) - y, rest, out=np.full(y.shape, 0.5), where=rest > 0)
    with np.errstate(divide="ignore"):
        log_none, log_all = n * np.log1p(-np.clip(share, 0.0, 1.0)), n * np.log(np.clip(share, 0.0, 1.0))
    log_chance = np.where(y <= 0, log_none, np.where(y >= n, log_all, 0.0))
    return np.asarray((n > 0) & (rest > 0) & (log_chance < LOG_CHANCE))


def indicator(row: Ints, n_rows: int) -> Any:
    """Which cell is in which row: csr ``(N, R)``; a cell with row -1 is in none."""
    used = row >= 0
    indptr = np.concatenate([[0], np.cumsum(used)])
    return sparse.csr_matrix((np.ones(int(used.sum())), row[used], indptr), (len(row), n_rows))


def pair_sums(blocks: Iterable[tuple[slice, Any, Any]], row: Ints, n_rows: int, n_sticks: int) -> PairStats:
    """Sum blocks of sparse ``(N, sticks)`` matrices of y and n over the cells of each row."""
    within = indicator(row, n_rows)
    numerator, denominator, doubles = (np.zeros((n_sticks, n_rows)) for _ in range(3))
    for part, y, n in blocks:
        twice = n.copy()
        twice.data = twice.data * (twice.data - 1.0)
        for sums, x in ((numerator, y), (denominator, n), (doubles, twice)):
            sums[part] = (x.T.tocsr() @ within).toarray()
    return PairStats(numerator, denominator, doubles)


def robust_means(
    blocks: Iterable[tuple[slice, Floats]], row: Ints, n_rows: int, centre: Floats, sigma: Floats, nu: float = 3.0
) -> tuple[Floats, Floats]:
    """Locations ``(T, R)`` of Student t scores of known scale `sigma` ``(T,)`` in each row, and their precisions.

    By EM from the mean of scores no further than three scales from `centre` ``(T,)``; each feature stops by itself. The
    precision is the expected information of the scores, 0 where a row has none.
    """
    within = indicator(row, n_rows).T.tocsr()
    used = row >= 0
    within, row = within[:, used], row[used]
    mean, precision = (np.zeros((len(sigma), n_rows)) for _ in range(2))
    for part, scores in blocks:
        x = (scores[used] - centre[part]) / sigma[part]
        seen = np.isfinite(x)
        x = np.where(seen, x, 0.0)
        n = within @ seen.astype(np.float64)
        at = (within @ np.clip(x, -3.0, 3.0)) / np.maximum(n, 1.0)
        going = np.arange(x.shape[1])
        for _ in range(MOST_STEPS):
            v, before = x[:, going], at[:, going]
            weight = np.where(seen[:, going], (nu + 1) / (nu + (v - before[row]) ** 2), 0.0)
            new = (within @ (weight * v)) / np.maximum(within @ weight, 1e-300)
            at[:, going] = new
            going = going[np.abs(new - before).max(0, initial=0.0) > SMALL_STEP]
            if not len(going):
                break
        mean[part] = (centre[part] + at * sigma[part]).T
        precision[part] = (n * (nu + 1) / (nu + 3) / sigma[part] ** 2).T
    return mean, precision


def score_sums(blocks: Iterable[tuple[slice, Floats]], row: Ints, n_rows: int, n_features: int) -> ScoreStats:
    """Sum blocks of dense ``(N, features)`` scores, NaN where missing, over the cells of each row."""
    within = indicator(row, n_rows).T.tocsr()
    every = sparse.csr_matrix((row >= 0).astype(np.float64))
    n_cells, total, squares = (np.zeros((n_features, n_rows)) for _ in range(3))
    centre = np.full(n_features, np.nan)
    for part, scores in blocks:
        seen = np.isfinite(scores).astype(np.float64)
        values = np.where(seen > 0, scores, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            centre[part] = ((every @ values) / (every @ seen)).ravel()
        values = (values - np.nan_to_num(centre[part])) * seen
        for sums, x in zip((n_cells, total, squares), (seen, values, values**2), strict=True):
            sums[part] = (within @ x).T
    return ScoreStats(n_cells, total, squares, centre)
