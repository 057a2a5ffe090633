"""Responses of two contexts over each other: curves with bands, guides at their dosages in each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._core.stats.intervals import Z95
from dream_sc._keys import COMPARE, CONTEXTS, CURVE_DOSAGES, NUMBERS, ZERO, Slots
from dream_sc.get import compare as compare_table
from dream_sc.get._symbols import cis_label, labels, labels_of

from ._ordered_contexts import shades, trend_in_words
from ._style import CATEGORIES, SMALL, axes, dosage_label, name_panel, number, one_panel, panels, plain, titled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

UNITS = {
    "log2fc": r"$\log_2$ fold change against NTC",
    "log_odds": "change of log odds against NTC",
    "delta": "change against NTC, sds between cells",
}
CURVE, GUIDE = "curve", "guide"
NONE = "no response"
IN_WORDS = {  # a hypothesis: of one feature, and of several
    "equal": "the same curve",
    "amplitude": "another amplitude",
    "dosage": "another EC50",
    "free": "another curve",
    "only": "in one context only",
}


def in_words(hypothesis: str, responds_in: Any) -> str:
    """What a hypothesis says of one feature; `responds_in` is missing where it responds in no context."""
    if responds_in is None or responds_in != responds_in:
        return NONE
    return IN_WORDS.get(hypothesis, hypothesis) if responds_in == "both" else f"only in {responds_in}"


def compare_data(
    data: AnnData | MuData,
    feature: str,
    *,
    context: str | None = None,
    key: str = COMPARE,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> pd.DataFrame:
    """Curves of a feature in two contexts with their bands, and what was observed of the guides in each.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.compare` has run.
    feature
        Name of a feature.
    context
        The context beside the reference; by default, of several, that which differs most clearly. Of contexts that
        were compared with `order=`: this one alone; by default all, in their order.
    key
        `key_added` of the comparison.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for.

    Returns
    -------
    A row per context and point of its curve (`kind` "curve") and per context and targeting guide ("guide"): context,
    kind, guide, log2_dosage and its sd, change (against NTC cells of the same context: log2 fold change of counts, log
    odds of shares, sds between cells of scores), lower, upper (95 %). A curve is the median over all hypotheses, each
    by its probability; it is flat where a feature responds in no context.

    Raises
    ------
    KeyError, ValueError
        If the comparison, the feature or the context is not there.

    Examples
    --------
    >>> adata.obs["line"] = ["one" if i % 2 else "two" for i in range(adata.n_obs)]
    >>> ds.tl.compare(adata, "line", n_null=0)
    >>> sorted(set(ds.pl.compare_data(adata, "gene_0002")["kind"]))
    ['curve', 'guide']
    """
    adata = _validate.readable(data, mod)
    info = _validate.step(adata, key, "compare(data, by)")
    (name,) = labels_of(adata, [feature], gene_symbols)
    row = int(labels(adata, gene_symbols).get_loc(name))
    names, unit = [str(c) for c in info[CONTEXTS]], float(info["effect_unit"])
    every = np.asarray(adata.varm[Slots(key).curves])[row].astype(float) / unit
    levels = np.asarray(adata.varm[Slots(key).guide_levels])[row].astype(float) / unit
    at, shown, curves = _shown(adata, info, key, row, context, names, every)
    parts = []
    for i, (which, k) in enumerate(shown):
        x = np.asarray(info[CURVE_DOSAGES])[at]
        some = slice(1 if ZERO in info else 0, None)  # dose 0 has no log
        parts.append(_curve(np.nan_to_num(curves[i])[:, some], x[some], which))
        parts.append(_guides(info, levels[2 * k], levels[2 * k + 1], which))
    return pd.concat(parts, ignore_index=True)


def _shown(
    adata: Any, info: Any, key: str, row: int, context: str | None, names: list[str], every: np.ndarray
) -> tuple[int, list[tuple[str, int]], np.ndarray]:
    """Which dosages, which contexts by name and place, and their curves ``(contexts, 3, X)``."""
    if NUMBERS in info:
        if context is not None:
            _validate.one_of("context", context, names)
        some = [(name, k) for k, name in enumerate(names) if context in (None, name)]
        return 0, some, every.reshape(len(names), 3, -1)[[k for _, k in some]]
    if context is None:
        context = str(adata.varm[key]["context"].iloc[row])
    _validate.one_of("context", context, names[1:])
    at = names[1:].index(context)
    return at, [(names[0], 0), (context, at + 1)], every[6 * at : 6 * at + 6].reshape(2, 3, -1)


def _curve(values: np.ndarray, x: np.ndarray, context: str) -> pd.DataFrame:
    middle, lower, upper = values
    columns = {"log2_dosage": x, "sd": np.nan, "change": middle, "lower": lower, "upper": upper}
    return pd.DataFrame({"context": context, "kind": CURVE, "guide": None, **columns})


def _guides(info: Any, change: np.ndarray, se: np.ndarray, context: str) -> pd.DataFrame:
    """Targeting guides with cells in a context, each at its dosage there."""
    table = info["guides"]
    table = table[table["context"].astype(str) == context].set_index("guide")
    table.index = table.index.astype(str)
    names = [str(g) for g in info["targeting"]]
    out = pd.DataFrame({"context": context, "kind": GUIDE, "guide": names})
    for name in ("log2_dosage", "sd"):
        out[name] = table[name].reindex(names).to_numpy(float)
    out = out.assign(change=change, lower=change - Z95 * se, upper=change + Z95 * se)
    return out[out["log2_dosage"].notna() & out["change"].notna()]


def compare(
    data: AnnData | MuData,
    features: str | Sequence[str],
    *,
    context: str | None = None,
    key: str = COMPARE,
    mod: str | None = None,
    gene_symbols: str | None = None,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    ncols: int | None = None,
) -> Axes | NDArray[np.object_]:
    """Plot the responses of two contexts, or of all ordered ones, over each other.

    Lines are the curves of both contexts with their 95 % bands, points the targeting guides at their dosages in each
    context with 95 % intervals of what was observed. All changes are against NTC cells of the same context, so that
    the contexts may differ in level. The title says in words which hypothesis describes the feature, and the q-value.
    Contexts that were compared with `order=` are all drawn, from light to dark by their numbers, and the title says
    which trend there is, per unit of the numbers.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.compare` has run.
    features
        One name, or several for a grid of panels.
    context
        The context beside the reference; by default, of several, that which differs most clearly. Of contexts that
        were compared with `order=`: this one alone.
    key
        `key_added` of the comparison.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names by which features are asked for and shown.
    ax
        Axes for one feature.
    figsize
        Width and height of a new figure, in inches.
    title
        Title of the figure, or of one panel.
    ncols
        Panels in a row of several, 3 by default.

    Returns
    -------
    The Axes of one feature, else an array of them.

    Raises
    ------
    KeyError, ValueError
        If the comparison, a feature or the context is not there, or `ax` is given for several features.

    Examples
    --------
    >>> adata.obs["line"] = ["one" if i % 2 else "two" for i in range(adata.n_obs)]
    >>> ds.tl.compare(adata, "line", n_null=0)
    >>> axes = ds.pl.compare(adata, ["gene_0002", "gene_0003"])
    """
    given: dict[str, Any] = {"key": key, "mod": mod, "gene_symbols": gene_symbols}
    if isinstance(features, str):
        one_panel(ncols)
        panel = axes(ax, figsize=figsize)
        _panel(panel, data, features, context, given)
        titled(panel, title)
        return panel
    if ax is not None:
        raise ValueError(f"ax= is of one feature, and there are {len(features)}: leave it out, or name one feature")
    found = panels(len(features), (3.6, 3.0), ncols=ncols or 3, figsize=figsize, title=title)
    for panel, name in zip(found, features, strict=True):
        _panel(panel, data, name, context, given)
    return np.array(found, dtype=object)


def _panel(ax: Any, data: Any, feature: str, context: str | None, given: dict[str, Any]) -> None:
    table = compare_data(data, feature, context=context, **given)
    adata = _validate.readable(data, given["mod"])
    info = adata.uns[given["key"]]
    ordered = NUMBERS in info
    colors = shades(info) if ordered else dict(zip(table["context"].unique(), CATEGORIES, strict=False))
    for name, part in table.groupby("context", sort=False):
        color = colors[str(name)]
        curve, guides = part[part["kind"] == CURVE], part[part["kind"] == GUIDE]
        ax.fill_between(curve["log2_dosage"], curve["lower"], curve["upper"], color=color, alpha=0.15, lw=0)
        ax.plot(curve["log2_dosage"], curve["change"], color=color, lw=1.6, label=plain(name))
        ax.errorbar(
            guides["log2_dosage"],
            guides["change"],
            xerr=Z95 * guides["sd"],
            yerr=[guides["change"] - guides["lower"], guides["upper"] - guides["change"]],
            fmt="o",
            ms=4,
            lw=0.8,
            color=color,
            mew=0,
        )
    ax.axhline(0.0, color="0.6", lw=0.8, ls=":", zorder=0)
    gene = cis_label(data, adata, info, given["gene_symbols"])
    ax.set_xlabel(dosage_label(gene, doses=ZERO in info))
    ax.set_ylabel(UNITS[str(info["effect"])])
    by = plain(str(info["params"]["by"])) if ordered else None
    ax.legend(frameon=False, fontsize=SMALL, title=by, title_fontsize=SMALL)
    says = _title(data, feature, None if ordered else str(table["context"].iloc[-1]), given)
    name_panel(ax, feature, says)


def _title(data: Any, feature: str, context: str | None, given: dict[str, Any]) -> str:
    row = compare_table(data, context=context, **given).loc[feature]
    if context is None:
        return trend_in_words(row)
    if not np.isfinite(row["lfdr_differs"]):
        return str(row["status"])
    q = row["qvalue_differs"]
    says = plain(in_words(str(row["hypothesis"]), row["responds_in"]))
    return f"{says}, q = {number(q)}" if np.isfinite(q) else says
