"""The single cells behind the rows of a trans step, for the engine that takes them in minibatches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._logging import logger

if TYPE_CHECKING:
    from dream_sc._core.likelihoods import Likelihood

    from ._response_inputs import ResponseInputs


def with_single_cells(inputs: ResponseInputs, settings: Any, limit: int | str | None) -> ResponseInputs:
    """With the cells behind the rows, whose counts are read when asked for, where the settings want them."""
    from dream_sc._core.response import prepare

    if settings.minibatch_size is None:
        return inputs
    opened, prepared = inputs.opened, inputs.prepared
    _check_minibatch(settings, opened.likelihood, covariates=prepared.stats.covariates is not None)
    if opened.cells.ambient is not None or opened.cells.unit is not None:
        raise ValueError(
            "minibatch_size= takes single cells, for which ambient= and unit_key= of the technical fit are not "
            "offered: leave it out, so that sums over guides are fitted"
        )
    used, positions = opened.cells.used, np.flatnonzero(prepared.fitted)
    counts = results.counts(opened.adata, opened.layer, limit)

    def read(features: np.ndarray) -> np.ndarray:
        return np.stack([counts.column(int(j), used)[used] for j in positions[features]]).astype(float)

    logger.info(
        "tl.fit_trans: each of %d steps looks at %d of %d cells; features are fitted 64 at a time, which is slow",
        settings.niters or 3000,
        min(settings.minibatch_size, prepared.n_cells),
        prepared.n_cells,
    )
    return replace(inputs, prepared=prepare.with_cells(prepared, opened.cells, read))


def _check_minibatch(settings: Any, likelihood: Likelihood, *, covariates: bool) -> None:
    """Refuse a number of cells that is none, and data that the model of single cells is not for."""
    _validate.whole("minibatch_size", settings.minibatch_size)
    if likelihood.statistics != "counts":
        raise ValueError(
            f"minibatch_size= is of counts, but the technical fit is of {likelihood.name} data: leave it out"
        )
    if covariates:
        raise ValueError(
            "minibatch_size= takes single cells, for which covariates of the technical fit are not offered: leave it "
            "out, so that sums over guides are fitted"
        )
