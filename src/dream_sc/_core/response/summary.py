"""From posterior draws to the numbers of the table: EC50, Hill coefficient, fold changes, class."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from dream_sc._core.curves import LN2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.likelihoods import Likelihood
    from dream_sc._core.types import Axis

    Floats = NDArray[np.float64]
    Number = TypeVar("Number", np.float64, np.int64)

N_GRID = 33
MIN_SIDE = 0.1  # log2: an end of the axis nearer to NTC than this has no fold change
CLEARLY_UP = 0.3  # log2: guides of a switch that are nearer to NTC may as well knock down
MIN_TURN = 0.2  # log2, or units of the predictor over ln 2: both arms of a biphasic curve move at least this much
SLOPE_STEP = 1e-4  # of the predictor's unit
QUANTILES = (0.5, 0.025, 0.975)
CLASSES = (  # as the dosage rises
    "increasing",
    "decreasing",
    "threshold_increasing",
    "threshold_decreasing",
    "biphasic_min",
    "biphasic_max",
)
RISES = np.array([True, False, True, False, False, False])
FALLS = np.array([False, True, False, True, False, False])
MEDIAN_DRAWS = 250  # curves of which medians are taken
CLASS_DRAWS = 100  # curves whose classes are counted
SAID_DRAWS = 64  # curves whose slopes are looked up, or worked out in a screen


def of_hill(log2_ec50: Floats, n: Floats, amplitude: Floats, suffix: str = "") -> dict[str, Floats]:
    """Columns of a Hill, given draws ``(T, S)`` of its EC50, signed coefficient and amplitude."""
    out = _quantiles(f"log2_ec50{suffix}", log2_ec50) | _quantiles(f"hill_n{suffix}", n)
    return out | {f"amplitude{suffix}": np.median(amplitude, 1)}


def inside(log2_ec50: Floats, axis: Axis) -> Floats:
    """Probability that an EC50 is within the axis, given draws ``(T, S)``."""
    return np.asarray(((log2_ec50 > axis.bottom) & (log2_ec50 < axis.high)).mean(1))


def _quantiles(name: str, values: Floats) -> dict[str, Floats]:
    # ranks over n + 1: an interval between quantiles of n draws then holds 95 % of what they are draws of
    q = np.quantile(values, QUANTILES, axis=1, method="weibull")
    return {name: q[0], f"{name}_q025": q[1], f"{name}_q975": q[2]}


def _hills(draws: Floats, c: Curve, consts: Floats, like: Likelihood) -> list[tuple[Floats, Floats, Floats]]:
    """(log2 EC50, signed n, amplitude) of each step: of a curve of one step on the scale of the expected value."""
    out = []
    for step in c.steps(draws, consts):
        ec50 = step.at(like.half(step.bottom, step.top)) if step.at is not None else step.log2_ec50
        sign = np.sign(step.n) if step.at is None else 1.0
        out.append((ec50, step.n, sign * like.change(step.top, step.bottom)))
    return out


def at_dosages(draws: Floats, c: Curve, consts: Floats, dosages: Floats) -> Floats:
    """Median curve ``(T, D)`` relative to NTC, natural log."""
    curves = c.log_curve(np.append(dosages, 0.0), spread(draws, MEDIAN_DRAWS), consts[:, None, :])
    return np.asarray(np.median(curves[..., :-1] - curves[..., -1:], axis=1))


def summarise(
    draws: Floats, c: Curve, consts: Floats, axis: Axis, like: Likelihood, *, n_slopes: int = MEDIAN_DRAWS
) -> dict[str, NDArray[np.generic]]:
    """Table columns of a block of features that share a curve; effects are called what the likelihood calls them.

    Parameters
    ----------
    draws
        ``(T, S, P)`` posterior draws.
    consts
        ``(T, 2)`` constants of the curve.
    n_slopes
        Curves of which the median slopes are taken, at most.
    """
    out, consts = _of_params(draws, c, consts, axis, like), consts[:, None, :]
    if c.by_acting:
        return out | _of_acting(c.log_curve(np.array([0.0, 1.0]), draws, consts), c, axis, like)
    x = axis.points(N_GRID)
    ends = np.array([axis.low, axis.high])
    curves = c.log_curve(np.concatenate([ends if c.monotone else x, [axis.half, 0.0]]), draws, consts)
    out |= _effects(like.change(curves, curves[..., -1:]), axis, like.effect)
    some = spread(draws, n_slopes)
    out |= _slopes(slope(np.append(x, 0.0), some, c, consts, like), x)
    some = spread(draws, CLASS_DRAWS)
    relative = c.log_curve(np.append(x, 0.0), some, consts) if c.monotone else spread(curves, CLASS_DRAWS)
    relative = (relative[..., :N_GRID] - relative[..., -1:]) / (LN2 * like.unit)
    code, gap = _shapes(relative.reshape(-1, N_GRID), x, axis)
    change = _falling_change(out, axis, like)
    return out | _classes(code.reshape(relative.shape[:2]), gap.reshape(relative.shape[:2]), change)


def _of_acting(levels: Floats, c: Curve, axis: Axis, like: Likelihood) -> dict[str, NDArray[np.generic]]:
    """Columns of a curve with one level where guides act, given the predictor ``(T, S, 2)`` elsewhere and there.

    All effects are the change from one to the other, at those ends of the axis where guides are. Guides that are near
    the NTC level count as knocking down.
    """
    change, nan = like.change(levels[..., 1], levels[..., 0]), np.full(len(levels), np.nan)
    if axis.low > -MIN_SIDE and axis.high < CLEARLY_UP:
        axis = replace(axis, low=-MIN_SIDE, high=0.0)
    none = np.zeros_like(change)
    out = _effects(np.stack([change, none, change, change, none], -1), axis, like.effect)
    return {
        **out,
        "slope_ntc": nan,
        "inflection": nan.copy(),
        "class": np.full(len(levels), c.name),
        "p_class": np.ones(len(levels)),
        "single_gap": np.zeros(len(levels)),
    }


def spread(draws: NDArray[Number], most: int) -> NDArray[Number]:
    """At most so many of the draws ``(T, S, ...)``, evenly spaced."""
    n = draws.shape[1]
    return draws[:, np.linspace(0, n - 1, min(n, most)).round().astype(int)]


class Said(NamedTuple):
    """What curves say that many features share, `N` of them at `Q` places each."""

    ends: Floats  # (N, Q, 3) log curve relative to NTC at both ends of the axis and half-way down
    curves: Floats  # (N, X + 1) relative to NTC on the grid and at NTC dosage, of the first place
    slopes: Floats  # (N, X + 1) of the log curve by log2 dosage there
    code: NDArray[np.int64]  # (N,) class
    gap: NDArray[np.bool_]  # (N,) whether one gap between guides holds its move


def said_of(params: Floats, c: Curve, axis: Axis, unit: float) -> Said:
    """What single Hills ``(N, Q, P)`` say, whatever their level; `unit` is that of the likelihood."""
    ends = c.log_curve(np.array([axis.low, axis.high, axis.half, 0.0]), params, np.zeros(2))
    x = axis.points(N_GRID)
    at, first = np.append(x, 0.0), params[:, 0]
    curves = c.log_curve(at, first, np.zeros(2))
    curves -= curves[:, -1:]
    code, gap = _shapes(curves[:, :-1] / (LN2 * unit), x, axis)
    return Said(ends[..., :-1] - ends[..., -1:], curves, LN2 * c.slope(at, first, np.zeros(2)), code, gap)


def summarise_said(
    draws: Floats,
    c: Curve,
    said: Said,
    column: NDArray[np.int64],
    place: NDArray[np.int64],
    axis: Axis,
    like: Likelihood,
) -> dict[str, NDArray[np.generic]]:
    """Columns as `summarise` gives them, of draws ``(T, S, P)`` that are curves ``(T, S)`` at places ``(S,)``."""
    out = _of_params(draws, c, np.zeros((len(draws), 2)), axis, like)
    level = draws[..., :1]
    moved = np.concatenate([said.ends[column, place], np.zeros_like(level)], 2)
    out |= _effects(like.change(level + moved, level), axis, like.effect)
    some = spread(column, SAID_DRAWS)
    predictor = spread(level, SAID_DRAWS) + said.curves[some] if not like.linear else 0.0
    x = axis.points(N_GRID)
    out |= _slopes(_of_effect(said.slopes[some], predictor, like), x)
    return out | _classes(said.code[column], said.gap[column], _falling_change(out, axis, like))


def _of_params(draws: Floats, c: Curve, consts: Floats, axis: Axis, like: Likelihood) -> dict[str, NDArray[np.generic]]:
    """Columns that are parameters of the curve: of its steps, and the baseline."""
    baseline = like.expected(np.median(draws[..., 0], 1))
    return of_steps(draws, c, consts, axis, like) | {"baseline": baseline}


def of_steps(draws: Floats, c: Curve, consts: Floats, axis: Axis, like: Likelihood) -> dict[str, NDArray[np.generic]]:
    """Columns of the steps of a curve, NaN where it has none."""
    nan = np.full(len(draws), np.nan)
    out: dict[str, NDArray[np.generic]] = {}
    hills = _hills(draws, c, consts, like)
    for i, suffix in enumerate(("", "_b")):
        if i < len(hills):
            out |= of_hill(*hills[i], suffix)
        else:
            names = [f"{p}{suffix}{q}" for p in ("log2_ec50", "hill_n") for q in ("", "_q025", "_q975")]
            out |= {name: nan.copy() for name in [*names, f"amplitude{suffix}"]}
    out["p_ec50_inside"] = inside(hills[0][0], axis) if hills else nan
    return out


def knockdown_change(columns: Mapping[str, Any], effect: str) -> Floats:
    """Change ``(T,)`` at the lowest dosage; where nothing was knocked down, minus that at the highest one."""
    low, high = columns[f"{effect}_full"], columns[f"{effect}_max"]
    return np.asarray(np.where(np.isfinite(low), low, -high))


def _falling_change(columns: Mapping[str, Any], axis: Axis, like: Likelihood) -> Floats:
    """Change ``(T,)`` as the dosage falls: the full effect of a dose is of one that rises."""
    change = knockdown_change(columns, like.effect)
    return -change if axis.from_zero else change


def _slopes(slopes: Floats, x: Floats) -> dict[str, NDArray[np.generic]]:
    """Columns from slopes ``(T, S, X + 1)`` at the dosages `x` and at NTC dosage."""
    median = np.median(slopes, 1)
    return {"slope_ntc": median[:, -1], "inflection": x[np.abs(median[:, :-1]).argmax(1)]}


def slope(x: Floats, draws: Floats, c: Curve, consts: Floats, like: Likelihood) -> Floats:
    """Derivative of the effect by log2 dosage at dosages `x`, shape ``(..., X)``."""
    # where the effect is a multiple of the predictor's change, the predictor does not matter
    predictor = c.log_curve(x, draws, consts) if not like.linear else 0.0
    return _of_effect(LN2 * c.slope(x, draws, consts), predictor, like)


def _of_effect(by_log2: Floats, predictor: Floats | float, like: Likelihood) -> Floats:
    """The derivative of the effect, given that of the predictor."""
    step = like.unit * SLOPE_STEP
    return np.asarray(by_log2 * like.change(predictor + step, predictor - step) / (2 * step))


def _effects(curves: Floats, axis: Axis, name: str) -> dict[str, Floats]:
    """Effects of curves ``(T, S, X + 2)`` over the axis, its half and NTC dosage."""
    out: dict[str, Floats] = {}
    main, nan = curves[..., :-2], np.full(len(curves), np.nan)
    down, up = np.isfinite(axis.ends_with_effects(MIN_SIDE))
    full = main[..., -1 if axis.from_zero else 0]
    for part, value, ok in (("full", full, down), ("half", curves[..., -2], down), ("max", main[..., -1], up)):
        names = [f"{name}_{part}{q}" for q in ("", "_q025", "_q975")]
        out |= _quantiles(names[0], value) if ok else {n: nan.copy() for n in names}
    return out | _quantiles(f"{name}_range", main.max(-1) - main.min(-1))


def _classes(code: NDArray[np.int64], gap: NDArray[np.bool_], change: Floats) -> dict[str, NDArray[np.generic]]:
    """Likeliest shape of curves ``(T, S)`` and its probability; whether the movement likely lies in one gap.

    Curves that rise or fall do so as the `change` ``(T,)`` by a knock-down says.
    """
    share = (code[..., None] == np.arange(len(CLASSES))).mean(1)
    rises = np.where(np.isfinite(change), change < 0, share[:, RISES].sum(1) >= share[:, FALLS].sum(1))
    share = np.where(np.where(rises[:, None], FALLS, RISES), 0.0, share)
    return {
        "class": np.array(CLASSES)[share.argmax(1)],
        "p_class": share.max(1),
        "single_gap": (gap.mean(1) > 0.5).astype(float),
    }


def _shapes(curves: Floats, x: Floats, axis: Axis) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Class of each curve ``(N, X)``, as its place in `CLASSES`, and whether one gap between guides holds its move."""
    first, last = curves[:, 0], curves[:, -1]
    top, bottom = curves.max(1), curves.min(1)
    peak = top - np.maximum(first, last) > MIN_TURN
    trough = np.minimum(first, last) - bottom > MIN_TURN
    span = np.maximum(top - bottom, 1e-9)
    levels = np.sort(np.append(axis.guides, 0.0))
    # linear interpolation of the curves at the guides' dosages
    weights = np.stack([np.interp(levels, x, unit) for unit in np.eye(len(x))])
    gaps = np.abs(np.diff(curves @ weights, axis=1)) * (np.diff(levels) > 0.2)
    single_gap = (gaps.max(1, initial=0.0) / span >= 0.8) & (span > MIN_TURN)
    steep = np.zeros(len(curves), dtype=bool)
    for centre in x:
        inside = (x >= centre - 0.5) & (x <= centre + 0.5)
        if (levels < centre - 0.5).any() and (levels > centre + 0.5).any():
            near = curves[:, inside]
            steep |= near.max(1) - near.min(1) >= 0.8 * span
    code = np.where(last >= first, CLASSES.index("increasing"), CLASSES.index("decreasing"))
    code[steep & (span > MIN_TURN)] += CLASSES.index("threshold_increasing")
    code[trough] = CLASSES.index("biphasic_min")
    code[peak] = CLASSES.index("biphasic_max")
    return code, single_gap
