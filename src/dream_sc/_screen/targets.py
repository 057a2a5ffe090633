"""The targets of a library: the feature that each acts on, its guides and cells, and why it is left out, if it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data.guide_matrix import SEVERAL, read_guides
from dream_sc._keys import COMPLEMENT, NO_DOSAGE, SYMBOL_COLUMNS

if TYPE_CHECKING:
    from anndata import AnnData

    from dream_sc._data.guide_matrix import Guides

FITTED, FAILED = "fitted", "failed"
FEW_GUIDES, FEW_CELLS = "few_guides", "few_cells"
LEAST_NTC = 6  # the least number of NTC guides that controls are summed up of
WITH_DOSAGE = "guide"  # as `fit_trans` calls it


@dataclass(frozen=True)
class Target:
    """A target of the library, and why it is left out, if it is."""

    name: str
    gene: str | None  # name of the feature that its guides act on
    labels: tuple[str, ...]  # of its guides
    n_guides: int = 0  # with enough cells
    n_cells: int = 0  # of these guides
    status: str = FITTED  # "fitted": it is to be
    reason: str = ""
    dosage: str = WITH_DOSAGE  # "none": perturbed or not, since its counts tell no dosage
    ntc_guides: tuple[str, ...] = ()  # of a null target: NTC guides that are relabelled as its own


@dataclass(frozen=True)
class Least:
    """What a target needs to be fitted."""

    guides: int
    cells: int
    cells_per_guide: int
    count: float


@dataclass(frozen=True)
class Library:
    """Which guides and targets cells have: labels of each cell, or a matrix of guides."""

    control: list[str]
    target: Any = None  # (N,) labels
    guide: Any = None
    matrix: Guides | None = None
    complement: bool = False  # whether every cell without a guide of the target is a control

    @property
    def targets(self) -> list[str]:
        """Labels of all targets but the controls, sorted."""
        if self.matrix is None:
            found = set(np.unique(self.target))
        else:
            found = {t.strip() for target in self.matrix.targets for t in target.split(SEVERAL)}
        return sorted(found - set(self.control) - {""})

    @property
    def unlabelled(self) -> int:
        """Number of cells without a label of their target or guide, which take no part."""
        if self.matrix is not None:
            return 0
        return int(((self.target == "") | ((self.guide == "") & ~np.isin(self.target, self.control))).sum())

    def sizes(self, labels: Iterable[str]) -> np.ndarray:
        """Number of cells of each guide of a target."""
        if self.matrix is None:
            mine = np.isin(self.target, list(labels)) & (self.guide != "")
            return np.asarray(np.unique(self.guide[mine], return_counts=True)[1])
        acting = np.flatnonzero(self.matrix.targeting(list(labels)))
        return np.asarray(self.matrix.carried[:, acting].astype(np.int64).sum(0)).ravel()

    def cells(self, labels: Iterable[str]) -> np.ndarray:
        """Positions of the cells with a guide of a target, and of its controls."""
        if self.complement and self.matrix is not None:
            return np.arange(self.matrix.carried.shape[0])
        if self.matrix is None:
            return np.flatnonzero(np.isin(self.target, [*labels, *self.control]))
        acting, ntc = self.matrix.targeting(list(labels)), self.matrix.controls(self.control)
        return np.flatnonzero((self.matrix.of_cells(acting) > 0) | self.matrix.only(ntc))


def library(adata: AnnData, *, target_key: str, guide_key: str, control: list[str], **of_matrix: Any) -> Library:
    """Read labels of cells, or the matrix named by ``guides=``; ``control_group=`` says which cells are controls."""
    guides = of_matrix["guides"]
    if guides is not None:
        found = read_guides(adata, adata, _validate.guides_key(guides))
        return Library(control, matrix=found, complement=of_matrix["control_group"] == COMPLEMENT)
    target, guide = _validate.labels(adata, target_key, "target_key"), _validate.labels(adata, guide_key, "guide_key")
    _validate.controls(target, control, target_key)
    return Library(control, target, guide)


def of_library(cells: Library, adata: AnnData, wanted: Any, least: Least, baseline: np.ndarray | None) -> list[Target]:
    """The targets asked for, or all; `baseline` is the mean count of each feature in controls, where that is known."""
    asked = asked_of(cells.targets, wanted)
    symbols = _symbols(adata)
    return [
        _judged(Target(name, _gene(name, adata, symbols), labels), cells, least, adata, baseline)
        for name, labels in asked.items()
    ]


def asked_of(known: list[str], wanted: Any) -> dict[str, tuple[str, ...]]:
    """Labels of each target that is asked for, all that are `known` by default.

    Raises
    ------
    ValueError
        If there is none, or one is not known or has no label.
    """
    if wanted is None:
        asked: dict[str, tuple[str, ...]] = {name: (name,) for name in known}
    elif isinstance(wanted, Mapping):
        asked = {str(name): tuple(dict.fromkeys(_validate.label_texts(labels))) for name, labels in wanted.items()}
    else:
        asked = {name: (name,) for name in _validate.label_texts(wanted)}
    if not known:
        raise ValueError("there is no target besides the controls: check target_key and control=")
    some = f"targets are {known[:8]}"
    empty = [name for name, labels in asked.items() if not labels]
    if empty or not asked:
        raise ValueError(f"cis_genes= names no label{f' of {empty[0]!r}' if empty else ''}; {some}")
    unknown = [label for labels in asked.values() for label in labels if label not in set(known)]
    if unknown:
        raise ValueError(f"cis_genes= names no targets {unknown[:8]}; {some}{_validate.close(unknown[0], known)}")
    return asked


def null_targets(cells: Library, targets: list[Target], n: int, seed: int, least: Least) -> list[Target]:
    """Groups of NTC guides that are relabelled as targets, each of as many guides as targets have in the middle.

    They depend on the library, and not on the targets asked for: several calls on one store have the same.

    Raises
    ------
    ValueError
        If there are too few NTC guides, or cells have several guides.
    """
    if cells.matrix is not None:
        raise ValueError("n_null_targets= is for cells with one guide each: dream_sc.tl.calibrate does it for others")
    mine = np.isin(cells.target, cells.control) & (cells.guide != "")
    names, sizes = np.unique(cells.guide[mine], return_counts=True)
    names = names[sizes >= least.cells_per_guide]
    k = _usual_guides(cells, least)
    if len(names) < k + LEAST_NTC:
        raise ValueError(
            f"n_null_targets={n}: {len(names)} NTC guides are too few for groups of {k}, {k + LEAST_NTC} needed"
        )
    rng, taken, out = np.random.default_rng([seed, 7]), {t.name for t in targets}, []
    size = dict(zip(*np.unique(cells.guide[mine], return_counts=True), strict=True))
    for i in range(n):
        guides = tuple(sorted(map(str, rng.choice(names, k, replace=False))))
        name = f"null_{i + 1}"
        if name in taken:
            raise ValueError(f"n_null_targets={n}: the library has a target {name!r} of its own, rename it")
        n_cells = int(sum(size[g] for g in guides))
        reason = "NTC guides relabelled as a target: each call is false"
        out.append(Target(name, None, (name,), k, n_cells, FITTED, reason, NO_DOSAGE, guides))
    return out


def _usual_guides(cells: Library, least: Least) -> int:
    """How many guides the targets of a library have in the middle, of those that can be fitted."""
    every = pd.DataFrame({"target": cells.target, "guide": cells.guide})
    every = every[~every["target"].isin([*cells.control, ""]) & (every["guide"] != "")]
    sizes = every.groupby(["target", "guide"]).size()
    sizes = sizes[sizes >= least.cells_per_guide]
    of_target = sizes.groupby(level="target").agg(["size", "sum"])
    n = of_target["size"][(of_target["size"] >= least.guides) & (of_target["sum"] >= least.cells)]
    return max(least.guides, int(np.median(n))) if len(n) else least.guides


def _symbols(adata: AnnData) -> dict[str, str]:
    """Names of features by the symbols that one feature has alone."""
    out: dict[str, str] = {}
    for column in (c for c in SYMBOL_COLUMNS if c in adata.var):
        symbols = pd.Series(adata.var_names.astype(str), adata.var[column].astype(str))
        symbols = symbols[~symbols.index.duplicated(keep=False)]
        out = symbols.to_dict() | out
    return out


def _gene(name: str, adata: AnnData, symbols: Mapping[str, str]) -> str | None:
    """The feature of this name or symbol."""
    return name if name in adata.var_names else symbols.get(name)


def _judged(target: Target, cells: Library, least: Least, adata: AnnData, baseline: np.ndarray | None) -> Target:
    """The target with its numbers of guides and cells, and why it is left out, if it is."""
    from dataclasses import replace

    sizes = cells.sizes(target.labels)
    large = sizes[sizes >= least.cells_per_guide]
    target = replace(target, n_guides=len(large), n_cells=int(large.sum()))
    if target.n_guides < least.guides:
        reason = (
            f"{len(large)} of {len(sizes)} guides have at least {least.cells_per_guide} cells, {least.guides} needed"
        )
        return replace(target, status=FEW_GUIDES, reason=reason)
    if target.n_cells < least.cells:
        return replace(target, status=FEW_CELLS, reason=f"{target.n_cells} cells, {least.cells} needed")
    reason = ""
    if target.gene is None:
        reason = f"{target.name!r} is no feature of the data"
    elif baseline is not None:
        mean = baseline[adata.var_names.get_loc(target.gene)]
        if not mean >= least.count:
            reason = f"a mean of {mean:.3g} counts in control cells, {least.count:g} needed for dosages (min_count)"
    return replace(target, reason=reason, dosage=NO_DOSAGE if reason else WITH_DOSAGE)
