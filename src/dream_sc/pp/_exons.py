"""Counts that include an exon against counts that skip it (binomial)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._keys import CHROM, DENOMINATOR, END, EXON_END, EXON_START, GENE, LEFT, RIGHT, SKIPPING, START, STRAND

from ._junctions import NO_GENE, Columns, Junctions, group_of, labels, read_junctions
from ._modality import Input, modality, stack, whole

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

INCLUSIONS = ("min", "mean")
MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, 2^64 over the golden ratio: spreads what differs to the highest bit


class Cassettes(NamedTuple):
    """Exons between two junctions that a third one skips: positions of the three, ``(E,)`` each."""

    left: np.ndarray
    right: np.ndarray
    skipping: np.ndarray


def exon_skipping(
    adata: AnnData | MuData,
    *,
    mod: str | None = None,
    layer: str | None = None,
    inclusion: Literal["min", "mean"] = "min",
    chrom: str = CHROM,
    start: str = START,
    end: str = END,
    strand: str = STRAND,
    gene: str = GENE,
    min_counts: int = 1,
    max_exon_length: int | None = None,
) -> AnnData:
    """Make a binomial modality of cassette exons: how often each is included rather than skipped.

    An exon is found where the introns ``(a, b)``, ``(c, d)`` and ``(a, d)`` are among the junctions of one chromosome
    and strand, ``b + 1 < c``: the exon is ``b + 1`` to ``c - 1``. Nothing but these three is asked for, so two
    neighbouring exons that are skipped together give, beside what they give one by one, the piece from the first to
    the last base of both, with the intron between them.

    Parameters
    ----------
    adata
        AnnData or MuData of junction counts, cells x junctions; a view will do. It is not changed.
    mod
        Modality of a MuData.
    layer
        Layer of the counts; `.X` by default.
    inclusion
        What counts as inclusion in a cell with ``i`` and ``j`` counts of the two junctions of the exon. "min": the
        lesser one; safe where a junction also belongs to another event, but near 0 wherever counts are sparse, since
        both have to be seen in the same cell. "mean": ``(i + j) / 2``, with halves rounded up or down by a coin that
        is tossed once for each cell and exon from their names. That keeps whole counts for the binomial, has the
        right mean, takes two junctions of a molecule for one, and does not depend on which other cells and exons
        are there.
    chrom, start, end, strand
        Columns of `.var` as in `donor_usage`: first and last base of the intron, counted from 1. Junctions of
        unknown strand only go with each other.
    gene
        Column of `.var` with the gene of each junction. The default one may be missing. Junctions of different known
        genes do not go together.
    min_counts
        Junctions with fewer counts over all cells are left out.
    max_exon_length
        Longer exons are left out; any length by default.

    Returns
    -------
    A new AnnData of the same cells with a copy of `.obs`; one row of `.var` per exon and the junction that skips it, in
    the order of chromosome and position. `.X` holds the counts of inclusion, `.layers["denominator"]` those plus the
    counts of the skipping junction, both csr of integers. `.var`: chrom, exon_start, exon_end (first and last base),
    strand, gene ("" where it is not known), and the names of the junctions, junction_left, junction_right (by
    position on the chromosome, not along the transcript) and junction_skipping. `.uns["modality"]` says how to fit it
    (``distribution="binomial"``, ``denominator_layer="denominator"``).

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If the values are not counts, positions, strands or junctions make no sense, or there is no such exon.

    Examples
    --------
    >>> exons = ds.pp.exon_skipping(junctions)
    >>> exons.var[["exon_start", "exon_end"]].values.tolist()
    [[201, 260]]
    """
    _validate.whole("min_counts", min_counts, 0)
    _validate.one_of("inclusion", inclusion, INCLUSIONS)
    if max_exon_length is not None:
        _validate.whole("max_exon_length", max_exon_length)
    source = Input.of(adata, mod, layer)
    j = read_junctions(source.adata.var, Columns(chrom, start, end, strand, gene))
    used = np.flatnonzero(source.totals >= min_counts)
    exons = Cassettes(*(used[rows] for rows in cassettes(j.part(used))))
    var, order = _table(j, exons, max_exon_length)
    if not len(var):
        raise ValueError(
            f"no exon with two junctions and a third that skips it: of {len(source.totals)} junctions, {len(used)} "
            f"have min_counts={min_counts} counts or more, and they make {len(exons.left)} such exons of any length. "
            "Lower min_counts=, raise max_exon_length=, and look whether start and end are the ends of introns"
        )
    x, total = _counts(source, Cassettes(*(rows[order] for rows in exons)), inclusion, var.index)
    fit = {
        "distribution": "binomial",
        "denominator_layer": DENOMINATOR,
        "inclusion": inclusion,
        "left_out": {"min_counts": len(source.totals) - len(used), "max_exon_length": len(exons.left) - len(var)},
    }
    return modality(source, "exon_skipping", x, var, fit, total)


def cassettes(j: Junctions) -> Cassettes:
    """All exons between two junctions that a third one skips, in no particular order."""
    by_start, by_end = group_of(j.chrom, j.strand, j.start), group_of(j.chrom, j.strand, j.end)
    # of a skipping junction, the left ones are those of the same start that end before it does
    order = np.lexsort((j.end, by_start))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    first = np.searchsorted(by_start[order], by_start)
    skipping, at = _ranges(first, place - first)
    left = order[at]
    # and the right ones are those of the same end that start late enough to leave an exon
    starts = np.unique(j.start)
    width = len(starts) + 1
    key = by_end * width + np.searchsorted(starts, j.start)
    order = np.argsort(key)
    least = np.searchsorted(starts, j.end[left] + 1, side="right")
    begin = np.searchsorted(key[order], by_end[skipping] * width + least)
    stop = np.searchsorted(key[order], (by_end[skipping] + 1) * width)
    pair, at = _ranges(begin, stop - begin)
    found = Cassettes(left[pair], order[at], skipping[pair])
    agree = _agree(j.genes(), found)
    return Cassettes(*(rows[agree] for rows in found))


def _ranges(first: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's number as often as its range is long, and the positions in the ranges."""
    row = np.repeat(np.arange(len(size)), size)
    before = np.cumsum(size) - size
    return row, np.arange(len(row)) - before[row] + first[row]


