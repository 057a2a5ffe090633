"""Contexts, such as cell lines, treatments or donors: do they respond differently to the dosage of the cis gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _compile, _validate
from dream_sc._data import made_from, results
from dream_sc._keys import COMPARE, CONTEXTS, CURVE_DOSAGES, MADE_FROM, OF_CONTEXTS, TRANS, ZERO, Slots
from dream_sc._memory.budget import memory_budget
from dream_sc._memory.guard import watched
from dream_sc._progress import bar, features_of

from ._compare_tables import (
    Found,
    curves_array,
    effect_name,
    guides_of,
    levels_array,
    omnibus,
    table_of,
    with_calls,
)
from ._contexts import Context, contexts_of, fit_context, read_fit, shared
from ._ordered_contexts import numbers_of, ordered_slots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData


@watched("compare")
def compare(
    data: AnnData | MuData,
    by: str,
    *,
    reference: str | None = None,
    order: Mapping[str, float] | bool | None = None,
    key: str = TRANS,
    mod: str | None = None,
    n_null: int = 400,
    memory_limit: int | str | None = None,
    rng: int | np.random.Generator = 0,
    progress: bool | None = None,
    key_added: str = COMPARE,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Compare the responses of contexts: the same curve, another EC50 or amplitude, two curves, or one context only.

    The technical and the cis step run on the cells of each context alone, with the settings of the fit, so that level,
    overdispersion, depth, cell number and knock-down of a context are its own. Dosages of `tl.set_dosage` are kept.
    The curve of each context is one Hill. A guide's own effects are partly the same in both contexts; how much is
    learned over features. The probability that the responses differ rests on marginal likelihoods of six hypotheses,
    whose weights are learned over features. `docs/contexts.md` has the model.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run, on the cells of all contexts together.
    by
        Column of `.obs` with the context of each cell, such as a cell line, a treatment or a donor. Cells where it is
        missing take no part, and the log says how many these are.
    reference
        The context that the others are compared with; by default that with most cells. Not with `order`.
    order
        The number of each context, such as hours or the log of a dose, of three contexts or more: is there a linear
        trend of the log2 EC50 or of the log2 amplitude? True: the labels are numbers, or an ordered categorical whose
        categories are one unit apart.
    key
        `key_added` of the trans fit, whose settings are taken. Fits of features with several categories, and fits
        without dosages, are refused.
    mod
        Modality of a MuData.
    n_null
        Number of features to simulate without a difference, for p-values; 0: none, which saves their time.
    memory_limit
        Bytes, or a text such as "4GB", that this may add to what is in memory; by default half of what is available.
        Where that is too little for the cells of a context and the sums of all, the call is refused.
    rng
        Seed; the same seed gives the same result.
    progress
        Show a progress bar, over features; by default on a terminal and in a notebook.
    key_added
        Name under which results are stored.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.varm[key_added]` with a row per feature: `hypothesis` (null: no response
    in both contexts; equal; amplitude: another amplitude; dosage: another EC50; free: other curves; only: a response in
    one context), `responds_in`, `qvalue_differs`, `lfdr_differs` (probability of null or equal), `pvalue_differs`
    (against features simulated without a difference), `log_bf_differs`, and differences, the context less the
    reference, each with the ends of its 95 % interval: `delta_log2_ec50` and `log2_amplitude_ratio` (of free curves;
    read them where both contexts respond), and `delta_log2fc_full`, of the fold change at the strongest dosage that
    both contexts reach, if the contexts differ (`delta_log_odds_full` of shares, `delta_delta_full` of scores).
    `status` is "compared", "cis_gene" or "filtered"; `note` says why, or that the responses of a compared feature go in
    opposite directions, or that `tl.fit_trans` calls a feature with the hypothesis null.

    With more than two contexts a row is that of the context which differs most clearly, with a bound of the local FDR
    over all contexts; `.uns[key_added]["of_contexts"]` has a row per feature and context. `get.compare` reads both.
    With `order`, a row per feature has `hypothesis` (null, equal, amplitude_trend, dosage_trend, both_trends, free:
    some contexts differ in another way), `qvalue_trend`, `lfdr_trend` (probability that there is no linear trend),
    `pvalue_trend` (against features simulated without a difference), `log_bf_trend`, `qvalue_differs` and
    `lfdr_differs` (of any difference), and `log2_ec50_slope` and `log2_amplitude_slope` per unit of the numbers, each
    with the ends of its 95 % interval; read them where the feature responds.

    `.varm[key_added + "_curves"]` and `.varm[key_added + "_guide_levels"]` hold what `pl.compare` draws.

    Raises
    ------
    ValueError, KeyError
        If the fit is missing, has several categories or no dosages, if there are fewer than two contexts, three with
        `order`, if a context has no number, or if one of them cannot be fitted on its own, as where it has no control
        cells.

    Examples
    --------
    >>> adata.obs["line"] = ["one" if i % 2 else "two" for i in range(adata.n_obs)]  # contexts that do not differ
    >>> ds.tl.compare(adata, "line", n_null=0)
    >>> bool((ds.get.compare(adata)["qvalue_differs"] < 0.05).any())
    False

    Three time points in their order:

    >>> adata.obs["hours"] = [6 * (1 + i % 3) for i in range(adata.n_obs)]
    >>> ds.tl.compare(adata, "hours", order=True, n_null=0, key_added="hours")
    >>> bool((ds.get.compare(adata, key="hours")["qvalue_trend"] < 0.05).any())
    False
    """
    started = results.now()
    if n_null != 0:
        _validate.whole("n_null", n_null, 20)
    memory_budget(memory_limit)
    seed, data = results.seed_of(rng), results.own(data, copy)
    adata = _validate.resolve(data, mod)
    _validate.new_key(adata, key_added, "tl.compare")
    fit = read_fit(data, mod, key)
    names, labels = contexts_of(fit, by, reference)
    numbers = numbers_of(fit, by, names, order, reference)
    names = names if numbers is None else list(numbers)
    _compile.ready("technical", progress, then=("cis",))
    contexts = [fit_context(fit, name, by, labels, seed) for name in names]
    params: dict[str, Any] = {"by": by, "key": key, "n_null": n_null}
    if numbers is None:
        params["reference"] = names[0]
        wrap = bar(progress, _bars(names, n_null), "features", size=features_of)
        found = [_against(contexts[0], other, seed, n_null, wrap) for other in contexts[1:]]
        slots = _slots(adata, contexts, found, key, key_added)
    else:
        params["order"] = np.array(list(numbers.values()))
        wrap = bar(
            progress, [f"trends over {by}"] + ["... simulated nulls"] * (n_null > 0), "features", size=features_of
        )
        slots = ordered_slots(adata, contexts, params["order"], seed, n_null, wrap, (key, key_added))
    info = results.run_info(started, seed, params) | {
        "cis_gene": contexts[0].inputs.cis_gene,
        "cis_mod": fit.info["cis_mod"],
    }
    info[MADE_FROM] = made_from.of_steps({key: fit.info})
    slots["uns", key_added] = info | slots["uns", key_added]
    results.write(adata, "tl.compare", slots, started)
    return data if copy else None


