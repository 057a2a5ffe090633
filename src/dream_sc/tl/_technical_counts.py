"""The technical step of counts: one pass over the control cells, then the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _compile, _validate
from dream_sc._data import results
from dream_sc._keys import COVARIATES, SIZE_FACTOR, TECHNICAL_COLUMNS, Slots
from dream_sc._logging import logger
from dream_sc._progress import bar, features_of, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from dream_sc._core.likelihoods import Likelihood

MIN_COUNT = 3
SLOW_FLOW = 1000  # latent numbers of an autoregressive guide from which it takes minutes
NOT_CONVERGED = "not converged: look at its counts in control cells; with svi or nuts, raise niters"


@dataclass(frozen=True)
class Modality:
    """What the technical step of a modality reads: the arguments of `fit_technical`, and the cells' groups."""

    likelihood: Likelihood
    layer: str | None
    denominator_layer: str | None
    category_key: str | None
    category_layers: Sequence[str] | None
    row: np.ndarray  # (N,) group of control cells, -1 for others
    n_groups: int
    limit: int | str | None


def fit(
    adata: AnnData,
    m: Modality,
    inference: Any,
    params: dict[str, Any],
    key: str,
    design: Any,
    progress: bool | None,
) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """Slots to write, and what `.uns` stores; `design` is of the covariates, if there are any."""
    s, new = _ready_size_factors(adata, params["size_factor_key"], m.layer, m.limit)
    z, min_cells = None if design is None else design.z, params["min_cells"] or 0
    found, ok = _fit(adata, m.layer, s, m.row, m.row >= 0, m.n_groups, inference, m.limit, min_cells, z, progress)
    info = {"beta_o": found.beta_o, "effect_scale": found.effect_scale, "effect_unit": m.likelihood.technical_unit}
    names = Slots(key)
    slots = _slots(adata, found, ok, key, min_cells) | new
    slots |= {("varm", slot): results.ABSENT for slot in (names.covariates, names.covariates_sd)}
    if design is not None:
        for slot, values in ((names.covariates, found.coefficients), (names.covariates_sd, found.coefficients_sd)):
            slots["varm", slot] = spread(values / design.scale, ok)
        info[COVARIATES] = design.entry | {"prior_scale": found.coefficient_scale}
    return slots, info


def _ready_size_factors(
    adata: AnnData, key: str, layer: str | None, limit: int | str | None
) -> tuple[np.ndarray, dict[tuple[str, str], Any]]:
    """Size factors, and the slot to write if they had to be computed."""
    if key != SIZE_FACTOR or key in adata.obs:
        return _validate.size_factors(adata, key), {}
    from dream_sc.pp._size_factors import compute

    logger.info("tl.fit_technical: .obs[%r] is missing, computed from totals by pp.size_factors", key)
    s = compute(adata, layer, limit=limit)
    return s, {("obs", key): s}


def _fit(
    adata: AnnData,
    layer: str | None,
    s: np.ndarray,
    group: np.ndarray,
    is_control: np.ndarray,
    n_groups: int,
    inference: Any,
    limit: int | str | None,
    min_cells: int,
    z: np.ndarray | None,
    progress: bool | None,
) -> tuple[Any, np.ndarray]:
    """One pass over the counts, then the engine on the features that have any; `z` are covariates in sds."""
    from dataclasses import replace

    from dream_sc._core.engines import run
    from dream_sc._core.priors import TechnicalPriors
    from dream_sc._core.sums import guide_sums

    if z is None:
        bins, group_of_bin = guide_sums.size_factor_bins(s, group, is_control)
    else:
        bins, group_of_bin = guide_sums.covariate_bins(s, z, group, is_control)
    held = {
        f"sums of {adata.n_vars} features over {len(group_of_bin)} bins of control cells": guide_sums.row_bytes(
            len(group_of_bin), adata.n_vars
        ),
        "their histograms": guide_sums.tail_bytes(adata.n_vars, guide_sums.LARGEST_COUNT),
    }
    _compile.ready("technical", progress, then=("cis", "trans"))
    counts = results.counts(adata, layer, limit, held)
    sums = guide_sums.RowSums(bins, len(group_of_bin), adata.n_vars)
    tails = guide_sums.TailSums(is_control, adata.n_vars, guide_sums.LARGEST_COUNT)
    reading = bar(progress, "counts of controls", "values", size=values_of, total=adata.n_obs * adata.n_vars)
    for block in reading(counts.blocks(is_control)):
        sums.add(block)
        tails.add(block)
    stats = guide_sums.technical_stats(sums, tails, s, group_of_bin, n_groups, z)
    ok = (stats.counts.sum(1) >= MIN_COUNT) & (stats.tail[:, 0] >= min_cells)  # its first column: cells above 0
    ok &= _validate.other_features(adata) == ""
    if not ok.any():
        also = f", in {min_cells} cells or more," if min_cells else ""
        raise ValueError(
            f"no feature has {MIN_COUNT} counts or more{also} in the {int(is_control.sum())} control cells of "
            f"{results.source(layer)}: check control= and layer="
        )
    used = stats.tail[ok].sum(0) > 0
    stats = replace(stats, counts=stats.counts[ok], tail=stats.tail[ok][:, used], tail_at=stats.tail_at[used])
    unit = "features" if inference.engine == "laplace" else "steps"
    fitting = bar(progress, "technical fit", unit, size=features_of if unit == "features" else None)
    inference = replace(_with_guide(inference, len(stats.counts), n_groups), progress=fitting)
    return run("technical", inference, stats, TechnicalPriors()), ok


def _with_guide(inference: Any, n_features: int, n_groups: int) -> Any:
    """The inference with its variational family settled; says so where it falls back."""
    if inference.engine != "svi":
        return inference
    from dataclasses import replace

    from dream_sc._core.device import memory_of
    from dream_sc._core.pyro.choose_family import guide_of, n_latent

    n = n_latent(n_features, n_groups)
    guide, why = guide_of(inference.autoguide, n, *memory_of(inference.device))
    if why:
        logger.warning("tl.fit_technical: %s", why)
    elif guide == "AutoIAFNormal" and n > SLOW_FLOW:
        logger.warning("tl.fit_technical: a flow over %d latent numbers takes long, autoguide='AutoNormal' does not", n)
    return replace(inference, autoguide=guide)


def _slots(adata: AnnData, fit: Any, ok: np.ndarray, key: str, min_cells: int) -> dict[tuple[str, str], Any]:
    also = f", or in fewer than {min_cells} of them" if min_cells else ""
    status = np.full(adata.n_vars, f"filtered: fewer than {MIN_COUNT} counts in control cells{also}", dtype=object)
    kinds = _validate.other_features(adata)
    status[kinds != ""] = f"filtered: {_validate.NO_GENE}" + kinds[kinds != ""]
    status[ok] = np.where(fit.converged, "converged", NOT_CONVERGED)
    table = {name: spread(getattr(fit, name), ok) for name in TECHNICAL_COLUMNS if name != "status"}
    frame = pd.DataFrame(table | {"status": pd.Categorical(status)}, index=adata.var_names)
    slots = Slots(key)
    return {
        ("varm", key): frame,
        ("varm", slots.effects): spread(fit.effects, ok),
        ("varm", slots.effects_sd): spread(fit.effects_sd, ok),
    }


def spread(values: np.ndarray, ok: np.ndarray) -> np.ndarray:
    """Values of the features that were fitted, NaN of others."""
    out = np.full((len(ok), *values.shape[1:]), np.nan)
    out[ok] = values
    return out
