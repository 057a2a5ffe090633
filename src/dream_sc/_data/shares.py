"""Shares of counts, as pairs (numerator, denominator) of binomial sticks.

A multinomial feature whose categories come by decreasing total count (ties by position) is a chain of binomials: stick
k is category k out of itself and all after it. The product of these is the multinomial, that of beta-binomials a
generalised Dirichlet-multinomial, so that one model of sticks serves binomial and multinomial features.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate

from . import results
from .results import SHOWN, named_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData

    from dream_sc._core.likelihoods import Likelihood
    from dream_sc._core.sums.block import CountBlock

BLOCK = 256  # sticks or features in a block
STICK_COLUMNS = ("feature", "category", "next")


@dataclass(frozen=True)
class Sticks:
    """Which columns make which stick (`S` sticks of `F` features over `K` columns of numerators).

    Columns are features (binomial), rows of `.var` (`category_key`), or pairs of a feature and a layer, feature by
    feature (`category_layers`). The sticks of a feature are neighbours, the category with most counts first.
    """

    features: list[str]  # (F,) in order of first appearance
    feature: np.ndarray  # (S,) index among `features`
    category: np.ndarray  # (S,) column of the numerator
    following: np.ndarray  # (S,) column of the category next in order, which ends the chain at the last; -1 if binomial
    members: Any  # csc (K, S): 1 where a column is in the denominator; None where a layer is the denominator
    column_names: np.ndarray  # (K,) category of each column
    column_feature: np.ndarray  # (K,) index among `features`
    active: np.ndarray  # (K,) columns that are in a stick

    @property
    def n_categories(self) -> np.ndarray:
        """``(F,)`` active categories of each feature."""
        return np.bincount(self.column_feature[self.active], minlength=len(self.features))

    @property
    def has_stick(self) -> np.ndarray:
        """``(F,)`` whether a feature has a stick at all."""
        return np.bincount(self.feature, minlength=len(self.features)) > 0

    def table(self) -> pd.DataFrame:
        """A row per stick, by names: what finds it again after the object was subset or written."""
        names = np.array(self.features, dtype=object)[self.feature]
        after = [str(self.column_names[k]) if k >= 0 else "" for k in self.following]
        columns = (names, self.column_names[self.category], after)
        return pd.DataFrame({name: list(map(str, c)) for name, c in zip(STICK_COLUMNS, columns, strict=True)})

    def rows_in(self, table: pd.DataFrame) -> np.ndarray:
        """``(S,)`` the row of each stick in the `table` of an earlier step, which it was made from."""
        at = {pair: i for i, pair in enumerate(zip(table["feature"], table["category"], strict=True))}
        mine = self.table()
        return np.array([at[pair] for pair in zip(mine["feature"], mine["category"], strict=True)], dtype=np.int64)


@dataclass(frozen=True)
class Pairs:
    """Numerators and denominators of sticks, in memory as sparse matrices."""

    sticks: Sticks
    numerators: Any  # csc (N, K)
    denominators: Any  # csc (N, K), None where they are sums of numerators

    @property
    def n_sticks(self) -> int:
        """S."""
        return len(self.sticks.category)

    def largest(self) -> float:
        """The largest denominator."""
        return max((float(n.data.max(initial=0.0)) for _, _, n in self.blocks()), default=0.0)

    def covered(self, least: int | None) -> Iterator[tuple[slice, Any, Any]]:
        """`blocks` without the pairs whose denominator is below `least`."""
        for part, y, n in self.blocks():
            if least is None or least <= 1:
                yield part, y, n
                continue
            keep = n.copy()
            keep.data = (keep.data >= least).astype(np.float64)
            yield part, y.multiply(keep).tocsc(), n.multiply(keep).tocsc()

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[slice, Any, Any]]:
        """Some sticks at a time, as canonical csc matrices of floats, cells x sticks: numerators, denominators."""
        s = self.sticks
        for start in range(0, self.n_sticks, size):
            part = slice(start, min(start + size, self.n_sticks))
            mine = s.category[part]
            if s.members is None:
                yield part, self.numerators[:, mine], self.denominators[:, mine]
                continue
            of_sticks = s.members[:, part]
            columns = np.unique(of_sticks.indices)
            n = (self.numerators[:, columns] @ of_sticks.tocsr()[columns].tocsc()).tocsc()
            n.sort_indices()
            yield part, self.numerators[:, mine], n


def check(
    likelihood: Likelihood,
    denominator_layer: str | None,
    category_key: str | None,
    category_layers: Sequence[str] | None,
    layer: str | None = None,
) -> None:
    """Refuse arguments that the distribution does not take, and ask for those that it needs."""
    name = f'distribution="{likelihood.name}"'
    if likelihood.denominator:
        if denominator_layer is None:
            raise ValueError(f"{name} needs denominator_layer=, the layer with what counts are out of")
        if denominator_layer == layer:
            raise ValueError(f"layer and denominator_layer are both {layer!r}: shares are counts of one out of another")
    elif denominator_layer is not None:
        raise ValueError(f"denominator_layer= is for {_those(denominator=True)}, not {likelihood.name!r}: leave it out")
    given = [n for n, v in (("category_key", category_key), ("category_layers", category_layers)) if v is not None]
    if not likelihood.categories:
        if given:
            raise ValueError(f"{given[0]}= is for {_those(categories=True)}, not {likelihood.name!r}: leave it out")
        return
    if len(given) != 1:
        raise ValueError(
            f"{name} needs one of category_key= (a column of .var that names the feature of each "
            f"category) and category_layers= (a layer per category), and got {' and '.join(given) or 'neither'}"
        )
    if category_layers is not None:
        _check_layers(category_layers, layer)


def _those(**facts: bool) -> str:
    """The distributions with these facts, for a message."""
    from dream_sc._core.likelihoods import named

    return " or ".join(f'distribution="{name}"' for name in named(**facts))


def _check_layers(category_layers: Sequence[str], layer: str | None) -> None:
    if isinstance(category_layers, str) or len(category_layers) < 2:
        raise ValueError(f"category_layers={category_layers!r}: name two layers or more, one per category, in a list")
    twice = sorted({str(c) for c in category_layers if list(category_layers).count(c) > 1})
    if twice:
        raise ValueError(f"category_layers names {twice} more than once: one layer per category")
    if layer is not None:
        raise ValueError(f"layer={layer!r} was given beside category_layers, which hold the counts: leave it out")


def open_pairs(
    adata: AnnData,
    likelihood: Likelihood,
    *,
    layer: str | None = None,
    denominator_layer: str | None = None,
    category_key: str | None = None,
    category_layers: Sequence[str] | None = None,
    sticks: pd.DataFrame | None = None,
    limit: int | str | None = None,
) -> Pairs:
    """Read counts and make sticks of them.

    What lies in a file is read into memory, as sparse matrices.

    Parameters
    ----------
    adata
        Cells x features, or x categories.
    likelihood
        That of shares.
    layer, denominator_layer
        Numerators (`.X` by default; of all categories with `category_key`), and denominators of a binomial.
    category_key
        Column of `.var` with the name of the feature of each category.
    category_layers
        A layer per category.
    sticks
        `Sticks.table` of an earlier step, for the same sticks whatever cells there are now. A feature that lacks one
        of its categories gets none. By default the categories are put in order by their counts in all cells.
    limit
        Of memory, see `counts.open_counts`.

    Raises
    ------
    KeyError, TypeError, ValueError
        For arguments that do not fit the distribution, values that are not counts, and numerators above denominators.
    """
    check(likelihood, denominator_layer, category_key, category_layers, layer)
    if likelihood.denominator:
        y, n = _matrix(adata, layer, limit), _matrix(adata, denominator_layer, limit)
        _check_above(adata, y, n, layer, denominator_layer)
        each, none = np.arange(adata.n_vars), np.full(adata.n_vars, -1)
        names = list(map(str, adata.var_names))
        every = np.ones(adata.n_vars, dtype=bool)
        return Pairs(Sticks(names, each, each, none, None, np.array(names, dtype=object), each, every), y, n)
    if category_layers is None:
        y = _matrix(adata, layer, limit)
        column_feature, uniques = pd.factorize(feature_labels(adata, category_key))
        features = list(map(str, uniques))
        columns = np.array(adata.var_names.astype(str), dtype=object)
    else:
        y = _stacked([_matrix(adata, name, limit) for name in category_layers])
        features = list(map(str, adata.var_names))
        column_feature = np.repeat(np.arange(adata.n_vars), len(category_layers))
        columns = np.tile(np.array(category_layers, dtype=object), adata.n_vars)
    if sticks is None:
        chains = _chains(np.asarray(y.sum(0)).ravel(), column_feature)
    else:
        chains = _earlier(sticks, features, columns, column_feature)
    return Pairs(_sticks(chains, features, columns, column_feature), y, None)


def _matrix(adata: AnnData, layer: str | None, limit: int | str | None) -> Any:
    """Counts of all cells as a csc matrix of floats, checked, without stored zeros."""
    counts = results.counts(adata, layer, limit)
    if counts.shape != adata.shape:
        raise ValueError(f"{results.source(layer)} is of shape {counts.shape}, but the data are of shape {adata.shape}")
    blocks = list(islice(counts.blocks(), 2))
    if len(blocks) == 1 and blocks[0].n_major * blocks[0].n_minor == counts.shape[0] * counts.shape[1]:
        return _columns_of(blocks[0])
    return _gathered(counts)


def _columns_of(block: CountBlock) -> Any:
    """The only block as a csc matrix of floats."""
    kind, shape = (
        (sparse.csr_matrix, (block.n_major, block.n_minor))
        if block.by_cell
        else (sparse.csc_matrix, (block.n_minor, block.n_major))
    )
    x = kind((block.data, block.indices, block.indptr), shape)
    out = x.tocsc(copy=not block.by_cell)
    out.data = out.data.astype(np.float64)
    out.eliminate_zeros()
    return out


def _gathered(counts: Any) -> Any:
    """All blocks as a csc matrix of floats."""
    rows, columns, values = [], [], []
    for block in counts.blocks():
        major = np.repeat(np.arange(block.n_major, dtype=np.int32), np.diff(block.indptr))
        cell, feature = (major, block.indices) if block.by_cell else (block.indices, major)
        stored = block.data != 0
        rows.append((cell[stored] + block.cell).astype(np.int32))
        columns.append((feature[stored] + block.feature).astype(np.int32))
        values.append(block.data[stored].astype(np.float64))
    data, row, column = (np.concatenate([np.empty(0, np.int32), *part]) for part in (values, rows, columns))
    out = sparse.csc_matrix((data.astype(np.float64, copy=False), (row, column)), counts.shape)
    out.sum_duplicates()
    return out


def _stacked(layers: list[Any]) -> Any:
    """Layers side by side, feature by feature."""
    n_vars = layers[0].shape[1]
    order = np.arange(len(layers) * n_vars).reshape(len(layers), n_vars).T.ravel()
    return sparse.hstack(layers, format="csc")[:, order]


def feature_labels(adata: AnnData, key: str | None) -> np.ndarray:
    """The feature of each category, without missing ones."""
    if key not in adata.var:
        known = list(adata.var.columns)
        similar = _validate.close(str(key), known)
        raise KeyError(f"category_key={key!r} is not a column of .var; there are {known}{similar}")
    column = adata.var[key]
    missing = (column.isna() | (column.astype(str) == "")).to_numpy()
    if missing.any():
        names = list(adata.var_names[missing][:SHOWN])
        raise ValueError(
            f".var[{key!r}] names no feature for {int(missing.sum())} categories, {names} among them: drop these, or "
            "name their feature"
        )
    return np.array(column.astype(str), dtype=object)


def _chains(totals: np.ndarray, column_feature: np.ndarray) -> list[np.ndarray]:
    """The active columns of each feature with two or more, those with most counts first."""
    active = np.flatnonzero(totals > 0)
    order = active[np.lexsort((active, -totals[active], column_feature[active]))]
    cuts = np.flatnonzero(np.diff(column_feature[order])) + 1
    return [chain for chain in np.split(order, cuts) if len(chain) > 1]


def _earlier(
    table: pd.DataFrame, features: list[str], names: np.ndarray, column_feature: np.ndarray
) -> list[np.ndarray]:
    """The chains of an earlier step whose categories are all there, in the order of the features now."""
    at = {(features[f], str(names[k])): k for k, f in enumerate(column_feature)}
    place = {name: i for i, name in enumerate(features)}
    found = {}
    for name, rows in table.groupby("feature", sort=False):
        categories = [*rows["category"], rows["next"].iloc[-1]]
        columns = [at.get((str(name), str(c)), -1) for c in categories]
        if min(columns) >= 0:
            found[place[str(name)]] = np.array(columns)
    return [found[i] for i in sorted(found)]


def _sticks(chains: list[np.ndarray], features: list[str], names: np.ndarray, column_feature: np.ndarray) -> Sticks:
    """Sticks of chains of categories; column k of the membership has the categories from k on."""
    empty = [np.empty(0, dtype=np.int64)]
    category = np.concatenate(empty + [c[:-1] for c in chains])
    following = np.concatenate(empty + [c[1:] for c in chains])
    members = [c[k:] for c in chains for k in range(len(c) - 1)]
    rows = np.concatenate(empty + members)
    indptr = np.concatenate([[0], np.cumsum([len(m) for m in members])]).astype(np.int64)
    matrix = sparse.csc_matrix((np.ones(len(rows)), rows, indptr), (len(names), len(category)))
    matrix.sort_indices()
    active = np.zeros(len(names), dtype=bool)
    active[np.concatenate(empty + chains)] = True
    return Sticks(
        features, column_feature[category], category, following, matrix, names, np.asarray(column_feature), active
    )


def _check_above(adata: AnnData, y: Any, n: Any, layer: str | None, denominator_layer: str | None) -> None:
    """Refuse numerators above their denominators."""
    n_above, named = 0, ""
    for start in range(0, adata.n_vars, BLOCK):
        part = slice(start, start + BLOCK)
        missing = (n[:, part] - y[:, part]).tocoo()
        above = missing.data < 0
        if above.any() and not n_above:
            named = named_values(adata, missing.row[above], missing.col[above], adata.var_names[part])
        n_above += int(above.sum())
    if n_above:
        raise ValueError(
            f"{results.source(layer)} is above {results.source(denominator_layer)} {n_above} times, {named}: a count "
            "cannot exceed what it is out of; was denominator_layer= meant to be another layer?"
        )
