"""What a step was made from, so that a later one sees where that has changed since.

Of a sample of the cells it is kept what was read of them: labels, size factors, totals of counts. Cells are found again
by name, so that a part of an object, another order of cells and a file say the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._keys import CATEGORIES_OF, CELLS, FEATURES, GUIDE_IDS, ID, KINDS, MADE_FROM, NAMES, STEPS, TAKES_PART
from dream_sc._logging import logger

from . import stored
from .stored_results import edited, of_column, of_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anndata import AnnData

SAMPLE = 512  # cells; a change in 1 % of them is missed once in 170 times
RTOL = 1e-6  # of numbers, which files may hold in single precision
LABEL, NUMBER, SIZE, CONTROL, GUIDES, COUNTS = "label", "number", "size factor", "control", "guides", "counts"
NOTHING: dict[Any, Any] = {}


class Read(NamedTuple):
    """Something that a step reads of each cell."""

    kind: str
    name: str  # of a column of `.obs`, a key of `.obsm`, or a layer; "" is `.X`

    @property
    def text(self) -> str:
        """Where it is, for messages."""
        if self.kind == COUNTS:
            return f".layers[{self.name!r}]" if self.name else ".X"
        return f".obsm[{self.name!r}]" if self.kind == GUIDES else f".obs[{self.name!r}]"


def of_technical(params: Mapping[str, Any], counted: bool, covariates: Iterable[str]) -> list[Read]:
    """What a technical fit reads of each cell; size factors where it is of counts."""
    out = [Read(SIZE, params["size_factor_key"])] if counted else []
    if params["guides"] is not None:
        out.append(Read(GUIDES, params["guides"]))
    elif not params["use_all_cells"]:
        out.append(Read(CONTROL, params["target_key"]))
    layers = [params["layer"], params["denominator_layer"]] if params["denominator_layer"] else [params["layer"]]
    out += [Read(COUNTS, layer or "") for layer in params["category_layers"] or layers]
    labels = (params["batch_key"], params.get("unit_key"), params.get("ambient"), *covariates)
    return out + [Read(LABEL, name) for name in labels if isinstance(name, str)]


def of_cis(params: Mapping[str, Any], technical: Mapping[str, Any]) -> list[Read]:
    """What a cis step reads of each cell, besides the counts that the technical fit has read."""
    guides, of_fit = params.get("guides"), technical.get("params", NOTHING)
    labels = [params.get("guide_covariate_key"), of_fit.get("batch_key")]
    labels += [params.get("guide_key"), params.get("target_key")] if guides is None else []
    out = [Read(LABEL, name) for name in dict.fromkeys(labels) if name is not None]
    out += [] if guides is None else [Read(GUIDES, guides)]
    return out + ([Read(SIZE, of_fit["size_factor_key"])] if "size_factor_key" in of_fit else [])


def made_from(
    adata: AnnData,
    reads: Iterable[Read],
    used: np.ndarray,
    params: Mapping[str, Any],
    steps: Mapping[str, Mapping[str, Any]] = NOTHING,
    written: Mapping[tuple[str, str], Any] = NOTHING,
) -> dict[str, Any]:
    """What `.uns` holds of it.

    `used` are the cells ``(N,)`` that took part, `steps` the entries of earlier steps by their keys, `written` the
    slots that the step itself writes.
    """
    half = [_evenly(np.flatnonzero(which), SAMPLE // 2) for which in (used, ~used)]
    at, found = np.sort(np.concatenate(half)), {}
    for r in reads:
        new = written.get(("obs", r.name)) if r.kind == SIZE else None
        values = _values(adata, r, at, params) if new is None else np.asarray(new)[at]
        if values is not None:
            found[r] = values
    cells = pd.DataFrame({r.text: v for r, v in found.items()}, index=adata.obs_names[at].astype(str))
    cells.insert(0, TAKES_PART, used[at])
    return {
        CELLS: cells,
        KINDS: [r.kind for r in found],
        NAMES: [r.name for r in found],
        FEATURES: of_names(adata.var_names),
        **_categories(adata, params),
    } | of_steps(steps)


def _categories(adata: AnnData, params: Mapping[str, Any]) -> dict[str, str]:
    """Which categories belong to which feature, where a column says so."""
    key = params.get("category_key")
    return {CATEGORIES_OF: of_column(adata.var[key], adata.var_names)} if key is not None and key in adata.var else {}


def of_steps(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What a step is made from that reads the results of earlier ones only."""
    return {STEPS: {key: str(entry[ID]) for key, entry in steps.items() if ID in entry}}


