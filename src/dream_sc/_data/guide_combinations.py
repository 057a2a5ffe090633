"""Guides that occur together in cells: combinations as labels, and guides that are never apart as one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from dream_sc._logging import logger

from .guide_matrix import SEVERAL, SHOWN, Guides

if TYPE_CHECKING:
    from collections.abc import Iterable

JOINED = "+"  # between the guides of a combination
NEVER_APART = 0.9  # of the cells with either of two guides carry both, so that no data tell the two apart
MOSTLY_TOGETHER = 0.4  # the same of guides that look like a construct which is captured in part
LEAST_CAPTURE = 0.35  # of the cells with a construct, where a guide that is missing was not captured: 0.4, and chance
ABOVE_CHANCE = 1.5  # cells with both of two guides, over those expected of guides that meet by chance
NO_CHANCE = 0.5  # share of the cells with either of two guides that carry both, which chance does not give


@dataclass(frozen=True)
class Combinations:
    """The sets of guides that cells carry, the most frequent first."""

    members: list[tuple[int, ...]]  # columns of the matrix of guides, sorted
    acting: list[frozenset[int]]  # the guides that are no controls; all of a combination of controls
    names: list[str]  # of the acting guides
    targets: list[str]  # of the acting guides
    control: np.ndarray  # (M,) whether all are controls
    n_cells: np.ndarray  # (M,)
    of_cell: np.ndarray  # (N,) -1 where a cell has no guide


@dataclass(frozen=True)
class Labels:
    """What each cell is called."""

    guide: np.ndarray  # (N,) "" where a cell gets no label
    target: np.ndarray  # (N,)
    rare: int  # cells with a combination that is in few cells
    shared: int  # cells with a combination that shares a guide with one in more cells


def combinations(guides: Guides, control: list[str]) -> Combinations:
    """Find the combinations that cells carry; cells with one guide have a combination of one."""
    carried = guides.carried.tocsr()
    carried.sort_indices()
    sets = [tuple(carried.indices[a:b].tolist()) for a, b in pairwise(carried.indptr)]
    count: dict[tuple[int, ...], int] = {}
    for each in sets:
        count[each] = count.get(each, 0) + 1
    count.pop((), None)
    ntc = guides.controls(control)
    order = sorted(count, key=lambda s: (-count[s], [str(guides.names[i]) for i in s]))
    acting = [frozenset(i for i in s if not ntc[i]) or frozenset(s) for s in order]
    place = {s: i for i, s in enumerate(order)}
    return Combinations(
        members=order,
        acting=acting,
        names=[JOINED.join(sorted(str(guides.names[i]) for i in s)) for s in acting],
        targets=[_joined_targets(guides.targets[i] for i in s) for s in acting],
        control=np.array([all(ntc[i] for i in s) for s in order], dtype=bool),
        n_cells=np.array([count[s] for s in order], dtype=np.int64),
        of_cell=np.array([place.get(s, -1) for s in sets], dtype=np.int64),
    )


def labelled(guides: Guides, found: Combinations, control: list[str], min_cells: int, *, complete: bool) -> Labels:
    """Choose which combinations become labels, and label the cells.

    Guides of controls beside others are no part of a label. Labels of one target share no guide, since what a guide
    does besides its dosage would tie them together: of those that do, the one in most cells is taken. Where not
    `complete`, constructs go before their parts, and a cell with a part of just one chosen combination, and nothing
    else, counts as that combination. Control cells without a label get that of their rarest guide.
    """
    large = np.array([len(s) == 1 for s in found.members], dtype=bool) | (found.n_cells >= min_cells)
    of_construct = np.zeros(len(large), dtype=bool)
    if not complete:
        ntc = guides.controls(control)
        groups = [*_in_part(guides, np.flatnonzero(~ntc)), *_in_part(guides, np.flatnonzero(ntc))]
        known = {frozenset(g.tolist()) for g in groups if _n_with_any(guides.carried[:, g]) >= min_cells}
        # others with these guides are cells with two constructs, unless they are many
        of_construct = np.array([frozenset(s) in known for s in found.members], dtype=bool)
        of_construct |= large & np.array([s in known for s in found.acting], dtype=bool)
    taken: dict[str, dict[int, str]] = {}  # of each target, the guides and the label that has them
    chosen, shares = np.zeros(len(large), dtype=bool), np.zeros(len(large), dtype=bool)
    for i in [*np.flatnonzero(of_construct), *np.flatnonzero(large & ~of_construct)]:
        mine, name = taken.setdefault(found.targets[i], {}), found.names[i]
        shares[i] = any(mine.get(g, name) != name for g in found.acting[i])
        chosen[i] = not shares[i]
        if chosen[i]:
            mine |= dict.fromkeys(found.acting[i], name)
    label = np.where(chosen, np.arange(len(large)), -1)
    if not complete:
        _fill(found, chosen, label)
    names, targets = np.array([*found.names, ""], dtype=object), np.array([*found.targets, ""], dtype=object)
    at = np.append(label, -1)[found.of_cell]
    guide, target = names[at], targets[at]
    left = np.flatnonzero(np.append(found.control & (label < 0), False)[found.of_cell])
    if len(left):
        guide[left] = _rarest(guides, found, left)
        target[left] = targets[found.of_cell[left]]
    lost = np.append((label < 0) & ~found.control, False)[found.of_cell]
    of_shared = lost & np.append(shares, False)[found.of_cell]
    return Labels(guide, target, int((lost & ~of_shared).sum()), int(of_shared.sum()))


def constructs(guides: Guides, which: np.ndarray, *, complete: bool = True) -> tuple[Guides, np.ndarray]:
    """The matrix with guides that are never apart as one column, among some of them ``(G,)``.

    Cells with a part of a construct keep its guides as columns of their own, which the second result ``(G',)`` tells.
    Where not `complete`, guides are one that are together as often as in constructs of which each guide is captured in
    two of five cells, and a cell with a part has it whole.
    """
    at = np.flatnonzero(which)
    groups = [at[g] for g in _together(guides.carried[:, at], NEVER_APART)] if complete else _in_part(guides, at)
    if not groups:
        return guides, np.zeros(len(which), dtype=bool)
    x, member = guides.carried.tocsc().astype(np.int8), np.concatenate(groups)
    n = [np.asarray(x[:, g].sum(1)).ravel() for g in groups]
    whole = np.stack([k == len(g) if complete else k > 0 for k, g in zip(n, groups, strict=True)], 1)
    gone = sparse.csc_matrix(np.repeat(whole, [len(g) for g in groups], axis=1).astype(np.int8))
    parts = x[:, member] - x[:, member].multiply(gone)
    some = np.flatnonzero(np.asarray(parts.sum(0)).ravel() > 0)
    others = np.setdiff1d(np.arange(x.shape[1]), member)
    joined = [JOINED.join(sorted(map(str, guides.names[g]))) for g in groups]
    targets = [_joined_targets(guides.targets[i] for i in g) for g in groups]
    names = np.array([*joined, *guides.names[member[some]], *guides.names[others]], dtype=object)
    targets += [guides.targets[i] for i in (*member[some], *others)]
    order = np.argsort([*(g[0] for g in groups), *member[some], *others], kind="stable")
    carried = sparse.hstack([sparse.csc_matrix(whole), parts[:, some], x[:, others]], format="csc")[:, order]
    out = carried.tocsr().astype(bool)
    out.eliminate_zeros()
    part = (order >= len(groups)) & (order < len(groups) + len(some))
    return Guides(out, names[order], [targets[i] for i in order], guides.key), part


def never_apart(guides: Guides, wanted: list[str], control: list[str]) -> tuple[Guides, np.ndarray]:
    """The matrix with guides of the cis gene, or of controls, that are never apart as one.

    The second result are cells ``(N,)`` with a part of a construct of the cis gene, whose dosage is not known: they
    have no guide of it here.
    """
    out, part = constructs(guides, guides.targeting(wanted) & ~guides.controls(control))
    barred = out.of_cells(part) > 0
    keep = np.flatnonzero(~part)
    if part.any():
        out = Guides(out.carried[:, keep], out.names[keep], [out.targets[i] for i in keep], out.key)
    out, _ = constructs(out, out.controls(control))
    if len(out.names) < len(guides.names):
        joined = sorted(set(out.names) - set(guides.names))
        logger.info("guides that are never apart count as one: %s", joined[:SHOWN])
    _warn_of_parts(out, out.targeting(wanted))
    return out, barred


def _warn_of_parts(guides: Guides, acting: np.ndarray) -> None:
    """Say which acting guides ``(G,)`` look like parts of a construct that were not always captured."""
    at = np.flatnonzero(acting)
    groups = _together(guides.carried[:, at], MOSTLY_TOGETHER, ABOVE_CHANCE)
    if groups:
        logger.warning(
            "tl.fit_cis: two in five or more of the cells with either guide of %s carry both, as where a part of a "
            "construct was not captured. Their effects are then taken to add up, and each gets a part of the dosage of "
            "the construct. If they are one construct, call dream_sc.pp.combine_guides(data, %r, dosage='additive', "
            "complete=False), and the steps with guides='constructs'",
            [JOINED.join(sorted(map(str, guides.names[at[g]]))) for g in groups][:SHOWN],
            guides.key,
        )


def _whole_share(n_guides: int) -> float:
    """Share of the cells with any of `n_guides` that carry all, where each is captured by itself, and seldom."""
    return float(LEAST_CAPTURE**n_guides / (1 - (1 - LEAST_CAPTURE) ** n_guides))


def _n_with_any(carried: Any) -> int:
    return int((np.asarray(carried.astype(np.int64).sum(1)).ravel() > 0).sum())


def _often_whole(carried: Any) -> bool:
    """Whether cells with any of these columns carry all of them often enough: pairs of three guides never do."""
    n = np.asarray(carried.astype(np.int64).sum(1)).ravel()
    return bool((n == carried.shape[1]).sum() >= _whole_share(carried.shape[1]) * _n_with_any(carried))


def _in_part(guides: Guides, at: np.ndarray) -> list[np.ndarray]:
    """Those of these guides that make constructs, of which each guide may be captured by itself."""
    x = guides.carried[:, at]
    return [at[g] for g in _together(x, _whole_share(2), ABOVE_CHANCE) if _often_whole(x[:, g])]


def _together(carried: Any, least: float, above_chance: float = 0.0) -> list[np.ndarray]:
    """Groups of columns of which a share of the cells with either of two, `least` or more, carries both.

    These are `above_chance` times as many as in guides that meet by chance, or half of the cells with either.
    """
    x = carried.astype(np.int64)
    both = sparse.coo_matrix(x.T @ x)
    n = both.diagonal()
    share = both.data / (n[both.row] + n[both.col] - both.data)
    chance = n[both.row] * (n[both.col] / carried.shape[0])
    pairs = (both.row != both.col) & (share >= least) & ((both.data >= above_chance * chance) | (share >= NO_CHANCE))
    graph = sparse.coo_matrix((share[pairs], (both.row[pairs], both.col[pairs])), both.shape)
    number, of_column = connected_components(graph, directed=False)
    columns = np.argsort(of_column, kind="stable")
    found = np.split(columns, np.cumsum(np.bincount(of_column, minlength=number))[:-1])
    return [np.sort(g) for g in found if len(g) > 1]


def _fill(found: Combinations, chosen: np.ndarray, label: np.ndarray) -> None:
    """Label the combinations that are a part of just one chosen combination, in place."""
    first: dict[tuple[str, str], int] = {}
    of_guide: dict[int, set[int]] = {}
    for i in np.flatnonzero(chosen):
        one = first.setdefault((found.names[i], found.targets[i]), int(i))
        for guide in found.members[i]:
            of_guide.setdefault(guide, set()).add(one)
    for i in np.flatnonzero(label < 0):
        around = set.intersection(*(of_guide.get(g, set()) for g in found.members[i]))
        if len(around) == 1:
            label[i] = around.pop()


def _rarest(guides: Guides, found: Combinations, cells: np.ndarray) -> np.ndarray:
    """The guide of each of these control cells that fewest control cells carry."""
    control = np.flatnonzero(np.append(found.control, False)[found.of_cell])
    n = np.asarray(guides.carried[control].sum(0)).ravel()
    members = [found.members[found.of_cell[c]] for c in cells]
    return np.array([guides.names[min(m, key=lambda g: (n[g], str(guides.names[g])))] for m in members], dtype=object)


def _joined_targets(targets: Iterable[str]) -> str:
    """The targets of several guides, each once."""
    return SEVERAL.join(sorted({t.strip() for target in targets for t in target.split(SEVERAL)} - {""}))
