"""The cheapest plan that reaches a goal: `design.power` read backwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data.results import seed_of
from dream_sc._keys import COST_COLUMNS, POWER_COLUMNS, TRANS

from ._pilot import read_pilot
from ._plans import Plan, read_plans
from ._power import Asked, forecast, range_of

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from ._pilot import Pilot

GOAL = ("mean", "log2fc", "power", "ec50_width")
STEP = 1.2  # between numbers of cells that are tried
MILLION = 1e6


def cheapest(
    pilot: AnnData | MuData | Mapping[str, Any] | None,
    goal: Mapping[str, float],
    *,
    cost_per_cell: float,
    cost_per_guide: float = 0.0,
    cost_per_million_reads: float = 0.0,
    reads_per_cell: float = 20_000,
    plan: Mapping[str, Any] | None = None,
    n_guides: Sequence[int] = (4, 6, 8, 12, 16, 24),
    depths: Sequence[float] = (0.5, 1.0, 2.0),
    cells_range: tuple[int, int] = (10, 2000),
    fdr: float = 0.05,
    rng: int | np.random.Generator = 0,
    key: str = TRANS,
    mod: str | None = None,
) -> pd.DataFrame:
    """Find the cheapest plan that reaches a goal: for each number of guides and depth, the fewest cells per guide.

    Parameters
    ----------
    pilot, fdr, rng, key, mod
        As in `design.power`.
    goal
        "mean" (counts per cell), "log2fc" and "power" of a gene, such as ``{"mean": 0.5, "log2fc": 1, "power": 0.8}``;
        "ec50_width" (log2), if given, is the widest interval of the EC50 allowed.
    cost_per_cell, cost_per_guide, cost_per_million_reads
        In any currency. A cell's is that of its library and capture, without the reads.
    reads_per_cell
        At depth 1.
    plan
        What is not to be chosen, as in `design.power`: "log2_dosages", "moi", "n_ntc_cells", "n_ntc_guides". Without
        `n_ntc_cells` three cells of ten are controls.
    n_guides, depths
        What is tried.
    cells_range
        Least and largest number of cells per guide that is tried; numbers between are a fifth apart.

    Returns
    -------
    A row per number of guides and depth, the cheapest that reaches the goal first: the columns of `design.power`, then
    n_reads, cost, and reached: False in rows where the largest number of cells is not enough.

    Raises
    ------
    TypeError, KeyError, ValueError
        As `design.power`, and for a goal without mean, log2fc or power, or costs below 0.

    Examples
    --------
    >>> goal = {"mean": 1.0, "log2fc": 1.0, "power": 0.8}
    >>> fixed = {"log2_dosages": [-3, -2, -1, -0.5]}
    >>> table = ds.design.cheapest(None, goal, cost_per_cell=0.1, plan=fixed, n_guides=[6, 12], depths=[1])
    >>> bool(table["cost"].iloc[0] <= table["cost"].iloc[1]) and bool(table["reached"].all())
    True
    """
    wanted = _goal(goal)
    costs = {"cost_per_cell": cost_per_cell, "cost_per_guide": cost_per_guide}
    costs |= {"cost_per_million_reads": cost_per_million_reads, "reads_per_cell": reads_per_cell}
    for name, value in costs.items():
        if not _validate.number(name, value) >= 0:
            raise ValueError(f"{name}={value} is negative: a cost is 0 or more")
    counts = _tried(cells_range)
    known, seed = read_pilot(pilot, key=key, mod=mod), seed_of(rng)
    chosen = {"n_guides", "n_cells_per_guide", "depth"} & set(plan or {})
    if chosen:
        raise ValueError(f"plan= has {sorted(chosen)}, which are to be found: leave them out, or use design.power")
    rows = []
    for n, depth in product(n_guides, depths):
        given = {**(plan or {}), "n_guides": n, "depth": depth}
        rows.append(_fewest(known, given, wanted, counts, fdr, seed))
    out = pd.concat(rows, ignore_index=True)
    reads = out["n_cells"] * out["depth"] * reads_per_cell
    out["n_reads"] = reads
    out["cost"] = cost_per_cell * out["n_cells"] + cost_per_guide * out["n_guides"]
    out["cost"] += cost_per_million_reads * reads / MILLION
    out = out[[*POWER_COLUMNS, *COST_COLUMNS]]
    return out.sort_values(["reached", "cost"], ascending=[False, True], kind="stable", ignore_index=True)


def _goal(goal: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(goal, Mapping):
        raise TypeError(f"goal={type(goal).__name__} is not allowed: use a mapping with {list(GOAL[:3])}")
    for name in goal:
        if name not in GOAL:
            raise KeyError(
                f"goal= has {name!r}, which is not known{_validate.close(str(name), GOAL)}; it may have {list(GOAL)}"
            )
    missing = [name for name in GOAL[:3] if name not in goal]
    if missing:
        raise ValueError(f'goal= lacks {missing}: for example {{"mean": 0.5, "log2fc": 1, "power": 0.8}}')
    wanted = {name: _validate.number(name, value) for name, value in goal.items()}
    if not 0 < wanted["power"] < 1:
        raise ValueError(f"goal= has power={wanted['power']}: a probability between 0 and 1")
    return wanted


def _tried(cells_range: tuple[int, int]) -> list[int]:
    """Numbers of cells per guide that are tried."""
    low, high = cells_range
    for value in (low, high):
        _validate.whole("cells_range", value)
    if low > high:
        raise ValueError(f"cells_range={cells_range} is reversed: give the lower number first")
    n = max(int(np.ceil(np.log(high / low) / np.log(STEP))) + 1, 2)
    return sorted({round(float(x)) for x in np.geomspace(low, high, n)})


def _fewest(
    pilot: Pilot, given: dict[str, Any], goal: dict[str, float], counts: list[int], fdr: float, seed: int
) -> pd.DataFrame:
    """The plan with the fewest cells that reaches the goal, by bisection; with the most cells where none does."""

    def at(i: int) -> tuple[bool, pd.DataFrame]:
        plans: list[Plan] = read_plans(given | {"n_cells_per_guide": counts[i]}, pilot)
        table = forecast(pilot, plans, Asked(fdr, [goal["log2fc"]], [goal["mean"]], range_of(plans), seed))
        enough = table["power"] >= goal["power"]
        if "ec50_width" in goal:
            enough &= table["ec50_width"] <= goal["ec50_width"]
        return bool(enough.all()), table

    low, high = -1, len(counts) - 1
    reached, best = at(high)
    if not reached:
        return best.assign(reached=False)
    while high - low > 1:
        middle = (low + high) // 2
        enough, table = at(middle)
        if enough:
            high, best = middle, table
        else:
            low = middle
    return best.assign(reached=True)
