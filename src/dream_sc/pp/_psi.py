"""Counts of a junction against those of its gene (binomial)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from dream_sc import _validate
from dream_sc._keys import CHROM, DENOMINATOR, END, GENE, START, STRAND
from dream_sc._logging import logger

from ._junctions import NO_GENE, Columns, group_of, read_junctions
from ._modality import Input, Kept, modality, per_group, spread, stack, whole

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def junction_psi(
    adata: AnnData | MuData,
    *,
    mod: str | None = None,
    layer: str | None = None,
    genes: AnnData | str | None = None,
    genes_layer: str | None = None,
    chrom: str = CHROM,
    start: str = START,
    end: str = END,
    strand: str = STRAND,
    gene: str = GENE,
    min_counts: int = 1,
    min_categories: int = 2,
) -> AnnData:
    """Make a binomial modality of junctions: the share of its gene's junction counts, or of its gene's counts.

    Parameters
    ----------
    adata
        AnnData or MuData of junction counts, cells x junctions; a view will do. It is not changed.
    mod
        Modality of a MuData.
    layer
        Layer of the junction counts; `.X` by default.
    genes
        AnnData of gene counts, cells x genes, or the name of another modality of the MuData: its counts are the
        denominators. Cells are matched by name, and genes by name with the column `gene`. By default the counts of
        all junctions of the gene, those left out by `min_counts` too, are the denominators.
    genes_layer
        Layer of the gene counts; `.X` by default.
    chrom, start, end, strand
        Columns of `.var` as in `donor_usage`: first and last base of the intron, counted from 1. The strand may be
        unknown.
    gene
        Column of `.var` with the gene of each junction; those without one are left out.
    min_counts
        Junctions with fewer counts over all cells are left out.
    min_categories
        Genes with fewer junctions left are left out; 1 is allowed where `genes` is given.

    Returns
    -------
    A new AnnData of the same cells with a copy of `.obs`; one row of `.var` per junction, sorted by gene and position.
    `.X` holds its counts and `.layers["denominator"]` the gene's, both csr of integers; a denominator is stored in
    every cell that has any, so this layer is much fuller than the counts. Where a gene has fewer counts than one of
    its junctions, as happens with reads that are counted for no gene, that junction's count is the denominator;
    `.uns["modality"]["n_raised"]` says in how many pairs of cell and gene. `.uns["modality"]` also says how to fit it
    (``distribution="binomial"``, ``denominator_layer="denominator"``).

    Raises
    ------
    KeyError
        If a column, a cell of `adata` or every gene is missing where it is looked for.
    ValueError
        If the values are not counts, positions, strands or junctions make no sense, or no gene is left.

    Examples
    --------
    >>> psi = ds.pp.junction_psi(junctions)
    >>> psi.uns["modality"]["distribution"], "denominator" in psi.layers
    ('binomial', True)
    """
    _validate.whole("min_counts", min_counts, 0)
    _validate.whole("min_categories", min_categories, 2 if genes is None else 1)
    source = Input.of(adata, mod, layer)
    j = read_junctions(source.adata.var, Columns(chrom, start, end, strand, gene), need_gene=True)
    of = j.genes()
    counted = None if genes is None else _gene_counts(adata, genes, genes_layer, source.adata)
    keep = Kept(of != NO_GENE if counted is None else _in(of, counted, gene), "gene", source.totals, min_counts)
    group = group_of(of)
    keep.drop_small(group, min_categories, "gene", "junctions")
    rows = keep.sorted(group, j.chrom, j.start, j.end, j.strand)
    kept, first, code = np.unique(group[rows], return_index=True, return_inverse=True)
    fit: dict[str, Any] = {"distribution": "binomial", "denominator_layer": DENOMINATOR, "left_out": keep.left_out}
    if counted is None:
        x, total = _with_totals(source, group, rows, kept)
    else:
        x = source.columns(rows)
        largest = per_group(x, code, len(kept), np.maximum)
        total, fit["n_raised"] = _raised(_rows_of(counted, of[rows[first]], source.adata), largest)
    var = source.adata.var.iloc[rows].assign(**j.part(rows).standard())
    return modality(source, "junction_psi", x, var, fit, spread(total, code))


def _with_totals(source: Input, group: np.ndarray, rows: np.ndarray, kept: np.ndarray) -> tuple[Any, Any]:
    """Counts of the junctions in `rows`, and of all junctions of each gene kept; `group` numbers genes."""
    every = np.flatnonzero(np.isin(group, kept))
    every = every[np.argsort(group[every], kind="stable")]
    code = np.searchsorted(kept, group[every])
    place = np.empty(len(group), dtype=np.int64)
    place[every] = np.arange(len(every))
    counts, totals = [], []
    for part in source.parts(every):
        totals.append(whole(per_group(part, code, len(kept), np.add)))
        mine = part[:, place[rows]]
        mine.sort_indices()
        counts.append(whole(mine))
    return stack(counts, len(rows)), stack(totals, len(kept))


def _gene_counts(data: Any, genes: Any, layer: str | None, cells: AnnData) -> Input:
    """The counts of genes, given that they hold every cell."""
    counted = Input.of(data, genes, layer) if isinstance(genes, str) else Input.of(genes, None, layer)
    missing = ~cells.obs_names.isin(counted.adata.obs_names)
    if missing.any():
        raise KeyError(
            f"{int(missing.sum())} of {len(missing)} cells are not in genes=, {str(cells.obs_names[missing][0])!r} for "
            "one: take those that are in both, adata[adata.obs_names.isin(genes.obs_names)]"
        )
    return counted


def _in(of: np.ndarray, counted: Input, column: str) -> np.ndarray:
    """Which junctions have their gene among the ones counted."""
    known = (counted.adata.var_names.get_indexer(of) >= 0) & (of != NO_GENE)
    if not known.any():
        raise KeyError(
            f"no gene of .var[{column!r}], such as {list(of[:2])}, is among the var_names of genes=, such as "
            f"{list(counted.adata.var_names[:2])}: name the column that holds the same identifiers, gene="
        )
    return known


def _rows_of(counted: Input, names: np.ndarray, cells: AnnData) -> Any:
    """Counts of genes in the order of `names` and of the cells."""
    x = counted.columns(counted.adata.var_names.get_indexer(names))
    return x[counted.adata.obs_names.get_indexer(cells.obs_names)]


def _raised(total: Any, largest: Any) -> tuple[Any, int]:
    """Totals of genes, raised to the largest count among their junctions, and in how many places."""
    n = int((largest > total).nnz)
    if n:
        logger.warning(
            "pp.junction_psi: in %d of %d pairs of cell and gene with a junction, the gene has fewer counts than the "
            "junction, whose count became the denominator",
            n,
            largest.nnz,
        )
    out = sparse.csr_matrix(total.maximum(largest))
    out.sort_indices()
    return out, n
