"""Tests with guides as units: cells of one guide share what it does, so they are no independent witnesses.

A guide's mean has a known error, of its cells, and guides differ beyond that by an unknown variance: a random-effects
meta-regression. The variance between guides is found by moments :cite:p:`DerSimonian1986`, and coefficients are tested
with the residual variance and Student's t :cite:p:`Knapp2003`, which holds its level with few guides.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SMALLEST = 1e-12  # variance


class Coefficients(NamedTuple):
    """Estimates, standard errors and two-sided p-values, each ``(T, P)``; NaN where guides are too few."""

    estimate: Floats
    se: Floats
    pvalue: Floats


def meta_regression(y: Floats, variance: Floats, design: Floats) -> Coefficients:
    """Regress the means of guides on their properties.

    Parameters
    ----------
    y, variance
        ``(T, G)`` means and their squared errors; NaN or infinite where a guide has none.
    design
        ``(G, P)``
    """
    from scipy.stats import t as student

    known = np.isfinite(y) & np.isfinite(variance)
    y, v = np.where(known, y, 0.0), np.where(known, np.maximum(variance, SMALLEST), 1.0)
    n_p = design.shape[1]
    df = known.sum(1) - n_p
    fits = df > 0
    w = np.where(known, 1 / v, 0.0)
    beta, inverse = _least_squares(y, w, design)
    q = (w * (y - beta @ design.T) ** 2).sum(1)
    spent = np.einsum("tij,tg,gi,gj->t", inverse, w**2, design, design, optimize=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        tau2 = np.maximum(0.0, np.nan_to_num((q - df) / (w.sum(1) - spent), posinf=0.0))
        w = np.where(known, 1 / (v + tau2[:, None]), 0.0)
        beta, inverse = _least_squares(y, w, design)
        scale = (w * (y - beta @ design.T) ** 2).sum(1) / df
        se = np.sqrt(scale[:, None] * np.diagonal(inverse, axis1=1, axis2=2))
        p = 2 * student.sf(np.abs(beta / se), np.maximum(df, 1)[:, None])
    few = ~fits[:, None]
    return Coefficients(*(np.where(few, np.nan, x) for x in (beta, se, np.where(se > 0, p, np.nan))))


def _least_squares(y: Floats, w: Floats, design: Floats) -> tuple[Floats, Floats]:
    """Weighted least squares of every row of `y`, and the inverse of the normal matrix; NaN where there is none."""
    normal = np.einsum("tg,gi,gj->tij", w, design, design, optimize=True)
    inverse = np.full_like(normal, np.nan)
    sound = np.linalg.cond(normal) < 1e12
    inverse[sound] = np.linalg.inv(normal[sound])
    return np.einsum("tij,tj->ti", inverse, (w * y) @ design), inverse


def holm(pvalue: Floats) -> Floats:
    """P-values adjusted by Holm's method over those that are known."""
    out = np.full(len(pvalue), np.nan)
    known = np.flatnonzero(np.isfinite(pvalue))
    order = known[np.argsort(pvalue[known], kind="stable")]
    steps = pvalue[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out


def guide_means(values: Floats, guide: Ints, n_guides: int) -> tuple[Floats, Floats, Ints]:
    """Mean of the values of each guide's cells, its squared error by the pooled variance, and the number of cells.

    NaN and infinite values, and cells of guide -1, take no part.
    """
    used = (guide >= 0) & np.isfinite(values)
    g, x = guide[used], values[used]
    n = np.bincount(g, minlength=n_guides)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(g, x, n_guides) / n
        pooled = ((x - mean[g]) ** 2).sum() / max(len(x) - (n > 0).sum(), 1)
        return mean, np.where(n > 0, pooled / n, np.nan), n


def slope_and_difference(mean: Floats, variance: Floats, dosage: Floats, control: NDArray[np.bool_]) -> Coefficients:
    """Slope over dosage, and targeting less control guides, each by itself: ``(T, 2)``."""
    one = np.ones(len(dosage))
    both = [meta_regression(mean, variance, np.column_stack([one, x])) for x in (dosage, (~control).astype(float))]
    return Coefficients(*(np.column_stack([b[i][:, 1] for b in both]) for i in range(3)))


def relabellings(n: int, k: int, most: int, seed: int) -> Iterator[Ints]:
    """Ways to choose `k` of `n` guides, the first `k` among them: all if they are at most `most`, else a sample."""
    if comb(n, k) <= most:
        yield from (np.array(c) for c in combinations(range(n), k))
        return
    yield np.arange(k)
    gen = np.random.default_rng(seed)
    for _ in range(most - 1):
        yield gen.choice(n, k, replace=False)


def detrended(y: Floats, variance: Floats, dosage: Floats, control: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Take off what each feature's trend among targeting guides gives for a guide's distance to NTC dosage.

    The square of what is taken off is added to the variance: near NTC a curve may be steeper than its trend.
    """
    acting = ~control
    if acting.sum() < 3:
        return y, variance
    design = np.column_stack([np.ones(int(acting.sum())), dosage[acting]])
    slope = meta_regression(y[:, acting], variance[:, acting], design).estimate[:, 1]
    moved = np.nan_to_num(slope)[:, None] * np.where(control, 0.0, dosage)
    return y - moved, variance + moved**2
