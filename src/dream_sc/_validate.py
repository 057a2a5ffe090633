"""One check per recurring argument; each error says what was seen, what is allowed and what to call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd

from ._data import stored
from ._keys import FEATURE_TYPES, GENE_EXPRESSION
from ._logging import logger

if TYPE_CHECKING:
    from anndata import AnnData

NO_COUNTS = {
    "not finite": "NaN or infinite values: raw counts are needed; drop the cells or genes, or pass another layer=",
    "negative integer": "negative values: raw counts are needed, pass them as layer=",
    "negative": "negative values, it looks scaled: pass the layer of raw counts as layer=",
    "fraction": "fractions, it looks log-normalised (or normalised otherwise): pass the raw counts as layer=",
}


def close(name: str, names: Iterable[str], cutoff: float = 0.5) -> str:
    """Say which of the names come close to an unknown one."""
    known = [str(n) for n in names]
    same = [n for n in known if n.casefold() == str(name).casefold()]  # but for upper and lower case
    matches = [*same, *(m for m in get_close_matches(str(name), known, n=4, cutoff=cutoff) if m not in same)]
    return f"; did you mean {matches}?" if matches else ""


def whole(name: str, value: Any, least: int = 1) -> None:
    """Refuse what is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}={value!r} is not allowed: use a whole number, {least} or more")


def number(name: str, value: Any) -> float:
    """Refuse what is no number; gives it."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}={value!r} is not allowed: use a number")
    return float(value)


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Refuse a value that is not among the allowed ones."""
    options = list(allowed)
    if value not in options:
        raise ValueError(f"{name}={value!r} is not known; use one of {options}")


def without_effect(given: Mapping[str, Any], why: str) -> None:
    """Refuse arguments that were given, which are those that are not None, but would do nothing.

    `why` says with what they do nothing, and what they are for.
    """
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}={value!r} has no effect {why}: leave it out")


def offered(inference: str, distribution: str, engines: Iterable[str]) -> None:
    """Refuse an engine that does not know the distribution."""
    if inference not in engines:
        known = " or ".join(f'"{name}"' for name in engines)
        raise ValueError(f'inference="{inference}" is not offered for distribution="{distribution}": use {known}')


def sampling(inference: str, nsamples: Any, niters: Any, device: Any) -> None:
    """Refuse options of the Pyro engines for the fast one, which is deterministic, and such as are no numbers."""
    from ._core.device import check_for

    for name, value in (("nsamples", nsamples), ("niters", niters)):
        if value is not None:
            whole(name, value)
    if device is not None:
        check_for(device, inference)
    if inference == "laplace":
        given = {"nsamples": nsamples, "niters": niters}  # a CPU, or its choice, is what it runs on
        without_effect(given, 'with inference="laplace", only with "svi" and "nuts"')


def resolve(data: Any, mod: str | None, *, views: bool = False) -> AnnData:
    """The AnnData to work on: the object itself, or a modality of a MuData; `views` where nothing is written to it."""
    if isinstance(getattr(data, "mod", None), Mapping):
        if mod is None:
            raise ValueError(f"data is a MuData: name the modality, mod= one of {list(data.mod)}")
        if mod not in data.mod:
            raise KeyError(f"modality {mod!r} is not there; there are {list(data.mod)}")
        adata = data.mod[mod]
    elif mod is not None:
        raise ValueError(f"mod={mod!r} was given, but data is no MuData: leave it out")
    else:
        adata = data
    if not (hasattr(adata, "varm") and hasattr(adata, "obs")):
        raise TypeError(f"data must be an AnnData or a MuData, not {type(data).__name__}")
    if not isinstance(adata.obs, pd.DataFrame):
        raise TypeError(
            "the tables of data are read lazily: load them, data.obs = data.obs.to_memory() and "
            "data.var = data.var.to_memory(); the counts may stay where they are"
        )
    if adata.is_view and adata.isbacked:
        raise ValueError("data is a view of a backed file: call .to_memory() on the subset first")
    if not views and (getattr(data, "is_view", False) or adata.is_view):
        raise ValueError("data is a view, results would be lost: call .copy() on the subset first")
    for axis, names in (("var", adata.var_names), ("obs", adata.obs_names)):
        if not names.is_unique:
            example = names[names.duplicated()][0]
            raise ValueError(f"{axis}_names holds duplicates, {example!r} for one: call .{axis}_names_make_unique()")
    return adata


