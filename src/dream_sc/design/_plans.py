"""Plans of screens: a mapping, or a table with a row each, completed by what the pilot had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._core.power.guide_sums import Design

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._pilot import Pilot

    Floats = NDArray[np.float64]

WHOLE = ("n_guides", "n_cells_per_guide", "n_ntc_cells", "n_ntc_guides")
NUMBERS = (*WHOLE, "depth", "moi")
DOSAGES = "log2_dosages"
ENTRIES = (*NUMBERS, DOSAGES)
OF_NTC = 0.3  # share of the cells that are controls, where nothing is said of it
N_NTC_GUIDES = 6  # least number of NTC guides, likewise; half as many as the others, if that is more
LEAST_NTC_GUIDES = 4


@dataclass(frozen=True)
class Plan:
    """One plan, complete."""

    n_guides: int
    n_cells_per_guide: int
    n_ntc_cells: int
    n_ntc_guides: int
    log2_dosages: Floats
    depth: float = 1.0
    moi: float = 1.0
    name: Any = 0  # of the row

    @property
    def n_cells(self) -> int:
        """Cells that are sequenced, each with `moi` guides."""
        return int(np.ceil((self.n_guides * self.n_cells_per_guide + self.n_ntc_cells) / self.moi))

    def design(self, pilot: Pilot) -> Design:
        """As the forecast sees it."""
        n = self.n_ntc_guides
        return Design(
            spread_over(self.log2_dosages, self.n_guides),
            float(self.n_cells_per_guide),
            np.full(n, self.n_ntc_cells / n),
            float(self.depth),
            pilot.size_factor_sd,
            pilot.within_sd,
            pilot.cis_mean,
            pilot.cis_noise,
        )


def spread_over(dosages: Floats, n: int) -> Floats:
    """Dosages of `n` guides: those given, or as many that are spread alike."""
    if len(dosages) == n:
        return np.sort(dosages)
    if n == 1 or len(dosages) == 1:
        return np.full(n, np.median(dosages))
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(dosages)), np.sort(dosages))


def read_plans(plan: Any, pilot: Pilot) -> list[Plan]:
    """All plans, each complete."""
    if isinstance(plan, pd.DataFrame):
        rows = [(name, dict(row.dropna())) for name, row in plan.iterrows()]
        if not rows:
            raise ValueError("plan= is a table without rows: give one a plan")
    elif plan is None or isinstance(plan, Mapping):
        rows = list(enumerate(_combinations({} if plan is None else dict(plan))))
    else:
        raise TypeError(f"plan={type(plan).__name__} is not allowed: use a mapping or a table with {list(ENTRIES)}")
    return [_complete(name, row, pilot) for name, row in rows]


def _combinations(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """All combinations of the entries that are lists."""
    several = {k: list(v) for k, v in plan.items() if k != DOSAGES and isinstance(v, Sequence | np.ndarray | pd.Series)}
    return [plan | dict(zip(several, values, strict=True)) for values in product(*several.values())]


def _complete(name: Any, row: dict[str, Any], pilot: Pilot) -> Plan:
    """A plan with what it does not say taken from the pilot."""
    for key in row:
        if key not in ENTRIES:
            close = _validate.close(str(key), ENTRIES)
            raise KeyError(f"plan= has {key!r}, which is not known{close}; it may have {list(ENTRIES)}")
    own = dict(pilot.plan or {})
    if DOSAGES in row and "n_guides" not in row:
        own.pop("n_guides", None)
    given = own | row
    if DOSAGES not in given:
        raise ValueError("plan= needs log2_dosages, the log2 dosages of its guides relative to control: [-3, -2, -1]")
    dosages = _dosages(given[DOSAGES])
    n = _whole("n_guides", given.get("n_guides", len(dosages)))
    if "n_cells_per_guide" not in given:
        raise ValueError("plan= needs n_cells_per_guide, the number of cells of each guide: 100")
    cells = _whole("n_cells_per_guide", given["n_cells_per_guide"])
    share = OF_NTC / (1 - OF_NTC)
    ntc = _whole("n_ntc_cells", given.get("n_ntc_cells", max(int(np.ceil(share * n * cells)), LEAST_NTC_GUIDES)))
    n_ntc = _whole("n_ntc_guides", given.get("n_ntc_guides", min(max(N_NTC_GUIDES, n // 2), ntc)))
    if n_ntc > ntc:
        raise ValueError(f"plan= has n_ntc_guides={n_ntc} for n_ntc_cells={ntc}: each guide needs a cell")
    depth, moi = (_above_0(k, given.get(k, 1.0)) for k in ("depth", "moi"))
    return Plan(n, cells, ntc, n_ntc, dosages, depth, moi, name)


def _dosages(value: Any) -> Floats:
    try:
        found = np.atleast_1d(np.asarray(value, dtype=float))
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.ndim > 1:
        raise ValueError(
            f"plan= has log2_dosages={value!r}: a plan has one list of dosages; give several plans as a table with "
            "a row each, whose log2_dosages are lists"
        )
    if len(found) and not found.any():
        raise ValueError("plan= has log2_dosages that are all 0: guides that do not move the dosage show no response")
    if not len(found) or not np.isfinite(found).all():
        raise ValueError(
            f"plan= has log2_dosages={value!r}: use log2 dosages relative to control, such as [-3, -2, -1]"
        )
    return found


def _whole(name: str, value: Any) -> int:
    number = _above_0(name, value)
    if number != round(number):
        raise ValueError(f"plan= has {name}={value!r}: use a whole number, 1 or more")
    return int(number)


def _above_0(name: str, value: Any) -> float:
    number = _validate.number(name, value)
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"plan= has {name}={value!r}: use a number above 0")
    return number
