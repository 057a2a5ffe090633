"""Groups of responding features by where along the dosage they respond."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._core.response import posterior_record
from dream_sc._core.response.response_groups import GROUPS, Membership, membership
from dream_sc._data import made_from, results
from dream_sc._keys import GROUP, GROUP_COLUMNS, MADE_FROM, RESPONSE_GROUPS, TRANS, UNCLEAR, ZERO

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from dream_sc.get._names import TransFit

logger = logging.getLogger(__name__)
STEP = "tl.group_responses"
LEAST_WAY = 0.3  # log2: guides that move the cis gene by less show no groups


def group_responses(
    data: AnnData | MuData,
    *,
    key: str = TRANS,
    side: Literal["knockdown", "activation"] | None = None,
    fdr: float = 0.05,
    probability: float = 0.5,
    mod: str | None = None,
    key_added: str = RESPONSE_GROUPS,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Group the features that follow the dosage by where on the way from control cells they respond.

    On the way from NTC dosage to the strongest guide, in log2 dosage: *early*, half of the change is done within the
    first third; *buffered*, not before the last third, or there is hardly a change on this side; between these,
    *threshold* where 80 % of the change takes less than 1 log2, else *proportional*. Every posterior draw of a
    feature's curve is sorted by itself, and the shares of draws are the probabilities of the groups: no point
    estimates are clustered.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    key
        `key_added` of that fit.
    side
        "knockdown" or "activation": the way that is looked at. By default knock-down, where guides knock down by 0.3
        log2 or more, else activation.
    fdr
        Features with a smaller `qvalue_graded`, and `qvalue`, are grouped.
    probability
        A feature is put in its likeliest group if that has at least this probability, else its group is "unclear".
    mod
        Modality of a MuData.
    key_added
        Name under which results are stored.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.varm[key_added]`, which `get.groups` reads: group (missing for features
    that are not called), p_early, p_proportional, p_threshold, p_buffered (what they lack to 1 is the probability that
    the curve rises and falls on the way), half_at, half_at_q025, half_at_q975 (log2 dosage at which half of the change
    is done; missing where most draws hardly change), and `.uns[key_added]`.

    Raises
    ------
    KeyError, ValueError
        If there is no fit, it has no dosages relative to controls, its features have several categories, no guide acts
        on this side, or an argument is impossible.

    Examples
    --------
    >>> ds.tl.group_responses(adata)
    >>> groups = ds.get.groups(adata)
    >>> set(groups["group"]) <= {"early", "proportional", "threshold", "buffered", "unclear"}
    True
    """
    started = results.now()
    for name, value in (("fdr", fdr), ("probability", probability)):
        if not 0 < _validate.number(name, value) < 1:
            raise ValueError(f"{name}={value} is not between 0 and 1")
    if side is not None:
        _validate.one_of("side", side, ("knockdown", "activation"))
    data = results.own(data, copy)
    adata = _validate.resolve(data, mod)
    _validate.new_key(adata, key_added, STEP)
    from dream_sc.get._names import trans_fit

    fit = trans_fit(data, key, mod)
    end = _end(fit, side)
    frame = _table(fit, end, fdr, probability)
    params = {"key": key, "side": "knockdown" if end < 0 else "activation", "end": end, "fdr": float(fdr)}
    params["probability"] = float(probability)
    info = results.run_info(started, 0, params) | {
        "cis_gene": fit.info["cis_gene"],
        MADE_FROM: made_from.of_steps({key: fit.info}),
    }
    results.write(adata, STEP, {("varm", key_added): frame, ("uns", key_added): info}, started)
    logger.info("%s: %s", STEP, frame[GROUP].value_counts().to_dict())
    return data if copy else None


def _end(fit: TransFit, side: str | None) -> float:
    """The strongest dosage on the side that is looked at."""
    axis = fit.info["axis"]
    if fit.feature is not None:
        raise ValueError(f".uns[{fit.key!r}] is of features with several categories, which have a curve each")
    if ZERO in axis or not np.isfinite(axis["low"]):
        raise ValueError(f".uns[{fit.key!r}] has no dosages relative to control cells, on which groups are defined")
    low, high = float(axis["low"]), float(axis["high"])
    if side is None:
        side = "knockdown" if low <= -LEAST_WAY else "activation"
    end = low if side == "knockdown" else high
    if abs(end) < LEAST_WAY:
        raise ValueError(
            f"side={side!r}: the strongest guide moves the cis gene by {end:.2f} log2 there; use the other"
        )
    return end


def _table(fit: TransFit, end: float, fdr: float, probability: float) -> pd.DataFrame:
    """Groups of all features, missing where they are not called."""
    frame = fit.frame
    called = (frame["qvalue_graded"].to_numpy(float) < fdr) & (frame["qvalue"].to_numpy(float) < fdr)
    rows = np.flatnonzero(called & np.isfinite(fit.records[:, 0]))
    names = list(GROUP_COLUMNS[1:])
    values = np.full((len(frame), len(names)), np.nan)
    group = np.full(len(frame), None, dtype=object)
    for r in rows:
        curve, consts, draws = posterior_record.unpack(fit.records[r])
        if curve.by_acting:
            continue
        found: Membership = membership(draws, curve, consts, end, fit.likelihood.unit)
        values[r] = [*found.probability, *found.half_at]
        best = int(found.probability.argmax())
        group[r] = GROUPS[best] if found.probability[best] >= probability else UNCLEAR
    out = pd.DataFrame(values, index=fit.adata.var_names, columns=names)
    out.insert(0, GROUP, pd.Categorical(group, categories=[*GROUPS, UNCLEAR]))
    return out
