"""The features that are called, best first, and the same in scanpy's form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import CONFIDENCE, TRANS

from ._curves import values
from ._main_table import main_table
from ._names import TransFit, by_feature, trans_fit

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

PROBABLY = 0.95  # posterior probability of a change of the size asked for
P_CHANGE = "p_min_log2fc"
DOSAGE = "dosage"  # name of the group where the dosage is of no gene
CALLED = 0.05  # q-value of what is shown by default


def responders(
    data: AnnData | MuData,
    *,
    q: float = CALLED,
    min_log2fc: float | None = None,
    confidence: Literal["high", "moderate", "low"] | None = None,
    columns: Literal["all", "main"] = "all",
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Features that respond, the surest first.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    q
        Features with a q-value below it.
    min_log2fc
        Of counts: only features whose log2 fold change `log2fc_full` (`log2fc_max` where nothing was knocked down) is
        at least so large, up or down, with a posterior probability of 0.95. The probability, given that the feature
        responds, is in the column `p_min_log2fc`.
    confidence
        Only calls of this confidence or a higher one; `get.columns` says what the words mean.
    columns
        "all", or "main" for those that most readers need, as in `get.trans`.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names that features get, as in `get.trans`.

    Returns
    -------
    Rows of `get.trans`. Direct targets of the guides have no q-value, and are not among them.

    Raises
    ------
    KeyError, ValueError
        If the fit is not there, an argument is out of its range, or `min_log2fc` is asked for of other than counts.

    Examples
    --------
    >>> table = ds.get.responders(adata, columns="main")
    >>> bool((table["qvalue"] < 0.05).all())
    True
    >>> strong = ds.get.responders(adata, min_log2fc=1.0, confidence="high")
    >>> set(strong["confidence"]) <= {"high"}
    True
    """
    from dream_sc._core.response.confidence import LEVELS

    _validate.one_of("confidence", confidence, (None, *LEVELS))
    _validate.one_of("columns", columns, ("all", "main"))
    if min_log2fc is not None:
        _validate.number("min_log2fc", min_log2fc)
    if not 0 < _validate.number("q", q) <= 1:
        raise ValueError(f"q={q} is not above 0 and at most 1")
    fit = trans_fit(data, key, mod, gene_symbols)
    frame = called(fit, q)
    if confidence is not None:
        frame = frame[frame[CONFIDENCE].isin(LEVELS[: LEVELS.index(confidence) + 1])]
    more = None
    if min_log2fc is not None:
        more = _probability(fit, frame, min_log2fc)
        frame, more = frame[more.to_numpy() >= PROBABLY], more[more >= PROBABLY]
    frame = main_table(fit, frame) if columns == "main" else frame.copy()
    return frame if more is None else frame.assign(**{P_CHANGE: more.to_numpy()})


def called(fit: TransFit, q: float = CALLED) -> pd.DataFrame:
    """A row per feature with a q-value below `q`, the surest first."""
    frame = by_feature(fit)
    frame = frame[(frame["qvalue"] < q).to_numpy(bool)]
    return frame.sort_values(["lfdr", "log_bf"], ascending=[True, False])


def _probability(fit: TransFit, frame: pd.DataFrame, least: float) -> pd.Series:
    """Posterior probability of a fold change of at least `least` at the end of the axis."""
    if fit.likelihood.effect != "log2fc":
        raise ValueError(
            f"min_log2fc={least} is of counts, and this fit is with {fit.distribution!r}: choose rows by "
            f"{fit.likelihood.effect}_full and its interval"
        )
    if not least > 0:
        raise ValueError(f"min_log2fc={least} is not above 0")
    end = np.array([fit.end])
    p = [float((np.abs(values(fit, int(fit.find(name)[0]), end, "log2fc")) >= least).mean()) for name in frame.index]
    return pd.Series(p, frame.index, dtype=float)


def rank_genes_groups(
    data: AnnData | MuData, *, key: str = TRANS, mod: str | None = None, gene_symbols: str | None = None
) -> dict[str, Any]:
    """The result in the form of scanpy's `rank_genes_groups`, for tools that read it.

    There is one group, named after the cis gene ("dosage" without one): the knock-down against NTC. A positive score
    and fold change mean that a gene rises on knock-down.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run, on counts.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names that genes get, as in `get.trans`; names of `.var` by default.

    Returns
    -------
    A dictionary for `.uns["rank_genes_groups"]`: `params`, and the arrays `names`, `scores` (column `score` of
    `get.trans`), `logfoldchanges` (`log2fc_full`; the opposite of `log2fc_max` where nothing was knocked down), `pvals`
    and `pvals_adj` (`qvalue`), each with a field for the group, sorted by score. Genes that were not fitted, and direct
    targets of the guides, are left out.

    Raises
    ------
    KeyError, ValueError
        If the fit is not there, or is not of counts.

    Examples
    --------
    >>> adata.uns["rank_genes_groups"] = ds.get.rank_genes_groups(adata)
    >>> import scanpy as sc
    >>> sc.get.rank_genes_groups_df(adata, group="GFI1B").columns.tolist()
    ['names', 'scores', 'logfoldchanges', 'pvals', 'pvals_adj']
    """
    from dream_sc._core.response.summary import knockdown_change

    fit = trans_fit(data, key, mod, gene_symbols)
    effect = fit.likelihood.effect
    if effect != "log2fc":
        raise ValueError(
            f"rank_genes_groups holds log2 fold changes, and this fit is with {fit.distribution!r}: use "
            "dream_sc.get.responders"
        )
    frame = by_feature(fit)
    frame = frame[frame["qvalue"].notna().to_numpy()].sort_values("score", ascending=False)
    group, info = str(fit.info["cis_gene"]) or DOSAGE, fit.info
    columns = {
        "scores": (frame["score"], "f4"),
        "pvals": (frame["pvalue"], "f8"),
        "pvals_adj": (frame["qvalue"], "f8"),
        "logfoldchanges": (knockdown_change(frame, effect), "f4"),
    }
    params = {
        "groupby": str(info["params"]["cis_key"]),
        "reference": "NTC",
        "method": "dream_sc",
        "use_raw": False,
        "layer": info["params"]["layer"],
        "corr_method": "local false discovery rate",
    }
    out: dict[str, Any] = {"params": params, "names": _field(frame.index, group, "O")}
    return out | {name: _field(column, group, kind) for name, (column, kind) in columns.items()}


def _field(column: Any, group: str, kind: str) -> np.ndarray:
    """One column as a record array with a field for the group."""
    out = np.rec.fromarrays([np.asarray(column).astype(kind)], dtype=[(group, kind)])
    return np.asarray(out)
