"""From posterior draws to the numbers of the table: EC50, Hill coefficient, fold changes, class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .dose_response import LN2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .dose_response import Curve
    from .types import Axis

    Floats = NDArray[np.float64]

N_GRID = 33
MIN_SIDE = 0.1  # log2: an end of the axis nearer to NTC than this has no fold change
MIN_TURN = 0.2  # log2: both arms of a biphasic curve move at least this much
QUANTILES = (0.5, 0.025, 0.975)


def _quantiles(name: str, values: Floats) -> dict[str, Floats]:
    q = np.quantile(values, QUANTILES, axis=1)
    return {name: q[0], f"{name}_q025": q[1], f"{name}_q975": q[2]}


def _hills(draws: Floats, c: Curve, consts: Floats) -> tuple[list[tuple[Floats, Floats, Floats]], int]:
    """(log2 EC50, signed n, log2 amplitude) of each Hill."""
    if c.name == "single_hill":
        b = draws[..., 1]
        return [(draws[..., 2], np.sign(b) * np.exp(draws[..., 3]), b / LN2)], 1
    if c.name == "additive_hill":
        out = []
        for i in range(2):
            sign = consts[:, i : i + 1]
            n = sign * np.exp(draws[..., 4 + 2 * i])
            out.append((draws[..., 3 + 2 * i], n, sign * np.logaddexp(0.0, draws[..., 1 + i]) / LN2))
        return out, 2
    return [], 0


def at_dosages(draws: Floats, c: Curve, consts: Floats, dosages: Floats) -> Floats:
    """Median curve ``(T, D)`` relative to NTC, natural log."""
    curves = c.log_curve(np.append(dosages, 0.0), draws, consts[:, None, :])
    return np.asarray(np.median(curves[..., :-1] - curves[..., -1:], axis=1))


def summarise(draws: Floats, c: Curve, consts: Floats, axis: Axis) -> dict[str, NDArray[np.generic]]:
    """Table columns of a block of features that share a curve.

    Parameters
    ----------
    draws
        ``(T, S, P)`` posterior draws.
    consts
        ``(T, 2)`` constants of the curve.
    """
    n_t = len(draws)
    nan = np.full(n_t, np.nan)
    out: dict[str, NDArray[np.generic]] = {}
    hills, n_hills = _hills(draws, c, consts)
    for i, suffix in enumerate(("", "_b")):
        if i < n_hills:
            k, n, amplitude = hills[i]
            out |= _quantiles(f"log2_ec50{suffix}", k) | _quantiles(f"hill_n{suffix}", n)
            out[f"amplitude{suffix}"] = np.median(amplitude, 1)
        else:
            names = [f"{p}{suffix}{q}" for p in ("log2_ec50", "hill_n") for q in ("", "_q025", "_q975")]
            out |= {name: nan.copy() for name in [*names, f"amplitude{suffix}"]}
    inside = (hills[0][0] > axis.low) & (hills[0][0] < axis.high) if n_hills else None
    out["p_ec50_inside"] = inside.mean(1) if inside is not None else nan.copy()
    out["baseline"] = np.exp(np.median(draws[..., 0], 1))
    x = np.linspace(axis.low, axis.high, N_GRID)
    grid = np.concatenate([x, [axis.low / 2, 0.0]])
    curves = c.log_curve(grid, draws, consts[:, None, :]) / LN2
    curves = curves - curves[..., -1:]
    out |= _fold_changes(curves, axis, nan)
    slopes = c.slope(np.append(x, 0.0), draws, consts[:, None, :])
    out["slope_ntc"] = np.median(slopes[..., -1], 1)
    median_slope = np.median(slopes[..., :-1], 1)
    out["inflection"] = x[np.abs(median_slope).argmax(1)]
    median = np.median(curves[..., :N_GRID], 1)
    out["class"], out["single_gap"] = _classes(median, x, axis)

    return out


def _fold_changes(curves: Floats, axis: Axis, nan: Floats) -> dict[str, Floats]:
    out: dict[str, Floats] = {}
    main = curves[..., :N_GRID]
    blank = {q: nan.copy() for q in ("", "_q025", "_q975")}
    for name, value, ok in (
        ("log2fc_full", main[..., 0], axis.low <= -MIN_SIDE),
        ("log2fc_half", curves[..., N_GRID], axis.low <= -MIN_SIDE),
        ("log2fc_max", main[..., -1], axis.high >= MIN_SIDE),
    ):
        out |= _quantiles(name, value) if ok else {name + q: v.copy() for q, v in blank.items()}
    out |= _quantiles("log2fc_range", main.max(-1) - main.min(-1))
    return out


def _classes(median: Floats, x: Floats, axis: Axis) -> tuple[NDArray[np.str_], NDArray[np.float64]]:
    """Shape of the median curve, and whether most of its movement lies in one gap between guides."""
    n_t = len(median)
    rise = median[:, -1] - median[:, 0]
    top, bottom = median.max(1), median.min(1)
    ends_top = np.maximum(median[:, 0], median[:, -1])
    ends_bottom = np.minimum(median[:, 0], median[:, -1])
    other_top = np.minimum(median[:, 0], median[:, -1])
    peak = (top - ends_top > MIN_TURN) & (top - other_top > MIN_TURN)
    trough = (ends_bottom - bottom > MIN_TURN) & (top - bottom > MIN_TURN)
    out = np.where(rise >= 0, "up", "down").astype("<U12")
    span = np.maximum(top - bottom, 1e-9)
    levels = np.sort(np.append(axis.guides, 0.0))
    fine = np.stack([np.interp(levels, x, m) for m in median]) if n_t else np.zeros((0, len(levels)))
    gaps = np.abs(np.diff(fine, axis=1))
    wide = np.diff(levels) > 0.2
    share = (gaps * wide).max(1, initial=0.0) / span
    single_gap = (share >= 0.8) & (span > MIN_TURN)
    steep = np.zeros(n_t, dtype=bool)
    for centre in x:
        inside = (x >= centre - 0.5) & (x <= centre + 0.5)
        sides = (levels < centre - 0.5).any() and (levels > centre + 0.5).any()
        if sides:
            moved = median[:, inside].max(1) - median[:, inside].min(1)
            steep |= moved >= 0.8 * span
    out[steep & (span > MIN_TURN)] = "threshold"
    out[peak] = "biphasic_max"
    out[trough & ~peak] = "biphasic_min"
    return out, single_gap.astype(float)
