"""Small faults that are put into a module, one at a time: where they fit, and a function or a module that has one."""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMPARE = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
NAMES = {"minimum": "maximum", "min": "max", "any": "all", "argmin": "argmax", "floor": "ceil"}
NAMES |= {new: old for old, new in NAMES.items()}
SIDES = {"left": "right", "right": "left"}
TYPES = ("isinstance", "issubclass", "cast", "TypeVar")  # calls whose arguments are types


@dataclass(frozen=True)
class Mutant:
    """One change: `old` at a place of a module becomes `new`."""

    module: str
    path: str
    line: int
    statement: tuple[int, int]  # its first and last line, without those of a body
    start: int  # byte of the file
    end: int
    old: str
    new: str
    function: str  # the outermost function or method around it, "" at the level of the module

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line} byte {self.start}: {self.old} -> {self.new}"

    def source(self, text: bytes) -> bytes:
        assert text[self.start : self.end].decode() == self.old
        return text[: self.start] + self.new.encode() + text[self.end :]


class _Places(ast.NodeVisitor):
    """All places of a module where something can be changed, but for annotations, texts and errors."""

    def __init__(self, text: bytes) -> None:
        self.found: list[tuple[int, tuple[int, int], int, int, str, str]] = []  # as in a mutant
        self.text, self.around, self.statement = text, "", (1, 1)
        self.lines = [0]
        for line in text.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def at(self, node: Any, end: bool = False) -> int:
        if end:
            return self.lines[node.end_lineno - 1] + node.end_col_offset
        return self.lines[node.lineno - 1] + node.col_offset

    def add(self, line: int, start: int, end: int, new: str) -> None:
        self.found.append((line, self.statement, start, end, new, self.around))

    def between(self, left: Any, right: Any, old: str, new: str) -> None:
        """An operator between two operands, beside which brackets may stand."""
        first = self.text.find(old.encode(), self.at(left, end=True), self.at(right))
        if first >= 0:
            self.add(left.end_lineno, first, first + len(old), new)

    def visit(self, node: ast.AST) -> None:
        before = self.statement
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            self.statement = (node.lineno, last)
        super().visit(node)
        self.statement = before

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before = self.around
        if not before or before.endswith("."):
            self.around += node.name
        for each in [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body]:
            self.visit(each)
        self.around = before

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        before, self.around = self.around, f"{node.name}."
        for each in node.body:
            self.visit(each)
        self.around = before

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if getattr(node.test, "id", "") != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass

    def visit_Constant(self, node: ast.Constant) -> None:
        value, new = node.value, None
        if isinstance(value, bool):
            new = str(not value)
        elif isinstance(value, int):
            new = str(value + 1)
        elif isinstance(value, float):
            new = repr(1.5 * value if value else 1.0)
        elif isinstance(value, str) and value in SIDES:
            new = f'"{SIDES[value]}"'
        if new is not None:
            self.add(node.lineno, self.at(node), self.at(node, end=True), new)

    def visit_Compare(self, node: ast.Compare) -> None:
        for op, left, right in zip(node.ops, [node.left, *node.comparators], node.comparators, strict=False):
            self.between(left, right, *COMPARE[type(op)])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        texts = any(
            isinstance(x, ast.JoinedStr) or isinstance(getattr(x, "value", 0), str) for x in (node.left, node.right)
        )
        if type(node.op) in ARITHMETIC and not texts:
            self.between(node.left, node.right, *ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        if len(node.values) == 2:
            words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            self.between(*node.values, *words)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if not isinstance(node.op, ast.UAdd):
            self.add(node.lineno, self.at(node), self.at(node.operand), "")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in NAMES:
            end = self.at(node.func, end=True)
            self.add(node.func.end_lineno or 0, end - len(name), end, NAMES[name])
        if name not in TYPES:
            self.generic_visit(node)


def mutants(root: Path, path: Path) -> Iterator[Mutant]:
    """All mutants of a file below the folder of the package's sources."""
    text = path.read_bytes()
    places, module = _Places(text), path.relative_to(root).with_suffix("")
    places.visit(ast.parse(text))
    name = ".".join(module.parts).removesuffix(".__init__")
    for line, statement, start, end, new, function in places.found:
        old = text[start:end].decode()
        yield Mutant(name, str(path.relative_to(root)), line, statement, start, end, old, new, function)


# ---- putting one in -------------------------------------------------------------------------------------------------


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self.changed = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.changed, self.path, "exec", dont_inherit=True)


class _Finder:
    """Gives one module its changed source; all others are found as usual."""

    def __init__(self, mutant: Mutant, path: Path) -> None:
        self.mutant, self.path = mutant, path

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.mutant.module:
            return None
        loader = _Loader(name, str(self.path), self.mutant.source(self.path.read_bytes()))
        inside = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(name, self.path, loader=loader, submodule_search_locations=inside)


def import_with(mutant: Mutant, root: Path) -> None:
    """Before the package is imported: its module will have the change. Nothing on disk is touched."""
    assert mutant.module not in sys.modules
    sys.meta_path.insert(0, _Finder(mutant, root / mutant.path))


def _codes(code: CodeType) -> dict[str, CodeType]:
    found = {}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found[constant.co_qualname] = constant
            found |= _codes(constant)
    return found


def _function_of(module: ModuleType, name: str) -> FunctionType | None:
    """The plain Python function that goes by a name, behind properties and caches; None for a compiled one."""
    owner, _, last = name.rpartition(".")
    held: Any = vars(getattr(module, owner) if owner else module).get(last)
    if isinstance(held, property):
        held = held.fget
    elif isinstance(held, functools.cached_property):
        held = held.func
    elif isinstance(held, staticmethod | classmethod):
        held = held.__func__
    if type(held).__name__ == "_lru_cache_wrapper":
        held = held.__wrapped__
    return held if isinstance(held, FunctionType) and held.__qualname__ == name else None


def changed_function(mutant: Mutant, root: Path) -> tuple[FunctionType, CodeType] | None:
    """The function of a package that is imported already, and its code with the change; None where there is none."""
    module, path = sys.modules.get(mutant.module), root / mutant.path
    function = _function_of(module, mutant.function) if module is not None and mutant.function else None
    if function is None:
        return None
    text = path.read_bytes()
    old, new = (_codes(compile(s, str(path), "exec", dont_inherit=True)) for s in (text, mutant.source(text)))
    code = new[mutant.function]
    if code == old[mutant.function] or code.co_freevars != function.__code__.co_freevars:
        return None  # a default, or something around the function
    return function, code


def put_in(mutant: Mutant, root: Path) -> None:
    """Change the function of a package that is imported already."""
    found = changed_function(mutant, root)
    assert found is not None
    found[0].__code__ = found[1]