def id_of(params: Mapping[str, Any], *numbers: Any) -> str:
    """A name for a result: the same settings and numbers, in single precision, have the same."""
    digest = hashlib.sha256(json.dumps(dict(params), sort_keys=True, default=str).encode())
    for values in numbers:
        digest.update(np.asarray(values, dtype=np.float32).tobytes())
    return digest.hexdigest()[:16]


def check(adata: AnnData, key: str, label: str, layer: str | None = None) -> None:
    """Refuse the result of a step that was made from other things than are there now.

    `layer` is that of the counts which the caller reads: where it is another one than the step read, that one may be
    anything.

    Raises
    ------
    ValueError
        If labels, size factors, counts, names of features or an earlier step have changed.
    """
    entry = adata.uns[key]
    call = f"dream_sc.{entry.get('step', 'tl')}"
    changed = _changed(adata, entry, same_layer=layer == entry["params"].get("layer", layer))
    if changed := changed + edited(adata, key):
        raise ValueError(
            f"{label}: {' and '.join(changed)} changed since {call} made .uns[{key!r}]: call {call} again, and the "
            "steps after it"
        )
    # beside other features it is of another modality, which has fits of its own
    of_these = entry.get(MADE_FROM, NOTHING).get(FEATURES) == of_names(adata.var_names)
    if older := older_steps(entry, adata) if of_these else []:
        raise ValueError(
            f"{label}: .uns[{older[0]!r}] was made again after {call} made .uns[{key!r}] with an earlier one: call "
            f"{call} again"
        )


def warn_if_stale(adata: AnnData, key: str, label: str, holder: AnnData | None = None) -> None:
    """Say in the log where a result is older than the fits that it was made from; `holder` has the cis fit."""
    entry = adata.uns.get(key, NOTHING)
    call = entry.get("step", "tl")
    if older := older_steps(entry, adata, holder):
        logger.warning(
            "%s: .uns[%r] was made with an earlier %s than is there now: call dream_sc.%s again",
            label,
            key,
            " and ".join(f".uns[{name!r}]" for name in older),
            call,
        )
    if now := edited(adata, key):
        logger.warning("%s: %s changed since dream_sc.%s wrote it: call it again", label, " and ".join(now), call)
    if changed := list(dict.fromkeys(behind(adata, key, holder))):
        text = "%s: %s changed since .uns[%r] was made from it: call the steps again that read it"
        logger.warning(text, label, " and ".join(changed), key)


def behind(adata: AnnData, key: str, holder: AnnData | None) -> Iterator[str]:
    """What of the inputs of a result, and of the steps behind it, is not as it was."""
    steps = adata.uns.get(key, NOTHING).get(MADE_FROM, NOTHING).get(STEPS, NOTHING)
    for owner, name in ((adata, key), *((a, s) for s in steps for a in (adata, holder) if a is not None)):
        entry = owner.uns.get(name)
        if isinstance(entry, Mapping) and "params" in entry:
            yield from _changed(owner, entry, same_layer=True)
            yield from edited(owner, name) if name != key else ()
            if name != key and owner is adata:
                yield from _behind_of(owner, entry)


def _behind_of(owner: AnnData, entry: Mapping[str, Any]) -> Iterator[str]:
    """The same of the steps that an earlier step was made from."""
    for name in entry.get(MADE_FROM, NOTHING).get(STEPS, NOTHING):
        earlier = owner.uns.get(name)
        if isinstance(earlier, Mapping) and "params" in earlier:
            yield from _changed(owner, earlier, same_layer=True)


def warn_if_changed(adata: AnnData, key: str, label: str, layer: str | None = None) -> None:
    """Say in the log where what a step was made from has changed since, for those who read its inputs again."""
    if changed := _changed(adata, adata.uns[key], same_layer=layer == adata.uns[key]["params"].get("layer", layer)):
        logger.warning("%s: %s changed since the fits: call them again", label, " and ".join(changed))


def older_steps(entry: Mapping[str, Any], *holders: AnnData | None) -> list[str]:
    """Keys of earlier steps that were made again since, looked up in these objects."""
    made = entry.get(MADE_FROM, NOTHING).get(STEPS, NOTHING)
    out = []
    for key, before in made.items():
        now = [a.uns[key].get(ID) for a in holders if a is not None and key in a.uns]
        if now and all(i is not None and str(i) != str(before) for i in now):
            out.append(str(key))
    return out


