"""Tables of null refits, as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

N_FEATURES = 50  # listed
STRATA = ("low", "middle", "high")
LEAST_PER_STRATUM = 10


def rate_table(pvalue: np.ndarray) -> pd.DataFrame:
    """False-positive rates: level, fpr, its standard error over regroupings, number of tests."""
    from dream_sc._core.response.calibration import LEVELS, error_rates

    rate, se = error_rates(pvalue)
    return pd.DataFrame({"level": LEVELS, "fpr": rate, "se": se, "n_tests": pvalue.size})


def regrouping_table(nulls: Any, sources: list[np.ndarray], control: np.ndarray, guides: np.ndarray) -> pd.DataFrame:
    """A row per regrouping: calls, rate at p = 0.05, smallest p, relearned weight of the null, posing guides."""
    posing = [""] * len(nulls.pvalue)
    for b, source in enumerate(sources):
        posing[b] = "; ".join(guides[(source >= 0) & ~control[source]])
    return pd.DataFrame(
        {
            "regrouping": np.arange(len(nulls.pvalue)),
            "n_calls": nulls.called.sum(1),
            "fpr": (nulls.pvalue <= 0.05).mean(1),
            "min_pvalue": nulls.pvalue.min(1),
            "null_weight": nulls.null_weight,
            "targeting": posing,
        }
    )


def feature_table(nulls: Any, names: np.ndarray | None) -> pd.DataFrame:
    """The features called most, then those of the smallest p-values; empty where features are simulated."""
    if names is None:
        names = np.zeros(0, dtype=object)
    some = slice(0, len(names))
    table = pd.DataFrame(
        {
            "feature": names.astype(object),
            "n_calls": nulls.called.sum(0)[some],
            "share": nulls.called.mean(0)[some],
            "min_pvalue": nulls.pvalue.min(0)[some],
            "mean": nulls.mean.mean(0)[some],
        }
    )
    order = table.sort_values(["n_calls", "min_pvalue"], ascending=[False, True], kind="stable")
    return order.head(N_FEATURES).reset_index(drop=True)


def quantile_table(nulls: Any, seed: int) -> pd.DataFrame:
    """Expected and observed quantiles of p in thirds of expression (all features in one stratum if they are few)."""
    from dream_sc._core.response.calibration import quantiles

    n = len(STRATA) if nulls.mean.shape[1] >= len(STRATA) * LEAST_PER_STRATUM else 1
    names = STRATA if n > 1 else ("all",)
    edges = np.quantile(nulls.mean, np.arange(1, n) / n)
    stratum = np.searchsorted(edges, nulls.mean, side="right")
    parts = []
    for i, name in enumerate(names):
        member = stratum == i
        if not member.any():  # as many features of one mean
            continue
        expected, observed, lower, upper = quantiles(nulls.pvalue, member, seed)
        columns = {
            "stratum": name,
            "mean_low": nulls.mean[member].min(),
            "mean_high": nulls.mean[member].max(),
            "n_tests": int(member.sum()),
            "expected": expected,
            "observed": observed,
            "lower": lower,
            "upper": upper,
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def held_out_table(first: np.ndarray, second: np.ndarray) -> pd.DataFrame:
    """Rates before and after the null of one half of the NTC guides is applied to the other half, mean of both ways.

    Parameters
    ----------
    first, second
        ``(B, T)`` theoretical p-values of the regroupings of each half.
    """
    from dream_sc._core.response.calibration import LEVELS, empirical_null, error_rates, recalibrated

    ways = [(first, recalibrated(empirical_null(second), first)), (second, recalibrated(empirical_null(first), second))]
    columns: dict[str, Any] = {"level": LEVELS}
    for i, suffix in enumerate(("_theory", "")):
        rates, errors = zip(*(error_rates(way[i]) for way in ways), strict=True)
        columns[f"fpr{suffix}"] = np.mean(rates, 0)
        columns[f"se{suffix}"] = np.sqrt(np.square(errors).sum(0)) / 2
    return pd.DataFrame(columns | {"n_tests": first.size + second.size})
