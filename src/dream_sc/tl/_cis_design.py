"""Which cells take part in the cis step, and under which guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data.guide_matrix import SEVERAL
from dream_sc._keys import COMPLEMENT
from dream_sc._logging import logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dream_sc._data.guide_matrix import Guides

ControlGroup = Literal["nt_cells", "complement"]
SHOWN = 12
ENOUGH_NTC, MOST_CONTROLS = 20, 200  # guides that split the controls of a matrix of guides


@dataclass(frozen=True)
class CisDesign:
    """Guides with cells, targeting ones first, and what each cell carries."""

    table: pd.DataFrame  # guide, target, is_control, n_cells
    code: np.ndarray  # (N,) a guide, a set of guides (from the number of guides on), or -1
    sets: np.ndarray  # (M, K) guides of each set of several, padded with -1

    @property
    def used(self) -> np.ndarray:
        """Cells that take part."""
        return self.code >= 0

    @property
    def is_control(self) -> np.ndarray:
        """Whether each guide, or set of guides, is a control."""
        return np.append(self.table["is_control"].to_numpy(bool), np.zeros(len(self.sets), dtype=bool))

    @property
    def row_guide(self) -> np.ndarray:
        """Guide ``(N,)`` of the cells with one guide of the cis gene and of controls; -1 of others."""
        return np.where(self.code < len(self.table), self.code, -1)

    @property
    def n_cells(self) -> dict[str, int]:
        """How many cells are what."""
        control = self.used & self.is_control[self.code]
        several = self.code >= len(self.table)
        return {
            "targeting": int((self.used & ~control).sum()),
            "several_guides": int(several.sum()),
            "control": int(control.sum()),
            "excluded": int((~self.used).sum()),
        }


def check_sizes(min_cells_per_guide: int, min_count: float) -> None:
    """Refuse sizes below which there is nothing."""
    _validate.whole("min_cells_per_guide", min_cells_per_guide)
    _validate.at_least("min_count", min_count, 0.0)


def _refuse_unknown(wanted: list[str], known: Iterable[str]) -> None:
    """Refuse targets that no guide has: with a typo, half of the guides would be missing."""
    there = set(known) - {""}
    if lacking := [label for label in wanted if label not in there]:
        raise ValueError(
            f"cis_targets= names {lacking[:SHOWN]}, which no guide targets; targets are {sorted(there)[:SHOWN]}"
            f"{_validate.close(lacking[0], there)}"
        )


def check_targets(target: np.ndarray, wanted: list[str], target_key: str) -> None:
    """Refuse targets that no cell has."""
    if not np.isin(target, wanted).any():
        seen = sorted(set(target) - {""})
        raise ValueError(
            f"no cell's target is {wanted}: .obs[{target_key!r}] holds {seen[:SHOWN]}. "
            "Name the target label(s) of the guides that act on the gene as cis_targets="
        )
    _refuse_unknown(wanted, target)


def of_labels(
    guide: np.ndarray, target: np.ndarray, is_control: np.ndarray, wanted: list[str], min_cells: int, target_key: str
) -> CisDesign:
    """From labels of cells with one guide each."""
    acting = np.isin(target, wanted) & ~is_control
    check_targets(np.where(is_control, "", target), wanted, target_key)
    take = (is_control | acting) & (guide != "")
    counted = pd.DataFrame({"guide": guide, "target": target, "is_control": is_control})[take]
    both = counted.groupby("guide")["is_control"].nunique().loc[lambda n: n > 1].index
    if len(both):
        raise ValueError(
            f"the guides {list(both)[:SHOWN]} occur in control cells and in targeted ones: a guide has one target; "
            "check guide_key and control="
        )
    several = counted[~counted["is_control"]].groupby("guide")["target"].nunique().loc[lambda n: n > 1].index
    if len(several):
        raise ValueError(
            f"the guides {list(several)[:SHOWN]} occur under more than one target of {wanted}, so that guides of one "
            f"name may be different guides: give them names of their own, such as target and guide together, or check "
            f"guide_key and .obs[{target_key!r}]"
        )
    table = counted.groupby("guide", sort=True).agg(
        target=("target", "first"), is_control=("is_control", "first"), n_cells=("guide", "size")
    )
    table = _large(table.reset_index(), min_cells)
    code = dict(zip(table["guide"], range(len(table)), strict=True))
    codes = np.array([code.get(g, -1) if t else -1 for g, t in zip(guide, take, strict=True)])
    return CisDesign(table, codes, np.zeros((0, 1), dtype=np.int64))


def of_guides(
    guides: Guides,
    wanted: list[str],
    control: list[str],
    control_group: str,
    min_cells: int,
    seed: int,
    barred: np.ndarray | None = None,
) -> CisDesign:
    """From a matrix of guides; cells that are `barred` take no part.

    Targeted cells carry a guide of the cis gene; of their other guides nothing is asked. Controls are split by one NTC
    guide of theirs, at random where they have several, so that what single guides do to a feature shows among them;
    where NTC guides are few, other guides than those of the cis gene help out. Controls with none of these are a group.
    """
    acting, ntc = guides.targeting(wanted), guides.controls(control)
    if not acting.any():
        seen = sorted(set(guides.targets))
        raise ValueError(
            f"no guide of {guides.key!r} targets {wanted}: targets are {seen[:SHOWN]}. Name the target label(s) of the "
            "guides that act on the gene as cis_targets="
        )
    _refuse_unknown(wanted, {t.strip() for target in guides.targets for t in target.split(SEVERAL)})
    if (acting & ntc).any():
        raise ValueError(f"cis_targets={wanted} are among the labels of controls, {control}: name others")
    n_acting, n_ntc = guides.of_cells(acting), guides.of_cells(ntc)
    pool = n_acting == 0
    if control_group == "nt_cells":
        pool = guides.only(ntc)
    pool &= ~barred if barred is not None else True
    if not pool.any():
        raise ValueError(
            f"no cell is a control: of {len(pool)} cells, {int((n_acting > 0).sum())} carry a guide of {wanted}, "
            f"{int((n_ntc > 0).sum())} an NTC guide, none NTC guides only. Take control_group='complement', every cell "
            "without a guide of the cis gene" + ("" if (n_acting == 0).any() else "; but there is none either")
        )
    which = np.flatnonzero(acting)
    carried = guides.carried[:, which].tocsr()
    targeting = _rows_of(guides, which, _cells_left(carried, min_cells), is_control=False)
    split, members = _split_controls(guides, pool, acting, ntc, min_cells, seed, rest=control_group == "complement")
    table = _large(pd.concat([targeting, split], ignore_index=True), min_cells)
    place = {g: i for i, g in enumerate(table["guide"])}
    of_acting = np.array([place.get(g, -1) for g in targeting["guide"]], dtype=np.int64)
    of_control = np.array([place.get(g, -1) for g in split["guide"]], dtype=np.int64)
    code = np.where(members >= 0, np.append(of_control, -1)[members], -1)
    sets = _targeted(carried, of_acting, n_acting, len(table), code)
    out = CisDesign(table, code, sets)
    logger.info("tl.fit_cis: %s", ", ".join(f"{n} {what.replace('_', ' ')}" for what, n in out.n_cells.items()))
    if 2 * out.n_cells["several_guides"] > out.n_cells["targeting"]:
        logger.warning(
            "tl.fit_cis: %d of %d targeted cells carry several guides of %s: sets that at least %d cells carry take "
            "part in the trans step, with the sum of their guides' effects, if together they are at least a tenth of "
            "the cells with one guide, and other sets do not; "
            "dream_sc.pp.combine_guides makes labels of combinations, whose dosages are their own",
            out.n_cells["several_guides"],
            out.n_cells["targeting"],
            wanted,
            min_cells,
        )
    return out


def by_covariate(guide: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Labels of guides that are taken apart by a column of cells."""
    return np.where((guide == "") | (levels == ""), "", guide + "|" + levels)


