"""Distributions, curves and engines are known by name to their registries only; signatures and lists agree."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin

import pytest

import dream_sc
from dream_sc._core.curves import CURVES, FUNCTION_TYPES, FunctionType
from dream_sc._core.engines import ENGINES, GUIDES, TRANS_GUIDES, Autoguide, Engine, TransAutoguide
from dream_sc._core.likelihoods import DISTRIBUTIONS, LIKELIHOODS, Distribution, likelihood, named
from dream_sc._memory.sizes import choices

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(dream_sc.__file__).parent
REGISTRIES = ("_core/likelihoods", "_core/curves")
MODIFIED = "says in .uns how to fit the modality that it makes"
CLASS = "the class and the model of a feature that does not respond"
ALLOWED = {
    "pp/_exons.py": ({"binomial"}, MODIFIED),
    "pp/_psi.py": ({"binomial"}, MODIFIED),
    "pp/_usage.py": ({"multinomial"}, MODIFIED),
    "datasets/_titration.py": ({"null", "single_hill", "additive_hill"}, "the truth that is simulated"),
    "_cli/demo.py": ({"null"}, CLASS),
    "pl/_dose_response.py": ({"null"}, CLASS),
    "pl/_calibration.py": ({"null"}, "an argument of tl.calibrate"),
    "tl/_calibrate.py": ({"null"}, "its own argument"),
}


def _names(tree: ast.Module, wanted: set[str]) -> Iterator[str]:
    """Texts of the code that are a name; defaults of arguments and fields, and types, may be one."""
    may: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            parts = [*node.args.defaults, *node.args.kw_defaults]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant):
            parts = [node.value]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
            parts = [node]
        may |= {id(part) for top in parts if top is not None for part in ast.walk(top)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in wanted and id(node) not in may:
            yield str(node.value)


PLACES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


@pytest.mark.parametrize("place", [place for place in PLACES if not place.startswith(REGISTRIES)])
def test_names_are_known_to_registries_only(place: str) -> None:
    wanted = set(DISTRIBUTIONS) | {c.name for c in CURVES}
    found = set(_names(ast.parse((ROOT / place).read_text()), wanted))
    assert found == ALLOWED.get(place, (set(), ""))[0], f"{place} knows {sorted(found)}"


def test_what_is_allowed_is_there() -> None:
    assert set(ALLOWED) <= set(PLACES)


@pytest.mark.parametrize(
    ("literal", "known"),
    [
        (Distribution, DISTRIBUTIONS),
        (FunctionType, FUNCTION_TYPES),
        (Engine, ENGINES),
        (Autoguide, GUIDES),
        (TransAutoguide, TRANS_GUIDES),
    ],
)
def test_literals_are_their_lists(literal: object, known: tuple[str, ...]) -> None:
    assert get_origin(literal) is Literal
    assert set(get_args(literal)) == set(known)
    assert len(set(known)) == len(known)


def test_the_memory_estimate_knows_the_same_choices() -> None:
    assert choices()["distribution"] == DISTRIBUTIONS
    assert choices()["function_type"] == FUNCTION_TYPES
    assert choices()["inference"] == ENGINES
    assert choices()["autoguide"] == GUIDES


def test_facts_of_likelihoods() -> None:
    assert named(statistics="counts") == [likelihood().name]
    assert set(named(statistics="counts") + named(statistics="shares") + named(statistics="scores")) == set(
        DISTRIBUTIONS
    )
    assert set(named(denominator=True) + named(categories=True)) == set(named(statistics="shares"))
    for like in LIKELIHOODS:
        assert set(like.technical_engines) | set(like.trans_engines) <= set(ENGINES)
        assert "{}" in like.words.effect
        assert like.noise in {"overdispersion", "sigma"}
        for engine in like.technical_engines:
            from dream_sc._core.engines import engine as functions

            assert callable(getattr(functions(engine), like.technical_step)), (engine, like.name)
    with pytest.raises(ValueError, match=r"distribution='gamma' is not known; use one of \['negbinom'"):
        likelihood("gamma")


def test_public_functions_take_data_of_known_types() -> None:
    loose = []
    for namespace in ("get", "pl", "pp", "tl"):
        module = import_module(f"dream_sc.{namespace}")
        for name in module.__all__:
            signature = inspect.signature(getattr(module, name))
            types = [(p.name, p.annotation) for p in signature.parameters.values()]
            loose += [f"{namespace}.{name}: {n}" for n, kind in types if kind == "Any"]
            loose += [f"{namespace}.{name}"] * (signature.return_annotation == "Any")
    assert not loose


CLOSED = {
    "distribution": {"Distribution", "Distribution | None"},
    "function_type": {"FunctionType"},
    "inference": {"Engine"},
    "autoguide": {"Autoguide", "Autoguide | None", "TransAutoguide | None"},
}


def test_closed_choices_are_literals() -> None:
    seen = set()
    for namespace in ("memory", "tl"):
        module = import_module(f"dream_sc.{namespace}")
        functions = [f for f in (getattr(module, name) for name in module.__all__) if inspect.isfunction(f)]
        for function in functions:
            for p in inspect.signature(function).parameters.values():
                if p.name in CLOSED:
                    assert p.annotation in CLOSED[p.name], f"{function.__name__}: {p}"
                    seen.add(p.name)
    assert seen == set(CLOSED)
