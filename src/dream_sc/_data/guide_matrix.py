"""Matrices of guides, cells x guides, from `.obsm` or from a modality of guides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._keys import GUIDE_ASSIGNMENT, GUIDE_IDS, GUIDE_TARGETS, NTC, TARGET_COLUMNS, TARGETING, Slots
from dream_sc._logging import logger

if TYPE_CHECKING:
    from anndata import AnnData

SHOWN = 8
CLEAR = 3  # UMIs of a guide in a cell that hardly ever leaked there: see benchmarks/doubtful_guides.py
SEVERAL = ";"  # between the targets of a guide that has several
TRUE, FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")


@dataclass(frozen=True)
class Guides:
    """Which guides each cell carries, and what they target."""

    carried: Any  # csr (N, G) of bool
    names: np.ndarray  # (G,)
    targets: list[str]  # of each guide, several joined by ";"
    key: str
    n_clear: np.ndarray | None = None  # (N,) how many guides of each cell have at least CLEAR UMIs

    def targeting(self, labels: list[str]) -> np.ndarray:
        """Guides ``(G,)`` with one of these targets."""
        wanted = set(labels)
        return np.array([bool(wanted & _split(t)) for t in self.targets], dtype=bool)

    def controls(self, labels: list[str]) -> np.ndarray:
        """Guides ``(G,)`` that have no other target than these labels of non-targeting guides.

        A label that no guide has is refused; the default one may be missing from a screen without such guides.
        """
        wanted, known = set(labels), {t for target in self.targets for t in _split(target)}
        for label in sorted(wanted - known):
            if labels != [NTC] or NTC.casefold() in {t.casefold() for t in known}:
                raise ValueError(
                    f"control={labels}: no guide of {self.key!r} targets {label!r}; targets are "
                    f"{sorted(known)[:SHOWN]}{_validate.close(label, known)}"
                )
        return np.array([_split(t) <= wanted for t in self.targets], dtype=bool)

    def of_cells(self, guides: np.ndarray) -> np.ndarray:
        """How many of some guides each cell has."""
        return np.asarray(self.carried[:, np.flatnonzero(guides)].sum(1)).ravel().astype(np.int64)

    def only(self, guides: np.ndarray) -> np.ndarray:
        """Cells ``(N,)`` that have some of these guides and no other."""
        n = self.of_cells(guides)
        return np.asarray((n > 0) & (n == np.diff(self.carried.indptr)))

    def by(self, levels: np.ndarray, which: np.ndarray) -> Guides:
        """The same with some guides taken apart by levels ``(N,)`` of the cells; cells without a level lose them."""
        taken, rest = self.carried[:, np.flatnonzero(which)], np.flatnonzero(~which)
        names, targets = self.names[which], np.array(self.targets, dtype=object)
        parts = [(self.carried[:, rest], self.names[rest], targets[rest])]
        for level in sorted(set(levels) - {""}):
            mine = taken.multiply((levels == level)[:, None])
            parts.append((mine, np.array([f"{n}|{level}" for n in names], dtype=object), targets[which]))
        carried, name, target = zip(*parts, strict=True)
        whole = sparse.hstack(carried, format="csr").astype(bool)
        whole.eliminate_zeros()
        return Guides(whole, np.concatenate(name), list(np.concatenate(target)), self.key)


def read_guides(
    data: Any,
    adata: AnnData,
    guides: Any,
    *,
    layer: str | None = None,
    targets: str | Mapping[str, Any] | pd.Series | None = None,
    min_umis: int = 1,
    exclude: Iterable[str] = (),
    raw: bool = False,
) -> Guides:
    """The matrix of guides of the object's cells; see `pp.guide_matrix` for what is read.

    Where a modality and an entry of `.obsm` have the same name, the steps read what is stored in `.obsm`, and what
    stores it reads the `raw` modality.
    """
    given = _by_guide(targets) if isinstance(targets, Mapping | pd.Series) else None
    key = guides if isinstance(guides, str) else "guides"
    x, names, found = _matrix(data, adata, guides, layer, targets if given is None else None, raw=raw)
    keep = _kept(names, exclude, key)
    names = [names[i] for i in keep]
    target = _targets(names, found if given is None else given, key)
    carried = (x >= min_umis).tocsr() if min_umis > 1 else x.astype(bool)
    carried = carried if len(keep) == carried.shape[1] else carried[:, keep]
    clear = np.asarray((x[:, keep] >= CLEAR).sum(1)).ravel().astype(np.int64)
    return Guides(carried, np.array(names, dtype=object), target, key, clear)


def _by_guide(targets: Mapping[str, Any] | pd.Series) -> dict[str, Any]:
    """Targets by guide; a Series may have several rows of one guide, each with a target."""
    if isinstance(targets, Mapping) or targets.index.is_unique:
        return dict(targets)
    return {str(guide): list(of_guide.dropna()) for guide, of_guide in targets.groupby(level=0, sort=False)}


def _kept(names: list[str], exclude: Iterable[str], key: str) -> np.ndarray:
    """Positions of the guides that are not left out."""
    out = {exclude} if isinstance(exclude, str) else set(map(str, exclude))
    unknown = sorted(out - set(names))
    if unknown:
        raise ValueError(
            f"exclude= names no guides of {key!r}: {unknown[:SHOWN]}; there are {names[:SHOWN]}"
            f"{_validate.close(unknown[0], names)}"
        )
    return np.array([i for i, name in enumerate(names) if name not in out], dtype=np.int64)


def guides_of_cells(holder: AnnData, cis_key: str) -> pd.Series:
    """The guide under which each cell counts in a cis fit; NaN of cells without.

    Where the fit was carried over from another object without that column, it is the cell's guide.
    """
    name, params = Slots(cis_key).guide, holder.uns[cis_key]["params"]
    if name in holder.obs:
        return holder.obs[name].astype(object)
    if params.get("guides") is not None or params.get("guide_covariate_key") is not None:
        raise KeyError(f".obs[{name!r}] is not there, but .uns[{cis_key!r}] is: call dream_sc.tl.fit_cis again")
    labels = pd.Series(_validate.labels(holder, params["guide_key"], "guide_key"), holder.obs_names, dtype=object)
    return labels.where(holder.obsm[cis_key]["x_true"].notna())


def _split(target: str) -> set[str]:
    return {t.strip() for t in target.split(SEVERAL)} - {""}


def _matrix(
    data: Any, adata: AnnData, guides: Any, layer: str | None, column: Any, *, raw: bool
) -> tuple[Any, list[str], Mapping[str, Any]]:
    """The matrix of the object's cells, names of guides, and what is known of their targets."""
    mods = data.mod if isinstance(getattr(data, "mod", None), Mapping) else {}
    if isinstance(guides, pd.DataFrame):
        guides = _as_modality(guides)
    if not isinstance(guides, str):
        if not (hasattr(guides, "layers") and hasattr(guides, "var")):
            raise TypeError(
                f"guides= is a {type(guides).__name__}: use a key of .obsm, the name of a modality, a DataFrame of "
                "cells x guides or an AnnData"
            )
        return _of_modality(guides, adata, "the matrix of guides", layer, column)
    if guides in mods and (raw or guides not in adata.obsm):
        return _of_modality(mods[guides], adata, f"modality {guides!r}", layer, column)
    if guides not in adata.obsm:
        known = [*(f".obsm[{k!r}]" for k in adata.obsm), *(f"modality {k!r}" for k in mods)]
        raise KeyError(f"guides={guides!r} is neither a key of .obsm nor a modality; there are {known}")
    for what, value in (("layer", layer), ("targets", column)):
        if value is not None:
            raise ValueError(f"{what}={value!r} is of a modality, but {guides!r} is a key of .obsm: leave it out")
    x = adata.obsm[guides]
    if isinstance(x, pd.DataFrame):
        names, x = x.columns, _sparse_frame(x)
    else:
        key = guides + GUIDE_IDS
        if key not in adata.uns:
            raise KeyError(
                f".obsm[{guides!r}] has no names of guides: make it a DataFrame, or put them into .uns[{key!r}]"
            )
        names = adata.uns[key]
    stored = adata.uns.get(guides + GUIDE_TARGETS)
    if stored is not None and len(stored) != len(names):
        raise ValueError(
            f".uns[{guides + GUIDE_TARGETS!r}] has {len(stored)} targets, but there are {len(names)} guides"
        )
    order = adata.uns.get(guides + GUIDE_IDS, names)  # of the targets; columns may be in another one
    if stored is not None and set(map(str, order)) != set(map(str, names)):
        raise ValueError(
            f".uns[{guides + GUIDE_IDS!r}] and the columns of .obsm[{guides!r}] name different guides: put them right, "
            f"or drop .uns[{guides + GUIDE_IDS!r}] if .uns[{guides + GUIDE_TARGETS!r}] is in the order of the columns"
        )
    found = {} if stored is None else dict(zip(map(str, order), stored, strict=True))
    return _checked(x, names, f".obsm[{guides!r}]"), list(map(str, names)), found


