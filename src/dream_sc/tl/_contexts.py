"""The cells of each context with their own technical fit and dosages, and the sums that are compared."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data import stored
from dream_sc._data.storage import cells_in_memory
from dream_sc._keys import Slots
from dream_sc._logging import logger

from ._fit_cis import fit_cis
from ._fit_technical import fit_technical
from ._response_inputs import ResponseInputs, response_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from mudata import MuData

    from dream_sc._core.response.contexts.guide_levels import Sums
    from dream_sc._core.response.contexts.measured import Measured
    from dream_sc._core.response.contexts.shapes import Dosages
    from dream_sc._core.types import Axis

# arguments of the earlier steps among what they store
TECHNICAL_ARGUMENTS = (
    "layer",
    "distribution",
    "target_key",
    "control",
    "guides",
    "size_factor_key",
    "denominator_layer",
    "overdispersed",
    "use_all_cells",
    "inference",
    "min_cells",
    "covariates",
    "nsamples",
    "niters",
    "minibatch_size",
)
CIS_ARGUMENTS = (
    "cis_targets",
    "layer",
    "guide_key",
    "target_key",
    "control",
    "guides",
    "control_group",
    "pooling",
    "guide_offsets",
    "min_cells_per_guide",
    "min_count",
    "technical_key",
    "inference",
    "nsamples",
    "niters",
)
LEAST_SHARED = 2  # targeting guides with cells in both contexts


@dataclass(frozen=True)
class Fit:
    """The trans fit whose settings are taken, and where its dosages are."""

    data: AnnData | MuData
    adata: AnnData
    holder: AnnData
    info: Any  # of the trans fit
    mod: str | None

    @property
    def params(self) -> Any:
        """Its parameters."""
        return self.info["params"]

    @property
    def cis(self) -> Any:
        """The entry of its cis fit."""
        return self.holder.uns[self.params["cis_key"]]


@dataclass(frozen=True)
class Context:
    """One context: what was measured in its cells."""

    name: str
    inputs: ResponseInputs
    n_cells: int  # that take part

    @property
    def guides(self) -> pd.DataFrame:
        """The guides with their dosages in this context."""
        return self.inputs.guides


def read_fit(data: Any, mod: str | None, key: str) -> Fit:
    """The trans fit; refused where contexts cannot be compared."""
    adata = _validate.resolve(data, mod)
    info = _validate.step(adata, key, "fit_trans(data)")
    params, like = info["params"], stored.likelihood_of(info)
    if like.categories:
        raise ValueError(
            f".uns[{key!r}] is a fit of features with several categories, which tl.compare does not know: fit one "
            "category against the others, as distribution='binomial' with denominator_layer="
        )
    if params["dosage"] != "guide":
        raise ValueError(
            f".uns[{key!r}] was fitted with dosage={params['dosage']!r}, and tl.compare compares responses to the "
            "dosages of guides: call dream_sc.tl.fit_trans(data) with dosage='guide' first"
        )
    holder = adata if info["cis_mod"] is None else _validate.resolve(data, info["cis_mod"])
    cis = _validate.step(holder, params["cis_key"], "fit_cis(data, cis_gene)")
    _refuse_unknown(adata.uns.get(params["technical_key"], {}), cis, params)
    return Fit(data, adata, holder, info, mod)


def _refuse_unknown(technical: Any, cis: Any, params: Any) -> None:
    """Refuse fits with settings that contexts are not fitted with."""
    of_technical = technical.get("params", {})
    for name in ("unit_key", "ambient"):
        if of_technical.get(name) is not None:
            raise ValueError(
                f".uns[{params['technical_key']!r}] is a technical fit with {name}=, which tl.compare does not know: "
                f"call dream_sc.tl.fit_technical without {name}=, then fit_cis and fit_trans again"
            )
    if cis["params"].get("guide_prior"):
        raise ValueError(
            f".uns[{params['cis_key']!r}] is a cis fit with guide_prior=, and each context has dosages of its own: "
            "call dream_sc.tl.fit_cis without it, or give dosages by dream_sc.tl.set_dosage, which are kept as they are"
        )
    if not params["guide_effects"]:
        raise ValueError(
            "the trans fit is without guide effects (guide_effects=False), and tl.compare tells what guides share "
            "between contexts from what they do not: call dream_sc.tl.fit_trans with guide_effects=True"
        )


def contexts_of(fit: Fit, by: str, reference: str | None) -> tuple[list[str], pd.Series]:
    """Names of the contexts, the reference first, and that of each cell that has one, by the cell's name."""
    labels = pd.Series(_validate.labels(fit.adata, by, "by"), index=fit.adata.obs_names)
    used = fit.holder.obs[Slots(fit.params["cis_key"]).guide].notna()
    of_fit = used.reindex(labels.index, fill_value=False)
    takes_part = of_fit & (labels != "")
    if n_without := int((of_fit & (labels == "")).sum()):
        logger.warning(
            "tl.compare: %d of %d cells of the fit have no label in .obs[%r], and take no part",
            n_without,
            int(of_fit.sum()),
            by,
        )
    found = [str(name) for name in np.unique(labels[takes_part])]
    if len(found) < 2:
        raise ValueError(
            f".obs[{by!r}] holds {found} among the cells of the fit: comparing needs two contexts at least, name "
            "another column as by="
        )
    if reference is None:
        reference = str(labels[takes_part].value_counts().idxmax())
    _validate.one_of("reference", str(reference), found)
    return [str(reference), *(name for name in found if name != str(reference))], labels


