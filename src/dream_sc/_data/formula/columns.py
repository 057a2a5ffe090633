"""Columns of numbers from the tree of a formula, of full rank with an intercept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from . import transforms
from .allowed import MOST_COLUMNS, STATEFUL
from .tree import Call, Column, Contrast, Factor, Formula, column_of, text_of

if TYPE_CHECKING:
    from anndata import AnnData

States = dict[str, dict[str, Any]]  # what each stateful call has learned, by its text
Part = tuple[Factor, bool]  # a factor, and whether its rank is reduced by that of the intercept


@dataclass(frozen=True)
class Encoded:
    """Columns of one factor. Where they span the intercept there are reduced ones, which do not."""

    names: list[str]
    values: np.ndarray  # (n, K)
    reduced: tuple[list[str], np.ndarray] | None = None


def is_numeric(values: pd.Series) -> bool:
    """Whether a column holds numbers or truth values."""
    return bool(pd.api.types.is_numeric_dtype(values))


def plain_level(level: Any) -> Any:
    """A level as json holds it."""
    return level.item() if isinstance(level, np.generic) else level if isinstance(level, int | float) else str(level)


def encode(
    adata: AnnData, formula: Formula, levels: dict[str, list[Any]], states: States | None, used: np.ndarray
) -> tuple[list[str], np.ndarray, States]:
    """Names and values ``(N, Q)`` of the columns, without the intercept, and what the functions have learned.

    Parameters
    ----------
    levels
        Of the columns that are factors.
    states
        What the functions learned before. None: they learn from the cells used.
    used
        ``(N,)`` cells; the rows of others are NaN.
    """
    maker = _Maker(adata, levels, states, used)
    try:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            factors = {factor: maker.factor(factor) for factor in formula.factors}
            names, columns = _columns(formula, factors)
    except ValueError as error:
        raise ValueError(f"covariates={formula.text!r} cannot be computed: {error}") from error
    out = np.full((adata.n_obs, len(names)), np.nan)
    for q, column in enumerate(columns):
        out[used, q] = column
    return names, out, maker.learned


# ---- factors ---------------------------------------------------------------------------------------------------------


class _Maker:
    """Makes the columns of factors, and collects what functions learn."""

    def __init__(self, adata: AnnData, levels: dict[str, list[Any]], states: States | None, used: np.ndarray) -> None:
        self.adata, self.levels, self.states, self.used = adata, levels, states, used
        self.learned: States = {}

    def factor(self, factor: Factor) -> Encoded:
        if isinstance(factor, Column):
            if factor.name in self.levels:
                return self.labels(factor.name, factor.name, Contrast("contr.treatment", ()))
            return Encoded([factor.name], self.numbers(factor)[:, None])
        name = text_of(factor)
        if factor.function == "C":
            return self.labels(column_of(factor), name, factor.values.get("contrasts", Contrast("contr.treatment", ())))
        values, marks = self.call(factor)
        names = [name + mark for mark in marks]
        if _adds_up(factor):  # the first of these splines is left out where it has to be
            return Encoded(names, values, (names[1:], values[:, 1:]))
        return Encoded(names, values)

    def numbers(self, of: Column | Call) -> np.ndarray:
        """``(n,)`` numbers of a column, or of a function that makes one column."""
        if isinstance(of, Call):
            return self.call(of)[0][:, 0]
        values = self.adata.obs[of.name]
        if not is_numeric(values):
            raise ValueError(f"the column {of.name!r} holds labels, and a function of numbers was asked for")
        return values.to_numpy(float)[self.used]

    def call(self, call: Call) -> tuple[np.ndarray, list[str]]:
        """``(n, K)`` columns of a function of numbers, and their marks."""
        name = text_of(call)
        known = self.learned.get(name, None if self.states is None else self.states.get(name))
        if known is None and self.states is not None and call.function in STATEFUL:
            raise ValueError(f"what {name} learned is not known")
        values, marks, state = transforms.columns(call, self.numbers(call.of), known)
        if call.function in STATEFUL:
            self.learned[name] = state
        return values, marks

    def labels(self, column: str, name: str, contrast: Contrast) -> Encoded:
        """Columns of the levels of a factor."""
        levels = self.levels[column]
        if len(levels) > MOST_COLUMNS:
            raise ValueError(f"{column!r} has {len(levels)} levels, more than {MOST_COLUMNS}")
        values = self.adata.obs[column][self.used].map(plain_level).astype(object)
        codes = pd.Categorical(values, categories=levels).codes
        full = (codes[:, None] == np.arange(len(levels))).astype(float)
        names = [f"{name}[{level}]" for level in levels]
        if contrast.name == "contr.sum":
            marks = [f"{name}[S.{level}]" for level in levels[:-1]]
            return Encoded(names, full, (marks, full[:, :-1] - full[:, -1:]))
        base = 0
        for option in contrast.options:
            if option.value not in levels:
                raise ValueError(f"base={option.value!r} is not a level of {column!r}, which has {levels[:20]}")
            base = levels.index(option.value)
        keep = [i for i in range(len(levels)) if i != base]
        return Encoded(names, full, ([f"{name}[T.{levels[i]}]" for i in keep], full[:, keep]))


def _adds_up(call: Call) -> bool:
    """Whether the columns of a spline add up to one."""
    if call.function == "cr":
        return "constraints" not in call.values
    return bool(call.values.get("include_intercept"))


# ---- terms of full rank ----------------------------------------------------------------------------------------------


def _columns(formula: Formula, factors: dict[Factor, Encoded]) -> tuple[list[str], list[np.ndarray]]:
    """Columns of all terms, each once."""
    parts = []
    for term in full_rank(formula.terms, {factor for factor, made in factors.items() if made.reduced is not None}):
        parts.append([_part(factors[factor], reduced) for factor, reduced in term])
    n = sum(int(np.prod([len(names) for names, _ in part], dtype=object)) for part in parts)
    if n > MOST_COLUMNS:
        raise ValueError(f"it makes {n} columns, more than {MOST_COLUMNS}")
    found: dict[str, np.ndarray] = {}
    for part in parts:
        for index in product(*(range(len(names)) for names, _ in reversed(part))):  # the first factor changes fastest
            picked = list(zip(part, reversed(index), strict=True))
            name = ":".join(names[i] for (names, _), i in picked)
            if name in found:
                raise ValueError(f"two of its columns have the name {name!r}: rename columns or levels")
            found[name] = reduce(np.multiply, [values[:, i] for (_, values), i in picked])
    return list(found), list(found.values())


def _part(made: Encoded, reduced: bool) -> tuple[list[str], np.ndarray]:
    return made.reduced if reduced and made.reduced is not None else (made.names, made.values)


def full_rank(terms: tuple[tuple[Factor, ...], ...], spanning: set[Factor]) -> list[tuple[Part, ...]]:
    """Terms split into parts that together have full rank beside an intercept, as R, patsy and formulaic do it.

    Parameters
    ----------
    spanning
        Factors whose columns add up to one.
    """
    spanned: set[frozenset[Part]] = {frozenset()}
    out: list[tuple[Part, ...]] = []
    for term in terms:
        ways = [((factor, True), None) if factor in spanning else ((factor, False),) for factor in term]
        parts = [tuple(part for part in way if part is not None) for way in product(*ways)]
        new = [part for part in parts if frozenset(part) not in spanned]
        spanned |= set(map(frozenset, new))
        out += _merged(new)
    return out


def _merged(parts: list[tuple[Part, ...]]) -> list[tuple[Part, ...]]:
    """Fewer parts that span the same: ``a`` and ``a:(b reduced)`` are ``a:b``."""
    out: list[tuple[Part, ...]] = []
    for part in sorted(parts, key=len):
        for other in out:
            more = set(part) - set(other)
            if len(part) == len(other) + 1 and len(more) == 1 and next(iter(more))[1]:
                both = tuple((factor, reduced and (factor, reduced) not in more) for factor, reduced in part)
                out = _merged([o for o in out if o is not other] + [both])
                break
        else:
            out.append(part)
    return out


def factor_columns(adata: AnnData, formula: Formula) -> list[str]:
    """Columns that are factors: in `C()`, or of labels."""
    labels = {c for c in formula.bare if not is_numeric(adata.obs[c])} | formula.labels
    return [c for c in formula.columns if c in labels]
