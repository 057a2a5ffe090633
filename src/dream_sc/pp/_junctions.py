"""The table of splice junctions behind a matrix of their counts, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import CHROM, END, GENE, START, STRAND

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN_STRAND = frozenset({".", "*", "?", "", "NA", "nan", "None", "unknown"})
NO_STRAND, NO_GENE = ".", ""


class Columns(NamedTuple):
    """Names of the columns of `.var` that say where a junction lies, and the gene it belongs to."""

    chrom: str = CHROM
    start: str = START
    end: str = END
    strand: str = STRAND
    gene: str = GENE


@dataclass(frozen=True)
class Junctions:
    """Introns by their first and last base, one a row; each array has shape ``(J,)``."""

    names: np.ndarray
    chrom: np.ndarray
    start: np.ndarray
    end: np.ndarray
    strand: np.ndarray  # "+", "-" or NO_STRAND
    gene: np.ndarray | None  # NO_GENE where it is not known; None where there is no such column

    @property
    def stranded(self) -> np.ndarray:
        """Which junctions have a known strand."""
        return self.strand != NO_STRAND

    def site(self, donor: bool) -> np.ndarray:
        """Position of the donor, the intron's first base as it is transcribed, or of the acceptor, its last one."""
        return np.where((self.strand == "+") == donor, self.start, self.end)

    def genes(self) -> np.ndarray:
        """The gene of each junction, NO_GENE where it is not known."""
        return np.full(len(self.start), NO_GENE, dtype=object) if self.gene is None else self.gene

    def part(self, rows: np.ndarray) -> Junctions:
        """Some of the junctions."""
        gene = None if self.gene is None else self.gene[rows]
        names, chrom, start, end, strand = (
            values[rows] for values in (self.names, self.chrom, self.start, self.end, self.strand)
        )
        return Junctions(names, chrom, start, end, strand, gene)

    def standard(self) -> dict[str, Any]:
        """What a modality's `.var` says of them."""
        text = {CHROM: self.chrom, STRAND: self.strand} | ({} if self.gene is None else {GENE: self.gene})
        return {START: self.start, END: self.end} | {name: pd.Categorical(values) for name, values in text.items()}


def read_junctions(var: pd.DataFrame, columns: Columns, *, need_gene: bool = False) -> Junctions:
    """The junctions of `.var`.

    Raises
    ------
    KeyError
        If a column is not there; that of the gene may be missing unless it is needed or was named.
    ValueError
        If positions, strands or junctions make no sense.
    """
    chrom, start, end, strand = (_column(var, columns, field) for field in (CHROM, START, END, STRAND))
    if chrom.isna().any():
        raise ValueError(f".var[{columns.chrom!r}] is missing for {_example(var, chrom.isna())}: drop or complete it")
    without = columns.gene == GENE and GENE not in var and not need_gene
    junctions = Junctions(
        var.index.to_numpy(dtype=object),
        chrom.astype(str).to_numpy(dtype=object),
        _positions(var, start),
        _positions(var, end),
        _strands(var, strand),
        None if without else read_genes(var, columns),
    )
    wrong = junctions.start > junctions.end
    if wrong.any():
        raise ValueError(
            f"{columns.start!r} lies after {columns.end!r} in {_example(var, wrong)}: they are the first and the last "
            "base of the intron along the chromosome, on the - strand too"
        )
    keys = junctions.chrom, junctions.start, junctions.end, junctions.strand
    if (twice := pd.DataFrame(dict(enumerate(keys))).duplicated().to_numpy()).any():
        raise ValueError(
            f"{_example(var, twice)} has the chromosome, start, end and strand of a junction before it: sum up or drop "
            "duplicates, or correct the coordinates"
        )
    return junctions


def read_genes(var: pd.DataFrame, columns: Columns) -> np.ndarray:
    """The gene of each row of `.var` as a string, NO_GENE where it is missing."""
    gene = _column(var, columns, GENE)
    return np.where(gene.isna(), NO_GENE, gene.astype(str)).astype(object)


def group_of(*keys: np.ndarray) -> np.ndarray:
    """Number of the group of equal keys that each row belongs to; groups are numbered in the order of their keys."""
    table = pd.DataFrame(dict(enumerate(keys)))
    return table.groupby(list(table.columns), sort=True, dropna=False).ngroup().to_numpy()


def labels(*parts: np.ndarray | str) -> np.ndarray:
    """Strings joined row by row, with literals between them."""
    texts = [p if isinstance(p, str) else pd.Series(p).astype(str).to_numpy(dtype=object) for p in parts]
    out = texts[0]
    for text in texts[1:]:
        out = out + text
    return np.asarray(out, dtype=object)


def _column(var: pd.DataFrame, columns: Columns, field: str) -> pd.Series:
    name = getattr(columns, field)
    if name not in var:
        known = [str(c) for c in var.columns]
        raise KeyError(
            f"{field}={name!r} is not a column of .var; there are {known}{_validate.close(name, known)} "
            f"Name the column that holds it, {field}="
        )
    return var[name]


def _positions(var: pd.DataFrame, values: pd.Series) -> np.ndarray:
    """Positions as integers."""
    plain = values.astype(object) if isinstance(values.dtype, pd.CategoricalDtype) else values
    numbers = pd.to_numeric(plain, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~(np.isfinite(numbers) & (numbers >= 1) & (numbers == np.floor(numbers)))
    if wrong.any():
        raise ValueError(
            f".var[{values.name!r}] is {values[wrong].iloc[0]!r} in {_example(var, wrong)}: positions are whole "
            "numbers, the first base of a chromosome is 1"
        )
    return numbers.astype(np.int64)


def _strands(var: pd.DataFrame, values: pd.Series) -> np.ndarray:
    """Strands as "+", "-" and NO_STRAND."""
    text = np.where(values.isna(), NO_STRAND, values.astype(str).str.strip()).astype(object)
    unknown = np.isin(text, list(UNKNOWN_STRAND))
    wrong = ~unknown & (text != "+") & (text != "-")
    if wrong.any():
        raise ValueError(
            f".var[{values.name!r}] is {text[wrong][0]!r} in {_example(var, wrong)}: use '+', '-', or '.' where it "
            "is not known (of STAR's numbers, 1 is '+', 2 is '-' and 0 is not known)"
        )
    return np.where(unknown, NO_STRAND, text).astype(object)


def _example(var: pd.DataFrame, rows: Sequence[bool] | np.ndarray | pd.Series) -> str:
    """The first of some rows for a message, and how many there are."""
    names = var.index[np.asarray(rows)]
    return repr(str(names[0])) + (f" and {len(names) - 1} other rows of .var" if len(names) > 1 else "")
