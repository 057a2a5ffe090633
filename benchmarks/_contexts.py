"""Simulated sums of several contexts, and four-parameter curves that are fitted to each of them alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import curve_fit

from dream_sc._core.priors import TransPriors
from dream_sc._core.response.contexts.guide_levels import Sums
from dream_sc._core.response.contexts.measured import Measured
from dream_sc._core.response.contexts.shapes import Dosages
from dream_sc._core.types import Axis, GuideStats

LN2 = np.log(2.0)
N_TARGETING, N_NTC, CELLS = 12, 6, 200
RANGE, WITHIN_SD = (-3.0, 1.2), 0.2
GUIDE_SD = 0.1  # log2
CIS_MEAN, CIS_OVERDISPERSION, SIZE_FACTOR_SD = 6.0, 0.4, 0.25
EXACT = 1e-4  # log2, error of true dosages
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(7)


@dataclass(frozen=True)
class Truth:
    """Curves of each feature: log2 EC50, log n, log amplitude."""

    kind: np.ndarray  # (T,)
    theta: np.ndarray  # (T, 2, 3)
    responds: np.ndarray  # (T, 2)

    def change(self, x: np.ndarray | float, c: int) -> np.ndarray:
        """Natural log fold change at log2 dosages ``(X,)``, ``(T, X)``."""
        k, log_n, b = (self.theta[:, c, i, None] for i in range(3))

        def at(y: np.ndarray | float) -> np.ndarray:
            h = 1.0 / (1.0 + np.exp(-LN2 * np.exp(log_n) * (np.atleast_1d(y) - k)))
            return np.log(np.exp(b) * h + 1.0 - h)

        return np.where(self.responds[:, c, None], at(x) - at(0.0), 0.0)


@dataclass(frozen=True)
class Cells:
    """What one context has besides the responses."""

    knock_down: float = 1.0  # factor on all log2 dosages
    level: float = 1.0  # factor on the expression of every feature
    depth: float = 1.0  # factor on the counts of every cell, the cis gene's too
    per_guide: int = CELLS


def amplitude_of(move: float, k: float, n: float) -> float:
    """Log amplitude with which the curve moves by `move` log2 over the range, or nine tenths of what it can."""
    low, high = 1.0 / (1.0 + np.exp(-LN2 * n * (np.array(RANGE) - k)))
    limit = np.log(high / low) if move > 0 else np.log((1 - high) / (1 - low))
    e = np.exp(np.sign(move) * min(abs(move) * LN2, 0.9 * abs(limit)))
    return float(np.log(1 + (e - 1) / (high - e * low)))


def sums_of(
    rng: np.random.Generator,
    truth: Truth,
    contexts: Sequence[Cells],
    log2_mean: tuple[float, float],
    *,
    exact: bool = False,
) -> Measured:
    """Sums of all contexts; the mean count of a cell lies in the range `log2_mean` in a context at level 1.

    `exact`: with the true dosages.
    """
    n, guides = len(truth.kind), N_TARGETING + N_NTC
    dosage = np.linspace(*RANGE, N_TARGETING) + rng.normal(0, 0.08, N_TARGETING)
    mean = 2.0 ** rng.uniform(*log2_mean, n)
    noise = np.exp(rng.normal(0, 0.2, n))
    shared = rng.normal(0, GUIDE_SD * LN2 * 0.5**0.5, (n, guides))
    sums, dosages = [], []
    for c, context in enumerate(contexts):
        x, cells, depth, level = dosage * context.knock_down, context.per_guide, context.depth, mean * context.level
        overdispersion = np.clip(0.35 + 0.3 / np.sqrt(level + 0.3), 0.2, 1.0) * noise
        curve = np.zeros((n, guides))
        nodes = np.exp(truth.change((x[:, None] + WITHIN_SD * NODES).ravel(), c)).reshape(n, N_TARGETING, -1)
        curve[:, :N_TARGETING] = np.log(nodes @ (NODE_WEIGHTS / NODE_WEIGHTS.sum()))
        exposure = np.full(guides, cells * depth)
        exposure2 = exposure**2 / cells * np.exp(SIZE_FACTOR_SD**2)
        own = rng.normal(0, GUIDE_SD * LN2 * 0.5**0.5, (n, guides))
        log_mean = np.log(level[:, None] * exposure) + curve + shared + own
        phi = 1.0 / (overdispersion[:, None] ** 2 * exposure2 / exposure**2)
        counts = rng.poisson(rng.gamma(phi, np.exp(log_mean) / phi)).astype(float)
        rows = np.arange(guides)
        stats = GuideStats(counts, exposure, exposure2, rows, np.zeros(guides, dtype=np.int64), guides, 1)
        sums.append(Sums(stats, overdispersion, 0.3))
        seen = dosages_of(rng, x, CIS_MEAN * cells * depth, cells)
        spread = np.full(len(x), WITHIN_SD)
        true = Dosages.of(x, spread, np.zeros(len(x)), np.full(len(x), EXACT), 0.0)
        dosages.append(true if exact else seen)
    axis = Axis.of(np.concatenate([d.at[:, 1] for d in dosages]))
    return Measured(tuple(sums), tuple(dosages), np.arange(guides) < N_TARGETING, axis, TransPriors())


def dosages_of(rng: np.random.Generator, x: np.ndarray, of_cis: float, cells: int) -> Dosages:
    """Dosages with errors, of so many counts of the cis gene and cells of an NTC guide."""
    error = np.sqrt(1.0 / (of_cis * 2.0**x) + CIS_OVERDISPERSION**2 / cells) / LN2
    level_error = np.sqrt((1.0 / of_cis + CIS_OVERDISPERSION**2 / cells) / N_NTC) / LN2
    seen = x + rng.normal(0, error) + rng.normal(0, level_error)
    return Dosages.of(seen, np.full(len(x), WITHIN_SD), np.zeros(len(x)), error, float(level_error))


def separate_fits(measured: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Four-parameter curves fitted to each context alone: ``(T, C, 2)`` log2 EC50 and amplitude, and their SEs."""

    def curve(x: np.ndarray, a: float, b: float, k: float, log_n: float) -> np.ndarray:
        h = 1.0 / (1.0 + np.exp(-LN2 * np.exp(log_n) * (x - k)))
        return a + np.log(np.exp(b) * h + 1.0 - h)

    n = len(measured.sums[0].overdispersion)
    out, se = np.full((2, n, len(measured.sums), 2), np.nan)
    for c, (sums, dosages) in enumerate(zip(measured.sums, measured.dosages, strict=True)):
        x = np.append(dosages.at[:, 1], np.zeros(N_NTC))
        y, w = sums.stats.counts, sums.stats.exposure
        z = np.log((y + 0.5) / w)
        sd = np.sqrt(1.0 / (y + 0.5) + sums.overdispersion[:, None] ** 2 * sums.stats.exposure2 / w**2)
        for t in range(n):
            rises = 1.0 if np.polyfit(x, z[t], 1, w=1 / sd[t])[0] > 0 else -1.0
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    start = [z[t, -N_NTC:].mean(), rises, -1.0, np.log(2.0)]
                    at, cov = curve_fit(curve, x, z[t], start, sigma=sd[t], maxfev=400)
            except RuntimeError:  # not converged
                continue
            out[t, c], se[t, c] = at[[2, 1]], np.sqrt(np.diag(cov))[[2, 1]]
    return out, se


