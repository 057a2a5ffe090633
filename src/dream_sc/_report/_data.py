"""What a page shows of a fit: the table of features, their curves, the guides, and words about all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from dream_sc._keys import CALIBRATION, CHECKS, CONFOUNDING, EC50_TEXT, ZERO
from dream_sc.get._columns import columns
from dream_sc.get._main_table import main_table
from dream_sc.get._summary import Parts, parts
from dream_sc.get._symbols import cis_label
from dream_sc.pl import _effects

from . import _contexts, _curves, _ordered_contexts
from ._checks import LIGHTS, checks, in_words
from ._stored import array, words

if TYPE_CHECKING:
    from dream_sc._core.likelihoods import Distribution
    from dream_sc.get._names import TransFit

HEADS = {
    "on_knockdown": "on knock-down",
    "qvalue": "q",
    EC50_TEXT: "EC50 (log2)",
    "category": "category",
    "confidence": "confidence",
    "class": "shape",
    "note": "note",
}
EFFECT_HEADS = {"log2fc": "log2 fold change", "delta_p": "change of the share", "delta": "change of the score"}
AT = {"_full": "at the strongest knock-down", "_max": "at the strongest activation"}
NO_JS = 50  # features in the table that is there without scripts


def embedded(data: Any, fit: TransFit, fdr: float) -> dict[str, Any]:
    """Everything that the scripts of the page need, features the surest first."""
    frame = _effects.table_of(fit)
    frame["level"] = _levels(fit, frame)
    main = main_table(fit, frame)
    effect = next(name for name in main if name.removeprefix(fit.likelihood.effect) in AT)
    zero = fit.info["axis"].get(ZERO)
    gene = cis_label(data, fit.adata, fit.info, fit.gene_symbols)
    has_dosages = bool(np.isfinite(fit.info["axis"]["low"]))
    return {
        "fdr": fdr,
        "gene": gene,
        "effect": effect,
        "words": {
            "effect": f"{EFFECT_HEADS[fit.likelihood.effect]} {_at(fit, effect)}",
            "observed": fit.likelihood.words.observed,
            "dosage": f"log2 {'dosage' if zero is None else 'dose'}{f' of {gene}' if gene else ''}"
            + (" relative to NTC" if zero is None else ""),
            "feature": "gene" if fit.likelihood.statistics == "counts" else "feature",
        },
        "counts": fit.likelihood.statistics == "counts",
        "shares": fit.likelihood.statistics == "shares",
        "dosages": has_dosages,
        "zero": None if zero is None else fit.info["axis"]["low"] - 1.0,
        "names": [str(name) for name in frame.index],
        "columns": _columns(main, frame, effect, cast("Distribution", fit.distribution)),
        "ec50": {
            name: array(_effects.sure_ec50(frame) if name == "log2_ec50" else frame[name], "f4")
            for name in ("log2_ec50", "log2_ec50_q025", "log2_ec50_q975")
        },
        "level": array(frame["level"], "f4"),
        "curves": _curves.curves(fit, frame["row"].to_numpy(int)),
        "guides": _curves.guides(data, fit, frame),
        "contexts": _contexts.pictures(fit, fdr),
    }


def _at(fit: TransFit, effect: str) -> str:
    """Where the effect is taken."""
    if not np.isfinite(fit.info["axis"]["low"]):
        return "in cells in which guides act"
    return "at the top dose" if ZERO in fit.info["axis"] else AT[effect.removeprefix(fit.likelihood.effect)]


def _levels(fit: TransFit, frame: pd.DataFrame) -> np.ndarray:
    """Expected values at NTC dosage, of the category that is drawn where a feature has several."""
    if not fit.by_layer:
        return frame["baseline"].to_numpy(float)
    return np.array([float(fit.row(int(r))["baseline"]) for r in frame["row"]])


def _columns(main: pd.DataFrame, frame: pd.DataFrame, effect: str, distribution: Distribution) -> list[dict[str, Any]]:
    """The short table, column by column; those with a `head` are shown, the others are in the downloaded file."""
    meaning = columns("trans", distribution=distribution) | columns("main", distribution=distribution)
    heads = HEADS | {effect: EFFECT_HEADS[effect.rsplit("_", 1)[0]]}
    out = []
    for name in main.columns:
        column = main[name]
        entry: dict[str, Any] = {"name": name, "meaning": meaning.get(name, "")}
        if name in heads and column.notna().any():
            entry["head"] = heads[name]
        if column.dtype.kind in "fiub":
            kind = "f8" if name == "qvalue" else "f4"
            out.append(entry | {"kind": kind, "values": array(column.to_numpy(float), kind)})
        else:
            out.append(entry | {"kind": "words", **words(column)})
    direction = pd.Series(_effects.direction(frame, effect), frame.index)
    out.append({"name": "direction", "meaning": "", "kind": "words", **words(direction)})
    return out


def context(data: Any, fit: TransFit, title: str | None, fdr: float) -> dict[str, Any]:
    """What the template fills in: words, and small tables."""
    said: Parts = parts(data, fit)
    gene = cis_label(data, fit.adata, fit.info, fit.gene_symbols)
    table = fit.info["guides"]
    control = table["is_control"].to_numpy(bool)
    frame = _effects.table_of(fit)
    called = main_table(fit, frame[_effects.is_called(frame, fdr)])
    tested, n_cells = int(frame["qvalue"].notna().sum()), frame["n_cells"].max()
    return {
        "title": title if title is not None else f"Responses to {gene}" if gene else "Responses to the dosage",
        "gene": gene,
        "tiles": [
            (f"{len(called):,}", f"of {tested:,} features respond (q < {fdr:g})"),
            (f"{int((~control).sum()):,}", f"guides{f' of {gene}' if gene else ''}"),
            (f"{int(control.sum()):,}", "control guides"),
            (f"{int(n_cells):,}" if np.isfinite(n_cells) else "0", "cells"),
        ],
        "said": said,
        "checks": [(r.state, LIGHTS[r.state], *in_words(r)) for r in checks(fit.info, said.careful)],
        "guides": _guide_rows(table),
        "calibration": _calibration(fit),
        "confounding": _confounding(fit),
        "contexts": _contexts.section(fit, fdr) or _ordered_contexts.section(fit, fdr),
        "meanings": columns("main", distribution=cast("Distribution", fit.distribution)),
        "called": called.head(NO_JS),
        "versions": sorted(fit.info["versions"].items()),
    }


def _guide_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Guides by their dosage, for the table below the figure."""
    names = ("guide", "target", "n_cells", "log2_dosage", "log2fc_q025", "log2fc_q975", "escaper_fraction")
    ordered = table.sort_values(["is_control", "log2_dosage"], kind="stable")
    return ordered[[name for name in names if name in ordered]].to_dict("records")


def _calibration(fit: TransFit) -> list[dict[str, Any]]:
    entry = fit.adata.uns.get(CALIBRATION)
    if entry is None or "fpr" not in entry or entry["params"].get("key") != fit.key:
        return []
    return entry["fpr"].to_dict("records")


def _confounding(fit: TransFit) -> list[dict[str, Any]]:
    entry = fit.adata.uns.get(CONFOUNDING)
    own = fit.info["params"]["cis_key"]
    if entry is None or CHECKS not in entry or entry["params"].get("cis_key") != own:
        return []
    return entry[CHECKS].to_dict("records")