def _of_modality(
    other: AnnData, adata: AnnData, name: str, layer: str | None, column: Any
) -> tuple[Any, list[str], Mapping[str, Any]]:
    """The same of a modality of guides, its cells matched by name; cells that it lacks have no guide."""
    if layer is None and GUIDE_ASSIGNMENT in other.layers:
        layer = GUIDE_ASSIGNMENT
    x = _checked(_validate.matrix(other, layer), other.var_names, name)
    at = other.obs_names.get_indexer(adata.obs_names)
    if (at < 0).all():
        raise ValueError(
            f"the cells of {name} and those of data have no name in common: {list(map(str, other.obs_names[:3]))} and "
            f"{list(map(str, adata.obs_names[:3]))}, for example"
        )
    if (at < 0).any():
        logger.warning(
            "%s lacks %d of %d cells, %r for one: they count as cells with no guide, and are controls with "
            'control_group="complement"; check that names of cells agree, suffixes such as "-1" too, or take them out',
            name,
            (at < 0).sum(),
            len(at),
            str(adata.obs_names[np.flatnonzero(at < 0)[0]]),
        )
    padded = sparse.vstack([x, sparse.csr_matrix((1, x.shape[1]), dtype=x.dtype)], format="csr")
    names = list(map(str, other.var_names))
    own = column is None
    if column is None:
        column = next((c for c in TARGET_COLUMNS if c in other.var), None)
    elif column not in other.var:
        raise KeyError(f"targets={column!r} is not a column of {name}; there are {list(other.var.columns)}")
    found = {} if column is None else dict(zip(names, other.var[column].astype(object), strict=True))
    if own and TARGETING in other.var:
        found |= dict.fromkeys(_non_targeting(other.var[TARGETING], names), NTC)
    return padded[at], names, found


