"""What ``dream-sc fit`` and ``screen`` may be told, by flags or in a TOML file: arguments, by their names."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping
    from pathlib import Path

TEXT, TEXTS, WHOLE, NUMBER, FLAG = "text", "texts", "whole", "number", "flag"
OF_KIND = {TEXT: str, TEXTS: str, WHOLE: int, NUMBER: float}
TECHNICAL, CIS, TRANS = "fit_technical", "fit_cis", "fit_trans"
EVERY = (TECHNICAL, CIS, TRANS)


class Option(NamedTuple):
    """An argument that the shell offers."""

    name: str  # of the argument; the flag has dashes
    kind: str
    steps: tuple[str, ...]  # that take it
    text: str
    default: Any = None  # as the steps have it, for the file that `dream-sc config` writes


OPTIONS = (
    Option("mod", TEXT, EVERY, "modality of an h5mu file"),
    Option("layer", TEXT, (TECHNICAL,), "layer of the counts; .X by default"),
    Option("target_key", TEXT, (TECHNICAL,), "column of .obs with the target of each cell's guide", "target"),
    Option("control", TEXTS, (TECHNICAL,), "label(s) of non-targeting cells in that column", ["NTC"]),
    Option("guide_key", TEXT, (CIS,), "column of .obs with the guide of each cell", "guide"),
    Option("guides", TEXT, (TECHNICAL,), "where cells have several guides: key of .obsm, or a modality"),
    Option("control_group", TEXT, (CIS,), "with guides: nt_cells, or complement", "nt_cells"),
    Option("batch_key", TEXT, (TECHNICAL,), "column of .obs with the technical groups, such as lanes"),
    Option("covariates", TEXTS, (TECHNICAL,), "columns of .obs whose effects are taken off"),
    Option("unit_key", TEXT, (TECHNICAL,), "column of .obs with units within guides: clones, animals, wells"),
    Option("ambient", TEXT, (TECHNICAL,), "column of .obs with the share of ambient counts of each cell"),
    Option("size_factor_key", TEXT, (TECHNICAL,), 'column of size factors; made by method "stable" where missing'),
    Option("use_all_cells", FLAG, (TECHNICAL,), "technical effects from all cells, not from controls only", False),
    Option("cis_targets", TEXTS, (CIS,), "target label(s) whose guides act on the cis gene; its name by default"),
    Option("guide_covariate_key", TEXT, (CIS,), "column of .obs: a guide gets a dosage in each level"),
    Option("pooling", TEXT, (CIS,), "all, or target: what guides are drawn to", "all"),
    Option("min_cells_per_guide", WHOLE, (CIS,), "guides with fewer cells are left out", 5),
    Option("min_count", NUMBER, (CIS,), "least mean count of the cis gene in control cells", 0.1),
    Option("function_type", TEXT, (TRANS,), "auto, single_hill, additive_hill or polynomial", "auto"),
    Option("dosage", TEXT, (TRANS,), "guide or cell: whose dosages curves are of; none: perturbed or not", "guide"),
    Option("rng", WHOLE, EVERY, "seed", 0),
    Option("memory_limit", TEXT, EVERY, "such as 4GB, that each step may add; half of what is available by default"),
)
OWN = (  # of the command itself
    Option("data", TEXT, (), "h5ad, h5mu or zarr, or the output of Cell Ranger (h5 file or folder)"),
    Option("cis", TEXT, (), "name of the cis gene; with --dosage none a target label will do"),
    Option("output", TEXT, (), "folder to write into"),
    Option("gene_symbols", TEXT, (), "column of .var with the names to show, for data named by ids"),
    Option("n_figures", WHOLE, (), "responders whose curves are drawn", 12),
    Option("backed", FLAG, (), "leave the counts of an h5ad file on disk", False),
)
OF_SCREEN = (  # of `dream-sc screen` only, as `tl.screen` has them
    Option("targets", TEXTS, (), "labels of the targets to fit; all by default"),
    Option("features", TEXTS, (), "features to report; all by default"),
    Option("n_jobs", WHOLE, (), "processes, -1 for one per core", 1),
    Option("min_guides", WHOLE, (), "targets with fewer guides are left out", 2),
    Option("min_cells", WHOLE, (), "targets with fewer cells are left out", 20),
    Option("effort", TEXT, (), "auto, first_pass or full: how much is fitted of each target", "auto"),
    Option("n_null_targets", WHOLE, (), "groups of NTC guides that are fitted as targets", 0),
    Option("nsamples", WHOLE, (), "posterior draws; 250, or 1000 in full fits, by default"),
)
NAMES = {o.name: o for o in (*OWN, *OPTIONS, *OF_SCREEN)}


def add_flags(parser: argparse.ArgumentParser, names: Iterable[str] | None = None) -> None:
    """Describe the arguments of the steps, all or some."""
    for option in (*OWN[3:], *OPTIONS) if names is None else [NAMES[name] for name in names]:
        flag = f"--{option.name.replace('_', '-')}"
        if option.kind == FLAG:
            parser.add_argument(flag, action="store_true", default=None, help=option.text)
        else:
            several: dict[str, Any] = {"nargs": "+"} if option.kind == TEXTS else {}
            kind: Any = OF_KIND[option.kind]
            parser.add_argument(flag, type=kind, metavar=option.kind.upper(), help=option.text, **several)


def from_file(path: Path) -> dict[str, Any]:
    """Options out of a TOML file.

    Raises
    ------
    ValueError
        If it is no TOML, a name is not known, or a value is of another kind.
    """
    import tomllib

    if not path.is_file():
        raise FileNotFoundError(f"--config {path} is not there, or is no file: `dream-sc config` writes one")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from error
    for name, value in found.items():
        if isinstance(value, dict):
            raise ValueError(f"{path}: [{name}] is a section, and options stand in none: leave that line out")
        if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1)
            also = f"; did you mean {near[0]!r}?" if near else f"; it may be one of {sorted(NAMES)}"
            raise ValueError(f"{path}: {name!r} is not known{also}")
        if not _fits(value, NAMES[name].kind):
            raise ValueError(f"{path}: {name} = {value!r} is not {_said(NAMES[name].kind)}")
    return found


def _fits(value: Any, kind: str) -> bool:
    if kind == TEXTS:
        return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))
    if kind == FLAG:
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    return isinstance(value, str if kind == TEXT else int if kind == WHOLE else int | float)


def _said(kind: str) -> str:
    words = {TEXT: "a text in quotes", TEXTS: "a text in quotes or a list of them"}
    words |= {WHOLE: "a whole number", NUMBER: "a number"}
    return words.get(kind, "true or false")


def of_step(step: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a step takes, as its arguments."""
    out = {o.name: given[o.name] for o in OPTIONS if step in o.steps and given.get(o.name) is not None}
    if isinstance(out.get("control"), list) and len(out["control"]) == 1:
        out["control"] = out["control"][0]
    return out


def merged(flags: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    """Options of the shell over those of the file."""
    of_file = {} if path is None else from_file(path)
    return of_file | {name: value for name, value in flags.items() if name in NAMES and value is not None}
