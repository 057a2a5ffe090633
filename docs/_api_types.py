"""Types in the API pages, from the signatures, and what they link to, with and without a network.

Sphinx asks for each project's own list of names first. Where it cannot be had, a list written from the few names below
takes its place. A build with a network thereby checks what a build without one has to believe.
"""

from __future__ import annotations

import ast
import sys
import zlib
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_type_hints

from sphinx.ext.intersphinx import missing_reference
from sphinx.util.typing import stringify_annotation

if TYPE_CHECKING:
    from pathlib import Path

# project -> where its site is, and class -> page
PROJECTS: dict[str, tuple[str, dict[str, str]]] = {
    "anndata": (
        "https://anndata.readthedocs.io/en/stable/",
        {"anndata.AnnData": "generated/anndata.AnnData.html#$"},
    ),
    "distributed": (
        "https://distributed.dask.org/en/stable/",
        {"distributed.Client": "api.html#$"},
    ),
    "matplotlib": (
        "https://matplotlib.org/stable/",
        {
            "matplotlib.axes.Axes": "api/_as_gen/matplotlib.axes.Axes.html#$",
            "matplotlib.figure.Figure": "api/_as_gen/matplotlib.figure.Figure.html#$",
        },
    ),
    "mudata": (
        "https://mudata.scverse.org/stable/",
        {"mudata.MuData": "generated/mudata.MuData.html#$"},
    ),
    "numpy": (
        "https://numpy.org/doc/stable/",
        {
            "numpy.dtype": "reference/generated/numpy.dtype.html#$",
            "numpy.ndarray": "reference/generated/numpy.ndarray.html#$",
            "numpy.object_": "reference/arrays.scalars.html#$",
            "numpy.random.Generator": "reference/random/generator.html#$",
        },
    ),
    "pandas": (
        "https://pandas.pydata.org/docs/",
        {
            "pandas.DataFrame": "reference/api/pandas.DataFrame.html#$",
            "pandas.Series": "reference/api/pandas.Series.html#$",
        },
    ),
    "python": (
        "https://docs.python.org/3/",
        {
            "collections.abc.Callable": "library/collections.abc.html#$",
            "collections.abc.Collection": "library/collections.abc.html#$",
            "collections.abc.Iterable": "library/collections.abc.html#$",
            "collections.abc.Mapping": "library/collections.abc.html#$",
            "collections.abc.Sequence": "library/collections.abc.html#$",
            "os.PathLike": "library/os.html#$",
            "pathlib.Path": "library/pathlib.html#$",
        },
    ),
    "scipy": (
        "https://docs.scipy.org/doc/scipy/",
        {
            "scipy.sparse.csc_array": "reference/generated/scipy.sparse.csc_array.html#$",
            "scipy.sparse.csr_array": "reference/generated/scipy.sparse.csr_array.html#$",
            "scipy.sparse.csc_matrix": "reference/generated/scipy.sparse.csc_matrix.html#$",
            "scipy.sparse.csr_matrix": "reference/generated/scipy.sparse.csr_matrix.html#$",
        },
    ),
    "xarray": (
        "https://docs.xarray.dev/en/stable/",
        {"xarray.Dataset": "generated/xarray.Dataset.html#$"},
    ),
}

# where a class says that it lives -> under which name its project documents it
DOCUMENTED_AS = {
    "anndata._core.anndata.AnnData": "anndata.AnnData",
    "distributed.client.Client": "distributed.Client",
    "matplotlib.axes._axes.Axes": "matplotlib.axes.Axes",
    "mudata._core.mudata.MuData": "mudata.MuData",
    "numpy.random._generator.Generator": "numpy.random.Generator",
    "pandas.core.frame.DataFrame": "pandas.DataFrame",
    "pandas.core.series.Series": "pandas.Series",
    "pathlib._local.Path": "pathlib.Path",
    "xarray.core.dataset.Dataset": "xarray.Dataset",
}


def mapping(folder: Path) -> dict[str, tuple[str, tuple[str | None, ...]]]:
    """The setting `intersphinx_mapping`; writes the lists of names into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for project, (_, names) in PROJECTS.items():
        head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        body = "".join(f"{name} py:class 1 {page} -\n" for name, page in sorted(names.items()))
        (folder / f"{project}.inv").write_bytes(head.encode() + zlib.compress(body.encode()))
    return {project: (url, (None, str(folder / f"{project}.inv"))) for project, (url, _) in PROJECTS.items()}


def resolve_types(package: str) -> None:
    """Run the imports under `if TYPE_CHECKING` of a package's loaded modules, so that annotations become classes."""
    for name, module in sorted(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if path is None or name.split(".")[0] != package:
            continue
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        for node in tree.body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                exec(compile(ast.Module(node.body, []), path, "exec"), module.__dict__)


def under_its_documented_name(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link a class that says it lives in a private module."""
    name = DOCUMENTED_AS.get(node.get("reftarget"))
    if name is None:
        return None
    public = node.deepcopy()
    public["reftarget"] = name
    return missing_reference(app, env, public, contnode)


def type_of_the_result(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put the annotated type above the text of the section Returns, which napoleon would read as a type itself."""
    if what != "function" or "Returns" not in lines:
        return
    start = lines.index("Returns") + 2
    end = next((i for i in range(start, len(lines) - 1) if lines[i + 1] and not lines[i + 1].strip("-")), len(lines))
    text = ["    " + line if line else line for line in lines[start:end]]
    lines[start:end] = [stringify_annotation(get_type_hints(obj)["return"], "smart"), *text]


def setup(app: Any) -> dict[str, bool]:
    """Make the module an extension of Sphinx."""
    import_module("dream_sc._cli.main")
    package = import_module("dream_sc")
    for namespace in (getattr(package, name) for name in package.__all__):
        for name in getattr(namespace, "__all__", ()):
            getattr(namespace, name)  # names load their modules when they are first used
    resolve_types("dream_sc")
    app.connect("missing-reference", under_its_documented_name)
    app.connect("autodoc-process-docstring", type_of_the_result, priority=400)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