def _as_modality(frame: pd.DataFrame) -> AnnData:
    """A table of cells x guides as an AnnData."""
    from anndata import AnnData

    index, columns = (pd.Index(i.astype(str)) for i in (frame.index, frame.columns))
    if not index.is_unique:
        raise ValueError(f"the table of guides has cells more than once, {index[index.duplicated()][0]!r} for one")
    return AnnData(_sparse_frame(frame), pd.DataFrame(index=index), pd.DataFrame(index=columns))


def _sparse_frame(frame: pd.DataFrame) -> Any:
    if not len(frame.columns):
        raise ValueError("the table of guides has no columns: it has a row per cell and a column per guide")
    every = all(isinstance(t, pd.SparseDtype) for t in frame.dtypes)
    other = [str(c) for c, t in zip(frame.columns, frame.dtypes, strict=True) if not pd.api.types.is_numeric_dtype(t)]
    if other:
        raise TypeError(f"the columns {other[:SHOWN]} of the table of guides hold no numbers: use counts, or 0 and 1")
    return sparse.csr_matrix(frame.sparse.to_coo() if every else frame.to_numpy())


def _non_targeting(column: pd.Series, names: list[str]) -> list[str]:
    """Guides that a column of flags says not to target anything; a missing flag says nothing."""
    values = ["" if pd.isna(v) else str(v).strip().lower() for v in column]
    unknown = sorted(set(values) - {"", *TRUE, *FALSE})
    if unknown:
        raise ValueError(
            f"column {TARGETING!r} of the modality of guides holds {unknown[:SHOWN]}, which is neither true nor false: "
            "name the column of targets as targets="
        )
    return [name for name, value in zip(names, values, strict=True) if value in FALSE]


def _checked(x: Any, names: Any, where: str) -> Any:
    """The matrix as csr, its entries counts and its guides named once each."""
    x = x.to_memory() if hasattr(x, "to_memory") else x
    x = sparse.csr_matrix(x)
    if x.dtype == bool:
        x = x.astype(np.int8)
    _validate.counts(x.data, where)
    if x.shape[1] != len(names):
        raise ValueError(f"{where} has {x.shape[1]} columns, but there are {len(names)} names of guides")
    twice = pd.Index(names)[pd.Index(names).duplicated()]
    if len(twice):
        raise ValueError(f"{where} names guides more than once: {list(map(str, twice[:SHOWN]))}")
    if not x.data.all() or not all(part.flags.writeable for part in (x.data, x.indices, x.indptr)):
        x = x.copy()  # the user's matrix is only read
        x.eliminate_zeros()
    return x


def _targets(names: list[str], found: Mapping[str, Any], guides: str) -> list[str]:
    """Target of each guide."""
    known = {str(k): _joined(v) for k, v in found.items()}
    known = {k: v for k, v in known.items() if _split(v)}
    lacking = [n for n in names if n not in known]
    if lacking:
        raise ValueError(
            f"{len(lacking)} of {len(names)} guides of {guides!r} have no target, {lacking[:SHOWN]} among them: give "
            "targets={guide: target} for all, or the column of the modality that holds them"
        )
    return [known[n] for n in names]


def _joined(target: Any) -> str:
    """A target, or several of a guide that has them in a list, as text."""
    if isinstance(target, list | tuple | set | np.ndarray):
        return SEVERAL.join(map(str, target))
    return "" if pd.isna(target) else str(target)