def matrix(adata: AnnData, layer: str | None) -> Any:
    """The matrix of counts: `.X` or a layer."""
    try:
        known = list(adata.layers)
        x = adata.X if layer is None else adata.layers[layer] if layer in known else None
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"the counts cannot be reached ({error}): if they lie in a file that was closed, open it again and read "
            "them from it"
        ) from error
    if layer is not None and layer not in known:
        raise KeyError(f"layer {layer!r} is not there; there are {known}{close(layer, known)}")
    if x is None:
        raise ValueError(f".X is empty: name a layer of counts, layer= one of {known}")
    return x


def kind_of_counts(dtype: np.dtype[Any], where: str) -> None:
    """Refuse values of a type that counts do not have."""
    if dtype.kind not in "iubf":
        raise TypeError(f"{where} holds values of type {dtype}: raw counts are needed, pass them as layer=")


def counts(values: np.ndarray, where: str) -> None:
    """Refuse values that are not counts; for one feature, where blocks are looked at as they are read."""
    if not np.isfinite(values).all():
        not_counts("not finite", where)
    if (values < 0).any():
        not_counts("negative", where)
    if (values != np.floor(values)).any():
        not_counts("fraction", where)


def not_counts(fault: str, where: str, elsewhere: Callable[[], str] | None = None) -> NoReturn:
    """Say what is wrong with values, what to do, and where else there are counts."""
    hint = elsewhere() if elsewhere is not None and fault == "fraction" else ""
    raise ValueError(f"{where} holds {NO_COUNTS[fault]}{hint}")


def is_fraction(values: np.ndarray) -> bool:
    """Whether values are finite and above 0, but no whole numbers, as normalised counts are."""
    return bool(np.isfinite(values).all() and (values >= 0).all() and (values != np.floor(values)).any())


def counts_elsewhere(adata: AnnData) -> str:
    """Say where an object holds counts besides the place that holds none, as far as its first values tell."""

    def are_counts(x: Any) -> bool:
        some = x[:200]
        values = np.asarray(getattr(some, "data", some) if hasattr(some, "indptr") else some)
        return values.dtype.kind in "iubf" and bool((values >= 0).all() and (values == np.floor(values)).all())

    layers = [f"layer={name!r}" for name in adata.layers if are_counts(adata.layers[name])]
    raw = getattr(adata, "raw", None)
    if raw is not None and are_counts(raw.X):
        layers.append("data = data.raw.to_adata() for the counts in .raw")
    if getattr(adata, "X", None) is not None and are_counts(adata.X):
        layers.append("layer=None for those in .X")
    return f"; counts are here: {', '.join(layers)}" if layers else ""


def log_normalised(where: str, adata: AnnData | None) -> str:
    """What to say of values with fractions."""
    return f"{where} holds {NO_COUNTS['fraction']}" + ("" if adata is None else counts_elsewhere(adata))


def column(adata: AnnData, key: str, what: str) -> Any:
    """A column of `.obs` without missing labels."""
    if key not in adata.obs:
        known = list(adata.obs.columns)
        raise KeyError(f"{what}={key!r} is not a column of .obs; there are {known}{close(key, known)}")
    return adata.obs[key]


def labels(adata: AnnData, key: str, what: str) -> np.ndarray:
    """A column of labels as strings; missing ones become the empty string."""
    values = column(adata, key, what)
    return np.where(values.isna(), "", values.astype(str))


def guides_key(guides: Any) -> str:
    """The name of a matrix of guides; the matrix itself is refused."""
    if not isinstance(guides, str):
        raise TypeError(
            f"guides= is a {type(guides).__name__}: store the matrix by dream_sc.pp.guide_matrix(data, guides) "
            "and pass its name, guides='guides'"
        )
    return guides


def label_texts(given: Any) -> list[str]:
    """A label or several as texts, which is how columns of labels are read: numbers and flags are labels too."""
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    return [str(label) for label in (given if several else [given])]


def gene_features(adata: AnnData, label: str) -> None:
    """Say where features of several kinds lie in one matrix, such as guides and antibodies beside genes."""
    kinds = adata.var[FEATURE_TYPES].dropna().astype(str) if FEATURE_TYPES in adata.var else pd.Series(dtype=str)
    others = kinds[kinds != GENE_EXPRESSION]
    if len(others) and (kinds == GENE_EXPRESSION).any():
        logger.warning(
            "%s: .var[%r] says that %d of %d features are no genes (%s): their counts go into size factors, and they "
            "are fitted as genes; take them out, data[:, data.var[%r] == %r].copy(); guides go to pp.guide_matrix",
            label,
            FEATURE_TYPES,
            len(others),
            adata.n_vars,
            ", ".join(sorted(set(others))),
            FEATURE_TYPES,
            GENE_EXPRESSION,
        )