def _changed(adata: AnnData, entry: Mapping[str, Any], *, same_layer: bool) -> list[str]:
    """What of the cells and features is not as it was, as texts for a message."""
    made = entry.get(MADE_FROM, NOTHING)
    if CELLS not in made:  # of an earlier version, or of a step that reads none
        return []
    same_features, out = str(made[FEATURES]) == of_names(adata.var_names), []
    if not same_features and str(made[FEATURES]).split()[0] == str(adata.n_vars):
        out.append("names of features")
    if (
        same_features
        and CATEGORIES_OF in made
        and _categories(adata, entry["params"]) != {CATEGORIES_OF: str(made[CATEGORIES_OF])}
    ):
        out.append(f".var[{entry['params']['category_key']!r}]")
    before = made[CELLS]
    at = adata.obs_names.get_indexer(before.index.astype(str))
    before, at = before[at >= 0], at[at >= 0]
    used = before[TAKES_PART].to_numpy(bool)
    for read in map(Read, map(str, made[KINDS]), map(str, made[NAMES])):
        if read.kind == COUNTS and not (same_features and same_layer):
            continue
        now = _values(adata, read, at, entry["params"])
        # size factors of other cells may change: `pp.refit_size_factors` leaves those of controls as they are
        rows = used if read.kind == SIZE else slice(None)
        then = before[read.text].to_numpy()
        if now is None or (read.kind == COUNTS and _whole(then) > _whole(now)):
            continue  # values that are no counts are refused as such
        if not _same(then[rows], now[rows]):
            scores = read.kind == COUNTS and stored.likelihood_of(entry).statistics == "scores"
            what = "values of " if scores else "counts of " if read.kind == COUNTS else ""
            out.append(f"{what}{read.text}")
    return out


def _same(before: np.ndarray, now: np.ndarray) -> bool:
    if now.dtype.kind == "f":
        return bool(np.allclose(before.astype(float), now, rtol=RTOL, atol=0.0, equal_nan=True))
    return bool((before.astype(str) == now.astype(str)).all())


def _whole(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (values == np.floor(values)).all())


def _values(adata: AnnData, read: Read, at: np.ndarray, params: Mapping[str, Any]) -> np.ndarray | None:
    """Values of the cells `at`; None where they are not there, or not to be had without reading everything."""
    if read.kind == COUNTS:
        return _totals(adata, read.name, at)
    if read.kind == GUIDES:
        return _carried(adata, read.name, at)
    if read.name not in adata.obs:
        return None
    column = adata.obs[read.name]
    if read.kind == SIZE or pd.api.types.is_float_dtype(column):
        return np.asarray(column.iloc[at], dtype=float)
    labels = _validate.labels(adata, read.name, read.name)[at].astype(str)
    if read.kind == CONTROL:
        return np.where(np.isin(labels, _validate.label_texts(params["control"])), "control", "other")
    return labels


def _carried(adata: AnnData, key: str, at: np.ndarray) -> np.ndarray | None:
    """Which guides of a matrix in `.obsm` cells have: a sum of numbers that stand for their names."""
    x = adata.obsm.get(key)
    if x is None:
        return None
    names = x.columns if isinstance(x, pd.DataFrame) else adata.uns.get(key + GUIDE_IDS, [])
    x = sparse.csr_matrix(np.asarray(x.iloc[at]) if isinstance(x, pd.DataFrame) else x[at]).astype(bool)
    if len(names) != x.shape[1]:
        return None
    code = pd.util.hash_array(np.array(list(map(str, names)), dtype=object)) % np.uint64(2**32)
    return np.asarray(x @ code.astype(float)).ravel()


def _totals(adata: AnnData, layer: str, at: np.ndarray) -> np.ndarray | None:
    """Sums of the absolute values of cells."""
    x = adata.layers.get(layer) if layer else adata.X
    if not (sparse.issparse(x) or isinstance(x, np.ndarray) or getattr(x, "format", "") == "csr"):
        return None
    rows = x[at]
    values = abs(rows if isinstance(rows, np.ndarray) else rows.tocsr()).astype(float)
    if not isinstance(values, np.ndarray):
        values.data = np.nan_to_num(values.data)
        return np.asarray(values.sum(1), dtype=float).ravel()
    return np.asarray(np.nansum(values, axis=1))


def _evenly(positions: np.ndarray, n: int) -> np.ndarray:
    """At most `n` of them, evenly spaced."""
    return positions if len(positions) <= n else positions[np.linspace(0, len(positions) - 1, n).astype(int)]
