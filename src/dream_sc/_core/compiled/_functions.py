"""The decorators: compiled functions, each compiled once, by itself, and loaded when it is first needed.

numba links what a function calls into it and optimises all of it again, so that eight levels of calls cost eight times.
A part is compiled alone instead: its callers know its signature and the name of its symbol, which is bound to the
address of its machine code before a caller is loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba as nb
from llvmlite import ir
from numba.core import cgutils, sigutils
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.errors import TypingError
from numba.extending import intrinsic

from . import _folder
from ._content import content_of, parts_in
from ._folder import LOCK
from ._signatures import is_open, signature

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {"error_model": "numpy", "no_cfunc_wrapper": True}
MOST_PARTS = 64  # of which one is called
LONGEST = 300.0  # seconds to wait for another process; a function takes a few
ROOT = "dream_sc._core."
registry: dict[str, Function] = {}  # by name


class _Cache:
    """What a dispatcher asks before it compiles, and tells afterwards."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        target_context.refresh()
        name = self.function.file_name(sigutils.normalize_signature(sig)[0])
        for folder in _folder.folders():
            data = folder.load(name)
            if data is not None:
                return CompileResult._rebuild(target_context, *data)
        return None

    def save_overload(self, sig: Any, result: Any) -> None:
        # addresses of this process, or settings that were changed meanwhile, are of no use to others
        if not result.library.has_dynamic_globals and _folder.as_at_first():
            name = self.function.file_name(sigutils.normalize_signature(sig)[0])
            _folder.folders()[-1].save(name, result._reduce())


@dataclass(eq=False)
class Function:
    """A function that is compiled by itself.

    Parameters
    ----------
    source
        The Python function.
    called_by
        "python" or "compiled".
    typical
        Types of the arguments annotated as `Any` that usual data have.
    """

    source: Callable[..., Any]
    called_by: str
    typical: tuple[Mapping[str, Any], ...] = ()
    loaded: bool = False
    bound: bool = False  # whether its symbol has an address; a caller without one would end the process
    entries: list[tuple[Any, int]] = field(default_factory=list)  # where callers of one of several look for it
    dispatcher: Any = field(init=False)

    def __post_init__(self) -> None:
        wrapped = self.called_by == "python"
        options = OPTIONS | ({"nogil": True} if wrapped else {"no_cpython_wrapper": True})
        self.dispatcher = nb.njit(**options)(self.source)
        if not wrapped:
            _closed(self.dispatcher)
        self.dispatcher._cache = _Cache(self)
        registry[self.name] = self

    @cached_property
    def name(self) -> str:
        return f"{self.source.__module__.removeprefix(ROOT)}.{self.source.__qualname__}"

    @property
    def symbol(self) -> str:
        """Name of its machine code for callers."""
        return f"dream_sc.{self.name}"

    @cached_property
    def open(self) -> bool:
        return is_open(self.source)

    @cached_property
    def signature(self) -> Any:
        return signature(self.source)

    @cached_property
    def signatures(self) -> list[Any]:
        """What is compiled ahead."""
        return [signature(self.source, given) for given in self.typical] if self.open else [self.signature]

    @cached_property
    def needs(self) -> list[Function]:
        """The parts that it calls, itself or through functions that become part of it."""
        return list(dict.fromkeys(parts_in(self.source)))

    @cached_property
    def content(self) -> str:
        """What it does as it stands in this process, which may be older or newer than its file."""
        return "\n".join(content_of(self.source))

    def file_name(self, arguments: Any) -> str:
        """Where one signature is kept."""
        return f"{self.name}-{hashlib.sha256(f'{tuple(arguments)}{self.content}'.encode()).hexdigest()[:16]}"

    @cached_property
    def named(self) -> dict[str, Any]:
        """What is compiled ahead, by the names under which it is kept."""
        return {self.file_name(sigutils.normalize_signature(s)[0]): s for s in self.signatures}

    def missing(self) -> dict[str, Any]:
        """What is to be compiled ahead and is kept nowhere."""
        return {name: s for name, s in self.named.items() if not any(f.holds(name) for f in _folder.folders())}

    def load(self) -> None:
        """Make it ready for its callers, from what is kept or by compiling it."""
        with LOCK:
            if self.loaded:
                return
            if not isinstance(self.dispatcher, Dispatcher):
                raise RuntimeError("NUMBA_DISABLE_JIT is set, but dream_sc has no other form of its kernels: unset it")
            for part in self.needs:
                part.load()
            if not self.open:
                self._load_one()
            self.loaded = True
            if not self.open:
                self.dispatcher.disable_compile()

    def _load_one(self) -> None:
        (name,) = self.named
        if any(folder.holds(name) for folder in _folder.folders()):
            self.dispatcher.compile(self.signature)
        else:
            with _folder.claimed(name, LONGEST):
                self.dispatcher.compile(self.signature)
        if self.called_by == "compiled":
            result = self.dispatcher.overloads[tuple(self.signature.args)]
            self.bind(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))

    def bind(self, address: int) -> None:
        """Let its callers know where its machine code is."""
        llvm.add_symbol(self.symbol, address)
        for table, i in self.entries:
            table[i] = address
        self.bound = True

    def compile_missing(self) -> None:
        """Compile what is compiled ahead and is not kept, of a function that is loaded."""
        for sig in self.missing().values():
            self.dispatcher.compile(sig)

    def compile_only(self) -> None:
        """Compile what is missing and keep it, without anything that it needs: it cannot be called in this process.

        What another process is compiling at this moment is left to that one.
        """
        _pretend(self)
        for name, sig in self.missing().items():
            with _folder.claimed(name, 0.0) as mine:
                if mine:
                    self.dispatcher.compile(sig)

    def __call__(self, *arguments: Any) -> Any:
        if not self.loaded:
            self.load()
        return self.dispatcher(*arguments)