def guide_priors(known: Any, table: pd.DataFrame) -> np.ndarray:
    """What is known of the log2 dosages of guides before, mean and sd ``(G, 2)``; NaN of guides without."""
    columns = ["log2_dosage", "sd"]
    if not isinstance(known, pd.DataFrame):
        wrong = [
            k for k, v in known.items() if not (isinstance(v, tuple | list | np.ndarray) and len(v) == len(columns))
        ]
        if wrong:
            raise ValueError(
                f"guide_prior of {wrong[:SHOWN]} is not a pair: give the log2 dosage and its sd, "
                "{guide: (log2_dosage, sd)}"
            )
        known = pd.DataFrame.from_dict(dict(known), orient="index", columns=columns)
    lacking = [c for c in columns if c not in known]
    if lacking:
        raise ValueError(f"guide_prior has no column {lacking}; it has {list(known.columns)}: it needs {columns}")
    if "is_control" in known:  # controls are known by definition, and may be others here
        known = known[~known["is_control"].astype(bool)]
    values = known[columns].apply(pd.to_numeric, errors="coerce").astype(float)
    bad = ~np.isfinite(values).all(axis=1) | (values["sd"] <= 0)
    if bad.any():
        raise ValueError(
            f"guide_prior of {values.index[bad].tolist()[:SHOWN]} is no number, or has an sd that is not above 0"
        )
    names = table["guide"].where(table["guide"].isin(values.index), table["guide"].str.rsplit("|", n=1).str[0])
    unknown = sorted(set(map(str, values.index)) - set(names))
    if unknown:
        raise ValueError(
            f"guide_prior names guides that take no part: {unknown[:SHOWN]}; these do: {list(names)[:SHOWN]}"
        )
    return values.reindex(names).to_numpy()


