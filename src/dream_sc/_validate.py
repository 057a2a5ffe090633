"""One check per recurring argument; each error says what was seen, what is allowed and what to call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd

from . import _validate_values as _values
from ._data import stored
from ._keys import FEATURE_TYPES, GENE_EXPRESSION
from ._logging import logger

if TYPE_CHECKING:
    from anndata import AnnData

# values by themselves
at_least = _values.at_least
close = _values.close
names = _values.names
number = _values.number
numbers = _values.numbers
one_of = _values.one_of
shown = _values.shown
text = _values.text
whole = _values.whole
without_effect = _values.without_effect

NO_COUNTS = {
    "not finite": "NaN or infinite values: raw counts are needed; drop the cells or genes, or pass another layer=",
    "negative integer": "negative values: raw counts are needed, pass them as layer=",
    "negative": "negative values, it looks scaled: pass the layer of raw counts as layer=",
    "fraction": "fractions, it looks log-normalised (or normalised otherwise): pass the raw counts as layer=",
}
NO_GENE = "no gene but "  # why a feature is left out; its kind follows


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
        adata = modality(data, mod)
    elif mod is not None:
        raise ValueError(f"mod={shown(mod)} was given, but data is no MuData: leave it out")
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
    for axis, index in (("var", adata.var_names), ("obs", adata.obs_names)):
        if not index.is_unique:
            example = index[index.duplicated()][0]
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
        raise KeyError(f"layer={layer!r} is not there; there are {known}{close(layer, known, listed=True)}")
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
        raise KeyError(f"{what}={key!r} is not a column of .obs; there are {known}{close(key, known, listed=True)}")
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


def other_features(adata: AnnData) -> np.ndarray:
    """What features ``(T,)`` are that lie beside genes in one matrix, such as guides and antibodies; "" of genes."""
    if FEATURE_TYPES not in adata.var:
        return np.full(adata.n_vars, "", dtype=object)
    column = adata.var[FEATURE_TYPES]
    kinds = np.where(column.isna(), "", column.astype(str)).astype(object)
    is_gene = kinds == GENE_EXPRESSION
    return np.where(is_gene | (not is_gene.any()), "", kinds)


def gene_features(adata: AnnData, label: str) -> np.ndarray:
    """Which features ``(T,)`` are genes; says which others are left out."""
    kinds = other_features(adata)
    others = kinds[kinds != ""]
    if len(others):
        logger.warning(
            "%s: %d of %d features are no genes but %s, says .var[%r]: they are left out; guides among them go to "
            "dream_sc.pp.guide_matrix",
            label,
            len(others),
            adata.n_vars,
            ", ".join(sorted(set(others))),
            FEATURE_TYPES,
        )
    return np.asarray(kinds == "")


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
                f"{close(label, seen, cutoff=0.6) or '.'} Set control= to the label of the non-targeting cells."
            )
    return np.isin(target, wanted)


def size_factors(adata: AnnData, key: str) -> np.ndarray:
    """Positive, finite size factors."""
    if key not in adata.obs:
        raise KeyError(
            f".obs[{key!r}] is not there: call dream_sc.pp.size_factors(data) first, or set size_factor_key="
        )
    if not pd.api.types.is_numeric_dtype(adata.obs[key]):
        raise ValueError(
            f".obs[{key!r}] holds no numbers but {shown(adata.obs[key].iloc[0])}: size factors are positive numbers; "
            "name their column as size_factor_key=, or call dream_sc.pp.size_factors(data)"
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
    own = before is None or (isinstance(before, Mapping) and ("step" in before or "schema_version" in before))
    other = before.get("step", label) if own and before is not None else label
    if _kind(other) != _kind(label):
        raise ValueError(f"key_added={key!r} names a result of {other}: choose another name")
    # results of ours that lost their entry of `.uns`, as in a concatenation, are tables
    stores = [("obsm", adata.obsm), ("varm", adata.varm)] if before is None or not own else []
    taken = [] if own else [f".uns[{key!r}]"]
    taken += [f".{a}[{key!r}]" for a, store in stores if key in store and not isinstance(store[key], pd.DataFrame)]
    if taken:
        raise ValueError(
            f"{label}: {' and '.join(taken)} would be overwritten, and is not of dream_sc: choose another key_added "
            f"than {key!r}"
        )


def new_size_factors(adata: AnnData, key: str) -> None:
    """Refuse a `key_added` of size factors that files cannot hold, or that names a column of labels."""
    storable(key)
    if key in adata.obs:
        column = adata.obs[key]
        if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            raise ValueError(
                f"key_added={key!r}: .obs[{key!r}] holds labels ({shown(column.iloc[0])}, for example), which size "
                "factors would overwrite: choose another name"
            )


def new_column(adata: AnnData, name: str, key: str, inputs: Iterable[str | None]) -> None:
    """Refuse a `key_added` whose column of `.obs` would replace one of the user's; that of an earlier fit it may."""
    # after a concatenation the entry of `.uns` is lost, and the table of cells is not
    ours = key in adata.uns or isinstance(adata.obsm.get(key), pd.DataFrame)
    if name in adata.obs and (name in inputs or not ours):
        raise ValueError(
            f".obs[{name!r}] would be overwritten, and it is not of an earlier fit: choose another key_added than "
            f"{key!r}, or rename the column"
        )


def readable(data: Any, mod: str | None) -> AnnData:
    """The AnnData to read from; a view will do."""
    if isinstance(getattr(data, "mod", None), Mapping):
        return modality(data, mod)
    if not (hasattr(data, "varm") and isinstance(getattr(data, "obs", None), pd.DataFrame)):
        raise TypeError(f"data must be an AnnData or a MuData, not {type(data).__name__}")
    if mod is not None:
        raise ValueError(f"mod={shown(mod)} was given, but data is no MuData: leave it out")
    return data


def modality(data: Any, mod: Any) -> AnnData:
    """A modality of a MuData by its name."""
    known = list(data.mod)
    if mod is None:
        raise ValueError(f"data is a MuData: name the modality, mod= one of {known}")
    if not isinstance(mod, str):
        raise TypeError(f"mod= is a {type(mod).__name__}, {shown(mod)}: name one modality of {known}")
    if mod not in known:
        raise KeyError(f"modality mod={mod!r} is not there; there are {known}{close(mod, known, listed=True)}")
    return data.mod[mod]
