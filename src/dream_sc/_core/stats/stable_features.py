"""Features that do not follow the perturbation: those that differ least between guides, beyond the noise of counts.

A guide whose cells hold more of many features has a larger total, and every other feature seems to fall in it. So the
offset of each guide and the features that bear it out are found together, as the half of the features that agree best
on one offset per guide: least trimmed squares, by concentration steps :cite:p:`Rousseeuw2006` from several starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.parallel import blocks
from dream_sc._core.response.guide_offsets import MIN_EXPECTED, MIN_FEATURES, SHIFT_SD, weighted_median

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

N_SEARCH = 2000  # features of most counts that offsets are looked for with
STARTS = (0.1, 0.3, 0.5, 0.7, 0.9)  # quantiles of the features along the direction in which guides differ most
START_WIDTH = 0.15
N_STEPS = 10
WINDOW = 50  # features of similar mean, of which half are kept


@dataclass(frozen=True)
class GroupSums:
    """Sums over the cells of each guide, or of each target."""

    counts: Floats  # (T, G)
    exposure: Floats  # (G,) sum of size factors
    exposure2: Floats  # (G,) sum of their squares
    overdispersion2: Floats  # (T,) squared, of cells of one guide

    def take(self, features: Mask | NDArray[np.int64]) -> GroupSums:
        """Those of some features."""
        return GroupSums(self.counts[features], self.exposure, self.exposure2, self.overdispersion2[features])


def overdispersion2(counts: Floats, weighted: Floats, squares: Floats, exposure: Floats, exposure2: Floats) -> Floats:
    """Squared overdispersion of each feature among cells of one guide, by moments.

    Parameters
    ----------
    counts, weighted
        ``(T, G)`` sums of the counts, and of counts times size factors.
    squares
        ``(T,)`` sum of the squared counts of all these cells.
    exposure, exposure2
        ``(G,)`` sums of the size factors and of their squares.
    """
    rate = counts / exposure
    expected2 = rate**2 @ exposure2
    residual = squares - 2 * (rate * weighted).sum(1) + expected2
    found = (residual - counts.sum(1)) / np.maximum(expected2, 1e-300)
    return np.asarray(np.maximum(found, 0.0))


def stable_features(sums: GroupSums, mean: Floats) -> Mask:
    """The half of the features ``(T,)``, within windows of similar `mean`, that differ least between guides."""
    searched = np.sort(np.argsort(mean, kind="stable")[::-1][:N_SEARCH])
    part = sums.take(searched)
    windows = _windows(mean[searched])
    best, least = np.zeros(len(sums.exposure)), np.inf
    for start in _starts(part):
        offset, kept = start, np.zeros(0, dtype=bool)
        for _ in range(N_STEPS):
            q = differences(part, offset)
            before, kept = kept, _lowest(q, windows)
            if np.array_equal(before, kept):
                break
            offset = _offset(part.take(kept))
        if q[kept].sum() < least:
            best, least = offset, float(q[kept].sum())
    return lowest_half(differences(sums, best), mean)


def differences(sums: GroupSums, offset: Floats) -> Floats:
    """How much each feature differs between guides at given offsets (natural log): Pearson's X^2 over its noise.

    The noise is that of counts, with a shift of sd 0.1 of each guide, so that features of many counts are not left out
    for what every feature does.
    """
    exposure, scale2 = sums.exposure * np.exp(offset), sums.exposure2 / sums.exposure**2
    out = np.empty(len(sums.counts))
    for some in blocks(len(out)):
        counts = sums.counts[some]
        expected = np.maximum((counts.sum(1) / exposure.sum())[:, None] * exposure, 1e-12)
        extra = sums.overdispersion2[some, None] * scale2 + SHIFT_SD**2
        out[some] = ((counts - expected) ** 2 / (expected + extra * expected**2)).sum(1)
    return out


def _log_ratios(sums: GroupSums) -> tuple[Floats, Floats]:
    """Log of observed over expected counts of each feature in each guide, and their weights; 0 where too few."""
    rate = sums.counts.sum(1) / sums.exposure.sum()
    expected = rate[:, None] * sums.exposure
    extra = sums.overdispersion2[:, None] * sums.exposure2 / sums.exposure**2 + SHIFT_SD**2
    ratio = np.log((sums.counts + 0.5) / (expected + 0.5))
    noise = 1.0 / np.maximum(np.maximum(expected, sums.counts), 0.5) + extra
    return ratio, np.where(expected >= MIN_EXPECTED, 1.0 / noise, 0.0)


def _offset(sums: GroupSums) -> Floats:
    """Offset of each guide: the weighted median of the log ratios, or the ratio of totals where these are too few."""
    ratio, weight = _log_ratios(sums)
    total = np.log((sums.counts.sum(0) + 0.5) / (sums.exposure / sums.exposure.sum() * sums.counts.sum() + 0.5))
    enough = (weight > 0).sum(0) >= min(MIN_FEATURES, len(ratio))
    if enough.any():
        total[enough] = weighted_median(ratio[:, enough], weight[:, enough])
    return np.asarray(total)


def _starts(sums: GroupSums) -> Iterator[Floats]:
    """Offsets to start from: of all features, and of runs of them along the direction in which guides differ most."""
    yield _offset(sums)
    ratio, weight = _log_ratios(sums)
    centred = np.where(weight > 0, ratio - np.average(ratio, axis=1, weights=weight + 1e-12)[:, None], 0.0)
    _, _, direction = np.linalg.svd(centred * np.sqrt(weight.mean(1, keepdims=True)), full_matrices=False)
    order = np.argsort(centred @ direction[0], kind="stable")
    for place in STARTS:
        low, high = (int(np.clip(place + d, 0, 1) * len(order)) for d in (-START_WIDTH, START_WIDTH))
        yield _offset(sums.take(np.sort(order[low : max(high, low + 1)])))


def lowest_half(values: Floats, mean: Floats) -> Mask:
    """The features ``(T,)`` with the lower half of the values, within windows of similar `mean`."""
    return _lowest(values, _windows(mean))


def _windows(mean: Floats) -> list[NDArray[np.int64]]:
    """Features in windows of similar mean."""
    order = np.argsort(mean, kind="stable")
    size = max(min(WINDOW, len(order) // 2), 1)
    return np.array_split(order, max(len(order) // size, 1))


def _lowest(values: Floats, windows: list[NDArray[np.int64]]) -> Mask:
    """The lower half of every window."""
    out = np.zeros(len(values), dtype=bool)
    for window in windows:
        out[window[values[window] <= np.median(values[window])]] = True
    return out
