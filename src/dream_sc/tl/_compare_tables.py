"""Tables and arrays that `tl.compare` writes, from what the core found of each pair of contexts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._core.curves import NULL
from dream_sc._keys import COMPARE_TEXTS, compare_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.likelihoods import Likelihood
    from dream_sc._core.response.contexts.decision import Block, Decision
    from dream_sc._core.response.contexts.describe import Drawn

    from ._contexts import Context, Shared

# what a difference of effects is called, by what the effect of one context is called, and its unit where it has one
EFFECTS = {"counts": "log2fc", "shares": "log_odds", "scores": "delta"}
COMPARED = "compared"
OPPOSITE, SURE = "the responses go in opposite directions", 0.95  # and the probability from which on it is said


NOT_HERE = "tl.fit_trans calls it: a shape that one Hill does not have, such as a peak, or evidence near the limit"


@dataclass(frozen=True)
class Found:
    """What was found of one context against the reference."""

    context: Context
    shared: Shared
    decision: Decision
    blocks: list[Block]
    columns: dict[str, Any]  # of the core's description
    drawn: Drawn


def with_calls(table: pd.DataFrame, called: NDArray[np.bool_]) -> pd.DataFrame:
    """The same, with a note where the fit of all contexts calls a feature that has no response here."""
    silent = called & (table["hypothesis"] == NULL.name).to_numpy(bool) & table["note"].isna().to_numpy(bool)
    note = table["note"].astype(object)
    note[silent] = NOT_HERE
    return tidy(table.assign(note=note))


def effect_name(like: Likelihood) -> str:
    """What the effect is called in the columns."""
    return EFFECTS[like.statistics]


def table_of(reference: Context, found: Found, names: pd.Index) -> pd.DataFrame:
    """A row per feature of the object, for one context against the reference."""
    prepared, some, d = reference.inputs.prepared, found.shared.features, found.decision
    like, columns = prepared.likelihood, found.columns
    scale = np.ones(len(d.lfdr)) if prepared.scale is None else prepared.scale[some]
    values: dict[str, Any] = {
        "context": np.full(len(d.lfdr), found.context.name, dtype=object),
        "hypothesis": columns["hypothesis"].astype(object),
        "responds_in": _responds_in(reference, found),
        "qvalue_differs": d.q_value,
        "lfdr_differs": d.lfdr,
        "pvalue_differs": d.p_value,
        "log_bf_differs": d.log_bf,
        "status": np.full(len(d.lfdr), COMPARED, dtype=object),
        "note": np.array(
            [OPPOSITE if yes else None for yes in _differ_both(found) & (columns["opposite"] > SURE)], object
        ),
    }
    of_effect = f"delta_{effect_name(like)}_full"
    for name, source, factor in (
        ("delta_log2_ec50", "log2_ec50", 1.0),
        ("log2_amplitude_ratio", "log2_amplitude_ratio", 1.0),
        (of_effect, "effect", scale),
    ):
        for suffix, row in zip(("", "_q025", "_q975"), columns[source], strict=True):
            values[name + suffix] = row * factor
    status, note = why_not([reference, found.context])
    out = {}
    for name in compare_columns(effect_name(like)):
        text = name in COMPARE_TEXTS
        every = np.full(len(names), None if text else np.nan, dtype=object if text else float)
        if name in values:
            every[some] = values[name]
        out[name] = every
    out["status"] = np.where(some, out["status"], status)
    out["note"][~some] = note[~some]
    out["context"][:] = found.context.name
    return tidy(pd.DataFrame(out, index=names))


def _differ_both(found: Found) -> np.ndarray:
    """Features that respond in both contexts, not in the same way."""
    return np.isin(found.columns["hypothesis"], ("amplitude", "dosage", "free"))


def _responds_in(reference: Context, found: Found) -> np.ndarray:
    """Where a feature responds: "both", the name of the one context, or nowhere."""
    from dream_sc._core.response.contexts.hypotheses import HYPOTHESES

    hypothesis, first = found.columns["hypothesis"], found.columns["responds_first"]
    alone = np.where(first > 0.5, reference.name, found.context.name)
    out = np.where(hypothesis == "only", alone, "both").astype(object)
    out[hypothesis == HYPOTHESES[0]] = None
    return out


def why_not(contexts: list[Context]) -> tuple[np.ndarray, np.ndarray]:
    """Status and words of features that were not compared."""
    from dream_sc._core.response.status import OF_CIS_GENE

    reasons = {c.name: c.inputs.prepared.reason for c in contexts}
    of_cis_gene = np.logical_or.reduce([why == OF_CIS_GENE for why in reasons.values()])
    status = np.where(of_cis_gene, "cis_gene", "filtered").astype(object)
    note = np.array(
        ["; ".join(f"{name}: {why[i]}" for name, why in reasons.items() if why[i]) for i in range(len(status))],
        dtype=object,
    )
    note[of_cis_gene] = None
    return status, note


def guides_of(contexts: list[Context]) -> pd.DataFrame:
    """The guides of all contexts with their dosages in each."""
    names = ["guide", "target", "is_control", "n_cells", "log2_dosage", "sd"]
    out = pd.concat([c.guides[names].assign(context=c.name) for c in contexts], ignore_index=True)
    out.index = out.index.astype(str)
    return out


def tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """Texts as categories, which files hold with gaps."""
    texts = [name for name in COMPARE_TEXTS if name in frame]
    return frame.assign(**{name: pd.Categorical(frame[name]) for name in texts})


def omnibus(tables: list[pd.DataFrame]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per feature over all contexts, and the rows of all contexts with q-values over all of them.

    A feature's row is that of the context which differs most clearly. Its local FDR is an upper bound of the
    probability that no context differs; the p-value is corrected for the number of contexts.
    """
    from dream_sc._core.response.decision import q_values

    texts = [name for name in COMPARE_TEXTS if name in tables[0]]  # whose categories differ between contexts
    plain = [t.assign(feature=t.index.astype(str), **{n: t[n].astype(object) for n in texts}) for t in tables]
    every = pd.concat(plain, ignore_index=True)
    known = every["qvalue_differs"].notna().to_numpy()
    q = np.full(len(every), np.nan)
    q[known] = q_values(every["lfdr_differs"].to_numpy(float)[known])
    every["qvalue_differs"] = q
    lfdr = np.stack([t["lfdr_differs"].to_numpy(float) for t in tables], 1)
    best = np.where(np.isnan(lfdr), np.inf, lfdr).argmin(1)
    n = len(best)
    out = every.iloc[best * n + np.arange(n)].drop(columns="feature").set_axis(tables[0].index)
    some = out["qvalue_differs"].notna().to_numpy()
    q = np.full(n, np.nan)
    q[some] = q_values(out["lfdr_differs"].to_numpy(float)[some])
    p = np.minimum(
        np.stack([t["pvalue_differs"].to_numpy(float) for t in tables], 1) * (~np.isnan(lfdr)).sum(1)[:, None], 1.0
    )
    p = np.where(np.isnan(p).all(1), np.nan, np.where(np.isnan(p), np.inf, p).min(1))
    out = out.assign(qvalue_differs=q, pvalue_differs=p)
    return tidy(out), tidy(every[["feature", *out.columns]])


