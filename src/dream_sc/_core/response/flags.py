"""What in a screen makes a trans fit doubtful as a whole, measured in every fit: cheap, and silent on sound data."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .direction import CALLED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .prepare import Prepared
    from .rows import Layout

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

FEW_FEATURES = 20  # of which a share says little
SURE, MOST_DISAGREE = 1e-6, 0.1  # p-value, and share of features; guide shifts of 0.1 log2 give below 0.02
MOST_CALLED = 0.5  # share of features; stable ones are looked for among the rest
MOST_BY_BATCH = 0.1  # share of the variance of the dosage between cells; random batches give below 0.01
LARGEST_OFFSET = 0.5  # log2 over the range of dosages; totals with 30 % of responders give 0.1 to 0.3
ENOUGH = 10.0  # expected counts of the cis gene, from which on a log ratio is hardly biased
WEAKER, CLEAR = 0.25, 4.0  # difference of knock-down between batches, as a share of it, and in its standard errors
MOVES = 9.0  # squared log ratio of guides that move the cis gene, in its variance
FAR_END, UNSURE_END = 2.0, 0.5  # log2: gap to the next guide, and error of the dosage of a guide alone at an end
FEW_CONTROLS, FEW_GUIDES = 3, 6  # NTC guides, and targeting ones below which curves cannot make up for few of them


class Flag(NamedTuple):
    """A measure of the whole screen, and whether it is beyond its limit."""

    flag: str
    value: float
    limit: float
    raised: bool


def flags(
    prepared: Prepared,
    q_value: Floats,
    cis_expected: tuple[Floats, Floats] | None,
    disagreement: Floats | None = None,
    *,
    split: bool = False,
) -> list[Flag]:
    """Measure all of them.

    Parameters
    ----------
    q_value
        ``(F,)``, NaN of features that are not fitted.
    cis_expected
        Counts of the cis gene in each row ``(R,)``, and those expected at NTC dosage; None where it is not there.
    disagreement
        ``(F,)`` p-values of Cochran's Q of the guides around one level for those that act, of a fit without dosages.
    split
        Whether half of these guides or fewer share responses that the others do not have.
    """
    found = [_of_controls(prepared)]
    if prepared.guide_offset is not None and np.isfinite(q_value).sum() >= FEW_FEATURES:
        found.insert(0, _of_calls(q_value))
    if not prepared.one_dosage:
        found.append(_of_lone_end(prepared))
    if disagreement is not None:
        found.append(_of_disagreement(disagreement, split=split))
    if prepared.stats.n_groups > 1 and prepared.rows is not None:
        found.append(_of_batches(prepared, prepared.rows))
    if prepared.guide_offset is not None:
        found.append(_of_offsets(prepared))
    if cis_expected is not None and prepared.stats.n_groups > 1:
        found += _of_knock_down(prepared, *cis_expected)
    return found


def _above(name: str, value: float, limit: float) -> Flag:
    return Flag(name, value, limit, bool(value > limit))


def _of_calls(q_value: Floats) -> Flag:
    known = np.isfinite(q_value)
    return _above("many_responders", float((q_value[known] < CALLED).mean()) if known.any() else 0.0, MOST_CALLED)


def _of_disagreement(p: Floats, *, split: bool) -> Flag:
    """Features in which guides that act at one level differ by far more than their counts allow."""
    known = np.isfinite(p)
    share = float((p[known] < SURE).mean()) if known.any() else 0.0
    return Flag("guides_disagree", share, MOST_DISAGREE, bool(split or share > MOST_DISAGREE))


def _of_controls(prepared: Prepared) -> Flag:
    """NTC guides, where the targeting guides cannot make up for them."""
    control, here = np.asarray(prepared.dosage.control), np.unique(prepared.stats.guide)
    n = int(control[here].sum())
    needed = prepared.one_dosage or (~control[here]).sum() <= FEW_GUIDES
    return Flag("few_ntc_guides", float(n), float(FEW_CONTROLS), bool(n < FEW_CONTROLS and needed))


def _of_lone_end(prepared: Prepared) -> Flag:
    """Gap in log2 to the next guide, of one that is alone at an end of the axis; raised where its dosage is unsure.

    Such a guide has next to no count of the cis gene: its counts say that it is lower than the others, not how much.
    """
    here = np.unique(prepared.stats.guide)
    x = _dosage_of_guides(prepared)[here]
    error = np.broadcast_to(prepared.dosage.error, prepared.stats.n_guides)[here]
    order = np.argsort(x, kind="stable")
    if len(order) < 2:
        return Flag("lone_guide_at_end", 0.0, FAR_END, raised=False)
    gaps = np.diff(x[order])
    ends = (gaps[0], order[0]), (gaps[-1], order[-1])
    gap, guide = max(ends, key=lambda end: (error[end[1]] > UNSURE_END, end[0]))
    # more than half of the axis on its side, so that half of the strongest change is beyond all other guides
    alone = gap > max(FAR_END, abs(float(x[guide])) / 2)
    return Flag("lone_guide_at_end", float(gap), FAR_END, bool(alone and error[guide] > UNSURE_END))


def _of_batches(prepared: Prepared, rows: Layout) -> Flag:
    """Share of the variance of the dosage between targeted cells that lies between technical groups."""
    stats = prepared.stats
    n = np.bincount(rows.row_of_cell[rows.row_of_cell >= 0], minlength=rows.n_rows).astype(float)
    n = np.where(np.asarray(prepared.dosage.control)[stats.guide], 0.0, n)
    x = np.broadcast_to(prepared.dosage.mean, n.shape)
    centred = x - (n @ x) / n.sum()
    by_group = np.bincount(stats.group, n * centred, stats.n_groups)
    size = np.maximum(np.bincount(stats.group, n, stats.n_groups), 1e-300)
    whole = float(n @ centred**2)
    share = float((by_group**2 / size).sum()) / whole if whole > 0 else 0.0
    return _above("batches_follow_dosage", share, MOST_BY_BATCH)


def _of_offsets(prepared: Prepared) -> Flag:
    """Offsets of guides that follow the dosage, log2 from one end of the axis to the other."""
    here = np.unique(prepared.stats.guide)
    offset = np.asarray(prepared.guide_offset)[here]
    x = _dosage_of_guides(prepared)[here]
    weight = np.bincount(prepared.stats.guide, prepared.stats.exposure, prepared.stats.n_guides)[here]
    x = x - np.average(x, weights=weight)
    slope = float((weight * x) @ offset / max(float(weight @ x**2), 1e-300))
    return _above("size_factors_follow_dosage", abs(slope) * float(np.ptp(x)), LARGEST_OFFSET)


def _dosage_of_guides(prepared: Prepared) -> Floats:
    """``(G,)`` mean over the rows of a guide, by exposure; 0 of controls."""
    stats = prepared.stats
    total = np.bincount(stats.guide, stats.exposure, stats.n_guides)
    mean = np.broadcast_to(prepared.dosage.mean, stats.guide.shape)
    x = np.bincount(stats.guide, stats.exposure * mean, stats.n_guides)
    out = x / np.maximum(total, 1e-300)
    return np.where(np.asarray(prepared.dosage.control), 0.0, out)


def _of_knock_down(prepared: Prepared, counts: Floats, expected: Floats) -> list[Flag]:
    """Whether guides move the cis gene as much in one technical group as in the others.

    The log ratios of a group's guides to NTC level are regressed through the origin on those of the same guides in all
    other groups; the slope is 1 where guides act alike.
    """
    stats, control = prepared.stats, np.asarray(prepared.dosage.control)
    cell = stats.guide * stats.n_groups + stats.group
    n = stats.n_guides * stats.n_groups
    y, e = (np.bincount(cell, v, n).reshape(-1, stats.n_groups) for v in (counts, expected))
    # the level of each group is that of its control cells
    level = y[control].sum(0) / np.maximum(e[control].sum(0), 1e-300)
    known = (level > 0) & (e[~control].sum(0) > 0)
    if known.sum() < 2:
        return []
    y, e = y[~control][:, known], (e * level)[~control][:, known]
    slopes, errors, moves = [], [], []
    for c in range(e.shape[1]):
        other = np.arange(e.shape[1]) != c
        elsewhere = e[:, other].sum(1)
        x, error2 = _log_ratio(y[:, other].sum(1), elsewhere)
        z, variance = _log_ratio(y[:, c], e[:, c])
        both = variance + error2
        w = np.where(np.minimum(e[:, c], elsewhere) >= ENOUGH, 1.0 / both, 0.0)
        size = float(w @ (x**2 - error2))  # less the errors of x, which would make the slope too small
        slope = float((w * x) @ z) / size if size > 0 else 1.0
        # beyond the counts' own noise: cells of a guide differ, and guides between groups
        left = float(w @ (z - slope * x) ** 2) / max(int((w > 0).sum()) - 1, 1)
        slopes.append(slope)
        # a slope on guides that move nothing is one of noise on noise, as that of knock-outs
        moves.append(float(w @ x**2) > MOVES * max(left, 1.0) * int((w > 0).sum()))
        errors.append(np.sqrt(max(left, 1.0) * float(w @ x**2)) / size if size > 0 else np.inf)
    off = np.abs(np.array(slopes) - 1.0)
    worst = int(np.argmax(off))
    clear = moves[worst] and off[worst] > max(WEAKER, CLEAR * errors[worst])
    return [Flag("knock_down_by_batch", slopes[worst], WEAKER, bool(clear))]


def _log_ratio(y: Floats, e: Floats) -> tuple[Floats, Floats]:
    """Log of observed over expected counts, and its variance by the counts alone."""
    return np.log((y + 0.5) / (e + 0.5)), 1.0 / (np.maximum(y, 0.0) + 0.5)
