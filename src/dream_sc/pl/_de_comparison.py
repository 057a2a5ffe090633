"""Fold changes of the fit against those of a table of differential expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._keys import TRANS
from dream_sc.get._names import trans_fit

from . import _effects
from ._curve import medians
from ._labels import label_points
from ._style import GRAY, MANY, ORANGE, SMALL, axes, blue, ink, paper

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

    from dream_sc.get._names import TransFit

LEAST = 3  # features of a correlation
# tool: columns of its table, of feature ("" is the index), log2 fold change, adjusted p-value, p-value, and target
FORMATS: dict[str, tuple[str, str, str, str, str]] = {
    "scanpy": ("names", "logfoldchanges", "pvals_adj", "pvals", "group"),
    "sceptre": ("response_id", "log_2_fold_change", "", "p_value", "grna_target"),
    "DESeq2": ("", "log2FoldChange", "padj", "pvalue", ""),
    "pertpy": ("variable", "log_fc", "adj_p_value", "p_value", "contrast"),
    "edgeR": ("", "logFC", "FDR", "PValue", ""),
    "limma": ("", "logFC", "adj.P.Val", "P.Value", ""),
}


def de_comparison_data(
    data: AnnData | MuData,
    table: pd.DataFrame,
    *,
    at: Literal["mean", "full"] = "mean",
    target: str | None = None,
    fdr: float = 0.05,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Fold changes of counts beside those of another tool, feature by feature.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    table
        Table of scanpy (`get.rank_genes_groups_df`), sceptre, DESeq2, pertpy, edgeR or limma, recognised by its
        columns; features are in the column of the tool, or in the index. Fold changes are taken as log2.
    at
        What the fit says of: "mean", the mean over the cells of all targeting guides, which a comparison of these with
        NTC cells estimates; "full", the strongest knock-down (activation, where nothing was knocked down).
    target
        Group, target or contrast whose rows to take, of a table with several.
    fdr
        Features with a smaller q-value, or adjusted p-value of the table, are called.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which the table calls features, if not by `.var_names`.

    Returns
    -------
    A row per feature of both: log2fc, log2fc_table, called, called_table (False where the table has no adjusted
    p-value, nor p-values to adjust). `.attrs["tool"]` names the tool.

    Raises
    ------
    KeyError, ValueError
        If the fit is not there or not of counts, the table is of no known tool, has several rows of a feature, or no
        feature of the fit.

    Examples
    --------
    >>> table = ds.get.trans(adata)[["log2fc_full", "qvalue"]].set_axis(["log2FoldChange", "padj"], axis=1)  # of DESeq2
    >>> ds.pl.de_comparison_data(adata, table).columns.tolist()
    ['log2fc', 'log2fc_table', 'called', 'called_table']
    """
    _validate.one_of("at", at, ("mean", "full"))
    _effects.check_fdr(fdr)
    fit = trans_fit(data, key, mod, gene_symbols)
    if fit.likelihood.effect != "log2fc":
        raise ValueError(f"fold changes are of counts, and this fit is with {fit.distribution!r}")
    tool, other = _read(table, target)
    frame = _effects.table_of(fit)
    column = _effects.effect_of(fit)[0]
    ours = frame[column] if at == "full" else pd.Series(_mean(fit, frame), frame.index)
    out = pd.DataFrame({"log2fc": ours, "called": _effects.is_called(frame, fdr)})
    out = out.join(other, how="inner")
    if not len(out):
        some = list(other.index[:3])
        raise ValueError(
            f"no feature of the table, such as {some}, is one of the fit: name the column as gene_symbols="
        )
    out["called_table"] = (out.pop("adjusted") < fdr).to_numpy(bool)
    out = out[np.isfinite(out["log2fc"]) & np.isfinite(out["log2fc_table"])]
    out.attrs["tool"] = tool
    return out[["log2fc", "log2fc_table", "called", "called_table"]]


def _read(table: pd.DataFrame, target: str | None) -> tuple[str, pd.DataFrame]:
    """The tool that made a table, and its log2 fold changes and adjusted p-values by feature."""
    tool = next((t for t, (f, lfc, q, p, _) in FORMATS.items() if {f or lfc, lfc, q or p} <= set(table.columns)), None)
    if tool is None:
        known = {t: [c for c in columns if c] for t, columns in FORMATS.items()}
        raise ValueError(f"the columns {list(table.columns)} are of no known tool; there are {known}")
    feature, lfc, adjusted, p, group = FORMATS[tool]
    if target is not None:
        if group not in table:
            raise ValueError(
                f"target={target!r}: a table of {tool} has no column {group!r}" if group else _ONE.format(tool)
            )
        _validate.one_of("target", target, dict.fromkeys(table[group].astype(str)))
        table = table[table[group].astype(str) == target]
    names = (table[feature] if feature else table.index.to_series()).astype(str).to_numpy(object)
    twice = pd.Index(names).duplicated()
    if twice.any():
        hint = f"; name one of {list(dict.fromkeys(table[group].astype(str)))[:8]} as target=" if group in table else ""
        raise ValueError(f"the table has several rows of {names[twice][0]!r}{hint}")
    if adjusted:
        q = table[adjusted].to_numpy(float)
    else:
        from scipy.stats import false_discovery_control

        q = table[p].to_numpy(float).copy()
        known_p = np.isfinite(q)
        q[known_p] = false_discovery_control(q[known_p]) if known_p.any() else q[known_p]
    return tool, pd.DataFrame({"log2fc_table": table[lfc].to_numpy(float), "adjusted": q}, names)