def _bars(names: list[str], n_null: int) -> list[str]:
    """A bar for each context, and for the features simulated for it."""
    out = []
    for name in names[1:]:
        out += [f"compare {name} with {names[0]}"] + ["... simulated nulls"] * (n_null > 0)
    return out


def _against(reference: Context, other: Context, seed: int, n_null: int, wrap: Any) -> Found:
    """One context against the reference."""
    from dream_sc._core.response.contexts.decision import decide
    from dream_sc._core.response.contexts.describe import curves_of, described

    pair = shared(reference, other)
    direct = reference.inputs.prepared.direct
    learns = None if direct is None else ~direct[pair.features]
    decision, blocks = decide(pair.measured, seed=seed, n_null=n_null, learns=learns, progress=wrap)
    unit = reference.inputs.prepared.likelihood.effect_unit
    columns = described(pair.measured, decision, blocks, unit)
    return Found(other, pair, decision, blocks, columns, curves_of(pair.measured, decision, blocks))


def _slots(
    adata: AnnData, contexts: list[Context], found: list[Found], trans_key: str, key: str
) -> dict[tuple[str, str], Any]:
    """What is written."""
    from dream_sc._core.response import direction

    called = adata.varm[trans_key]["qvalue"].to_numpy(float) < direction.CALLED
    tables = [with_calls(table_of(contexts[0], each, adata.var_names), called) for each in found]
    info: dict[str, Any] = {CONTEXTS: [c.name for c in contexts]}
    frame = tables[0]
    if len(tables) > 1:
        frame, info[OF_CONTEXTS] = omnibus(tables)
    guides = list(dict.fromkeys(g for each in found for g in each.shared.guides))
    like, zero = contexts[0].inputs.prepared.likelihood, contexts[0].inputs.zero
    x = [each.drawn.x + (zero or 0.0) for each in found]
    info |= {
        "learned": _learned(found),
        "guides": guides_of(contexts),
        "n_cells": np.array([c.n_cells for c in contexts]),  # in the order of the contexts
        "targeting": guides,
        "effect": effect_name(like),
        "effect_unit": like.effect_unit,
        CURVE_DOSAGES: np.stack(x),
    }
    if zero is not None:
        info[ZERO] = zero
    slots = Slots(key)
    return {
        ("varm", key): frame,
        ("varm", slots.curves): curves_array(found, adata.n_vars),
        ("varm", slots.guide_levels): levels_array(found, guides, adata.n_vars),
        ("uns", key): info,
    }


def _learned(found: list[Found]) -> pd.DataFrame:
    """What was learned over features, a row per context."""
    from dream_sc._core.response.contexts.hypotheses import HYPOTHESES

    rows = [
        dict(zip((f"weight_{name}" for name in HYPOTHESES), each.decision.prior.weights.tolist(), strict=True))
        | {
            "shared_guide_effects": each.decision.rho,
            "guide_sd": float(np.exp(each.decision.prior.tau_log_mean)),
            "log2_dosage_full": each.shared.measured.full + (found[0].context.inputs.zero or 0.0),
        }
        for each in found
    ]
    return pd.DataFrame(rows, index=[each.context.name for each in found])
