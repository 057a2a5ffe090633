"""Symbols of genes in place of their ids, from a column of `.var`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate

if TYPE_CHECKING:
    from anndata import AnnData

SHOWN = 8


def symbols(adata: AnnData, gene_symbols: str) -> pd.Series:
    """The column of symbols, "" where there is none.

    Raises
    ------
    KeyError
        If `.var` has no such column.
    """
    if gene_symbols not in adata.var:
        known = list(adata.var.columns)
        raise KeyError(
            f"gene_symbols={gene_symbols!r} is not a column of .var; there are {known}"
            f"{_validate.close(gene_symbols, known)}"
        )
    column = adata.var[gene_symbols].astype(object)
    return column.where(column.notna(), "").astype(str)


def unique_labels(names: pd.Index, symbol: pd.Series | np.ndarray) -> pd.Index:
    """Labels of rows: the symbol; "symbol (name)" where several have it, the name where there is none."""
    text, own = np.asarray(symbol, dtype=object), names.astype(str).to_numpy(object)
    label = np.where(text == "", own, text).astype(object)
    twice = pd.Index(label).duplicated(keep=False)
    label[twice] = [f"{t} ({n})" if t not in ("", n) else n for t, n in zip(text[twice], own[twice], strict=True)]
    return pd.Index(label)


def labels(adata: AnnData, gene_symbols: str | None) -> pd.Index:
    """What the rows of `.var` are called in tables and plots: their names, or symbols."""
    if gene_symbols is None:
        return pd.Index(adata.var_names)
    return unique_labels(adata.var_names, symbols(adata, gene_symbols)).rename(gene_symbols)


def labels_of(adata: AnnData, names: list[str], gene_symbols: str | None) -> list[str]:
    """The names, checked to be those of features.

    Raises
    ------
    KeyError, ValueError
        If there is no such feature, or several have the symbol.
    """
    known = labels(adata, gene_symbols)
    for name in names:
        if name in known:
            continue
        if gene_symbols is not None:
            raise unknown(name, adata.var_names, symbols(adata, gene_symbols).to_numpy(), known, gene_symbols)
        raise KeyError(f"feature {name!r} is not in var_names{_validate.close(name, known)}")
    return names


def unknown(name: str, names: Any, symbol: np.ndarray, known: pd.Index, gene_symbols: str) -> Exception:
    """The error for a name that is not among the labels `known`: a symbol of several, or of none."""
    several = [str(n) for n, s in zip(names, symbol, strict=True) if s == name]
    several = list(dict.fromkeys(several))
    if several:
        more = f" and {len(several) - SHOWN} more" if len(several) > SHOWN else ""
        return ValueError(
            f".var[{gene_symbols!r}] gives {name!r} to {len(several)} features, {several[:SHOWN]}{more}: ask for one "
            f"of them as '{name} ({several[0]})', or by its name without gene_symbols="
        )
    hint = "; it is a name of .var_names: ask without gene_symbols=" if name in set(map(str, names)) else ""
    return KeyError(f"{name!r} is not in .var[{gene_symbols!r}]{hint or _validate.close(name, known)}")


def gene_label(adata: AnnData, name: str, gene_symbols: str | None) -> str:
    """What one gene is called; its own name where it is not in this object, or the object has no such column."""
    if gene_symbols is None or name not in adata.var_names or gene_symbols not in adata.var:
        return name
    return str(labels(adata, gene_symbols)[adata.var_names.get_loc(name)])


def cis_label(data: Any, adata: AnnData, info: Any, gene_symbols: str | None) -> str:
    """What the cis gene of a fit is called, in whichever modality it is."""
    other = info.get("cis_mod")
    holder = adata if other is None or not hasattr(data, "mod") or other not in data.mod else data.mod[other]
    return gene_label(holder, str(info["cis_gene"]), gene_symbols)
