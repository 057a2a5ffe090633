"""How the responses of contexts differ, as `tl.compare` stored it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from dream_sc import _validate
from dream_sc._data import made_from
from dream_sc._keys import COMPARE, CONTEXTS, NUMBERS, OF_CONTEXTS

from ._stored import table
from ._symbols import labels

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData


def compare(
    data: AnnData | MuData,
    *,
    context: str | None = None,
    omnibus: bool = False,
    sort: bool = False,
    key: str = COMPARE,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """How the responses of contexts differ from that of the reference, or change over ordered contexts.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.compare` has run.
    context
        The rows of this context only.
    omnibus
        Of more than two contexts: one row per feature, that of the context which differs most clearly, with a bound
        of the local FDR over all contexts, and a p-value corrected for their number.
    sort
        Clearest differences first.
    key
        `key_added` of the comparison.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names that rows get, as in `get.trans`.

    Returns
    -------
    A row per feature and context besides the reference; the columns are those that `tl.compare` describes.
    `.attrs["reference"]` names the reference. Of contexts that were compared with `order=`, a row per feature, and
    `.attrs["order"]` has the number of each context.

    Raises
    ------
    KeyError, ValueError
        If the comparison or the context is not there, or `context` or `omnibus` are given for ordered contexts.

    Examples
    --------
    >>> adata.obs["line"] = ["one" if i % 2 else "two" for i in range(adata.n_obs)]
    >>> ds.tl.compare(adata, "line", n_null=0)
    >>> ds.get.compare(adata, sort=True).columns[:3].tolist()
    ['context', 'hypothesis', 'responds_in']
    """
    adata, frame = table(data, mod, "varm", key, "compare(data, by)")
    info = _validate.step(adata, key, "compare(data, by)")
    made_from.warn_if_stale(adata, key, "get.compare")
    names = labels(adata, gene_symbols)
    out = frame.set_axis(names)
    if NUMBERS in info:
        given = {"context": context, "omnibus": omnibus or None}
        _validate.without_effect(given, f"for .uns[{key!r}], whose rows are trends over all contexts")
        return _ordered(out, info, sort)
    reference = str(info["params"]["reference"])
    if OF_CONTEXTS in info and not omnibus:
        every = info[OF_CONTEXTS]
        at = pd.Index(adata.var_names).get_indexer(every["feature"].astype(str))
        out = every[at >= 0].drop(columns="feature").set_axis(names[at[at >= 0]])
    if context is not None:
        others = [str(name) for name in info[CONTEXTS] if str(name) != reference]
        _validate.one_of("context", str(context), others)
        out = out[out["context"].astype(str) == str(context)]
    if sort:
        out = out.sort_values(["qvalue_differs", "lfdr_differs"], kind="stable")
    out = out.copy()
    out.attrs["reference"] = reference
    return out


def _ordered(frame: pd.DataFrame, info: Any, sort: bool) -> pd.DataFrame:
    """The table of trends."""
    out = frame.sort_values(["qvalue_trend", "lfdr_trend"], kind="stable") if sort else frame
    out = out.copy()
    out.attrs["order"] = {str(name): float(n) for name, n in zip(info[CONTEXTS], info[NUMBERS], strict=True)}
    return out
