"""``dream-sc config``: a TOML file of options for ``dream-sc fit`` and ``screen``, with what the data tell."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from . import options

if TYPE_CHECKING:
    import argparse

CONTROLS = ("ntc", "non-targeting", "nontargeting", "non_targeting", "nt", "control", "ctrl", "negative_control", "nc")
BATCHES = ("batch", "lane", "gem_group", "library", "sample", "channel", "replicate", "donor")
MOST_BATCHES = 50
SAME = "  # read off the data"


def add_parser(commands: Any) -> None:
    """Describe the command."""
    p = commands.add_parser(
        "config",
        help="write a TOML file of options for `dream-sc fit` and `screen`, filled with what the data say",
        description="Print a TOML file with every option of `dream-sc fit` and `screen`, those that are read off the "
        "data filled in and the others commented out: dream-sc config screen.h5ad > my.toml",
    )
    p.add_argument("data", nargs="?", help=options.OWN[0].text)
    p.add_argument("--mod", metavar="TEXT", help="modality of an h5mu file")


def run(given: argparse.Namespace) -> int:
    """Print the file; 1 where the data cannot be read."""
    found: dict[str, Any] = {}
    if given.data is not None:
        from .read import read

        try:
            data = read(given.data, backed=str(given.data).endswith(".h5ad"))
            if given.mod is not None:
                data = data.mod[given.mod]
                found["mod"] = given.mod
        except (ValueError, KeyError, OSError, AttributeError) as error:
            print(f"dream-sc config: {error}", file=sys.stderr)
            return 1
        found = {"data": str(given.data)} | found
        if hasattr(data, "mod"):
            print(f"dream-sc config: give --mod, one of {list(data.mod)}", file=sys.stderr)
            return 1
        found |= read_off(data)
    print(text_of(found))
    return 0


def read_off(adata: Any) -> dict[str, Any]:
    """Options that the columns of an AnnData tell: labels, batches, the matrix of guides, the layer of counts."""
    out: dict[str, Any] = {}
    labels = {name: adata.obs[name].astype(str) for name in adata.obs if not _is_number(adata.obs[name])}
    with_control = {name: c for name, column in labels.items() if (c := _controls(column))}
    if with_control:
        # of guide and target, targets are fewer
        key = min(with_control, key=lambda name: (labels[name].nunique(), name))
        out |= {"target_key": key, "control": with_control[key]}
        finer = [n for n, c in labels.items() if _is_finer(c, labels[key]) and c.nunique() < len(c) / 2]
        if finer:
            out["guide_key"] = "guide" if "guide" in finer else max(finer, key=lambda n: labels[n].nunique())
    for name, column in labels.items():
        like = name.casefold() in BATCHES or any(name.casefold().startswith(f"{b}_") for b in BATCHES)
        if like and name not in out.values() and 1 < column.nunique() <= MOST_BATCHES and "batch_key" not in out:
            out["batch_key"] = name
    if "size_factor" in adata.obs:
        out["size_factor_key"] = "size_factor"
    if "guides" in adata.obsm and "target_key" not in out:
        out["guides"] = "guides"
    if "counts" in adata.layers:
        out["layer"] = "counts"
    return out


def _is_number(column: Any) -> bool:
    import pandas as pd

    return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))


def _controls(column: Any) -> list[str]:
    """Labels of non-targeting cells."""
    return sorted(label for label in column.unique() if label.casefold() in CONTROLS)


def _is_finer(column: Any, target: Any) -> bool:
    """Whether each label stands for one target, and there are more of them."""
    return bool(column.nunique() > target.nunique() and target.groupby(column, observed=True).nunique().max() == 1)


def text_of(found: dict[str, Any]) -> str:
    """The TOML file."""
    lines = ["# Options of `dream-sc fit` and `dream-sc screen`, --config THIS; flags of the command go over them.", ""]
    wanted = {"data": "screen.h5ad", "cis": "GENE", "output": "results"}
    for option in (*options.OWN, *options.OPTIONS, *options.OF_SCREEN):
        if option is options.OF_SCREEN[0]:
            lines += ["# The following are of `dream-sc screen` only.", ""]
        lines.append(f"# {option.text}")
        if option.name in found:
            lines.append(f"{option.name} = {_value(found[option.name])}{SAME}")
        else:
            value = wanted.get(option.name, option.default if option.default is not None else _example(option))
            lines.append(f"# {option.name} = {_value(value)}")
        lines.append("")
    return "\n".join(lines)


def _example(option: options.Option) -> Any:
    return {options.TEXTS: ["..."], options.WHOLE: 12}.get(option.kind, False if option.kind == options.FLAG else "...")


def _value(value: Any) -> str:
    """A value as TOML has it: JSON, for texts, lists of them, numbers and truths."""
    return json.dumps(value, ensure_ascii=False)