def visible(truth: Truth) -> np.ndarray:
    """Features whose movements over the range differ by 1 log2 between first and last context ``(T,)``.

    An asymptote far outside is not seen.
    """
    ends = (0, truth.theta.shape[1] - 1)
    moves = [np.diff(truth.change(np.array(RANGE), c), axis=1)[:, 0] / LN2 for c in ends]
    return np.asarray(np.abs(moves[1] - moves[0]) >= 1.0)


def inside_all(measured: Measured, truth: Truth) -> np.ndarray:
    """Features ``(T,)`` that respond in all contexts, with all EC50s inside the dosages of all."""
    ends = [d.at[:, 1] for d in measured.dosages]
    low, high = max(e.min() for e in ends), min(e.max() for e in ends)
    ec50 = truth.theta[:, :, 0]
    return np.asarray(truth.responds.all(1) & ((ec50 > low) & (ec50 < high)).all(1))


def calls(truth: Truth, called: np.ndarray, is_true: np.ndarray, kinds: Sequence[str], prefix: str) -> dict[str, Any]:
    """Number of calls, their false discovery proportion, and the power for features of each kind."""
    out = {f"{prefix}calls": called.sum(), f"{prefix}fdp": (called & ~is_true).sum() / max(called.sum(), 1)}
    for kind in kinds:
        of = truth.kind == kind
        out[f"{prefix}power_{kind}"] = called[of].mean() if of.any() else np.nan
    seen = (truth.kind == "amplitude") & visible(truth)
    return out | {f"{prefix}power_amplitude_seen": called[seen].mean() if seen.any() else np.nan}


def print_screens(name: str, rows: pd.DataFrame, n_features: int) -> pd.Series:
    """Print means over screens with their standard errors; return the sums of what is counted for coverage."""
    covered = rows.filter(regex="^(covered|n)_").sum()
    plain = rows.drop(columns=covered.index)
    print(f"{name}, {len(rows)} screens of {n_features} features")
    print(pd.DataFrame({"mean": plain.mean(), "se": plain.std() / len(plain) ** 0.5}).T.round(3).T.to_string())
    return covered
