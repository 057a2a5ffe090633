"""The conventions of the package, tested once for every public function and every module."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import pytest

import dream_sc

ROOT = Path(dream_sc.__file__).parent
NAMESPACES = ("datasets", "design", "get", "io", "memory", "pl", "pp", "tl")
BLOCKED_IN_CORE = ("anndata", "mudata", "pandas", "matplotlib", "scanpy")
HEAVY = ("torch", "pyro", "scanpy", "matplotlib", "numba", "mudata", "scipy.stats", "xarray", "formulaic")
MODULES = sorted(ROOT.rglob("*.py"))
CORE = [path for path in MODULES if "_core" in path.parts]
MAX_LINES = 400
MAX_FUNCTION = 60


def _public() -> list[tuple[str, object]]:
    found = []
    for namespace in NAMESPACES:
        module = import_module(f"dream_sc.{namespace}")
        found += [(f"{namespace}.{name}", getattr(module, name)) for name in module.__all__]
    return [*found, ("report", dream_sc.report)]


PUBLIC = _public()
FUNCTIONS = [(name, f) for name, f in PUBLIC if inspect.isfunction(f)]
DATA_ARGUMENTS = {"data", "adata", "mdata"}


def _module_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(("name", "function"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
class TestPublicFunction:
    def test_is_typed(self, name, function):
        signature = inspect.signature(function)
        untyped = [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty]
        assert not untyped, f"{name}: no type for {untyped}"
        assert signature.return_annotation is not inspect.Signature.empty, f"{name}: no return type"

    def test_few_positional(self, name, function):
        parameters = list(inspect.signature(function).parameters.values())
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        has_data = bool(positional) and positional[0].name in DATA_ARGUMENTS
        assert len(positional) - has_data <= 2, f"{name}: {[p.name for p in positional]}"
        assert not [p for p in parameters if p.kind is p.VAR_POSITIONAL]

    def test_docstring(self, name, function):
        text = inspect.getdoc(function)
        assert text, f"{name} has no docstring"
        first = text.splitlines()[0]
        assert first.endswith("."), f"{name}: the first line is no sentence: {first!r}"
        documented = _documented_parameters(text)
        missing = [p for p in inspect.signature(function).parameters if p not in documented]
        assert not missing, f"{name}: not in the docstring: {missing}"
        unknown = documented - set(inspect.signature(function).parameters)
        assert not unknown, f"{name}: in the docstring only: {unknown}"


def _documented_parameters(text: str) -> set[str]:
    """Names in the section Parameters of a numpydoc docstring."""
    match = re.search(r"^Parameters\n-+\n(.*?)(?=^\S[^\n]*\n-{3,}|\Z)", text, re.DOTALL | re.MULTILINE)
    if match is None:
        return set()
    heads = [line for line in match.group(1).splitlines() if line and not line.startswith(" ")]
    return {part.strip().lstrip("*") for head in heads for part in head.split(":")[0].split(",")}


def test_public_names_are_sorted_and_exist():
    for namespace in NAMESPACES:
        module = import_module(f"dream_sc.{namespace}")
        assert list(module.__all__) == sorted(module.__all__), namespace
    assert set(NAMESPACES) < set(dream_sc.__all__)


def test_every_public_name_is_in_the_api_page():
    page = ROOT.parents[1] / "docs" / "api.md"
    if not page.exists():
        pytest.skip("the documentation is not beside the package")
    words = set(page.read_text().split())
    missing = [name for name, _ in PUBLIC if name not in words]
    assert not missing, f"docs/api.md lacks {missing}"


@pytest.mark.parametrize("path", CORE, ids=_module_name)
def test_core_knows_tensors_only(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            assert not node.module.startswith("dream_sc") or node.module.startswith("dream_sc._core")
            imported.add(node.module.split(".")[0])
    assert not imported & set(BLOCKED_IN_CORE)
    depth = len(path.relative_to(ROOT / "_core").parts)
    leaving = [
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level > depth
    ]
    assert not leaving, f"relative imports that leave _core: {leaving}"


@pytest.mark.parametrize("path", MODULES, ids=_module_name)
def test_module_has_one_subject(path):
    text = path.read_text()
    assert len(text.splitlines()) <= MAX_LINES
    long = [
        f"{node.name} ({length} lines)"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and (length := _body_lines(node)) > MAX_FUNCTION and not _is_compiled(node)
    ]
    assert not long, f"{_module_name(path)}: {long}"


def _body_lines(node: ast.FunctionDef) -> int:
    """Lines after the signature and the docstring."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return node.end_lineno - body[0].lineno + 1 if body else 0


def _is_compiled(node: ast.FunctionDef) -> bool:
    """A kernel's loops share their variables, so its length is no fault."""
    door = {"entry", "part", "inline"}
    return any(ast.unparse(decorator).split("(")[0] in door for decorator in node.decorator_list)


def _python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_import_is_light():
    result = _python(f"""
        import sys
        import anndata
        before = set(sys.modules)
        import dream_sc
        from dream_sc import datasets, design, get, io, memory, pl, pp, tl
        loaded = set(sys.modules) - before
        print(*[name for name in {HEAVY!r} if name in loaded])
    """)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []


def test_core_loads_alone():
    parts = [("dream_sc", *path.relative_to(ROOT).with_suffix("").parts) for path in CORE]
    names = [".".join(p).removesuffix(".__init__") for p in parts]
    result = _python(f"""
        import sys
        import types
        for name in {BLOCKED_IN_CORE!r}:
            sys.modules[name] = None
        # the package itself is entered without its public face
        package = types.ModuleType("dream_sc")
        package.__path__ = [{str(ROOT)!r}]
        sys.modules["dream_sc"] = package
        from importlib import import_module
        for name in {names!r}:
            import_module(name)
    """)
    assert result.returncode == 0, result.stderr


def test_nothing_is_configured_on_import():
    result = _python("""
        import logging, warnings
        before = list(warnings.filters), logging.root.level, list(logging.root.handlers)
        import dream_sc
        logger = logging.getLogger("dream_sc")
        assert logger.level == logging.NOTSET
        assert not [h for h in logger.handlers if not isinstance(h, logging.NullHandler)]
        assert (logging.root.level, list(logging.root.handlers)) == before[1:]
    """)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "_keys.py"], ids=_module_name)
def test_storage_names_live_in_one_file(path):
    """A slot is addressed through a name of `_keys.py`, never by a literal; docstrings may spell it."""
    tree = ast.parse(path.read_text())
    found = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Attribute)
            and node.value.attr in {"varm", "uns", "obsm", "layers", "obsp", "varp"}
            and isinstance(node.slice, ast.Constant | ast.JoinedStr)
        ):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    assert not found


def test_typed_marker():
    assert (ROOT / "py.typed").exists()