def _pretend(function: Function) -> None:
    """Give the symbols of what a function needs an address, so that it can be compiled though they are not there."""
    for part in function.needs:
        if not part.loaded:
            part.bind(llvm.address_of_symbol("malloc") or 1 << 20)


def entry(function: F | None = None, *, typical: tuple[Mapping[str, Any], ...] = ()) -> Any:
    """A function that Python calls.

    Its annotations are its signature. Where an annotation is `Any` it is compiled for the types that it is called with,
    and ahead for the `typical` ones.
    """

    def made(f: F) -> F:
        return cast(F, Function(f, "python", typical))

    return made if function is None else made(function)


def part(function: F) -> F:
    """A function that only compiled functions call, compiled by itself, without a way in from Python."""
    own = Function(function, "compiled")

    def define(typing_context: Any, *given: Any) -> Any:
        _check_types(own, typing_context, given)
        return own.signature, generate

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return _call(own, context, builder, sig, values)

    return cast(F, _known_to_numba(define, function, [own]))


def one_of(parts: Sequence[F], *, ahead: Sequence[bool] | None = None) -> Callable[..., Any]:
    """A function that compiled functions call, which calls one of several parts: the first argument is its place.

    The parts take and give the same; the other arguments go to the part. Those that are not to be there `ahead` are
    compiled by `load_part`, without which a call of them ends in an error.
    """
    owns = [each.part for each in cast(Any, parts)]
    first, wanted = owns[0], [True] * len(owns) if ahead is None else list(ahead)
    for other in owns[1:]:
        if other.signature != first.signature:
            raise TypeError(f"{other.name} takes {other.signature}, but {first.name} {first.signature}")
    # callers know this table by its symbol, so that a part can come later, and another one compiles no caller again
    table, symbol = (ctypes.c_void_p * len(owns))(), f"dream_sc.one_of.{first.name}"
    llvm.add_symbol(symbol, ctypes.addressof(table))
    for i, own in enumerate(owns):
        own.entries.append((table, i))
        if own.loaded:
            own.bind(llvm.address_of_symbol(own.symbol))

    def define(typing_context: Any, place: Any, *given: Any) -> Any:
        _check_types(first, typing_context, given)
        return first.signature.return_type(nb.int64, *first.signature.args), generate

    def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        place, *rest = values
        kind = context.call_conv.get_function_type(first.signature.return_type, first.signature.args)
        rows = ir.ArrayType(kind.as_pointer(), MOST_PARTS)
        held = builder.module.globals.get(symbol) or ir.GlobalVariable(builder.module, rows, symbol)
        callee = builder.load(builder.gep(held, [place.type(0), place]))
        with cgutils.if_unlikely(builder, cgutils.is_null(builder, callee)):
            context.call_conv.return_user_exc(
                builder, RuntimeError, (f"another form of {first.name} was not loaded: see load_part",)
            )
        return _call_at(callee, context, builder, first.signature, rest)

    out = _known_to_numba(define, first.source, [own for own, now in zip(owns, wanted, strict=True) if now], "place")
    out.every = owns
    return cast("Callable[..., Any]", out)


