"""Checks of what may go with the dosage beside it, each with guides as units."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._keys import EQUAL_DOSAGE_COLUMNS

from ._confounded_groups import LARGEST_V

if TYPE_CHECKING:
    from dream_sc._data.cis_cells import GuideCells

SLOPE, DIFFERENCE = "slope over log2 dosage", "targeting less control guides"
V = "Cramér's V with control cells"
SIZE_FACTOR, DEPTH, OFFSET, EXPRESSION = "size factor", "depth", "offset of stable features", "expression at NTC dosage"
BUILT_IN = (SIZE_FACTOR, DEPTH, OFFSET, EXPRESSION)
ROUNDING = 1e-9  # of the size of means, below which they do not differ
MIN_CONTROLS = 10  # control cells that chance would give a group, for their lack to mean something
MIN_EXPECTED = 5.0  # counts of a feature in every guide compared
N_RELABELLED, FEWEST_RELABELLED = 200, 20
FEATURE_LEVEL = 0.05
SMALLEST = 0.1  # log2, of size factors between the ends of the dosages, or between controls and others
LARGE_SHARE = 0.25  # of features that differ, where guides are too few for a p-value of the share


@dataclass(frozen=True)
class Check:
    """One row of the table."""

    what: str
    statistic: str
    estimate: float
    pvalue: float
    advice: str  # if it is flagged
    found: bool = False  # flagged whatever the p-value is
    together: bool = True  # p-value adjusted with those of the others
    reason: str = ""  # why there is no result
    matters: bool = True  # whether the estimate is large enough for a flag by its p-value


@dataclass
class Found:
    """Checks so far, and the means of guides that they rest on."""

    cells: GuideCells
    checks: list[Check] = field(default_factory=list)
    guides: list[pd.DataFrame] = field(default_factory=list)

    def add(self, *checks: Check) -> None:
        """Add rows."""
        self.checks.extend(checks)

    def keep(self, what: str, level: str, mean: np.ndarray, variance: np.ndarray, n: np.ndarray) -> None:
        """Keep the means of guides, for the plot."""
        table = self.cells.table
        columns = {
            "what": what,
            "level": level,
            "guide": table["guide"].astype(str).to_numpy(object),
            "is_control": self.cells.control,
            "log2_dosage": self.cells.dosage,
            "mean": mean,
            "se": np.sqrt(variance),
            "n_cells": np.asarray(n, dtype=np.int64),
        }
        self.guides.append(pd.DataFrame(columns))


def numbers(found: Found, what: str, values: np.ndarray, advice: str, smallest: float = 0.0) -> None:
    """Check a number of each cell; one that moves by less than `smallest` over the dosages is not flagged."""
    from dream_sc._core.stats.meta_regression import guide_means

    mean, variance, n = guide_means(values, found.cells.guide, len(found.cells.table))
    _means(found, what, (mean, variance, n), advice, smallest)


def _means(
    found: Found, what: str, means: tuple[np.ndarray, np.ndarray, np.ndarray], advice: str, smallest: float
) -> None:
    """Check means of guides: their slope over dosage, and targeting less control guides."""
    from dream_sc._core.stats.meta_regression import slope_and_difference

    cells, (mean, variance, n) = found.cells, means
    found.keep(what, "", mean, variance, n)
    known = mean[np.isfinite(mean)]
    same = not len(known) or np.ptp(known) <= ROUNDING * np.abs(known).max()
    variance = np.full_like(variance, np.nan) if same else variance
    test = slope_and_difference(mean[None], variance[None], cells.dosage, cells.control)
    for j, (statistic, span) in enumerate(((SLOPE, float(np.ptp(cells.dosage))), (DIFFERENCE, 1.0))):
        estimate, p = float(test.estimate[0, j]), float(test.pvalue[0, j])
        reason = "" if np.isfinite(p) else "it does not differ between cells, or guides are too few"
        matters = abs(estimate) * span >= smallest
        found.add(Check(what, statistic, estimate, p, advice, reason=reason, matters=matters))


def categories(found: Found, what: str, labels: np.ndarray, advice: tuple[str, str]) -> None:
    """Check a label of each cell: how fractions move with the dosage, and how control cells are spread."""
    from dream_sc._core.stats.cramers_v import cramers_v
    from dream_sc._core.stats.meta_regression import guide_means, slope_and_difference

    cells = found.cells
    used = (cells.guide >= 0) & (labels != "")
    guide, names = np.where(used, cells.guide, -1), np.unique(labels[used])
    large = [str(n) for n in names if (labels[used] == n).sum() >= len(cells.table)]
    if len(large) < 2:
        reason = "fewer than two groups have a cell per guide"
        rows = zip(("slope of a fraction over log2 dosage", V), advice, strict=True)
        found.add(*(Check(what, statistic, np.nan, np.nan, text, reason=reason) for statistic, text in rows))
        return
    means = [guide_means((labels == name).astype(float), guide, len(cells.table)) for name in large]
    for name, (mean, variance, n) in zip(large, means, strict=True):
        found.keep(what, name, mean, variance, n)
    mean, variance = (np.array([m[i] for m in means]) for i in (0, 1))
    test = slope_and_difference(mean, variance, cells.dosage, cells.control)
    # of two groups both are as clear: the first, whatever the last digits say
    best = int(np.argmin(np.round(np.nan_to_num(test.pvalue[:, 0], nan=2.0), 9)))
    # fractions add up to one
    p = np.minimum(1.0, np.fmin.reduce(test.pvalue, axis=0) * (len(large) - 1))
    statistic = f"slope of the fraction in {large[best]!r} over log2 dosage"
    found.add(Check(what, statistic, float(test.estimate[best, 0]), float(p[0]), advice[0]))
    control = cells.control[cells.guide[used]]
    share = control.mean()
    members = {str(n): control[labels[used] == n] for n in names}
    lacking = [n for n, m in members.items() if len(m) * share >= MIN_CONTROLS and not m.any()]
    v = cramers_v(control.astype(np.int64), np.unique(labels[used], return_inverse=True)[1])
    text = advice[1] + (f"; the groups {lacking} have no control cells" if lacking else "")
    statistic = V + (f", none in {lacking}" if lacking else "")
    found.add(Check(what, statistic, v, float(p[1]), text, found=bool(lacking) or v > LARGEST_V))


def offsets(found: Found, offset: np.ndarray, advice: str) -> None:
    """Check the offsets of guides (log2) from features that differ least between them."""
    if not offset.any():
        reason = "too few features with counts in every guide"
        found.add(*(Check(OFFSET, s, np.nan, np.nan, advice, reason=reason) for s in (SLOPE, DIFFERENCE)))
        return
    n = np.bincount(found.cells.guide[found.cells.guide >= 0], minlength=len(offset))
    _means(found, OFFSET, (offset, np.zeros(len(offset)), n), advice, SMALLEST)


def by_guide(stats: Any, expected: np.ndarray, overdispersion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log2 of observed over expected counts of each feature in each guide, squared error, and expected counts."""
    design = np.zeros((len(stats.guide), stats.n_guides))
    design[np.arange(len(stats.guide)), stats.guide] = 1.0
    total, mean = stats.counts @ design, expected @ design
    scale2 = stats.exposure2 / stats.exposure**2
    with np.errstate(divide="ignore", invalid="ignore"):
        extra = overdispersion[:, None] ** 2 * ((expected**2 * scale2) @ design) / mean**2
        y = np.log2((total + 0.5) / (mean + 0.5))
        variance = (1.0 / np.maximum(np.maximum(mean, total), 0.5) + extra) / np.log(2) ** 2
    return y, np.where(mean > 0, variance, np.nan), mean


