"""Single cells of the trans step, for the model that looks at each of them by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._logging import logger

from ._rows import row_layout

if TYPE_CHECKING:
    from anndata import AnnData

    from ._rows import TransInputs


def single_cells(
    adata: AnnData, holder: AnnData, inputs: TransInputs, params: dict[str, Any], limit: int | str | None
) -> Any:
    """The cells behind the rows of the inputs, their counts read feature by feature when they are asked for.

    None where `minibatch_size` among the parameters does not ask for them.
    """
    from dream_sc._core.types import RowDosage, SingleCells

    if params["minibatch_size"] is None:
        return None
    _check(params, inputs)
    technical = _validate.step(adata, params["technical_key"], "fit_technical(data)")
    cis = _validate.step(holder, params["cis_key"], "fit_cis(data, cis_gene)")
    layout = row_layout(adata, holder, technical, cis, params["cis_key"], params["dosage"])
    used = layout.row >= 0
    row = layout.row[used]
    guide, group = layout.rows[row, 0], layout.rows[row, 1]
    s = _validate.size_factors(adata, technical["params"]["size_factor_key"])[used]
    s = s * 2.0 ** inputs.guides["offset"].to_numpy()[guide]
    d = layout.dosage
    mean, spread, escape = (np.broadcast_to(x, d.mean.shape)[row] for x in (d.mean, d.spread, d.escape))
    counts, positions = results.counts(adata, inputs.layer, limit), np.flatnonzero(inputs.ok)

    def read(features: np.ndarray) -> np.ndarray:
        return np.stack([counts.column(int(j), used)[used] for j in positions[features]]).astype(float)

    logger.info(
        "tl.fit_trans: each of %d steps looks at %d of %d cells; features are fitted 64 at a time, which is slow",
        params["niters"] or 3000,
        min(params["minibatch_size"], len(row)),
        len(row),
    )
    dosage = RowDosage(mean, spread, d.error, d.control, d.level_error, escape)
    return SingleCells(read, np.arange(len(positions)), s, guide, group, dosage, inputs.stats.n_groups)


def _check(params: dict[str, Any], inputs: TransInputs) -> None:
    """Refuse a number of cells that is none, and engines and data that the model of single cells is not for."""
    _validate.whole("minibatch_size", params["minibatch_size"])
    if params["inference"] != "svi":
        raise ValueError(f"minibatch_size= is of inference='svi', but it is {params['inference']!r}: leave it out")
    if inputs.distribution != "negbinom":
        raise ValueError(
            f"minibatch_size= is of counts, but the technical fit is of {inputs.distribution} data: leave it out"
        )
    if inputs.stats.covariates is not None:
        raise ValueError(
            "minibatch_size= takes single cells, for which covariates of the technical fit are not offered: leave it "
            "out, so that sums over guides are fitted"
        )
