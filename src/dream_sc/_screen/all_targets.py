"""What is measured once for all targets of a library: sums of every guide in one pass over the counts, and controls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._core.curves import CURVES
from dream_sc._core.response.settings import Settings
from dream_sc._data import results
from dream_sc._data.groups import group_codes
from dream_sc._keys import POSITION_COLUMNS, SYMBOL_COLUMNS, Slots

from .forecast import keep_to, say_memory
from .targets import LEAST_NTC

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from anndata import AnnData

    from dream_sc._core.response.learned import Prior
    from dream_sc._core.response.prepare import Technical
    from dream_sc._core.screen.controls import Controls
    from dream_sc._core.screen.null_draws import Classes
    from dream_sc._core.sums.block import CountBlock
    from dream_sc._core.types import GuideStats

    from .targets import Library, Target
    from .tasks import Steps

LEAST_FEATURES = 200  # for less, what is learned over them says little


@dataclass(frozen=True)
class GuideSums:
    """Sums of `T` features over the cells of `R` rows, each of one of `G` guides and one technical group."""

    counts: np.ndarray  # (R, T)
    exposure: np.ndarray  # (R,)
    exposure2: np.ndarray  # (R,)
    guide: np.ndarray  # (R,)
    group: np.ndarray  # (R,)
    n_groups: int

    def of(self, guides: np.ndarray) -> GuideStats:
        """The rows of some guides, which are numbered anew."""
        from dream_sc._core.types import GuideStats

        place = np.full(int(max(self.guide.max(initial=0), guides.max(initial=0))) + 1, -1)
        place[guides] = np.arange(len(guides))
        rows = np.flatnonzero(place[self.guide] >= 0)
        counts = np.ascontiguousarray(self.counts[rows].T, dtype=np.float64)
        each = (self.exposure[rows], self.exposure2[rows], place[self.guide[rows]], self.group[rows])
        return GuideStats(counts, *each, len(guides), self.n_groups)


@dataclass(frozen=True)
class CisCounts:
    """Counts of the features that targets act on, of all cells that take part."""

    counts: Any  # (N, K) csc
    column: dict[str, int]  # by the name of the feature
    guide: np.ndarray  # (N,)
    group: np.ndarray  # (N,)
    size_factor: np.ndarray  # (N,)


@dataclass(frozen=True)
class AllTargets:
    """What the fits of all targets share."""

    guides: pd.DataFrame  # guide, target, is_control, n_cells
    sums: GuideSums
    cis: CisCounts
    technical: Technical
    controls: Controls
    classes: Classes
    bare: AnnData  # features without values
    settings: Settings
    guide_offsets: bool
    pooling: str
    features: tuple[str, ...] | None = None  # to report


def why_not(adata: AnnData, library: Library, technical: Any, steps: Steps) -> str:
    """Why targets have no first pass together, and a fit each instead; "" where they can have it."""
    params = technical["params"]
    if library.matrix is not None:
        return "cells have several guides (guides=)"
    if params.get("use_all_cells"):
        return "the technical fit is of all cells"
    if params.get("covariates"):
        return "the technical fit has covariates"
    if params.get("unit_key") is not None:
        return "the technical fit has units within guides"
    if params.get("ambient") is not None:
        return "the technical fit has a share of ambient counts"
    if (_validate.other_features(adata) != "").any():
        return "guides or antibodies are among the features"
    kind = steps.trans["function_type"]
    if kind not in ("auto", *(c.name for c in CURVES if c.moves is not None)):
        return f"function_type={kind!r} has no movements to look at"
    known = np.isfinite(adata.varm[steps.technical_key]["overdispersion"].to_numpy(float))
    if known.sum() < LEAST_FEATURES:
        return f"{int(known.sum())} features with counts in control cells are fewer than {LEAST_FEATURES}"
    n_ntc = len(library.sizes(library.control))
    return f"{n_ntc} NTC guides are fewer than {LEAST_NTC}" if n_ntc < LEAST_NTC else ""


def all_targets(
    adata: AnnData, library: Library, targets: Sequence[Target], steps: Steps, limit: int | str | None
) -> AllTargets:
    """Read the counts once, and sum up the controls."""
    from dream_sc._core.response import prepare

    key, technical = steps.technical_key, adata.uns[steps.technical_key]
    table, code = _guides(library, steps.cis["min_cells_per_guide"])
    group, s = group_codes(adata, technical), _validate.size_factors(adata, technical["params"]["size_factor_key"])
    of_technical = prepare.Technical(
        baseline=adata.varm[key]["mu"].to_numpy(float),
        effects=np.asarray(adata.varm[Slots(key).effects], dtype=float),
        overdispersion=adata.varm[key]["overdispersion"].to_numpy(float),
        effect_sd=float(technical["effect_scale"]),
    )
    genes = sorted({t.gene for t in targets if t.gene is not None})
    columns = np.array([adata.var_names.get_loc(name) for name in genes], dtype=np.int64)
    of_table = len(targets), adata.n_vars if steps.trans["features"] is None else len(steps.trans["features"])
    sums, counts = _read(adata, steps, code, group, s, of_technical, columns, of_table, limit)
    mine = np.flatnonzero(code >= 0)
    cis = CisCounts(counts[mine].tocsc(), {g: i for i, g in enumerate(genes)}, code[mine], group[mine], s[mine])
    ntc = np.flatnonzero(table["is_control"].to_numpy(bool))
    trans = steps.trans
    of_controls = controls_of(sums, ntc, of_technical, offsets=trans["guide_offsets"], effects=trans["guide_effects"])
    return AllTargets(
        table,
        sums,
        cis,
        of_technical,
        of_controls,
        _classes(sums, table, steps.trans["rng"]),
        _bare(adata),
        _settings(steps),
        bool(steps.trans["guide_offsets"]),
        steps.cis["pooling"],
        None if steps.trans["features"] is None else tuple(steps.trans["features"]),
    )


def controls_of(
    sums: GuideSums,
    guides: np.ndarray,
    technical: Technical,
    *,
    offsets: bool,
    effects: bool,
    known: Prior | None = None,
) -> Controls:
    """Some NTC guides, summed up; `known` is the prior of the guide effects where it has been learned."""
    from dream_sc._core.curves import LN2
    from dream_sc._core.response import prepare
    from dream_sc._core.screen.controls import controls

    ntc = sums.of(guides)
    if offsets:
        ok = np.isfinite(technical.overdispersion) & np.isfinite(technical.baseline)
        factor = 2.0 ** prepare.offsets(ntc, technical, ok)[0][ntc.guide]
        ntc = replace(ntc, exposure=ntc.exposure * factor, exposure2=ntc.exposure2 * factor**2)
    sd = technical.effect_sd * LN2
    return controls(ntc, technical.overdispersion, group_effect_sd=sd, guide_effects=effects, known=known)


def _guides(library: Library, least: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Guides with enough cells, and that of each cell, -1 for none."""
    of_cells = pd.DataFrame({"guide": library.guide, "target": library.target})
    of_cells = of_cells[(of_cells["guide"] != "") & (of_cells["target"] != "")]
    table = of_cells.groupby(["target", "guide"], sort=True).size().rename("n_cells").reset_index()
    table = table[table["n_cells"] >= least].reset_index(drop=True)
    table["is_control"] = table["target"].isin(library.control)
    shared = table["guide"][table["guide"].duplicated()]
    if len(shared):
        raise ValueError(
            f"the guides {list(shared[:8])} occur under more than one target, so that guides of one name may be "
            "different guides: give them names of their own, such as target and guide together"
        )
    code = pd.Series(np.arange(len(table)), index=pd.MultiIndex.from_frame(table[["target", "guide"]]))
    every = pd.MultiIndex.from_arrays([library.target, library.guide])
    return table, code.reindex(every).fillna(-1).to_numpy(np.int64)


