"""What benchmarks call and import exists, and takes what it is given: they run for minutes, and no test runs them."""

from __future__ import annotations

import ast
import inspect
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dream_sc as ds
from dream_sc import _validate_types

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(ROOT.rglob("*.py"))
Call = tuple[ast.Call, Any]


def _names(tree: ast.Module) -> dict[str, Any]:
    """What a script imports of this package, by the name that it uses; an import of what is gone fails."""
    found: dict[str, Any] = {"ds": ds}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("dream_sc"):
            continue
        module = import_module(str(node.module))
        for alias in node.names:
            has = hasattr(module, alias.name)
            found[alias.asname or alias.name] = (
                getattr(module, alias.name) if has else import_module(f"{node.module}.{alias.name}")
            )
    return found


def _calls(tree: ast.Module, names: dict[str, Any]) -> Iterator[Call]:
    """Calls of this package's functions, by their names."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        path = ast.unparse(node.func).split(".")
        if path[0] in names and all(part.isidentifier() for part in path):
            yield node, reduce(getattr, path[1:], names[path[0]])


def _literal(node: ast.expr) -> tuple[bool, Any]:
    try:
        return True, ast.literal_eval(node)
    except ValueError:
        return False, None


def faults(source: str) -> list[str]:
    """Calls that would be refused for their arguments' names or, where they are written out, types."""
    tree, out = ast.parse(source), []
    for node, function in _calls(tree, _names(tree)):
        unpacked = any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords)
        try:
            signature = inspect.signature(function)
            values = {str(k.arg): k.value for k in node.keywords if k.arg is not None}
            bind = signature.bind_partial if unpacked else signature.bind
            given = bind(*[a for a in node.args if not isinstance(a, ast.Starred)], **values).arguments
            checks = hasattr(function, _validate_types.CHECKED)
            kinds = _validate_types._kinds(inspect.unwrap(function)) if checks else {}
            for name, value in given.items():
                known, it_is = _literal(value) if isinstance(value, ast.expr) else (False, None)
                if known and name in kinds:
                    _validate_types._check(name, it_is, kinds[name])
        except (TypeError, ValueError) as error:
            out.append(f"line {node.lineno}, {ast.unparse(node.func)}: {error}")
    return out


def _defined(script: Path) -> set[str]:
    """Names at the top of a script."""
    nodes = ast.parse(script.read_text()).body
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    names = {node.name for node in nodes if isinstance(node, kinds)}
    return names | {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)} | _imported(nodes)


def _imported(nodes: list[ast.stmt]) -> set[str]:
    imports = (node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    return {alias.asname or alias.name for node in imports for alias in node.names}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_it_takes_from_other_scripts_is_there(script: Path) -> None:
    beside = {path.stem: path for path in script.parent.glob("*.py")}
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in beside:
            missing = {alias.name for alias in node.names} - _defined(beside[node.module])
            assert not missing, f"{node.module} has no {missing}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_it_calls_takes_what_it_is_given(script: Path) -> None:
    assert faults(script.read_text()) == []


def test_faults_are_seen() -> None:
    assert "exclude='GFI1B' is not allowed" in faults('ds.pp.size_factors(adata, exclude="GFI1B")')[0]
    assert "gene" in faults('ds.tl.fit_cis(adata, gene="GFI1B")')[0]
    assert faults('ds.tl.fit_cis(adata, "GFI1B")\nds.pp.size_factors(adata, exclude=["GFI1B"])') == []
    with pytest.raises(ImportError):
        faults("from dream_sc._core.response import what_is_gone")
    with pytest.raises(AttributeError):
        faults("ds.tl.fit_nothing(adata)")
