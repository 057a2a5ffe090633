"""``dream-sc compare``: do the contexts of a fitted file respond differently; tables, figures and a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream_sc._keys import COMPARE

from . import report, said
from .fit import has_symbols
from .messages import DONE, FAILED, ended, folder_of, messages, say, whole

if TYPE_CHECKING:
    import argparse

SAYS = "dream-sc compare"
COMPARED = ("compared.h5ad", "compared.h5mu")
ARGUMENTS = ("by", "reference", "order", "key", "mod", "n_null", "memory_limit", "rng", "key_added")  # of tl.compare
SHOWN = ("mod", "gene_symbols")
PANELS = 3  # columns of the figure
LABELS = "labels"  # for `order=True`


def add_parser(commands: Any) -> None:
    """Describe the command."""
    p = commands.add_parser(
        "compare",
        help="do contexts, such as cell lines, treatments or donors, respond differently?",
        description="Ask of every feature of a fitted file whether its response to the dosage is the same in all "
        "contexts, and write the object, a table, figures and the report into a folder.",
    )
    p.add_argument("data", metavar="FITTED", type=Path, help="h5ad, h5mu or zarr file with a fit, such as fitted.h5ad")
    p.add_argument("--by", metavar="COLUMN", required=True, help="column of .obs with the context of each cell")
    p.add_argument("-o", "--output", metavar="FOLDER", required=True, help="folder to write into")
    p.add_argument("--reference", metavar="TEXT", help="the context to compare with; that with most cells by default")
    p.add_argument(
        "--order",
        nargs="+",
        metavar="NAME=NUMBER",
        help="look for a trend over all contexts: the number of each, such as 6h=6 24h=24, or the word labels",
    )
    p.add_argument("--n-null", type=int, metavar="WHOLE", help="features to simulate for p-values; 400, 0 for none")
    p.add_argument("--key", metavar="KEY", help="key_added of the fit; trans by default")
    p.add_argument("--key-added", metavar="KEY", help="name under which results are stored; compare by default")
    p.add_argument("--mod", metavar="NAME", help="modality of an h5mu file")
    p.add_argument("--gene-symbols", metavar="COLUMN", help="column of .var with the names to show")
    p.add_argument("--n-figures", type=int, default=6, metavar="WHOLE", help="features to draw; default: %(default)s")
    p.add_argument("--memory-limit", metavar="TEXT", help="such as 4GB, that this may add; half of what is available")
    p.add_argument("--rng", type=int, metavar="WHOLE", help="seed; 0 by default")
    p.add_argument("--overwrite", action="store_true", help="replace the results in the folder")
    p.add_argument("--json", action="store_true", help="messages as lines of JSON on standard error")
    p.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bars")


def run(given: argparse.Namespace) -> int:
    """Compare; 0 where all was written, 1 where it failed, 130 where it was interrupted."""
    names = (*ARGUMENTS, "gene_symbols", "n_figures", "output")
    flags = {name: f"--{name.replace('_', '-')}" for name in names}
    with messages(as_json=given.json, quiet=given.quiet):
        try:
            _compare(given)
        except KeyboardInterrupt as why:
            return ended(why, "nothing was written")
        except (ValueError, KeyError, TypeError, OSError, MemoryError, ImportError) as error:
            # a user of the shell wants the advice in the message, not the way to it
            say(f"{SAYS}: {said(error, flags)}", level="error")
            return FAILED
    return DONE


def _compare(given: argparse.Namespace) -> None:
    from dream_sc import _validate, tl

    from .read import read

    folder = folder_of(given.output)
    _validate.whole("n_figures", given.n_figures, 0)
    there = [name for name in COMPARED if (folder / name).exists()]
    if there and not given.overwrite:
        raise ValueError(f"{folder} holds results ({there[0]}) already: name another --output, or give --overwrite")
    data = read(given.data)
    has_symbols(data, {"mod": given.mod, "gene_symbols": given.gene_symbols})
    how = {name: getattr(given, name) for name in ARGUMENTS if getattr(given, name) is not None}
    if given.order is not None:
        how["order"] = numbers_of(given.order)
    tl.compare(data, how.pop("by"), **how)
    folder.mkdir(parents=True, exist_ok=True)
    _write(data, given, folder)
    say(f"done: {folder}")


def numbers_of(given: list[str]) -> dict[str, float] | bool:
    """The numbers of contexts as they are written in a shell; True for those that the labels are."""
    if given == [LABELS]:
        return True
    out = {}
    for text in given:
        name, sign, number = text.rpartition("=")
        try:
            out[name] = float(number)
        except ValueError:
            sign = ""
        if not sign:
            raise ValueError(
                f"order={text!r} is no name with a number: write such as 6h=6 24h=24, or the word {LABELS}"
            )
    return out


def _write(data: Any, given: argparse.Namespace, folder: Path) -> None:
    """Write everything; a file is there whole or not at all."""
    from dream_sc import get

    of = {name: getattr(given, name) for name in SHOWN if getattr(given, name) is not None}
    key = given.key_added or COMPARE
    table = get.compare(data, sort=True, key=key, **of)
    tables = {"contexts.tsv": table}
    if "context" in table and table["context"].nunique() > 1:
        tables["any_context.tsv"] = get.compare(data, sort=True, omnibus=True, key=key, **of)
    for name, each in tables.items():
        with whole(folder / name) as path:
            each.to_csv(path, sep="\t", index_label="feature", float_format="%.6g")
    _figure(data, table, given.n_figures, folder / "figures", key=key, **of)
    several = hasattr(data, "mod")
    with whole(folder / COMPARED[several]) as path:
        data.write(path) if several else data.write_h5ad(path, compression="gzip")
    if key != COMPARE:
        say(f"no {report.NAME}: it shows the comparison under the key {COMPARE!r} only, and this one is {key!r}")
        return
    report.beside(data, folder, **of, **({"key": given.key} if given.key else {}))


def _figure(data: Any, table: Any, n: int, folder: Path, **of: Any) -> None:
    """Curves of the clearest differences, each in the context where it is, or of the clearest trends."""
    from matplotlib.figure import Figure

    from dream_sc import pl

    ordered = "context" not in table
    shown = table[table["lfdr_trend" if ordered else "lfdr_differs"].notna()].head(n)
    if not len(shown):
        return
    rows = -(-len(shown) // PANELS)
    figure = Figure(figsize=(4.0 * PANELS, 3.3 * rows), layout="constrained")
    axes = list(figure.subplots(rows, PANELS, squeeze=False).flat)
    contexts = [None] * len(shown) if ordered else shown["context"].astype(str)
    for ax, name, context in zip(axes, shown.index, contexts, strict=False):
        pl.compare(data, name, context=context, ax=ax, **of)
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    folder.mkdir(exist_ok=True)
    with whole(folder / "compare.png") as path:
        figure.savefig(path, dpi=200)