def equal_dosage(
    found: Found, sums: tuple[np.ndarray, np.ndarray, np.ndarray], near: float, seed: int, advice: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Check whether guides at NTC dosage look like control guides: features tested ``(T,)``, and their numbers."""
    from dream_sc._core.stats.meta_regression import detrended, meta_regression, relabellings

    y, variance, mean = sums
    control, dosage = found.cells.control, found.cells.dosage
    present = mean.sum(0) > 0
    close = np.flatnonzero(present & ~control & (np.abs(dosage) <= near))
    ntc = np.flatnonzero(present & control)
    chosen = np.r_[close, ntc]
    tested = mean[:, chosen].min(1, initial=np.inf) >= MIN_EXPECTED
    reason = ""
    if not len(close):
        reason = f"no targeting guide is within {near:g} log2 of NTC dosage"
    elif len(chosen) < 3 or not tested.any():
        reason = "too few guides, or too few features with 5 expected counts in each of them"
    if reason:
        found.add(Check(EXPRESSION, "share of features that differ", np.nan, np.nan, advice, reason=reason))
        return np.zeros(len(y), dtype=bool), dict.fromkeys(EQUAL_DOSAGE_COLUMNS, np.empty(0))
    flat, wider = detrended(y[tested], variance[tested], dosage, control)
    flat, wider = flat[:, chosen], wider[:, chosen]

    def differ(which: np.ndarray) -> Any:
        pose = np.zeros(len(chosen))
        pose[which] = 1.0
        return meta_regression(flat, wider, np.column_stack([np.ones(len(chosen)), pose]))

    own = differ(np.arange(len(close)))
    share = float((own.pvalue[:, 1] < FEATURE_LEVEL).mean())
    p = np.nan
    if comb(len(chosen), len(close)) >= FEWEST_RELABELLED:
        null = [
            (differ(r).pvalue[:, 1] < FEATURE_LEVEL).mean()
            for r in relabellings(len(chosen), len(close), N_RELABELLED, seed)
        ]
        p = float(np.mean(np.array(null) >= share - 1e-12))
    names = ", ".join(found.cells.table["guide"].astype(str).iloc[close[:4]]) + (", ..." if len(close) > 4 else "")
    statistic = (
        f"share of {int(tested.sum())} features with p < {FEATURE_LEVEL} ({FEATURE_LEVEL} expected) in {names} against "
        f"{len(ntc)} control guides"
    )
    large = bool(np.isnan(p) and share > LARGE_SHARE)
    found.add(Check(EXPRESSION, statistic, share, p, advice, found=large, together=False))
    numbers = (own.estimate[:, 1], own.se[:, 1], own.pvalue[:, 1])
    return tested, dict(zip(EQUAL_DOSAGE_COLUMNS, numbers, strict=True))


def table(checks: list[Check], level: float) -> pd.DataFrame:
    """The rows, p-values adjusted by Holm's method, flags and advice."""
    from dream_sc._core.stats.meta_regression import holm

    p = np.array([c.pvalue for c in checks])
    together = np.array([c.together for c in checks])
    adjusted = np.where(together, holm(np.where(together, p, np.nan)), p)
    low = np.nan_to_num(adjusted, nan=1.0)
    # a check with its own level may reach it, since its p-values are steps
    clear = (low < level) | (~together & (low <= level))
    flag = np.array([c.found for c in checks]) | (clear & np.array([c.matters for c in checks]))
    words = [
        c.advice if f else f"not tested: {c.reason}" if c.reason else "none needed"
        for c, f in zip(checks, flag, strict=True)
    ]
    return pd.DataFrame(
        {
            "what": [c.what for c in checks],
            "statistic": [c.statistic for c in checks],
            "estimate": [c.estimate for c in checks],
            "pvalue": p,
            "pvalue_adjusted": adjusted,
            "flag": flag,
            "advice": words,
        }
    )