def _agree(gene: np.ndarray, found: Cassettes) -> np.ndarray:
    """Which exons have junctions of one gene, those of no gene aside."""
    genes = [gene[rows] for rows in found]
    agree = np.ones(len(found.left), dtype=bool)
    for k, a in enumerate(genes):
        b = genes[k - 1]
        agree &= (a == b) | (a == NO_GENE) | (b == NO_GENE)
    return agree


def _table(j: Junctions, exons: Cassettes, longest: int | None) -> tuple[pd.DataFrame, np.ndarray]:
    """Exons in the order of position that are not too long, and where they stand among all."""
    left, right, skipping = (j.part(rows) for rows in exons)
    start, end = left.end + 1, right.start - 1
    order = np.argsort(group_of(skipping.chrom, start, end, skipping.strand, skipping.start, skipping.end))
    if longest is not None:
        order = order[(end - start + 1)[order] <= longest]
    genes = [part.genes() for part in (left, right, skipping)]
    gene = np.where(genes[0] != NO_GENE, genes[0], np.where(genes[1] != NO_GENE, genes[1], genes[2]))
    exon = labels(skipping.chrom, ":", start, "-", end, ":", skipping.strand)
    names = labels(exon, "|", skipping.start, "-", skipping.end)
    table = {
        CHROM: pd.Categorical(skipping.chrom[order]),
        EXON_START: start[order],
        EXON_END: end[order],
        STRAND: pd.Categorical(skipping.strand[order]),
        GENE: pd.Categorical(gene[order]),
        LEFT: left.names[order],
        RIGHT: right.names[order],
        SKIPPING: skipping.names[order],
    }
    return pd.DataFrame(table, index=pd.Index(names[order], dtype=object)), order


def _counts(
    source: Input, exons: Cassettes, inclusion: str, names: pd.Index
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Counts of inclusion, and those plus the counts of skipping."""
    every, place = np.unique(np.concatenate(exons), return_inverse=True)
    left, right, skipping = np.split(place, 3)
    cell_hash = pd.util.hash_array(source.adata.obs_names.to_numpy(dtype=object))
    exon_hash = pd.util.hash_array(names.to_numpy(dtype=object))
    included, total, cell = [], [], 0
    for part in source.parts(every):
        i, k, s = part[:, left], part[:, right], part[:, skipping]
        if inclusion == "min":
            x = sparse.csr_matrix(i.minimum(k))
        else:
            x = _halved(sparse.csr_matrix(i + k), cell_hash[cell : cell + part.shape[0]], exon_hash)
        x.eliminate_zeros()
        included.append(whole(x))
        total.append(whole(sparse.csr_matrix(x + s)))
        cell += part.shape[0]
    x, denominator = stack(included, len(names)), stack(total, len(names))
    x.sort_indices()
    denominator.sort_indices()
    return x, denominator


def _halved(x: sparse.csr_matrix, cell: np.ndarray, exon: np.ndarray) -> sparse.csr_matrix:
    """Half of each count; halves go up or down by the highest bit of what the cell's and the exon's name give."""
    rows = np.repeat(cell, np.diff(x.indptr))
    coin = ((rows ^ exon[x.indices]) * MIX) >> np.uint64(63)
    return sparse.csr_matrix((np.floor((x.data + coin.astype(np.float64)) / 2), x.indices, x.indptr), x.shape)