def fit_context(fit: Fit, name: str, by: str, labels: pd.Series, seed: int) -> Context:
    """The technical and the cis step on the cells of one context, with the settings of the fit, and their sums."""
    data, adata, holder = _cells_of(fit, by, name, labels)
    params, info = fit.params, fit.cis
    try:
        with _quiet():
            _technical(fit.adata, data, adata, params["technical_key"], by, fit.mod, seed)
            if info["step"] == "tl.fit_cis":
                if holder is not adata:
                    key = info["params"]["technical_key"]
                    _technical(fit.holder, data, holder, key, by, fit.info["cis_mod"], seed)
                _dosages(info, data, params["cis_key"], by, fit.info["cis_mod"] or fit.mod, seed)
            inputs = response_inputs(
                adata,
                holder,
                technical_key=params["technical_key"],
                cis_key=params["cis_key"],
                layer=params["layer"],
                offsets=bool(params["guide_offsets"]),
                slopes=False,
                min_denominator=params.get("min_denominator"),
                fresh=False,  # known dosages were set on the cells of all contexts
            )
    except (ValueError, KeyError) as error:
        reason = error.args[0] if error.args else error
        raise type(error)(
            f"the context {name!r} of .obs[{by!r}] cannot be fitted on its own: {reason} [to leave this context out, "
            f"set .obs[{by!r}] of its cells to missing]"
        ) from error
    # the sums are all that is compared: the copy of the cells goes
    inputs = replace(inputs, opened=replace(inputs.opened, adata=inputs.opened.adata[:0].copy()))
    return Context(name, inputs, inputs.prepared.n_cells)