def _rows_of(guides: Guides, which: np.ndarray, n_cells: np.ndarray, *, is_control: bool) -> pd.DataFrame:
    names = guides.names[which].astype(str)
    targets = np.array(guides.targets, dtype=object)[which]
    frame = pd.DataFrame({"guide": names, "target": targets, "is_control": is_control, "n_cells": n_cells})
    return frame.sort_values("guide", ignore_index=True) if is_control else frame


def _cells_left(carried: Any, min_cells: int) -> np.ndarray:
    """Cells of each guide, less those that carry a guide with fewer than `min_cells` beside it: these have no dosage.

    What is left over may make other guides small; numbers of guides too small are those at which they were left out.
    """
    carried = carried.astype(np.int64)
    kept = np.ones(carried.shape[1], dtype=bool)
    n = np.asarray(carried.sum(0)).ravel()
    while (small := kept & (n < min_cells)).any():
        kept &= ~small
        whole = carried @ (~kept).astype(np.int64) == 0
        n = np.where(kept, carried.T @ whole.astype(np.int64), n)
    return np.asarray(n)


def _targeted(carried: Any, place: np.ndarray, n_acting: np.ndarray, n_guides: int, code: np.ndarray) -> np.ndarray:
    """Write the codes of targeted cells in place; return the sets of several guides.

    A cell with a guide that was left out has no code: its dosage is not known.
    """
    row = np.repeat(np.arange(len(n_acting)), np.diff(carried.indptr))
    guide = place[carried.indices]
    lost = np.zeros(len(n_acting), dtype=bool)
    lost[row[guide < 0]] = True
    one, several = (n_acting == 1) & ~lost, (n_acting > 1) & ~lost
    code[n_acting > 0] = -1
    single = one[row]
    code[row[single]] = guide[single]
    if not several.any():
        return np.zeros((0, 1), dtype=np.int64)
    mine = several[row]
    order = np.lexsort((guide[mine], row[mine]))
    cells, members = row[mine][order], guide[mine][order]
    at = np.searchsorted(np.flatnonzero(several), cells)
    first = np.searchsorted(cells, np.flatnonzero(several))
    padded = np.full((int(several.sum()), int(n_acting[several].max())), -1, dtype=np.int64)
    padded[at, np.arange(len(cells)) - first[at]] = members
    sets, of_cell = np.unique(padded, axis=0, return_inverse=True)
    code[several] = n_guides + of_cell.ravel()
    return np.asarray(sets)


def _split_controls(
    guides: Guides, pool: np.ndarray, acting: np.ndarray, ntc: np.ndarray, min_cells: int, seed: int, *, rest: bool
) -> tuple[pd.DataFrame, np.ndarray]:
    """Groups of the controls, and the group of each cell, -1 of what is no control."""
    inside = guides.carried[pool]
    n = np.asarray(inside.sum(0)).ravel()
    chosen = _most(np.flatnonzero(ntc & (n >= min_cells)), n, MOST_CONTROLS)
    if rest and len(chosen) < ENOUGH_NTC:
        others = np.flatnonzero(~ntc & ~acting & (n >= min_cells))
        chosen = np.append(chosen, _most(others, n, ENOUGH_NTC - len(chosen)))
    mine = inside[:, chosen].tocsr()
    has = np.diff(mine.indptr)
    draw = np.random.default_rng(seed).random(len(has))
    pick = np.full(len(has), len(chosen))
    some = has > 0
    pick[some] = mine.indices[mine.indptr[:-1][some] + (draw[some] * has[some]).astype(np.int64)]
    n_cells = np.bincount(pick, minlength=len(chosen) + 1)
    table = _rows_of(guides, chosen, n_cells[:-1], is_control=True)
    place = {g: i for i, g in enumerate(table["guide"])}
    at = np.array([place[str(g)] for g in guides.names[chosen]] + [len(chosen) if rest else -1], dtype=np.int64)
    if rest and n_cells[-1]:
        label = {"guide": COMPLEMENT, "target": COMPLEMENT, "is_control": True, "n_cells": int(n_cells[-1])}
        table = pd.concat([table, pd.DataFrame([label])], ignore_index=True)
    members = np.full(len(pool), -1, dtype=np.int64)
    members[pool] = at[pick]
    return table, members


def _most(which: np.ndarray, n: np.ndarray, most: int) -> np.ndarray:
    """At most so many of some guides, those with most cells."""
    return np.sort(which[np.argsort(-n[which], kind="stable")[:most]])


def _large(table: pd.DataFrame, min_cells: int) -> pd.DataFrame:
    """Guides with enough cells, targeting ones first."""
    small = table["n_cells"] < min_cells
    if small.any():
        left_out = table["guide"][small].tolist()
        logger.info("tl.fit_cis: left out guides with fewer than %d cells: %s", min_cells, left_out)
    table = table[~small].sort_values("is_control", kind="stable").reset_index(drop=True)
    for label, lacking in (("acts on the cis gene", table["is_control"]), ("is a control", ~table["is_control"])):
        if lacking.all():
            raise ValueError(
                f"no guide that {label} has at least {min_cells} cells: lower min_cells_per_guide, or check guide_key"
            )
    return table