def _read(
    adata: AnnData,
    steps: Steps,
    code: np.ndarray,
    group: np.ndarray,
    s: np.ndarray,
    technical: Technical,
    columns: np.ndarray,
    of_table: tuple[int, int],
    limit: int | str | None,
) -> tuple[GuideSums, Any]:
    """One pass over the counts: sums of all guides, and the counts of some features in all cells."""
    from dream_sc._core.response import prepare
    from dream_sc._core.response.rows import Cells, Guides, layout
    from dream_sc._core.sums.guide_sums import row_bytes

    n_guides = int(code.max()) + 1
    none, nothing = np.zeros(n_guides), np.zeros(len(code))
    cells = Cells(code, group, nothing, nothing, s)
    rows = layout(cells, Guides(none, none, none, none, none > 0, level_error=0.0), by_cell=False)
    keep_to(limit, say_memory(rows.n_rows, adata.n_vars, *of_table))
    held = {f"sums of {adata.n_vars} features in {rows.n_rows} rows": row_bytes(rows.n_rows, adata.n_vars)}
    blocks = results.counts(adata, steps.layer, limit, held).blocks(cells.used)
    kept = Kept(columns, adata.shape)
    bounds = prepare.bounds_of(technical, cells)
    stats = prepare.count_sums(kept.noting(blocks), rows, s, adata.n_vars, bounds=bounds).stats
    sums = GuideSums(
        np.ascontiguousarray(stats.counts.T, dtype=np.float32),
        stats.exposure,
        stats.exposure2,
        stats.guide,
        stats.group,
        int(group.max()) + 1,
    )
    return sums, kept.matrix()