def curves_array(found: list[Found], n_vars: int) -> np.ndarray:
    """Curves ``(n_vars, 6 x contexts, X)``: median, lower and upper end, of the reference and of the other context.

    They are differences to NTC dosage on the scale of the predictor, NaN where nothing responds.
    """
    n_points = len(found[0].drawn.x)
    out = np.full((n_vars, 6 * len(found), n_points), np.nan, dtype=np.float32)
    for i, each in enumerate(found):
        rows = np.flatnonzero(each.shared.features)[each.drawn.rows]
        out[rows, 6 * i : 6 * i + 6] = each.drawn.curves.reshape(len(rows), 6, n_points)
    return out


def levels_array(found: list[Found], guides: list[str], n_vars: int) -> np.ndarray:
    """Levels ``(n_vars, 2 x contexts, G)`` of the targeting guides less that of NTC guides, and their errors.

    The reference comes first; on the scale of the predictor, NaN of a guide without cells.
    """
    from dream_sc._core.response.contexts.guide_levels import NOTHING

    out = np.full((n_vars, 2 * (len(found) + 1), len(guides)), np.nan, dtype=np.float32)
    place = {name: i for i, name in enumerate(guides)}
    for i, each in enumerate(found):
        at, n = [place[g] for g in each.shared.guides], len(each.shared.guides)
        mean = np.concatenate([b.levels.pair.mean[:, :, :n] for b in each.blocks])
        sd = np.sqrt(np.concatenate([b.levels.pair.variance[:, :, :n] for b in each.blocks]))
        unit = each.shared.measured.priors.unit
        mean = np.where(sd < unit * NOTHING**0.5 / 2, mean, np.nan)
        sd = np.where(np.isnan(mean), np.nan, sd)
        rows = np.flatnonzero(each.shared.features)
        # of the reference each pair has the same, but for features that another context lacks
        new = np.isnan(out[rows, 0]).all(1)
        for c, k, some in ((0, 0, new), (1, i + 1, np.ones(len(rows), dtype=bool))):
            for j, values in enumerate((mean, sd)):
                part = out[rows[some], 2 * k + j]
                part[:, at] = values[some, c]
                out[rows[some], 2 * k + j] = part
    return out