def controls(target: np.ndarray, control: str | list[str], target_key: str) -> np.ndarray:
    """Which cells carry a control label."""
    wanted = label_texts(control)
    if not wanted:
        raise ValueError(f"control is empty: name the label(s) of non-targeting cells in .obs[{target_key!r}]")
    for label in wanted:
        if not (target == label).any():
            seen = sorted(set(target) - {""})
            raise ValueError(
                f"no cell has the control label {label!r} in .obs[{target_key!r}]; it holds {seen[:12]}"
                f"{close(label, seen, cutoff=0.6)} Set control= to the label of the non-targeting cells."
            )
    return np.isin(target, wanted)


def size_factors(adata: AnnData, key: str) -> np.ndarray:
    """Positive, finite size factors."""
    if key not in adata.obs:
        raise KeyError(
            f".obs[{key!r}] is not there: call dream_sc.pp.size_factors(data) first, or set size_factor_key="
        )
    s = np.asarray(adata.obs[key], dtype=np.float64)
    bad = ~np.isfinite(s) | (s <= 0)
    if bad.any():
        raise ValueError(
            f".obs[{key!r}] holds {int(bad.sum())} values that are zero, negative or NaN: size factors are positive; "
            "drop these cells or call dream_sc.pp.size_factors(data)"
        )
    return s


def feature(adata: AnnData, name: str, what: str) -> int:
    """Position of a feature by name."""
    if name not in adata.var_names:
        raise KeyError(f"{what} {name!r} is not in var_names{close(name, adata.var_names)}")
    return int(adata.var_names.get_loc(name))


def step(adata: AnnData, key: str, call: str) -> Any:
    """The `.uns` entry of an earlier step, given that its table is there too."""
    entry = adata.uns.get(key)
    if entry is None:
        raise KeyError(f".uns[{key!r}] is not there: call dream_sc.tl.{call} first")
    slot = "obsm" if call.startswith("fit_cis") else "varm"
    name = f"tl.{call.partition('(')[0]}"
    if not isinstance(entry, Mapping) or "params" not in entry or _kind(entry.get("step", name)) != name:
        raise ValueError(f".uns[{key!r}] is not a result of {name}: call dream_sc.tl.{call} first, or name its key")
    if key not in getattr(adata, slot):
        raise KeyError(
            f".uns[{key!r}] is there but .{slot}[{key!r}] is not, as after a concatenation: call "
            f"dream_sc.tl.{call} again"
        )
    stored.check_params(entry["params"], f".uns[{key!r}]['params']")
    return entry


def _kind(step: str) -> str:
    """The step whose kind of result another one writes: known dosages, or none, take the place of fitted ones."""
    return "tl.fit_cis" if step in ("tl.set_dosage", "tl.fit_trans(dosage='none')") else step


def storable(key: str) -> None:
    """Refuse a `key_added` that files cannot hold."""
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"key_added={key!r} cannot be stored in a file: use a name without '/'")


def new_key(adata: AnnData, key: str, label: str) -> None:
    """Refuse a `key_added` that files cannot hold, or that names the result of another step."""
    storable(key)
    before = adata.uns.get(key)
    other = before.get("step", label) if isinstance(before, Mapping) else label
    if _kind(other) != _kind(label):
        raise ValueError(f"key_added={key!r} names a result of {other}: choose another name")


def new_column(adata: AnnData, name: str, key: str, inputs: Iterable[str | None]) -> None:
    """Refuse a `key_added` whose column of `.obs` would replace one of the user's; that of an earlier fit it may."""
    if name in adata.obs and (name in inputs or key not in adata.uns):
        raise ValueError(
            f".obs[{name!r}] would be overwritten, and it is not of an earlier fit: choose another key_added than "
            f"{key!r}, or rename the column"
        )


def readable(data: Any, mod: str | None) -> AnnData:
    """The AnnData to read from; a view will do."""
    if hasattr(data, "mod"):
        if mod is None or mod not in data.mod:
            raise KeyError(f"mod={mod!r} is not a modality; there are {list(data.mod)}")
        return data.mod[mod]
    if not hasattr(data, "varm"):
        raise TypeError(f"data must be an AnnData or a MuData, not {type(data).__name__}")
    if mod is not None:
        raise ValueError(f"mod={mod!r} was given, but data is no MuData: leave it out")
    return data
