"""Which of the alternatives is used: junctions of a donor or an acceptor, transcripts of a gene (multinomial)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from dream_sc import _validate
from dream_sc._keys import ACCEPTOR, CHROM, DONOR, END, GENE, START, STRAND

from ._junctions import NO_GENE, Columns, group_of, labels, read_genes, read_junctions
from ._modality import Input, Kept, modality

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def donor_usage(
    adata: AnnData | MuData,
    *,
    mod: str | None = None,
    layer: str | None = None,
    chrom: str = CHROM,
    start: str = START,
    end: str = END,
    strand: str = STRAND,
    gene: str = GENE,
    min_counts: int = 1,
    min_categories: int = 2,
) -> AnnData:
    """Make a multinomial modality of junctions that share a donor (5' splice site): which acceptor is used.

    Parameters
    ----------
    adata
        AnnData or MuData of junction counts, cells x junctions; a view will do. It is not changed.
    mod
        Modality of a MuData.
    layer
        Layer of the counts; `.X` by default.
    chrom, start, end, strand
        Columns of `.var`. `start` and `end` are the first and the last base of the intron along the chromosome, start
        <= end on either strand, and the first base of a chromosome is 1, as in STAR's ``SJ.out.tab``. Other conventions
        move all sites by a base or two and have to be converted first. The strand is "+", "-", or "." where it is not
        known: such a junction has no donor and is left out.
    gene
        Column of `.var` with the gene of each junction, only carried over. The default one may be missing.
    min_counts
        Junctions with fewer counts over all cells are left out.
    min_categories
        Donors with fewer junctions left are left out.

    Returns
    -------
    A new AnnData of the same cells with a copy of `.obs`; one row of `.var` per junction, in the order of the donor's
    chromosome and position. `.X` holds its counts (csr, integers). `.var` is that of the input with the standard
    columns chrom, start, end, strand (and gene), and "donor", the feature that a junction is a category of:
    chromosome, the intron's first base as it is transcribed, and strand, such as "chr1:1234:+". `.uns["modality"]`
    says how to fit it (``distribution="multinomial"``, ``category_key="donor"``), and how many junctions were left out
    for which reason.

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If the values are not counts, positions, strands or junctions make no sense, or no donor is left.

    Examples
    --------
    >>> donors = ds.pp.donor_usage(junctions)
    >>> donors.var["donor"].tolist()
    ['chr1:101:+', 'chr1:101:+']
    """
    columns = Columns(chrom, start, end, strand, gene)
    return _site_usage(adata, DONOR, columns, mod, layer, min_counts, min_categories)


def acceptor_usage(
    adata: AnnData | MuData,
    *,
    mod: str | None = None,
    layer: str | None = None,
    chrom: str = CHROM,
    start: str = START,
    end: str = END,
    strand: str = STRAND,
    gene: str = GENE,
    min_counts: int = 1,
    min_categories: int = 2,
) -> AnnData:
    """Make a multinomial modality of junctions that share an acceptor (3' splice site): which donor is used.

    Parameters
    ----------
    adata
        AnnData or MuData of junction counts, cells x junctions; a view will do. It is not changed.
    mod
        Modality of a MuData.
    layer
        Layer of the counts; `.X` by default.
    chrom, start, end, strand
        Columns of `.var` as in `donor_usage`: first and last base of the intron, counted from 1.
    gene
        Column of `.var` with the gene of each junction, only carried over. The default one may be missing.
    min_counts
        Junctions with fewer counts over all cells are left out.
    min_categories
        Acceptors with fewer junctions left are left out.

    Returns
    -------
    A new AnnData as that of `donor_usage`, with the column "acceptor": chromosome, the intron's last base as it is
    transcribed, and strand. ``category_key="acceptor"``.

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If the values are not counts, positions, strands or junctions make no sense, or no acceptor is left.

    Examples
    --------
    >>> acceptors = ds.pp.acceptor_usage(junctions)
    >>> acceptors.var["acceptor"].tolist()
    ['chr1:300:+', 'chr1:300:+']
    """
    columns = Columns(chrom, start, end, strand, gene)
    return _site_usage(adata, ACCEPTOR, columns, mod, layer, min_counts, min_categories)


def isoform_usage(
    adata: AnnData | MuData,
    *,
    mod: str | None = None,
    layer: str | None = None,
    gene: str = GENE,
    min_counts: int = 1,
    min_categories: int = 2,
) -> AnnData:
    """Make a multinomial modality of the transcripts of each gene: which isoform is used.

    Parameters
    ----------
    adata
        AnnData or MuData of transcript counts, cells x transcripts; a view will do. It is not changed.
    mod
        Modality of a MuData.
    layer
        Layer of the counts; `.X` by default.
    gene
        Column of `.var` with the gene of each transcript; those without one are left out.
    min_counts
        Transcripts with fewer counts over all cells are left out.
    min_categories
        Genes with fewer transcripts left are left out.

    Returns
    -------
    A new AnnData of the same cells with a copy of `.obs`; one row of `.var` per transcript, sorted by gene and name.
    `.X` holds its counts (csr, integers), `.var["gene"]` names the feature that it is a category of, and
    `.uns["modality"]` says how to fit it (``distribution="multinomial"``, ``category_key="gene"``).

    Raises
    ------
    KeyError
        If the column is not there.
    ValueError
        If the values are not counts, or no gene is left.

    Examples
    --------
    >>> isoforms = ds.pp.isoform_usage(transcripts)
    >>> isoforms.uns["modality"]["distribution"]
    'multinomial'
    """
    _validate.whole("min_counts", min_counts, 0)
    _validate.whole("min_categories", min_categories, 2)
    source = Input.of(adata, mod, layer)
    var = source.adata.var
    genes = read_genes(var, Columns(gene=gene))
    keep = Kept(genes != NO_GENE, "gene", source.totals, min_counts)
    group = group_of(genes)
    keep.drop_small(group, min_categories, "gene", "transcripts")
    rows = keep.sorted(group, labels(var.index.to_numpy()))
    table = var.iloc[rows].assign(**{GENE: pd.Categorical(genes[rows])})
    fit = {"distribution": "multinomial", "category_key": GENE, "left_out": keep.left_out}
    return modality(source, "isoform_usage", source.columns(rows), table, fit)


def _site_usage(
    data: Any, site: str, columns: Columns, mod: str | None, layer: str | None, min_counts: int, min_categories: int
) -> AnnData:
    _validate.whole("min_counts", min_counts, 0)
    _validate.whole("min_categories", min_categories, 2)
    source = Input.of(data, mod, layer)
    j = read_junctions(source.adata.var, columns)
    position = j.site(site == DONOR)
    keep = Kept(j.stranded, "strand", source.totals, min_counts)
    group = group_of(j.chrom, position, j.strand)
    keep.drop_small(group, min_categories, site, "junctions")
    rows = keep.sorted(group, j.start, j.end)
    mine = j.part(rows)
    names = labels(mine.chrom, ":", position[rows], ":", mine.strand)
    feature = pd.Categorical(names, categories=pd.unique(names))
    table = source.adata.var.iloc[rows].assign(**mine.standard(), **{site: feature})
    fit = {"distribution": "multinomial", "category_key": site, "left_out": keep.left_out}
    return modality(source, f"{site}_usage", source.columns(rows), table, fit)
