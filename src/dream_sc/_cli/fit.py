"""``dream-sc fit``: the three steps for one cis gene, from a file to a folder of tables, figures and words."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dream_sc._keys import GUIDE, NO_DOSAGE, TARGET

from . import options, report, said
from .messages import DONE, FAILED, ended, folder_of, messages, say, whole

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

FITTED = ("fitted.h5ad", "fitted.h5mu")
TABLE = "trans.tsv"
SAYS = "dream-sc fit"
FEW_FEATURES: Literal["total"] = "total"  # size factors where too few features are there for the stable ones


def add_parser(commands: Any) -> None:
    """Describe the command."""
    p = commands.add_parser(
        "fit",
        help="fit one cis gene: from a file of counts to tables, figures and a summary",
        description="Fit technical effects, the dosage of the cis gene and the dose-response of every gene, and write "
        "the object, tables, figures and a summary in words into a folder. Options are the arguments of the steps; "
        "they may stand in a TOML file, which `dream-sc config` writes.",
    )
    p.add_argument("data", nargs="?", help=options.OWN[0].text)
    p.add_argument("--cis", metavar="GENE", help=options.OWN[1].text)
    p.add_argument("-o", "--output", metavar="FOLDER", help=options.OWN[2].text)
    p.add_argument("--config", type=Path, metavar="FILE.toml", help="options; flags go over them")
    p.add_argument("--overwrite", action="store_true", help="replace the results in the folder")
    p.add_argument("--json", action="store_true", help="messages as lines of JSON on standard error")
    p.add_argument("--quiet", action="store_true", help="warnings and errors only, no progress bars")
    options.add_flags(p)


def run(given: argparse.Namespace) -> int:
    """Fit; 0 where all was written, 1 where it failed, 130 where it was interrupted."""
    flags = {o.name: f"--{o.name.replace('_', '-')}" for o in (*options.OWN, *options.OPTIONS)} | {
        "cis_gene": "--cis",
        "output": "--output",
    }
    with messages(as_json=given.json, quiet=given.quiet):
        try:
            chosen = options.merged(vars(given), given.config)
            _fit(chosen, overwrite=given.overwrite)
        except KeyboardInterrupt as why:
            return ended(why)
        except (ValueError, KeyError, TypeError, OSError, MemoryError, ImportError) as error:
            # a user of the shell wants the advice in the message, not the way to it
            say(f"{SAYS}: {said(error, flags)}", level="error")
            return FAILED
    return DONE


def _fit(chosen: dict[str, Any], *, overwrite: bool) -> None:
    from .read import read

    lacking = [o.name for o in options.OWN[:3] if chosen.get(o.name) is None]
    if lacking:
        said_as = {"data": "the file of the data", "cis": "--cis", "output": "--output"}
        raise ValueError(f"give {' and '.join(said_as[name] for name in lacking)}, as flags or with --config")
    folder = folder_of(chosen["output"])
    there = [name for name in FITTED if (folder / name).exists()]
    if there and not overwrite:
        raise ValueError(f"{folder} holds results ({there[0]}) already: name another --output, or give --overwrite")
    started = time.perf_counter()
    data = read(chosen["data"], backed=bool(chosen.get("backed")))
    folder.mkdir(parents=True, exist_ok=True)
    has_symbols(data, chosen)
    _has_cis_gene(data, chosen)
    _say_sizes(data, chosen)
    _steps(data, chosen, folder / ".checkpoint")
    say("writing results")
    _write(data, chosen, folder)
    say(f"done in {time.perf_counter() - started:.0f} s: {folder}")


def has_symbols(data: Any, chosen: Mapping[str, Any]) -> None:
    """Refuse a column of symbols that is not there, before the fits and not after them."""
    from dream_sc.get._symbols import symbols

    adata = data.mod.get(chosen.get("mod")) if hasattr(data, "mod") else data
    if chosen.get("gene_symbols") is not None and adata is not None:
        symbols(adata, chosen["gene_symbols"])


def _has_cis_gene(data: Any, chosen: Mapping[str, Any]) -> None:
    """Refuse a cis gene or targets that are not there, before the fits and not between them."""
    from dream_sc import _validate
    from dream_sc.tl._cis_design import check_targets

    adata = _validate.resolve(data, chosen.get("mod"))
    if chosen.get("dosage") != NO_DOSAGE:
        _validate.feature(adata, chosen["cis"], "cis gene")
    key = chosen.get("target_key", "target")
    if chosen.get("guides") is None and key in adata.obs:  # else a step says what is wrong with the guides
        target = _validate.labels(adata, key, "target_key")
        check_targets(target, _validate.label_texts(chosen.get("cis_targets") or chosen["cis"]), key)


def _say_sizes(data: Any, chosen: Mapping[str, Any]) -> None:
    """Say what the fits will need, before they start."""
    from dream_sc import memory

    columns = ("mod", "layer", "batch_key", "target_key", "control", "guide_key", "guides", "cis_targets")
    asked = {name: chosen[name] for name in columns if chosen.get(name) is not None}
    try:
        estimate = memory.estimate_for(data, cis_gene=chosen["cis"], **asked)
    except (ValueError, KeyError):  # the steps say what is wrong, by the names of their arguments
        return
    frame = estimate.frame if hasattr(estimate, "frame") else estimate
    total = frame[frame["component"] == "total"]["RAM"].max()
    say(f"about {total / 1e9:.1f} GB of memory will be needed, the data and the interpreter included")


def _steps(data: Any, chosen: dict[str, Any], checkpoint: Path) -> None:
    from dream_sc import tl

    check(chosen)
    with_size_factors(data, chosen)
    technical = options.of_step(options.TECHNICAL, chosen)
    say("technical effects")
    tl.fit_technical(data, **technical)
    of_cis, of_trans = (options.of_step(step, chosen) for step in (options.CIS, options.TRANS))
    if chosen.get("dosage") == NO_DOSAGE:
        given = {name: of_cis[name] for name in ("guide_key", "control_group") if name in of_cis}
        of_trans |= given | {"cis_targets": chosen.get("cis_targets") or chosen["cis"]}
    else:
        say(f"dosage of {chosen['cis']}")
        tl.fit_cis(data, chosen["cis"], **of_cis)
    say("dose-responses")
    tl.fit_trans(data, checkpoint=checkpoint, **of_trans)


def check(chosen: Mapping[str, Any]) -> None:
    """Refuse what the last step would refuse, before the first one."""
    from dream_sc import _validate
    from dream_sc._core.curves import FUNCTION_TYPES

    _validate.one_of("dosage", chosen.get("dosage", "guide"), ("guide", "cell", NO_DOSAGE))
    _validate.one_of("function_type", chosen.get("function_type", "auto"), FUNCTION_TYPES)
    _validate.whole("n_figures", chosen.get("n_figures", 0), 0)


def with_size_factors(data: Any, chosen: Mapping[str, Any]) -> None:
    """Where there are none: size factors by features that stay; from totals where there are too few for that."""
    from dream_sc import pp

    adata = data if not hasattr(data, "mod") or chosen.get("mod") is None else data.mod[chosen["mod"]]
    key = chosen.get("size_factor_key", "size_factor")
    if not hasattr(adata, "obs") or key in adata.obs:
        return
    more = {name: chosen[name] for name in ("mod", "layer", "memory_limit") if chosen.get(name) is not None}
    try:
        pp.size_factors(data, method="stable", key_added=key, **more, **_labels(adata.obs, chosen))
        say(f'size factors are not there: made by method "stable", as .obs[{key!r}]')
    except ValueError as error:
        pp.size_factors(data, method=FEW_FEATURES, key_added=key, **more)
        say(f'size factors are not there: made from totals, since method "stable" says: {error}', level="warning")


def _labels(obs: Any, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of guides and targets for `pp.size_factors`; None where a default is not there, or cells have several."""
    several = chosen.get("guides") is not None
    out: dict[str, Any] = {}
    for name, default in (("guide_key", GUIDE), ("target_key", TARGET)):
        given = None if several else chosen.get(name)
        out[name] = given if given is not None else default if default in obs and not several else None
    control = chosen.get("control")
    if control is not None:
        out["control"] = control[0] if isinstance(control, list) and len(control) == 1 else control
    return out