def load_part(which: Any, place: int) -> None:
    """Compile the part of `one_of` at a place, or load it, if it is not there."""
    own = which.every[place]
    if not own.loaded:
        own.load()


def _known_to_numba(define: Any, function: Callable[..., Any], parts: list[Function], *more: str) -> Any:
    """An intrinsic with the parameters of a function, and `more` before them: numba reads the arity off them."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    before = [inspect.Parameter(name, kind) for name in ("typing_context", *more)]
    define.__signature__ = inspect.Signature([*before, *inspect.signature(function).parameters.values()])
    define.__name__ = function.__name__
    out: Any = intrinsic(define)
    out.parts = parts
    if not more:
        out.part = parts[0]
    return out


def _check_types(own: Function, typing_context: Any, given: Sequence[Any]) -> None:
    for name, have, want in zip(inspect.signature(own.source).parameters, given, own.signature.args, strict=True):
        scalar = isinstance(want, nb.types.Number | nb.types.Boolean)
        if have != want and not (scalar and typing_context.can_convert(have, want)):
            raise TypingError(f"{own.name} takes {name} as {want}, not as {have}")


def _call(own: Function, context: Any, builder: Any, sig: Any, values: Any) -> Any:
    """Code that calls a part by its symbol."""
    if not own.bound:
        raise TypingError(f"{own.name} is called in a way in which it is not found: name it as a global")
    kind = context.call_conv.get_function_type(sig.return_type, sig.args)
    return _call_at(cgutils.get_or_insert_function(builder.module, kind, own.symbol), context, builder, sig, values)


def _call_at(callee: Any, context: Any, builder: Any, sig: Any, values: Any) -> Any:
    call = context.call_conv
    status, result = call.call_function(builder, callee, sig.return_type, sig.args, values)
    with cgutils.if_unlikely(builder, status.is_error):
        call.return_status_propagate(builder, status)
    return result


def inline(function: F | None = None, *, always: bool = False, contract: bool = False) -> Any:
    """A small function that becomes part of each compiled function that calls it.

    Parameters
    ----------
    always
        Whether the compiler may not decide otherwise.
    contract
        Whether a product and a sum may become one instruction, which rounds once.
    """
    options: dict[str, Any] = {"no_cpython_wrapper": True, **OPTIONS}
    if always:
        options["forceinline"] = True
    if contract:
        options["fastmath"] = {"contract"}

    def made(f: F) -> F:
        return cast(F, _closed(nb.njit(**options)(f)))

    return made if function is None else made(function)


def _closed(dispatcher: Any) -> Any:
    """Close the way in from Python: without a wrapper a call would end the process."""

    def add_overload(result: Any) -> None:
        dispatcher.overloads[tuple(result.signature.args)] = result

    def refuse(*_arguments: Any, **_named: Any) -> None:
        raise TypeError(f"{dispatcher.py_func.__qualname__} is called from compiled functions only")

    dispatcher.add_overload, dispatcher._compile_for_args = add_overload, refuse
    return dispatcher


def from_python(function: F) -> F:
    """A way in from Python to a part, an inline function, or a Python function that calls such: for tests.

    It is compiled anew in each session.
    """
    own = getattr(function, "part", None)
    source = own.source if isinstance(own, Function) else getattr(function, "py_func", function)
    for needed in parts_in(source):
        needed.load()
    return cast(F, nb.njit(error_model="numpy")(source))
