"""Formulas of covariates in the grammar of formulaic: what they name, what they may hold, and their columns."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

FUNCTIONS = frozenset((
    "C", "I", "bs", "cc", "center", "cr", "cs", "exp", "log", "log10", "log2", "poly", "scale", "standardize",
    "contr.treatment", "contr.sum", "contr.helmert", "contr.diff", "contr.poly",
    *(f"np.{f}" for f in "abs clip exp log log10 log1p log2 maximum minimum sqrt square".split()),
))  # fmt: skip
GRAMMAR = (
    ast.Expression, ast.Call, ast.Name, ast.Attribute, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp,
    ast.operator, ast.unaryop, ast.List, ast.Tuple,
)  # fmt: skip


def formula_of(adata: AnnData, covariates: str | Sequence[str] | None) -> str | None:
    """The right-hand side of a formula: that given, or the sum of the columns named."""
    if covariates is None:
        return None
    if isinstance(covariates, str):
        text = covariates.strip().removeprefix("~").strip()
        if text in adata.obs:
            return _quoted(text)
        if "~" in text:
            raise ValueError(
                f"covariates={covariates!r} has a left-hand side: give the right-hand side only, such as "
                f"{text.partition('~')[2].strip()!r}"
            )
    else:
        names = list(covariates)
        for name in names:
            _validate.column(adata, name, "covariates")
        text = " + ".join(_quoted(name) for name in names)
    if not text:
        raise ValueError("covariates= is empty: name columns of .obs, give a formula, or leave it out")
    return text


def _quoted(name: str) -> str:
    return name if name.isidentifier() else f"`{name}`"


def parse(adata: AnnData, formula: str) -> tuple[list[str], set[str]]:
    """Columns of `.obs` that a formula names, and those of them that it makes factors.

    Formulas hold expressions of Python, so only functions that transform columns are let through.
    """
    from formulaic import Formula, SimpleFormula
    from formulaic.errors import FormulaicError

    if any("`" in c for c in map(str, adata.obs) if _quoted(c) in formula):
        raise ValueError("covariates= names a column of .obs with a backtick in its name: rename the column")
    try:
        whole = Formula(formula, _ordering="none")
        if not isinstance(whole, SimpleFormula):
            raise ValueError(f"covariates={formula!r} has several parts: give one, without '|'")
        terms = list(whole)
    except (FormulaicError, SyntaxError, TypeError) as error:
        raise ValueError(f"covariates={formula!r} is no formula: {str(error).splitlines()[0]}") from error
    columns: dict[str, None] = {}
    factors: set[str] = set()
    for factor in (factor for term in terms for factor in term.factors):
        if factor.eval_method.value == "literal":
            continue
        if factor.eval_method.value == "lookup":
            names, made = [factor.expr], False
        else:
            names, made = _names_in(factor.expr, formula)
        for name in names:
            _validate.column(adata, name, "covariates")
        columns |= dict.fromkeys(names)
        factors |= set(names) if made else set()
    return list(columns), factors


def _names_in(expression: str, formula: str) -> tuple[list[str], bool]:
    """Columns in an expression, and whether it makes factors of them."""
    quoted: list[str] = []

    def hide(match: re.Match[str]) -> str:
        quoted.append(match[1])
        return f"quoted_{len(quoted) - 1}"

    try:
        tree = ast.parse(re.sub("`([^`]+)`", hide, expression), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"{expression!r} in covariates={formula!r} cannot be read: {error.msg}") from error
    called = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    strange = sorted(set(called) - FUNCTIONS) or [
        ast.unparse(node) for node in ast.walk(tree) if not isinstance(node, GRAMMAR)
    ]
    functions = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Call) for part in ast.walk(node.func)}
    outside = [node for node in ast.walk(tree) if id(node) not in functions]
    bare = [ast.unparse(node) for node in outside if isinstance(node, ast.Attribute)]
    strange += [f"{name} without brackets" if name in FUNCTIONS else name for name in bare]
    if strange:
        raise ValueError(
            f"{strange} in covariates={formula!r} is not allowed: formulas may hold columns of .obs, arithmetic, and "
            f"the functions {sorted(FUNCTIONS)}; put what else is needed into a column"
        )
    names = [node.id for node in outside if isinstance(node, ast.Name)]
    return [quoted[int(n[7:])] if n.startswith("quoted_") else n for n in names], "C" in called


def is_numeric(values: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(values))


def plain_level(level: Any) -> Any:
    """A level as json holds it."""
    return level.item() if isinstance(level, np.generic) else level if isinstance(level, int | float) else str(level)


def encode(
    adata: AnnData, formula: str, columns: list[str], levels: dict[str, list[Any]], transforms: dict[str, Any],
    used: np.ndarray,
) -> tuple[list[str], np.ndarray, dict[str, Any]]:  # fmt: skip
    """Names and values ``(N, Q)`` of the columns, without the intercept, and the state of the transforms."""
    from formulaic import ModelSpec
    from formulaic.errors import FormulaicError

    frame = pd.DataFrame(index=np.flatnonzero(used))
    for name in columns:
        values = adata.obs[name][used]
        if name in levels:
            frame[name] = pd.Categorical(values.map(plain_level).astype(object), categories=levels[name])
        else:
            frame[name] = values.to_numpy(float)
    try:
        spec = ModelSpec.from_spec(f"{formula} + 1", transform_state=transforms, na_action="ignore")
        with np.errstate(invalid="ignore", divide="ignore"):
            matrix = spec.get_model_matrix(frame, context={})
    except (FormulaicError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"covariates={formula!r} cannot be computed: {str(error).splitlines()[0]}") from error
    keep = [i for i, name in enumerate(matrix.columns) if name != "Intercept"]
    out = np.full((adata.n_obs, len(keep)), np.nan)
    out[used] = matrix.to_numpy(float)[:, keep]
    return [str(matrix.columns[i]) for i in keep], out, dict(matrix.model_spec.transform_state)


def plain(value: Any) -> Any:
    """Numbers and arrays of numpy for json."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"a state of type {type(value).__name__} cannot be stored")


def revived(value: Any) -> Any:
    """A state from json, where keys that were whole numbers have become text."""
    if isinstance(value, dict):
        return {int(k) if re.fullmatch("-?[0-9]+", k) else k: revived(v) for k, v in value.items()}
    return value
