"""Junction counts of STARsolo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._keys import CHROM, END, START, STRAND

from ._junctions import labels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

COLUMNS = (CHROM, START, END, STRAND, "motif", "annotated", "unique_reads", "multi_reads", "max_overhang")
STRANDS = np.array([".", "+", "-"], dtype=object)
MOTIFS = ["non-canonical", "GT/AG", "CT/AC", "GC/AG", "CT/GC", "AT/AC", "GT/AT"]


def read_starsolo_sj(
    path: str | Path, *, barcodes: Iterable[str] | None = None, features: str | Path | None = None
) -> AnnData:
    """Read the splice junction counts of STARsolo (``--soloFeatures SJ``) into the standard columns.

    Parameters
    ----------
    path
        Folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv``, each of them plain or gzipped, such as
        ``Solo.out/SJ/raw``.
    barcodes
        Cells to keep, in this order, such as the `.obs_names` of the filtered gene counts. STARsolo does not filter
        junctions: by default every barcode of the whitelist becomes a cell.
    features
        ``SJ.out.tab`` of the run, plain or gzipped, where ``features.tsv`` is missing: STAR puts a link to that file
        into the folder, which breaks when the folder is copied without it.

    Returns
    -------
    AnnData, cells x junctions, counts in `.X` (csr). `.var`: chrom, start, end (first and last base of the intron,
    counted from 1), strand ("+", "-", "." where STAR could not tell), motif (read on the + strand, so that introns on
    the - strand are "CT/AC", "CT/GC" or "GT/AT"), annotated, and from all reads of the run unique_reads, multi_reads
    and max_overhang. STAR does not say which gene a junction belongs to.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    KeyError
        If a barcode to keep is not there.
    ValueError
        If the files do not fit together, or the junctions are not in the format of ``SJ.out.tab``.

    Examples
    --------
    >>> junctions = ds.pp.read_starsolo_sj("Solo.out/SJ/raw")
    >>> [name for name in ("chrom", "start", "end", "strand") if name in junctions.var]
    ['chrom', 'start', 'end', 'strand']
    """
    from anndata import AnnData
    from scipy.io import mmread

    folder = Path(path)
    matrix, cells = _file(folder, "matrix.mtx"), _file(folder, "barcodes.tsv")
    table = _file(folder, "features.tsv") if features is None else Path(features)
    names = pd.read_csv(cells, sep="\t", header=None, usecols=[0], dtype=str, keep_default_na=False)[0]
    var = _junction_table(table)
    x = sparse.csc_matrix(mmread(matrix, spmatrix=False))
    if x.shape != (len(var), len(names)):
        raise ValueError(
            f"{matrix.name} is {x.shape[0]} x {x.shape[1]}, but there are {len(var)} junctions in {table.name} and "
            f"{len(names)} barcodes in {cells.name}: take the files of one run"
        )
    if barcodes is not None:
        wanted = pd.Index(barcodes, dtype=object)
        where = pd.Index(names).get_indexer(wanted)
        if (where < 0).any():
            missing = str(wanted[where < 0][0])
            raise KeyError(
                f"{int((where < 0).sum())} of {len(wanted)} barcodes are not in {cells}, {missing!r} for one; they "
                f"read like {names.iloc[0]!r}{_validate.close(missing, names.iloc[:1000])}"
            )
        x, names = x[:, where], names.iloc[where]
    counts = sparse.csr_matrix(x.T)
    counts.sum_duplicates()
    if (counts.data == np.floor(counts.data)).all():
        counts = counts.astype(np.int32)
    return AnnData(counts, obs=pd.DataFrame(index=pd.Index(names.to_numpy(dtype=object))), var=var)


def _file(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    broken = (
        " It is a link to a file that is not there: name the SJ.out.tab of the run, features="
        * (folder / name).is_symlink()
    )
    hint = " Name the SJ.out.tab of the run, features=" * (name == "features.tsv" and not broken)
    raise FileNotFoundError(
        f"neither {name} nor {name}.gz is in {folder}: name a folder such as Solo.out/SJ/raw.{broken}{hint}"
    )


def _junction_table(path: Path) -> pd.DataFrame:
    """Junctions in STAR's columns, decoded."""
    raw = pd.read_csv(path, sep="\t", header=None, dtype={0: str}, keep_default_na=False)
    codes = raw.iloc[:, 1:]
    if raw.shape[1] != len(COLUMNS) or not all(pd.api.types.is_integer_dtype(kind) for kind in codes.dtypes):
        raise ValueError(
            f"{path} is not in the format of SJ.out.tab ({len(COLUMNS)} columns without a header, all but the first "
            f"whole numbers): it starts with {raw.iloc[0].tolist()}"
        )
    raw.columns = pd.Index(COLUMNS)
    for column, most in ((STRAND, len(STRANDS)), ("motif", len(MOTIFS)), ("annotated", 2)):
        if not raw[column].between(0, most - 1).all():
            raise ValueError(f"{path} holds a {column} beyond 0 to {most - 1}, which SJ.out.tab does not know")
    strand = STRANDS[raw[STRAND]]
    var = raw.assign(
        **{
            CHROM: pd.Categorical(raw[CHROM]),
            STRAND: pd.Categorical(strand, categories=["+", "-", "."]),
            "motif": pd.Categorical.from_codes(raw["motif"], categories=MOTIFS),
            "annotated": raw["annotated"].astype(bool),
        }
    )
    var.index = pd.Index(labels(raw[CHROM].to_numpy(), ":", raw[START], "-", raw[END], ":", strand), dtype=object)
    return var
