"""What the columns of the table mean, for the sheet that explains them."""

from __future__ import annotations

MEANINGS = {
    "model": "curve of highest evidence",
    "on_knockdown": "what the gene does where the cis gene is knocked down: down, up or mixed",
    "score": "log Bayes factor with the sign of the change on knock-down, for ranking",
    "lfdr": "probability that the gene does not respond",
    "qvalue": "false discovery rate if you keep this gene and all better ones",
    "pvalue": "p-value against simulated null genes",
    "log_bf": "log Bayes factor of the best response against no response",
    "log_bf_loo": "evidence left after dropping the most influential guide; below 0 the call rests on one guide",
    "n_guides_support": "number of guides that support the call by themselves",
    "p_trend_within_targeting": "p-value of a trend over dosage among targeting guides only",
    "class": "shape of the curve as dosage rises",
    "log2_ec50": "log2 dosage of half the response, relative to NTC",
    "p_ec50_inside": "report an EC50 only where this is above 0.9",
    "hill_n": "steepness, with the sign of the response",
    "baseline": "mean normalised count per cell at NTC dosage (a share, or a mean score)",
    "amplitude": "log2 of one asymptote over the other, signed",
    "log2fc_full": "log2 fold change at the strongest observed knock-down",
    "log2fc_half": "log2 fold change at half of the strongest knock-down",
    "log2fc_max": "log2 fold change at the strongest observed activation",
    "log2fc_range": "log2 of the highest over the lowest level of the curve in the observed range",
    "min_detectable_log2fc": "smallest fold change (log2) detectable with 80 % power",
    "overdispersion": "variance of counts beyond Poisson, as coefficient of variation",
    "guide_sd": "how much guides of equal dosage differ in this gene, log2",
    "n_cells": "cells that took part",
    "mean": "mean normalised count per cell",
    "status": "converged, or why a number is missing",
    "near_cis": "within a million bases of the cis gene",
    "direct_target": "the guides act on this gene themselves; it is no response to the dosage",
}
ENDS = {"_q025": "lower end of the 95 % interval of", "_q975": "upper end of the 95 % interval of"}


def meanings(columns: list[str]) -> dict[str, str]:
    """Meaning of each of these columns; the empty text where none is known."""
    from dream_sc import get

    known = dict(MEANINGS)
    of_package = getattr(get, "columns", None)
    if callable(of_package):
        known |= {str(name): str(text) for name, text in dict(of_package()).items()}
    return {name: _one(name, known) for name in columns}


def _one(name: str, known: dict[str, str]) -> str:
    if name in known:
        return known[name]
    for end, text in ENDS.items():
        if name.endswith(end):
            return f"{text} {name.removesuffix(end)}"
    if name.endswith("_b") and name.removesuffix("_b") in known:
        return f"the same of the second Hill: {known[name.removesuffix('_b')]}"
    return ""