class Kept:
    """Counts of some features, taken out of the blocks as they come by."""

    def __init__(self, columns: np.ndarray, shape: tuple[int, int]) -> None:
        self.place = np.full(shape[1], -1)
        self.place[columns] = np.arange(len(columns))
        self.shape = (shape[0], len(columns))
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def noting(self, blocks: Iterable[CountBlock]) -> Iterator[CountBlock]:
        """The blocks, noted."""
        for block in blocks:
            place, pointers = self.place[block.features], block.indptr
            if block.by_cell:
                here = np.flatnonzero((place >= 0)[block.indices])
                cell, feature = np.searchsorted(pointers, here, side="right") - 1, block.indices[here]
            else:
                mine = np.flatnonzero(place >= 0)
                here = np.concatenate([np.arange(0), *(np.arange(pointers[j], pointers[j + 1]) for j in mine)])
                cell, feature = block.indices[here], np.repeat(mine, np.diff(pointers)[mine])
            self.parts.append((block.cell + cell, place[feature], block.data[here].astype(np.float64)))
            yield block

    def matrix(self) -> Any:
        """All of them, ``(N, K)`` csr."""
        from scipy import sparse

        nothing = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
        cell, column, value = (np.concatenate(x) for x in zip(nothing, *self.parts, strict=True))
        return sparse.csr_matrix((value, (cell, column)), self.shape)


def _classes(sums: GuideSums, table: pd.DataFrame, seed: int) -> Classes:
    """Null draws for guides like the targeting guide of median exposure, none made so far."""
    from dream_sc._core.screen.null_draws import Classes, Rows

    exposure = np.bincount(sums.guide, sums.exposure, len(table))
    acting = np.flatnonzero(~table["is_control"].to_numpy(bool))
    usual = acting[np.argsort(exposure[acting], kind="stable")[(len(acting) - 1) // 2]]
    rows = sums.guide == usual
    return Classes(Rows(sums.exposure[rows], sums.exposure2[rows], sums.group[rows]), seed)


def _bare(adata: AnnData) -> AnnData:
    """The features with the columns that say what is near to, or the same as, a target."""
    import anndata

    from dream_sc.tl._near_cis import tell_of_positions

    tell_of_positions(adata, "tl.screen")
    known = [*SYMBOL_COLUMNS, *(c for columns in POSITION_COLUMNS for c in columns)]
    return anndata.AnnData(var=adata.var[[c for c in dict.fromkeys(known) if c in adata.var]].copy())


def _settings(steps: Steps) -> Settings:
    trans = steps.trans
    return Settings(
        function_type=trans["function_type"],
        guide_effects=trans["guide_effects"],
        nsamples=trans["nsamples"],
        seed=trans["rng"],
    )