_ONE = "target= is of tables with several, and one of {} has one: leave it out"


def _mean(fit: TransFit, frame: pd.DataFrame) -> np.ndarray:
    """log2 of the mean over the cells of targeting guides against NTC."""
    guides = fit.info["guides"]
    guides = guides[~guides["is_control"].to_numpy(bool)]
    escaping = guides["escaper_fraction"].fillna(0.0).to_numpy(float)
    at = np.where(escaping > 0, guides["log2_dosage_acting"], guides["log2_dosage"]).astype(float)
    change = medians(fit, frame["row"].to_numpy(int), at, log2fc=True)
    n = guides["n_cells"].to_numpy(float)
    ratio = escaping + (1 - escaping) * np.exp2(change)
    return np.asarray(np.log2((n * ratio).sum(axis=1) / n.sum()))


def de_comparison(
    data: AnnData | MuData,
    table: pd.DataFrame,
    *,
    at: Literal["mean", "full"] = "mean",
    target: str | None = None,
    fdr: float = 0.05,
    label: int = 8,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Axes:
    """Plot fold changes of the fit against those of a table of differential expression, with the line of equality.

    Colours say who calls a feature. The correlation is Pearson's, of features called by either (all, if fewer than
    three are). Features that are furthest from equality are named.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    table
        Table of scanpy (`get.rank_genes_groups_df`), sceptre, DESeq2, pertpy, edgeR or limma, recognised by its
        columns; features are in the column of the tool, or in the index. Fold changes are taken as log2.
    at
        What the fit says of: "mean", the mean over the cells of all targeting guides, which a comparison of these with
        NTC cells estimates; "full", the strongest knock-down (activation, where nothing was knocked down).
    target
        Group, target or contrast whose rows to take, of a table with several.
    fdr
        Features with a smaller q-value, or adjusted p-value of the table, are called.
    label
        How many called features to name.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which the table calls features, if not by `.var_names`.
    ax
        Axes to draw on.
    figsize
        Width and height of a new figure, in inches.
    title
        Title; the correlation by default.

    Returns
    -------
    Axes.

    Raises
    ------
    KeyError, ValueError
        As `pl.de_comparison_data`.

    Examples
    --------
    >>> table = ds.get.trans(adata)[["log2fc_full", "qvalue"]].set_axis(["log2FoldChange", "padj"], axis=1)  # of DESeq2
    >>> axes = ds.pl.de_comparison(adata, table)
    """
    both = de_comparison_data(data, table, at=at, target=target, fdr=fdr, key=key, mod=mod, gene_symbols=gene_symbols)
    tool = both.attrs["tool"]
    any_call = both["called"] | both["called_table"]
    used = both[any_call] if any_call.sum() >= LEAST else both
    if title is None:
        few = used[["log2fc", "log2fc_table"]].notna().all(axis=1).sum() < LEAST
        r = "" if few else f"r = {used['log2fc'].corr(used['log2fc_table']):.3f}, "
        title = f"{r}{len(used):,} feature{'s' if len(used) != 1 else ''}"
    ax = axes(ax, (4.4, 4.0), figsize=figsize, title=title)
    many = len(both) >= MANY
    for name, mask, color in (
        ("neither", ~any_call, GRAY),
        (f"{tool} only", ~both["called"] & both["called_table"], ORANGE),
        ("dream_sc only", both["called"] & ~both["called_table"], "#CC79A7"),
        ("both", both["called"] & both["called_table"], blue()),
    ):
        part = both[mask]
        if len(part):
            ax.plot(
                part["log2fc_table"],
                part["log2fc"],
                "o",
                ms=2.5 if name == "neither" else 4,
                mew=0 if name == "neither" else 0.4,
                mec=paper(ax),
                color=color,
                alpha=0.35 if name == "neither" and many else 0.85,
                rasterized=many,
                label=f"{name} ({len(part)})",
            )
    # tools give fold changes of hundreds where a group has no count
    shown = np.abs(both[["log2fc", "log2fc_table"]].to_numpy(float))
    most = 1.08 * max(float(shown[:, 0].max()), float(np.quantile(shown[:, 1], 0.995)), 0.1)
    if any_call.any():
        most = max(most, 1.08 * min(float(shown[any_call.to_numpy(), 1].max()), 2 * most))
    ax.plot([-most, most], [-most, most], color=ink(), lw=0.9, ls="--", zorder=0)
    ax.set_xlim(-most, most)
    ax.set_ylim(-most, most)
    ax.set_xlabel(rf"$\log_2$ fold change, {tool}")
    where = "over cells of targeting guides" if at == "mean" else _effects.effect_of(trans_fit(data, key, mod))[1]
    ax.set_ylabel(rf"$\log_2$ fold change, dream_sc" "\n" f"({where.removeprefix(_effects.WORDS['log2fc']).strip()})")
    ax.legend(frameon=False, fontsize=SMALL, loc="upper left", handletextpad=0.1)
    off = (used["log2fc"] - used["log2fc_table"]).abs().sort_values(ascending=False, kind="stable").index
    named = used.loc[off[: max(label, 0)]]
    label_points(
        ax, named["log2fc_table"], named["log2fc"], named.index, used[["log2fc_table", "log2fc"]].to_numpy(float)[:2000]
    )
    return ax
