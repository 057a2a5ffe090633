"""Overdispersion where control cells do not tell it: features without counts there, and those with wild cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.sums import capped
    from dream_sc._core.types import GuideStats

    from .prepare import Technical

    Ints = NDArray[np.int64]

SILENT_COUNT = 30  # of a feature that control cells say nothing of
NEIGHBOURS = 50  # features of similar mean, whose overdispersion it gets


def without_wild(technical: Technical, bounds: capped.Bounds | None, n_capped: Ints | None) -> Technical:
    """Where counts were capped, overdispersion that is not of these: at most a few times that of other features."""
    if bounds is None or n_capped is None:
        return technical
    wild = (n_capped > 0) & np.isfinite(technical.overdispersion)
    usual = np.minimum(bounds.overdispersion, technical.overdispersion)
    return replace(technical, overdispersion=np.where(wild, usual, technical.overdispersion))


def with_silent(technical: Technical, stats: GuideStats) -> Technical:
    """Overdispersion of features that are silent in control cells but not elsewhere: that of others of their mean.

    Their mean is that of the guide in which it is largest.
    """
    known = np.isfinite(technical.overdispersion) & (technical.baseline > 0)
    silent = np.flatnonzero(~np.isfinite(technical.overdispersion) & (stats.counts.sum(1) >= SILENT_COUNT))
    if not len(silent) or not known.any():
        return technical
    of_guide = (np.arange(stats.n_guides)[:, None] == stats.guide).astype(float)
    exposure = of_guide @ stats.exposure
    some = exposure > 0
    mean = ((stats.counts[silent] @ of_guide.T)[:, some] / exposure[some]).max(1)
    order = np.argsort(technical.baseline[known], kind="stable")
    sorted_mean, of_known = np.log(technical.baseline[known][order]), technical.overdispersion[known][order]
    overdispersion, half = technical.overdispersion.copy(), NEIGHBOURS // 2
    for t, at in zip(silent, np.searchsorted(sorted_mean, np.log(mean)), strict=True):
        low = max(0, min(at - half, len(order) - NEIGHBOURS))
        overdispersion[t] = np.median(of_known[low : low + NEIGHBOURS])
    return replace(technical, overdispersion=overdispersion)