def _write(data: Any, chosen: Mapping[str, Any], folder: Path) -> None:
    """Write everything; a file is there whole or not at all."""
    from dream_sc import get, io
    from dream_sc.io._excel import write_tsv

    of = {name: chosen[name] for name in ("mod", "gene_symbols") if chosen.get(name) is not None}
    with whole(folder / "responders.tsv") as path:
        get.responders(data, columns="main", **of).to_csv(path, sep="\t", index_label="feature", float_format="%.6g")
    with whole(folder / TABLE) as path:
        n = write_tsv(path, data, **of)
    say(f"wrote {folder / TABLE}, {n} rows")
    with whole(folder / "summary.txt") as path:
        path.write_text(get.summary(data, **of) + "\n", encoding="utf-8")
    io.to_multiqc(data, folder / "multiqc", **of)
    with whole(folder / "software_versions.yml") as path:
        path.write_text(versions_text("DREAM_SC_FIT"), encoding="utf-8")
    dosages = chosen.get("dosage") != NO_DOSAGE
    _figures(data, dict(of), int(chosen.get("n_figures", 12)), folder / "figures", dosages=dosages)
    several = hasattr(data, "mod")
    with whole(folder / FITTED[several]) as path:
        data.write(path) if several else data.write_h5ad(path, compression="gzip")
    report.beside(data, folder, **of)


def _figures(data: Any, of: dict[str, Any], n: int, folder: Path, *, dosages: bool) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    from dream_sc import get, pl

    folder.mkdir(exist_ok=True)
    features = get.responders(data, **of).index[:n].tolist()
    if features:
        curves: Any = pl.dose_response(data, features, **of)  # one legend for all panels
        figure = curves[0].figure
        _save(figure, folder / "dose_response.png")
        plt.close(figure)
    drawn = (("cis", pl.cis), ("technical", pl.technical)) if dosages else (("technical", pl.technical),)
    for name, draw in drawn:
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        draw(data, ax=figure.subplots(), **of)
        _save(figure, folder / f"{name}.png")


def _save(figure: Any, path: Path) -> None:
    with whole(path) as part:
        figure.savefig(part, dpi=200)


def versions_text(process: str) -> str:
    """Versions as pipelines collect them."""
    from dream_sc._data.results import versions

    rows = {**versions(), "python": platform.python_version()}
    return f"{process}:\n" + "".join(f"  {name}: {json.dumps(value)}\n" for name, value in rows.items())
