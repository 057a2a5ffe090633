"""What the columns of the tables mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast, get_args

from dream_sc import _validate
from dream_sc._keys import (
    CIS_COLUMNS,
    DIRECT_TARGET,
    GUIDE_COLUMNS,
    NEAR_CIS,
    SCORE_COLUMNS,
    TECHNICAL_COLUMNS,
    THEORY_COLUMNS,
    main_columns,
    trans_columns,
)

if TYPE_CHECKING:
    import pandas as pd

    from dream_sc._core.likelihoods import Distribution, Likelihood

TableName = Literal["trans", "main", "guides", "cis", "technical", "doses", "guide_effects"]
QUANTILES = {"_q025": "lower end of its 95 % interval", "_q975": "upper end of its 95 % interval"}
EFFECTS = {
    "log2fc": "log2 fold change against NTC",
    "delta_p": "difference of the share to NTC",
    "delta": "difference of the score to NTC",
}
_TRANS = {  # "effect" stands for how a likelihood calls it, {} for what that is
    "on_knockdown": "what the feature does where the cis gene is knocked down: down, up, or mixed for peaks and "
    "troughs; empty without a response",
    "qvalue": "false discovery rate if you keep this feature and all better ones (lfdr itself where that is above 0.5: "
    "what rather does not respond is never called); none for direct targets",
    "confidence": "of a call (q < 0.05), whatever its shape (p_class). low: lfdr above 0.2, no evidence left without "
    "the most influential guide (log_bf_loo of 0 or less), fewer than two guides support it (n_guides_support), or "
    "pareto_k is above 0.7. high: not low, no switch, lfdr below 0.01, log_bf_loo above log(10), three guides that "
    "support it, and "
    "p_trend_within_targeting below 0.05. moderate: all others; empty where not called",
    "category": "category of the feature that moves most, whose numbers these are",
    "effect_full": "{} at the strongest observed knock-down (for doses: at the top dose)",
    "effect_half": "{} at half of the strongest knock-down, in log2 (for doses: at half the top dose)",
    "effect_max": "{} at the strongest observed activation; none where nothing was activated. Its interval is of the "
    "curve in model: too narrow where one Hill stands for two",
    "effect_range": "largest less smallest value of the curve within the observed dosages, in the unit of the effect",
    "log2_dosage_full": "dosage at which the effect at full is taken, log2, relative to NTC (for doses: in their unit)",
    "log2_dosage_max": "dosage at which the effect at the strongest activation is taken, log2",
    "log2_ec50": "dosage of half the response, log2, relative to NTC (for doses: of the user's unit); half of the "
    "movement of the expected count (odds, score), not of its log2",
    "p_ec50_inside": "probability that the EC50 lies within the observed dosages; report it only where this is high",
    "class": "likeliest shape as the dosage rises: increasing, decreasing, threshold_increasing, threshold_decreasing "
    "(most of it within 1 log2), biphasic_min, biphasic_max; switch (one level for all acting guides), or null",
    "p_class": "probability of this class: how sure the shape is; confidence is of the call",
    "status": "the first that holds of cis_gene, not_asked, filtered, not_converged, low_accuracy (pareto_k above "
    "0.7), few_guides, converged",
    "note": "why the status is what it is, what else to be careful about, and what to do",
    "score": "for ranking: log Bayes factor (0 where it is negative) with the sign of the change on knock-down",
    "model": "model that describes it: null, switch, single_hill, additive_hill, polynomial",
    "lfdr": "probability that the feature does not respond",
    "pvalue": "p-value, against simulated null features",
    "log_bf": "log Bayes factor of a response against none",
    "log_bf_loo": "log Bayes factor without the most influential guide; at 0 or below the call rests on one guide",
    "lfdr_graded": "probability that the feature does not follow the dosage: of no response, or of one level for all "
    "acting guides; none where no curve was compared",
    "qvalue_graded": "false discovery rate of following the dosage, or lfdr_graded itself where that is above 0.5; "
    "below 0.05 a curve describes the call",
    "log_bf_graded": "log Bayes factor of the curves against the better of no response and switch",
    "n_guides_support": "targeting guides that differ from NTC by themselves, in the direction of the curve",
    "p_trend_within_targeting": "p-value of a trend over dosage among the targeting guides alone; none below three",
    "heterogeneity_p": "Cochran's Q of the guides around the curve: small where guides disagree with it",
    "slope_within": "slope over dosage between cells of the same guide (not used for the call)",
    "slope_within_sd": "its standard error",
    "slope_ntc": "slope of the curve at NTC dosage, effect per log2 of dosage",
    "inflection": "dosage at which the curve is steepest, log2",
    "hill_n": "steepness (Hill coefficient), with the sign of the response as dosage rises",
    "baseline": "expected value at NTC dosage: count at size factor 1, share, or score",
    "amplitude": "asymptote at high dosage over that at low dosage, in the unit of the effect",
    "log2_ec50_b": "EC50 of the second Hill, above the first's",
    "hill_n_b": "steepness of the second Hill",
    "amplitude_b": "amplitude of the second Hill",
    "min_detectable_effect": "smallest effect detectable with 80 % power",
    "guide_sd": "sd between guides of equal dosage: log2 of counts, log odds of shares, or unit of the score",
    "overdispersion": "variance between cells of the same guide beyond chance, by the technical step",
    "pareto_k": "above 0.7 do not trust the intervals; none where draws have no weights",
    "n_cells": "cells that take part",
    "n_capped_cells": "counts of single cells that the other cells of their guide do not allow, capped in the sums; "
    "none with covariates",
    "mean": "mean count per cell at size factor 1, share, or score",
    "centre": "centre of the scores, from which the fit measures them",
    "scale": "sd of the scores, in which the fit measures them",
    DIRECT_TARGET: "whether guides act on the feature themselves; nothing is learned from it, and it has no q-value",
    NEAR_CIS: "whether it is within a million bases of the cis gene; where .var has positions",
    THEORY_COLUMNS["pvalue"]: "p-value before tl.calibrate(replace=True)",
    THEORY_COLUMNS["qvalue"]: "q-value before tl.calibrate(replace=True)",
    THEORY_COLUMNS["qvalue_graded"]: "q-value of following the dosage before tl.calibrate(replace=True)",
    "ec50": "the EC50 with its 95 % interval where p_ec50_inside is above 0.95; else on which side of the observed "
    "dosages it lies, or not determined; a switch has none, since all guides that act bring the feature to one level",
}
_OTHERS: dict[str, dict[str, str]] = {
    "guides": {
        "guide": "name of the guide (the index)",
        "target": "what it targets",
        "is_control": "whether it is an NTC guide",
        "n_cells": "its cells",
        "log2_dosage": "dosage of the cis gene in its cells, log2, relative to NTC",
        "sd": "standard error of the dosage",
        "log2fc": "the dosage once more, as the log2 fold change of the cis gene against NTC, which its interval is of",
        "log2fc_q025": "lower end of its 95 % interval, the error of the NTC level included",
        "log2fc_q975": "upper end of its 95 % interval",
        "within_sd": "sd of the dosage between its cells",
        "escaper_fraction": "fraction of unperturbed cells",
        "escaper_fraction_q025": "lower end of its 95 % interval",
        "escaper_fraction_q975": "upper end of its 95 % interval; missing where none are looked for",
        "log2_dosage_acting": "dosage in the cells in which the guide acts",
        "sd_acting": "its standard error",
    },
    "cis": {
        "x_true": "dosage of the cell, 1 at NTC (posterior median)",
        "log2_x_true": "log2 of it",
        "log2_sd": "posterior sd of the log2",
        "log2_q025": "lower end of its 95 % interval",
        "log2_q975": "upper end of its 95 % interval",
    },
    "technical": {
        "mu": "expected value in control cells of the reference group: count at size factor 1, share, or score",
        "mu_sd": "its standard error, of the log or the log odds",
        "overdispersion": "variance between cells beyond chance",
        "overdispersion_sd": "its standard error",
        "sigma": "sd of the score between cells",
        "sigma_sd": "its standard error",
        "status": "converged, or why there is no fit",
    },
    "doses": {
        "feature": "name of the feature",
        "level": "share of the movement from NTC to the strongest knock-down (activation, or top dose)",
        "log2_dosage": "dosage at which it is first reached from NTC, log2 (posterior median)",
        "q025": "lower end of its 95 % interval; none beyond the observed dosages",
        "q975": "upper end of its 95 % interval; none beyond the observed dosages",
        "p_reached": "probability that it is reached within the observed dosages",
    },
    "guide_effects": {
        "feature": "name of the feature",
        "guide": "name of the guide",
        "is_control": "whether it is an NTC guide",
        "n_cells": "its cells",
        "log2_dosage": "dosage of the cis gene in its cells, log2",
        "effect": "{} of the guide's cells; an NTC guide is held against the others",
        "se": "its standard error, with the sd between guides of equal dosage",
        "pvalue": "two-sided p-value of no effect",
        "fitted": "effect of the fitted curve at the guide's dosage",
        "p_fitted": "two-sided p-value of no difference from the curve: small where the guide disagrees",
    },
}


def columns(table: TableName = "trans", *, distribution: Distribution = "negbinom") -> dict[str, str]:
    """What the columns of a table mean.

    Parameters
    ----------
    table
        "trans" or "main" (`get.trans`, and its ``columns="main"``), "guides", "cis", "technical", "doses" or
        "guide_effects": the function of `get` that returns the table.
    distribution
        That of the fit: it decides what effects are called.

    Returns
    -------
    Meaning by name of the column, in their order. `tl.fit_trans` stores the same table of its columns as
    ``.uns[key]["columns"]``, for those who open the file elsewhere. A table lacks those that do not apply
    to its data, such as `near_cis` without positions of genes. `get.technical` adds the effects of groups and
    covariates, `get.doses` the column `fold_change` where it is asked for, and tables of a multinomial name the
    `category`.

    Raises
    ------
    ValueError
        If there is no such table or distribution.

    Examples
    --------
    >>> ds.get.columns()["lfdr"]
    'probability that the feature does not respond'
    >>> list(ds.get.columns("main"))[:4]
    ['on_knockdown', 'qvalue', 'confidence', 'log2fc_full']
    """
    from dream_sc._core.likelihoods import likelihood

    _validate.one_of("table", table, get_args(TableName))
    like = likelihood(distribution)
    if table in ("trans", "main"):
        return {name: _of_trans(name, like.effect) for name in names_of_columns(table, like)}
    meaning = _OTHERS[table]
    if table == "guide_effects":
        return {
            like.effect if name == "effect" else name: text.format(EFFECTS[like.effect])
            for name, text in meaning.items()
        }
    scores = SCORE_COLUMNS if like.statistics == "scores" else TECHNICAL_COLUMNS
    stored = {"guides": GUIDE_COLUMNS, "cis": CIS_COLUMNS, "technical": scores}
    return {name: meaning[name] for name in stored.get(table, tuple(meaning))}


def explained(distribution: str) -> pd.DataFrame:
    """Meaning of the columns of the trans step as a table (column, meaning), which files store better than a dict."""
    import pandas as pd

    known = columns("trans", distribution=cast("Distribution", distribution))
    return pd.DataFrame({"column": list(known), "meaning": list(known.values())})


def names_of_columns(table: str, like: Likelihood) -> list[str]:
    """Columns of the trans step that a likelihood has."""
    lacks = set() if like.categories else {"category"}
    lacks |= {"overdispersion"} if like.statistics == "scores" else {"centre", "scale"}
    lacks |= set() if like.statistics == "counts" else {"n_capped_cells"}
    if table == "main":
        return [name for name in main_columns(like.effect) if name not in lacks]
    names = [name for name in trans_columns(like.effect) if name not in lacks]
    for name, theory in THEORY_COLUMNS.items():
        names.insert(names.index(name) + 1, theory)
    return [*names, DIRECT_TARGET, NEAR_CIS]


def _of_trans(name: str, effect: str) -> str:
    """Meaning of a column of the trans step."""
    for end, text in QUANTILES.items():
        if name.endswith(end):
            return f"{text} ({name.removesuffix(end)})"
    own = f"effect{name.removeprefix(effect)}" if name.startswith(effect) else name.replace(f"_{effect}", "_effect")
    return _TRANS[own].format(EFFECTS[effect])
