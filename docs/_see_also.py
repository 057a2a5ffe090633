"""Neighbours of each public function, which its page names at the end.

Functions of one name belong together: what computes, what reads, what draws, and the table behind the plot. The rest
stands in `TOGETHER`.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

NAMESPACES = ("pp", "tl", "get", "pl", "io", "design", "memory", "datasets")
TABLE = "_data"  # ending of the table behind a plot

# functions that are looked for together, beside those of one name
TOGETHER: tuple[tuple[str, ...], ...] = (
    ("pp.size_factors", "pp.adjust_size_factors", "pp.refit_size_factors", "tl.check_confounding"),
    ("pp.assign_guides", "pp.guide_matrix", "pp.combine_guides", "pp.read_protospacer_calls", "io.protospacer_calls"),
    ("pp.read_starsolo_sj", "pp.donor_usage", "pp.acceptor_usage", "pp.junction_psi", "pp.exon_skipping"),
    ("pp.isoform_usage", "pp.donor_usage"),
    ("tl.fit_technical", "tl.fit_cis", "tl.fit_trans"),
    ("tl.fit_technical", "get.technical", "pl.technical"),
    ("tl.fit_cis", "get.cis", "get.guides", "pl.cis", "tl.set_dosage"),
    ("tl.fit_trans", "get.trans", "get.responders", "pl.volcano", "pl.dose_response", "report"),
    ("tl.set_dosage", "io.guide_strengths", "get.doses"),
    ("tl.calibrate", "get.calibration", "pl.calibration", "tl.check_confounding"),
    ("tl.check_confounding", "get.confounding", "pl.confounding"),
    ("tl.group_responses", "get.groups", "pl.heatmap"),
    ("tl.screen", "get.screen", "tl.fit_trans"),
    ("get.trans", "get.responders", "get.columns", "get.rank_genes_groups", "io.to_tsv"),
    ("get.responders", "get.doses", "get.guide_effects", "pl.forest"),
    ("get.dose_response", "get.posterior", "get.doses"),
    ("get.guide_effects", "get.guides", "pl.guides"),
    ("get.summary", "report", "io.to_multiqc"),
    ("pl.volcano", "pl.heatmap", "pl.classes", "pl.forest", "pl.dose_response"),
    ("pl.convergence", "pl.priors", "get.posterior"),
    ("pl.de_comparison", "get.rank_genes_groups", "pl.volcano"),
    ("design.power", "design.what_helps", "design.cheapest", "pl.power"),
    ("memory.estimate", "memory.estimate_for", "memory.Estimate", "pl.memory"),
    ("datasets.titration", "datasets.high_moi", "datasets.from_fit", "datasets.true_curve"),
    ("io.read_cellranger", "io.protospacer_calls", "io.from_igvf"),
    ("io.from_igvf", "io.to_igvf"),
    ("io.from_pertpy", "io.to_pertpy", "io.from_scperturb"),
    ("io.from_sceptre", "io.to_sceptre"),
    ("io.to_tsv", "io.to_excel", "io.to_multiqc"),
)
MOST = 8


def public() -> dict[str, Any]:
    """Every public function and class, by the name under which users call it."""
    package = import_module("dream_sc")
    modules = {name: import_module(f"dream_sc.{name}") for name in NAMESPACES}
    found = {f"{name}.{each}": getattr(module, each) for name, module in modules.items() for each in module.__all__}
    return found | {"report": package.report}


def neighbours(name: str, names: Any) -> list[str]:
    """Those of the names that belong to one of them, those of the same name first."""
    stem = name.split(".")[-1].removesuffix(TABLE)
    same = [other for other in names if other.split(".")[-1].removesuffix(TABLE) == stem]
    # a table has the neighbours of its plot
    plot = name.removesuffix(TABLE)
    more = [other for group in TOGETHER if name in group or plot in group for other in group]
    return [other for other in dict.fromkeys([*same, *more]) if other not in (name, "")][:MOST]


def add_neighbours(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put them at the end of a docstring, each with its first sentence."""
    found = public()
    short = name.removeprefix("dream_sc.")
    if short not in found:
        return
    lines += ["", ".. seealso::", ""]
    for other in neighbours(short, found):
        said = (inspect.getdoc(found[other]) or "").splitlines()[0]
        role = "class" if inspect.isclass(found[other]) else "func"
        lines.append(f"   * :py:{role}:`dream_sc.{other}`: {said[:1].lower()}{said[1:]}")
    lines.append("")


def setup(app: Any) -> dict[str, bool]:
    """Make the module an extension of Sphinx."""
    app.connect("autodoc-process-docstring", add_neighbours, priority=600)  # after napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
