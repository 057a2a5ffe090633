"""Words for what makes a trans fit doubtful as a whole; the table that `.uns` holds, and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._keys import GROUP_P, GROUP_SD
from dream_sc._logging import logger

from ._response_inputs import technical_counts

if TYPE_CHECKING:
    from ._response_inputs import ResponseInputs

# what a value of a flag means, and what to do
ADVICE = {
    "many_responders": "{value:.0%} of the features are called. Size factors rest on features that stay, and hardly "
    "any does: fold changes may be shifted by a common amount, and false calls many. Use size factors from outside "
    "(spike-ins, counts of another modality), and look at genes that are known to stay",
    "guides_disagree": "in {value:.0%} of the features the guides of the target differ by far more than their counts "
    "allow, or a few of them share what the others do not do. Half of them or more do nothing, some share off-target "
    "effects, or they act with graded strength: one level for all of them is not what they do, and calls may be "
    "missed. Call dream_sc.tl.fit_cis where the mRNA tells dosages, or leave out guides that are known to do nothing",
    "few_ntc_guides": "{value:.0f} NTC guide(s) and few targeting ones: what single guides do besides their target "
    "cannot be told from responses, so that only strong responses are called. More NTC guides, not more cells, help",
    "lone_guide_at_end": "one guide is alone at an end of the dosage axis, {value:.1f} log2 beyond the next, and has "
    "too few counts of the cis gene to tell how far. Changes at that end, and at half of it in log2, are of dosages "
    "that no other guide has: ask for changes where others are, dream_sc.get.dose_response(data, features, "
    "doses=[-1], scale='log2fc'), or leave the guide out of all steps",
    "batches_follow_dosage": "{value:.0%} of the variance of the dosage between cells lies between technical groups. "
    "What a group does to perturbed cells only cannot be told from a response: fit groups apart, or take guides that "
    "occur in all of them",
    "size_factors_follow_dosage": "size factors follow the dosage by {value:.2f} log2 from one end to the other. The "
    "offsets of guides take that off, but what they leave shifts all features alike: "
    "call dream_sc.pp.size_factors(data, method='stable'), or dream_sc.pp.refit_size_factors, and the steps after it",
    "knock_down_by_batch": "in one technical group guides move the cis gene by {value:.2f} of what they do in the "
    "others (log2). Curves are of the mean dosage: call dream_sc.tl.fit_cis with guide_covariate_key= the column of "
    "the groups, which gives guides a dosage in each",
    "dosages_by_group": "guides act differently in the technical groups of the cis step, by {value:.2f} log2 between "
    "them. Curves are of the mean dosage: call dream_sc.tl.fit_cis with guide_covariate_key= the column of the groups, "
    "which gives guides a dosage in each",
}


def flags(inputs: ResponseInputs, columns: dict[str, Any]) -> pd.DataFrame:
    """A row per flag: flag, value, limit, raised, advice (empty where it is not raised), which the log says too."""
    from dream_sc._core.response import flags as core

    disagreement = np.asarray(columns["heterogeneity_p"], float) if inputs.opened.no_dosage else None
    counts = _cis_counts(inputs)
    split = inputs.acting is not None and inputs.acting.disagree
    found = core.flags(inputs.prepared, np.asarray(columns["qvalue"], float), counts, disagreement, split=split)
    found += _of_cis_step(inputs)
    frame = pd.DataFrame(found, columns=list(core.Flag._fields))
    frame["advice"] = [ADVICE[f.flag].format(value=f.value) if f.raised else "" for f in frame.itertuples(index=False)]
    for flag in frame[frame["raised"]].itertuples():
        logger.warning("tl.fit_trans: %s: %s", flag.flag, flag.advice)
    return frame


def _of_cis_step(inputs: ResponseInputs) -> list[Any]:
    """Dosages that differ between technical groups, by the cis step; nothing where it did not look for that."""
    from dream_sc._core.dosage.group_dosages import LARGE, Differs
    from dream_sc._core.response.flags import Flag

    said = inputs.opened.cis["diagnostics"]
    if inputs.opened.no_dosage or not np.isfinite(said.get(GROUP_SD, np.nan)):
        return []
    differs = Differs(float(said[GROUP_SD]), float(said[GROUP_P]))
    return [Flag("dosages_by_group", differs.sd, LARGE, differs.clear)]


def _cis_counts(inputs: ResponseInputs) -> tuple[np.ndarray, np.ndarray] | None:
    """Counts of the cis gene in each row, and those expected at NTC dosage; None where it is not in this modality."""
    from dream_sc._core.response.prepare import expected

    prepared = inputs.prepared
    here = np.asarray(inputs.opened.adata.var_names == inputs.cis_gene)
    if inputs.opened.likelihood.statistics != "counts" or not here.any():
        return None
    technical = technical_counts(inputs.opened)
    if not np.isfinite(technical.baseline[here]).all():
        return None
    return prepared.stats.counts[here][0], expected(prepared.stats, technical, here)[0]
