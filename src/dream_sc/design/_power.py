"""Probability that a plan's screen calls a response, and how well its EC50 would be known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._core.power.forecast import Forecast, Gene, Shape
from dream_sc._data.results import seed_of
from dream_sc._keys import POWER_COLUMNS, TRANS

from ._pilot import read_pilot
from ._plans import read_plans

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from ._pilot import Pilot
    from ._plans import Plan

LN2 = float(np.log(2.0))
LOG2FC = (0.5, 1.0, 2.0)


def power(
    pilot: AnnData | MuData | Mapping[str, Any] | None,
    plan: Mapping[str, Any] | pd.DataFrame | None,
    *,
    fdr: float = 0.05,
    log2fc: float | Sequence[float] = LOG2FC,
    means: float | Sequence[float] | None = None,
    log2_ec50: float | None = None,
    hill_n: float | None = None,
    dosage_range: tuple[float, float] | None = None,
    rng: int | np.random.Generator = 0,
    key: str = TRANS,
    mod: str | None = None,
) -> pd.DataFrame:
    """Forecast what a screen would find: the power to call a response, and the width of the interval of its EC50.

    For each kind of gene, sums of its guides are drawn, and the evidence of the trans step is worked out in closed
    form; no cells are simulated and nothing is fitted. A gene is called where its q-value would be below `fdr` among
    the other genes of the screen, which are those of the pilot.

    Parameters
    ----------
    pilot
        An object on which `tl.fit_trans` has run on counts: levels, overdispersion, guide effects, size factors, share
        and size of responses, and the plan itself where `plan` does not say otherwise. Or a mapping with some of
        "level" (mean counts per cell of the genes), "overdispersion" (per gene, or one), "guide_sd" (log2; median sd of
        guide effects), "responders" (share of the genes), "log2fc" (sizes of their responses), "size_factor_sd"
        (natural log), "within_sd" (log2; spread of dosage within a guide), "cis_mean" (mean count of the cis gene per
        control cell, which tells the dosages). What is missing, or None, stands for what is
        usual.
    plan
        A mapping, or a table with a row per plan: "n_guides", "n_cells_per_guide", "n_ntc_cells", "n_ntc_guides",
        "log2_dosages" (strengths of the guides, relative to control; where they are not as many as the guides, as many
        are spread alike), "depth" (reads per cell relative to the pilot), "moi" (guides per cell; it changes how many
        cells are needed). Entries of a mapping may be lists: all combinations are forecast.
    fdr
        A gene with a smaller q-value is called.
    log2fc
        Fold changes between the two ends of `dosage_range`: negative where a gene falls on knock-down. With 0 the power
        is the share of genes without a response that are called.
    means
        Mean counts per cell at NTC dosage, before `depth`; by default the 10 %, 50 % and 90 % quantiles of the pilot's.
    log2_ec50, hill_n
        Of the responses. By default EC50s are spread evenly over the range, and steepnesses around 2.
    dosage_range
        Log2 dosages between which the fold change is; by default from the lowest to the highest of all plans, NTC
        included. A plan whose guides reach less far sees less of it.
    rng
        Seed; the same seed gives the same numbers.
    key, mod
        Of a fitted pilot: name of its trans fit, modality of a MuData.

    Returns
    -------
    A row per plan x mean x fold change: n_guides, n_cells_per_guide, n_ntc_cells, mean, log2fc, power, ec50_width
    (log2; NaN where no EC50 lies among the dosages of the plan, or its guides are fewer than three or of one dosage),
    then plan (name of its row), n_ntc_guides, depth, moi and n_cells (sequenced). Power is missing where no response
    of this kind is that large over this range.

    Raises
    ------
    TypeError, KeyError, ValueError
        If pilot or plan are no such things, lack dosages or cells, or a number is impossible.

    Examples
    --------
    >>> plan = {"n_cells_per_guide": [50, 200], "log2_dosages": [-3, -2.5, -2, -1.5, -1, -0.5]}
    >>> table = ds.design.power({"level": 1.0}, plan, log2fc=1.0)
    >>> table["power"].is_monotonic_increasing
    True
    """
    known = read_pilot(pilot, key=key, mod=mod)
    plans = read_plans(plan, known)
    asked = asked_of(known, plans, fdr, log2fc, means, dosage_range, rng)
    return forecast(known, plans, replace(asked, log2_ec50=log2_ec50, hill_n=hill_n))


@dataclass(frozen=True)
class Asked:
    """What is asked of every plan."""

    fdr: float
    log2fc: list[float]
    means: list[float]
    dosage_range: tuple[float, float]
    seed: int
    log2_ec50: float | None = None
    hill_n: float | None = None


def asked_of(pilot: Pilot, plans: list[Plan], fdr: Any, log2fc: Any, means: Any, dosage_range: Any, rng: Any) -> Asked:
    """What the user asks, the rest by default."""
    ends = range_of(plans) if dosage_range is None else _range(dosage_range)
    levels = _numbers("means", pilot.asked if means is None else means)
    return Asked(fdr, _numbers("log2fc", log2fc), levels, ends, seed_of(rng))


def forecast(pilot: Pilot, plans: list[Plan], asked: Asked) -> pd.DataFrame:
    """The table of all plans."""
    if not 0 < _validate.number("fdr", asked.fdr) < 1:
        raise ValueError(f"fdr={asked.fdr} is not between 0 and 1")
    if min(asked.means) <= 0:
        raise ValueError(f"means={asked.means} is not allowed: use counts per cell above 0")
    for name in ("log2_ec50", "hill_n"):
        if getattr(asked, name) is not None:
            _validate.number(name, getattr(asked, name))
    if asked.hill_n is not None and asked.hill_n <= 0:
        raise ValueError(f"hill_n={asked.hill_n} is not allowed: above 0; log2fc= has the sign of the response")
    shape = Shape(*asked.dosage_range, asked.log2_ec50, asked.hill_n)
    genes = [Gene(m, pilot.noise(m), fc * LN2, shape) for m in asked.means for fc in asked.log2fc]
    population, rows = pilot.population, []
    for plan in plans:
        found = Forecast(plan.design(pilot), population, pilot.prior, asked.fdr, asked.seed).of(genes)
        for gene, outlook in zip(genes, found, strict=True):
            rows.append(_row(plan, gene.mean, gene.movement / LN2, outlook))
    return pd.DataFrame(rows, columns=list(POWER_COLUMNS))


def _row(plan: Plan, mean: float, log2fc: float, outlook: Any) -> tuple[Any, ...]:
    of_plan = (plan.n_guides, plan.n_cells_per_guide, plan.n_ntc_cells)
    more = (plan.name, plan.n_ntc_guides, plan.depth, plan.moi, plan.n_cells)
    return (*of_plan, mean, log2fc, outlook.power, outlook.ec50_width, *more)


def range_of(plans: list[Plan]) -> tuple[float, float]:
    """From the lowest to the highest dosage of all plans."""
    every = np.concatenate([plan.log2_dosages for plan in plans])
    return min(float(every.min()), -0.05), max(float(every.max()), 0.05)


def _range(given: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in given)
    except (TypeError, ValueError):
        raise ValueError(f"dosage_range={given!r} is not allowed: use two log2 dosages, the lower first") from None
    if not low < high:
        raise ValueError(f"dosage_range={given!r} is not allowed: use two log2 dosages, the lower first")
    return low, high


def _numbers(name: str, value: Any) -> list[float]:
    values = [value] if isinstance(value, int | float | np.number) else list(value)
    found = [_validate.number(name, each) for each in values]
    if not found or not np.isfinite(found).all():
        raise ValueError(f"{name}={value!r} is not allowed: use one or several numbers")
    return found
