"""`ds.report`: a fit as one HTML file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dream_sc._keys import TRANS
from dream_sc._logging import logger

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

PAGE = Path(__file__).parent / "page"
SCRIPTS = ("data.js", "draw.js", "curve.js", "volcano.js", "table.js", "guides.js", "contexts.js", "start.js")


def report(
    data: AnnData | MuData,
    path: str | PathLike[str],
    *,
    fdr: float = 0.05,
    title: str | None = None,
    key: str = TRANS,
    mod: str | None = None,
    gene_symbols: str | None = None,
) -> Path:
    """Write a fit as one HTML file, for people who do not run Python.

    The file holds all that it shows, and asks no other host for anything: it may be sent by mail, and opened in any
    browser. What was found and how far it can be trusted comes first, in words. A volcano plot, a table that can be
    searched and sorted, and the curve of the feature that is clicked belong together. Then come the dosages of guides,
    the results of `tl.compare`, `tl.check_confounding` and `tl.calibrate` where these have run under their default
    names, a methods paragraph and versions. The table can be saved as text, and the curve as a figure.

    Curves of all features are in the file. What was observed in each guide is there for as many features as fit into 2
    million numbers, the surest first (20,000 genes with 30 guides); where these are not counts, for 500 features. It
    needs the extra "report" (``pip install "dream-sc[report]"``).

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    path
        The file to write. A file that is there is replaced.
    fdr
        Features with a smaller q-value are called.
    title
        Title of the page; by default it names the cis gene.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names that features get, as in `get.trans`.

    Returns
    -------
    The path.

    Raises
    ------
    ImportError
        If jinja2 is not installed.
    KeyError, ValueError
        If the fit is not there, or a q-value is not between 0 and 1.
    OSError
        If the file cannot be written: its folder is not there or not writable, or the path is that of a folder.

    Examples
    --------
    >>> path = ds.report(adata, "report.html", title="GFI1B titration")
    >>> path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    True
    """
    from dream_sc.get._names import trans_fit
    from dream_sc.pl._effects import check_fdr

    out = Path(path)
    check_fdr(fdr)
    _check_path(out)
    environment = _environment()
    fit = trans_fit(data, key, mod, gene_symbols)

    from . import _data
    from ._stored import as_json

    script = "".join((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{script}}})();\n'
    embedded = _data.embedded(data, fit, fdr)
    # apart from the rest, since a browser that reads JSON reads all of it
    large = {f"{name}-values": embedded[name].pop("values") for name in ("curves", "guides")}
    text = environment.get_template("page.html").render(
        **_data.context(data, fit, title, fdr),
        style=(PAGE / "style.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        data=as_json(embedded),
        large=large,
    )
    _write(out, text)
    logger.info("report: wrote %s, %.1f MB", out, out.stat().st_size / 1e6)
    return out


def _check_path(path: Path) -> None:
    """Refuse a path that no file can be written to, before anything is made.

    Raises
    ------
    IsADirectoryError, FileNotFoundError, NotADirectoryError, PermissionError
        If it is a folder, or its folder is not there, is a file or cannot be written to.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it, such as {path / 'report.html'}")
    folder = path.parent
    if not folder.exists():
        raise FileNotFoundError(
            f"the folder {folder} is not there, so that {path.name} cannot be written: make it first"
        )
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file and not a folder, so {path.name} cannot be written in it")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"the folder {folder} cannot be written to: give a path in another one")


def _environment() -> Any:
    """The templates, in which every text is escaped.

    Raises
    ------
    ImportError
        If jinja2 is not there.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ImportError('jinja2 is needed to write a report: pip install "dream-sc[report]"') from error
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment


def _number(value: Any) -> str:
    """A number of a table, or a text as it is; "" where there is none."""
    if isinstance(value, str):
        return value
    if value is None or value != value:
        return ""
    return str(value) if isinstance(value, int) else f"{float(value):.3g}"


def _write(path: Path, text: str) -> None:
    """The file is there whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
