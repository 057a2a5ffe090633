"""Step 3: the dose-response of every feature."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _io, _validate
from dream_sc._keys import CIS, TECHNICAL, TRANS, TRANS_COLUMNS, Slots
from dream_sc._progress import bar

from ._fit_cis import group_codes

if TYPE_CHECKING:
    from anndata import AnnData

MIN_COUNT = 10
N_CELL_BINS = 8
FEW_GUIDES = 2


def fit_trans(
    data: Any,
    *,
    mod: str | None = None,
    cis_mod: str | None = None,
    layer: str | None = None,
    function_type: str = "auto",
    dosage: Literal["guide", "cell"] = "guide",
    guide_effects: bool = True,
    technical_key: str = TECHNICAL,
    cis_key: str = CIS,
    nsamples: int = 1000,
    hyper: dict[str, Any] | None = None,
    rng: int | np.random.Generator = 0,
    progress: bool | None = None,
    key_added: str = TRANS,
    copy: bool = False,
) -> Any:
    """Fit the dose-response of every feature and say which respond.

    Counts are summed over the cells of each guide and technical group. The curve is flat, one Hill or two (one
    rising, one falling); guides shift a feature for reasons of their own, with an sd that is integrated; the error
    and the within-guide spread of the dosage are integrated too. Marginal likelihoods give the local FDR.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_technical` and `tl.fit_cis` have run.
    mod, cis_mod
        Modality to fit, and the one that holds the dosage (the same by default); cells are matched by name.
    layer
        Layer of the counts; that of the technical fit by default.
    function_type
        "single_hill", "additive_hill", "polynomial", or "auto": null, one and two Hills compared per feature.
    dosage
        "guide": the guides' dosages. "cell": cells of a guide are split by their own dosage; this takes
        co-expression of cis and trans counts within a guide for effect.
    guide_effects
        Integrate guide-specific shifts; without them cells of a guide count as independent.
    technical_key, cis_key
        Names of the earlier fits.
    nsamples
        Posterior draws behind the intervals.
    hyper
        Learned numbers of an earlier fit, `.uns["trans"]["hyper"]`: with them a feature's row does not depend on
        which others are present.
    rng
        Seed; the same seed gives the same result.
    progress
        Show a progress bar; by default only in a terminal.
    key_added
        Name under which results are stored.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.varm[key_added]` (a row per feature), `.varm[key_added + "_posterior"]`
    (a compact posterior, 1 kB a feature) and `.uns[key_added]`.

    Raises
    ------
    ValueError, KeyError
        If an earlier step is missing or an argument is not known.
    """
    from dream_sc._core import trans as core
    from dream_sc._core.priors import TransPriors

    started = _io.now()
    _validate.one_of("function_type", function_type, core.FUNCTION_TYPES)
    _validate.one_of("dosage", dosage, ("guide", "cell"))
    data = data.copy() if copy else data
    adata = _validate.resolve(data, mod)
    holder = adata if cis_mod is None else _validate.resolve(data, cis_mod)
    technical = _validate.step(adata, technical_key, "fit_technical(data)")
    cis = _validate.step(holder, cis_key, "fit_cis(data, cis_gene)")
    layer = technical["params"]["layer"] if layer is None else layer
    seed = _io.seed_of(rng)
    table = cis["guides"]
    stats, row_dosage = _statistics(adata, holder, technical, cis, cis_key, layer, dosage)
    varm = adata.varm[technical_key]
    options = core.Options(function_type=function_type, guide_effects=guide_effects, nsamples=nsamples, seed=seed)
    known = np.isfinite(varm["overdispersion"].to_numpy())
    is_cis = np.asarray(adata.var_names == cis["cis_gene"])
    ok = known & (stats.counts.sum(1) >= MIN_COUNT) & ~is_cis
    axis = _axis(table)
    fit = core.fit(
        replace(stats, counts=stats.counts[ok]), row_dosage, varm["overdispersion"].to_numpy()[ok], axis=axis,
        priors=TransPriors(), alpha_sd=float(technical["effect_scale"]) * float(np.log(2)), options=options,
        hyper=hyper, progress=bar(progress, "dose-response"),
    )  # fmt: skip
    frame = _table(adata, fit, ok, known, is_cis, stats, varm, table)
    params = {
        "layer": layer, "function_type": function_type, "dosage": dosage, "guide_effects": guide_effects,
        "technical_key": technical_key, "cis_key": cis_key, "nsamples": nsamples, "inference": "laplace",
    }  # fmt: skip
    info = _io.run_info(started, seed, params) | {
        "cis_gene": cis["cis_gene"], "cis_mod": cis_mod, "axis": {"low": axis.low, "high": axis.high},
        "hyper": fit.hyper, "guides": table.copy(),
        "convergence": {str(k): int(v) for k, v in frame["status"].value_counts().items()},
    }  # fmt: skip
    _io.write(adata, "tl.fit_trans", _slots(key_added, frame, fit.records, ok, info), started)
    return data if copy else None


def _slots(
    key: str, frame: pd.DataFrame, records: np.ndarray, ok: np.ndarray, info: dict[str, Any]
) -> dict[tuple[str, str], Any]:
    """What to write where; features that were not fitted have NaN records."""
    every = np.full((len(ok), records.shape[1]), np.nan, dtype=np.float32)
    every[ok] = records
    return {("varm", key): frame, ("varm", Slots(key).posterior): every, ("uns", key): info}


def _axis(table: pd.DataFrame) -> Any:
    from dream_sc._core.types import Axis

    doses = np.sort(table.loc[~table["is_control"].astype(bool), "log2_dosage"].to_numpy(float))
    # a design at the NTC level still needs an axis of some length
    return Axis(float(min(doses[0], -0.05)), float(max(doses[-1], 0.05)), doses)


def _statistics(
    adata: AnnData, holder: AnnData, technical: Any, cis: Any, cis_key: str, layer: str | None, dosage: str
) -> tuple[Any, Any]:
    """Sums over the rows of (guide, group), or (guide, group, dosage bin), and the dosage of each row."""
    from dream_sc._core import suffstats
    from dream_sc._core.types import RowDosage

    table = cis["guides"]
    guide = _validate.labels(holder, cis["params"]["guide_key"], "guide_key")
    cells = holder.obsm[cis_key]
    used_names = cells.index[cells["log2_x_true"].notna()]
    code = dict(zip(table["guide"], range(len(table)), strict=True))
    by_name = pd.Series([code.get(g, -1) for g in guide], index=holder.obs_names).loc[used_names]
    guide_code = by_name.reindex(adata.obs_names, fill_value=-1).to_numpy(np.int64)
    group = group_codes(adata, technical)
    frame = pd.DataFrame({"guide": guide_code, "group": group})
    keys = ["guide", "group"]
    if dosage == "cell":
        x = cells["log2_x_true"].reindex(adata.obs_names)
        frame["x"], frame["var"] = x.to_numpy(), cells["log2_sd"].reindex(adata.obs_names).to_numpy() ** 2
        rank = frame.groupby(keys)["x"].rank(method="first")
        size = frame.groupby(keys)["x"].transform("size")
        bins = np.minimum(N_CELL_BINS, np.maximum(size // 10, 1))
        frame["bin"] = np.where(frame["x"].notna(), ((rank - 1) * bins // size).fillna(0), 0).astype(int)
        keys = [*keys, "bin"]
    used = guide_code >= 0
    index = frame[used].groupby(keys, sort=True)
    row = np.full(adata.n_obs, -1, dtype=np.int64)
    row[used] = index.ngroup().to_numpy()
    rows = np.array([k for k, _ in index], dtype=np.int64)
    sums = suffstats.RowSums(row, len(rows), adata.n_vars)
    for start, block in _io.cell_blocks(_validate.matrix(adata, layer), _io.source(layer)):
        sums.add(start, block)
    s = _validate.size_factors(adata, technical["params"]["size_factor_key"])
    stats = suffstats.guide_stats(sums, s, rows[:, 0], rows[:, 1])
    mean = table["log2_dosage"].to_numpy(float)
    spread = np.where(table["is_control"].astype(bool), 0.0, table["within_sd"].to_numpy(float))
    error = table["sd"].to_numpy(float)
    if dosage == "cell":
        centre = index["x"].mean().to_numpy()
        width = np.sqrt(index["var"].mean().to_numpy() + index["x"].var(ddof=0).to_numpy())
        return stats, RowDosage(centre, width, np.zeros(len(table)))
    return stats, RowDosage(mean[rows[:, 0]], spread[rows[:, 0]], error)


def _table(
    adata: AnnData,
    fit: Any,
    ok: np.ndarray,
    known: np.ndarray,
    is_cis: np.ndarray,
    stats: Any,
    varm: Any,
    guides: Any,
) -> pd.DataFrame:
    """One row per feature; what could not be computed is NaN with its reason in `status`."""
    few = int((~guides["is_control"].astype(bool)).sum()) <= FEW_GUIDES
    status = np.full(adata.n_vars, f"filtered: fewer than {MIN_COUNT} counts in the cells used", dtype=object)
    status[~known] = "filtered: no overdispersion, too few counts in control cells"
    status[is_cis] = "cis gene"
    gap = fit.columns["single_gap"] > 0
    status[ok] = np.where(few, "few_guides", np.where(gap, "single_gap", "converged"))
    columns: dict[str, Any] = {}
    for name in TRANS_COLUMNS:
        if name in ("model", "class"):
            text = np.full(adata.n_vars, None, dtype=object)
            text[ok] = fit.columns[name]
            columns[name] = pd.Categorical(text)
        elif name in fit.columns:
            columns[name] = np.full(adata.n_vars, np.nan)
            columns[name][ok] = fit.columns[name].astype(float)
    if few:
        for name in columns:
            if name.startswith(("log2_ec50", "hill_n", "p_ec50", "inflection")):
                columns[name] = np.full(adata.n_vars, np.nan)
    columns["overdispersion"] = varm["overdispersion"].to_numpy()
    columns["mean"] = stats.counts.sum(1) / stats.exposure.sum()
    columns["status"] = pd.Categorical(status)
    return pd.DataFrame(columns, index=adata.var_names)
