"""What figures of the trans table share: which features are called, and which column is their effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc.get._names import by_feature, names_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from dream_sc.get._names import TransFit

SURE = 0.95  # `p_ec50_inside` above which an EC50 is shown
EC50 = "log2_ec50"
WORDS = {"log2fc": r"$\log_2$ fold change", "delta_p": "change of the share", "delta": "change of the score"}
AT = {"full": "at the strongest knock-down", "max": "at the strongest activation"}


def check_fdr(fdr: float) -> None:
    """Refuse a false discovery rate that is none.

    Raises
    ------
    ValueError
        If it is not between 0 and 1.
    """
    if not 0 < fdr < 1:
        raise ValueError(f"fdr={fdr} is not between 0 and 1")


def effect_of(fit: TransFit) -> tuple[str, str]:
    """Column of the effect at the strongest knock-down (activation, where nothing was knocked down), and its name."""
    effect = fit.likelihood.effect
    where = "full" if fit.frame[f"{effect}_full"].notna().any() else "max"
    return f"{effect}_{where}", f"{WORDS[effect]} {AT[where]}"


def table_of(fit: TransFit, features: str | Sequence[str] | None = None) -> pd.DataFrame:
    """The table of the trans step by feature, all or those asked for, surest first; `row`: of each, its row in the fit.

    Raises
    ------
    KeyError, ValueError
        If a name is not that of a feature.
    """
    frame = by_feature(fit)
    leading = np.arange(len(frame))
    if fit.feature is not None and not fit.by_layer:
        of_name = dict(zip(map(str, fit.names), range(len(fit.names)), strict=True))
        first = [rows[0] for rows in fit.of_feature.values()]
        leading = np.array([of_name.get(str(c), f) for c, f in zip(frame["category"], first, strict=True)], dtype=int)
    elif fit.by_layer:
        n = len(fit.names) // len(frame)
        layers = [str(c) for c in np.asarray(fit.category)[:n]]
        own = [layers.index(str(c)) if str(c) in layers else 0 for c in frame["category"]]
        leading = n * leading + np.array(own, dtype=int)
    frame = frame.assign(row=leading)
    if "mean" not in frame:  # of layers
        frame["mean"] = frame["baseline"]
    if features is not None:
        names = names_of(features)
        if fit.feature is None:
            frame = frame.iloc[[int(fit.find(name)[0]) for name in names]]
        else:
            frame = frame.loc[list(dict.fromkeys(str(fit.feature_labels[fit.find(name)[0]]) for name in names))]
    return frame.sort_values(["lfdr", "log_bf"], ascending=[True, False], kind="stable")


def is_called(frame: pd.DataFrame, fdr: float) -> Any:
    """Which features respond at this false discovery rate."""
    return (frame["qvalue"] < fdr).to_numpy(bool)


def direction(frame: pd.DataFrame, effect: str) -> Any:
    """What features do on knock-down; where nothing is knocked down, the opposite of what they do on activation."""
    said = frame["on_knockdown"].astype(str).to_numpy(object)
    sign = frame[effect].to_numpy(float) * (-1.0 if effect.endswith("_max") else 1.0)
    other = np.where(sign < 0, "down", "up")
    return np.where(np.isin(said, ("down", "up", "mixed")), said, other).astype(object)


def sure_ec50(frame: pd.DataFrame) -> Any:
    """EC50 where it may be reported, NaN elsewhere."""
    return frame[EC50].where(frame["p_ec50_inside"] > SURE)