def _cells_of(fit: Fit, by: str, name: str, labels: pd.Series) -> tuple[Any, AnnData, AnnData]:
    """Copies with the cells of a context: of the object, of the modality that is fitted, of that with the dosages."""
    names = labels.index[(labels == name).to_numpy()]
    if not hasattr(fit.data, "mod"):
        part = _part(fit.adata, names)
        return part, part, part
    from mudata import MuData

    if by in fit.holder.obs:  # dosages rest on all of its cells, also on those that the other modality lacks
        own = _validate.labels(fit.holder, by, "by")
        names = names.union(fit.holder.obs_names[own == name], sort=False)
    guides = fit.cis["params"].get("guides")
    mods = [m for m in fit.data.mod if m in (fit.mod, fit.info["cis_mod"], guides)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # mudata's, of columns that it will not copy: none are read
        parts = MuData({m: _part(fit.data.mod[m], names) for m in mods})
    adata = parts.mod[fit.mod]
    return parts, adata, adata if fit.info["cis_mod"] is None else parts.mod[fit.info["cis_mod"]]


def _part(adata: AnnData, names: pd.Index) -> AnnData:
    """The cells with these names, in memory."""
    mine = adata.obs_names.isin(names)
    if not adata.isbacked:
        return adata[mine].copy()
    if getattr(adata.X, "format", "") != "csr":
        return adata[mine].to_memory()
    import anndata

    rest = {name: dict(getattr(adata, name)) for name in ("uns", "obsm", "varm", "layers")}
    part = anndata.AnnData(obs=adata.obs, var=adata.var, **rest)[mine].copy()
    part.X = cells_in_memory(adata.X, np.flatnonzero(mine))
    return part


def _technical(source: AnnData, data: Any, adata: AnnData, key: str, by: str, mod: str | None, seed: int) -> None:
    """The technical step on the cells of a context; one group of its batches needs no effect."""
    params = _plain(source.uns[key]["params"])
    batch = params["batch_key"]
    one = batch is None or batch == by or len(set(_validate.labels(adata, batch, "batch_key"))) < 2
    arguments = {name: params[name] for name in TECHNICAL_ARGUMENTS if params.get(name) is not None}
    fit_technical(data, mod=mod, batch_key=None if one else batch, rng=seed, progress=False, key_added=key, **arguments)


def _dosages(info: Any, data: Any, key: str, by: str, mod: str | None, seed: int) -> None:
    """The cis step on the cells of a context."""
    params = _plain(info["params"])
    arguments = {name: params[name] for name in CIS_ARGUMENTS if params.get(name) is not None}
    arguments.setdefault("guides", False)  # not those of the technical fit
    column = params.get("guide_covariate_key")
    fit_cis(
        data,
        str(info["cis_gene"]),
        mod=mod,
        guide_covariate_key=None if column == by else column,
        rng=seed,
        progress=False,
        key_added=key,
        **arguments,
    )


def _plain(params: Any) -> dict[str, Any]:
    """Parameters as they were given: files hold lists as arrays, and numbers as those of numpy."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value for name, value in params.items()
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """What the steps say of each context is for those who fit one."""
    before = logger.level
    logger.setLevel(max(logging.WARNING, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        logger.setLevel(before)


@dataclass(frozen=True)
class Shared:
    """Contexts as the core compares them."""

    measured: Measured
    features: np.ndarray  # (F,) which of all are compared
    guides: list[str]  # the targeting ones, in the order of the dosages


def shared(*contexts: Context) -> Shared:
    """The features and the guides of two contexts or more, under common numbers.

    Raises
    ------
    ValueError
        If no feature can be fitted in all, or fewer than two targeting guides have cells in all.
    """
    from dream_sc._core.priors import TransPriors
    from dream_sc._core.response.contexts.measured import Measured

    first, names_of = contexts[0], " and ".join(repr(c.name) for c in contexts)
    every = "both contexts" if len(contexts) == 2 else "all contexts"
    tables = [_with_cells(c) for c in contexts]
    control = pd.concat([t["is_control"] for t in tables])
    control = control[~control.index.duplicated()].astype(bool)
    targeting = [g for g in control.index if not control[g]]
    both = [g for g in targeting if all(g in t.index for t in tables)]
    if len(both) < LEAST_SHARED:
        raise ValueError(
            f"the contexts {names_of} share {len(both)} targeting guides with cells, {both}: "
            f"comparing them needs {LEAST_SHARED} at least"
        )
    names = targeting + [g for g in control.index if control[g]]
    features = np.logical_and.reduce([c.inputs.prepared.fitted for c in contexts])
    if not features.any():
        raise ValueError(f"no feature can be fitted in {every}, {names_of}")
    axis = _axis(contexts)
    like = first.inputs.prepared.likelihood
    priors = TransPriors().in_unit(like.unit).over(axis, scores=like.statistics == "scores")
    sums = [_sums(c, names, features, _scale(c, first, features)) for c in contexts]
    dosages = [_dosages_of(c, targeting) for c in contexts]
    is_targeting = np.arange(len(names)) < len(targeting)
    measured = Measured(tuple(sums), tuple(dosages), is_targeting, axis, priors)
    return Shared(measured, features, targeting)


def _with_cells(context: Context) -> pd.DataFrame:
    """The guides that have cells in a context, by name."""
    table, present = context.guides, np.unique(context.inputs.prepared.stats.guide)
    return table.iloc[present].assign(code=present).set_index(table["guide"].astype(str).iloc[present])


def _axis(contexts: tuple[Context, ...]) -> Axis:
    from dream_sc._core.types import Axis

    each = [c.inputs.prepared.axis for c in contexts]
    return Axis.of(np.concatenate([a.guides for a in each]), from_zero=each[0].from_zero)


def _scale(context: Context, reference: Context, features: np.ndarray) -> np.ndarray | None:
    """Factor ``(T,)`` that gives scores the unit of the reference, where each context has its own sd between cells."""
    own, other = context.inputs.prepared.scale, reference.inputs.prepared.scale
    return None if own is None or other is None else (own / other)[features]


def _sums(context: Context, names: list[str], features: np.ndarray, scale: np.ndarray | None) -> Sums:
    """The sums of some features under the numbers of the guides of both contexts."""
    from dream_sc._core.response.contexts.guide_levels import Sums

    prepared, place = context.inputs.prepared, {name: i for i, name in enumerate(names)}
    own = np.array([place.get(str(name), -1) for name in context.guides["guide"]])
    stats = prepared.stats.take(features)
    groups, group = np.unique(stats.group, return_inverse=True)
    stats = replace(
        stats,
        guide=own[stats.guide].astype(np.int64),
        n_guides=len(names),
        group=group.reshape(-1).astype(np.int64),
        n_groups=len(groups),
    )
    if scale is not None and stats.weights is not None:
        stats = replace(stats, counts=stats.counts * scale[:, None], weights=stats.weights / scale[:, None] ** 2)
    return Sums(stats, prepared.overdispersion[features], prepared.group_effect_sd, prepared.likelihood.unit)


def _dosages_of(context: Context, targeting: list[str]) -> Dosages:
    """Dosages of the targeting guides; of one without cells here it does not matter which."""
    from dream_sc._core.response.contexts.shapes import Dosages

    g, table = context.inputs.opened.guides, _with_cells(context)
    code = table["code"].reindex(targeting)
    known, at = code.notna().to_numpy(), code.fillna(0).to_numpy(int)
    mean, spread, escape, error = (np.where(known, x[at], 0.0) for x in (g.mean, g.spread, g.escape, g.sd))
    return Dosages.of(mean, spread, escape, error, g.level_error)
