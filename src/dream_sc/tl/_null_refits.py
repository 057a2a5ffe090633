"""The fit that is calibrated, and its null refits: NTC guides that pose, permutations, simulated features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate
from dream_sc._data import made_from
from dream_sc._data import stored as _stored
from dream_sc._keys import GUIDE_SETS

from ._inert_guides import with_acting
from ._response_inputs import ResponseInputs, response_inputs, technical_counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd
    from anndata import AnnData

    from dream_sc._core.response.settings import Settings

LEAST_NTC = 2
DEPTH_STRATA = 5
NULL_LFDR = 0.5  # features above it are taken for null by the fit
COUNTS = "counts"  # in messages
SAME = 1e-3  # of log Bayes factors computed twice


@dataclass(frozen=True)
class Calibrated:
    """The fit that is calibrated, and its sums of the features that were fitted."""

    holder: AnnData
    info: Any
    frame: pd.DataFrame
    inputs: ResponseInputs
    stats: Any  # GuideStats of the features to fit
    fitted: Any  # calibration.Fitted
    names: np.ndarray
    key: str

    @property
    def unit(self) -> str:
        """What was observed, for messages."""
        return {"counts": COUNTS, "shares": "reads"}.get(self.inputs.prepared.likelihood.statistics, "scores")

    @property
    def changed(self) -> str:
        """What is not as it was when the fit was made, as far as it can be told."""
        found = list(dict.fromkeys(made_from.behind(self.inputs.opened.adata, self.key, self.holder)))
        return f" ({' and '.join(found)} changed)" if found else ""

    @property
    def present(self) -> np.ndarray:
        """Guides that have cells."""
        return np.unique(self.stats.guide)

    @cached_property
    def observed(self) -> Any:
        """Evidence of the fit itself; refused if it is not what was stored."""
        return _observed(self)


@dataclass(frozen=True)
class Refits:
    """The null refits and what they were of."""

    nulls: Any  # calibration.Nulls
    names: np.ndarray | None  # (T,) None where features are simulated
    sources: list[np.ndarray]


def read_fit(data: Any, adata: AnnData, key: str) -> Calibrated:
    """The fit, with its counts summed over guides in one pass."""
    from dream_sc._core.curves import FUNCTION_TYPES
    from dream_sc._core.likelihoods import named
    from dream_sc._core.response.calibration import Fitted
    from dream_sc._core.response.decision import restore

    info = _validate.step(adata, key, "fit_trans(data)")
    params, hyper = info["params"], info.get("hyper")
    _stored.check_learned(hyper, f".uns[{key!r}]['hyper']")
    _validate.one_of("function_type", params["function_type"], FUNCTION_TYPES)
    if _stored.likelihood_of(info).categories:
        raise ValueError(
            f".uns[{key!r}] is a fit of features with several categories, which tl.calibrate does not know: calibrate "
            f"one category against the others, as distribution={named(denominator=True)[0]!r}"
        )
    holder = adata if info["cis_mod"] is None else _validate.resolve(data, info["cis_mod"])
    before = info["guides"]
    _refuse_sets(key, params, before, hyper)
    cis = _validate.step(holder, params["cis_key"], "fit_cis(data, cis_gene)")["guides"]
    same = len(cis) == len(before) and (cis["guide"].to_numpy() == before["guide"].to_numpy()).all()
    if not (same and np.allclose(cis["log2_dosage"], before["log2_dosage"], equal_nan=True)):
        raise ValueError(
            f".uns[{params['cis_key']!r}] holds other dosages than {key!r} was fitted with: call "
            "dream_sc.tl.fit_trans(data) again first"
        )
    inputs = response_inputs(
        adata,
        holder,
        technical_key=params["technical_key"],
        cis_key=params["cis_key"],
        layer=params["layer"],
        dosage=params["dosage"],
        known=hyper,
        slopes=False,
        min_denominator=params.get("min_denominator"),
        fresh=False,  # the sums are compared with those of the fit
    )
    inputs = with_acting(inputs, hyper, learns=False)
    settings = _settings(params, hyper)
    measured, guides, by_guide = inputs.prepared, inputs.opened.guides, params["dosage"] != "cell"
    prior, null = restore(hyper)
    if not settings.guide_effects:  # not even those of a fit whose `hyper` was taken
        prior = prior.without_wide()
    fitted = Fitted(
        dosage=measured.dosage,
        guide=measured.stats.guide,
        guide_mean=guides.mean,
        guide_spread=guides.spread if by_guide else None,
        control=guides.control,
        guide_escape=guides.escape * by_guide,
        from_zero=guides.from_zero,
        guide_reach=guides.reach,
        overdispersion=measured.overdispersion[measured.fitted],
        group_effect_sd=measured.group_effect_sd,
        priors=measured.priors,
        settings=settings,
        prior=prior,
        null=null,
    )
    stats, names = measured.stats.take(measured.fitted), np.asarray(adata.var_names)[measured.fitted]
    return Calibrated(holder, info, adata.varm[key], inputs, stats, fitted, names, key)


def _refuse_sets(key: str, params: Any, guides: Any, hyper: Any) -> None:
    """Refuse a fit whose cells may carry several guides of the cis gene."""
    if len((hyper or {}).get("guides", ())) > len(guides):
        raise ValueError(
            f".uns[{key!r}] is a fit of cells of which some carry several guides of the cis gene, and these cells "
            f"cannot be regrouped. To calibrate it without them, take {GUIDE_SETS!r} out of "
            f".uns[{params['cis_key']!r}] and call dream_sc.tl.fit_trans(data) again first"
        )


def _settings(params: Any, hyper: Any) -> Settings:
    """Those of the fit; the switch alone where it compared no other curve, of which refits might see more."""
    from dream_sc._core.curves import NULL, SWITCH
    from dream_sc._core.response.settings import Settings

    alone = list(hyper["curves"]) == [NULL.name, SWITCH.name]
    return Settings(
        function_type=SWITCH.name if alone else params["function_type"],
        guide_effects=bool(params["guide_effects"]),
        degree=int(params["degree"]),
    )


def ntc_guides(fit: Calibrated) -> np.ndarray:
    """NTC guides with cells; fewer than two are refused."""
    labels = fit.holder.uns[fit.info["params"]["cis_key"]]["params"]["control"]
    # other controls, of screens with several guides per cell, may do something
    ntc = fit.fitted.control & fit.inputs.guides["target"].isin(list(labels)).to_numpy()
    pool = fit.present[ntc[fit.present]]
    if len(pool) < LEAST_NTC:
        names = fit.inputs.guides["guide"].to_numpy()[pool].tolist()
        raise ValueError(
            f"{len(pool)} NTC guide(s) with cells {names}: null='ntc_guides' needs at least {LEAST_NTC}, one to pose "
            "and one control, and 6 to show much. If NTC cells carry several guides, name the column that tells them "
            "apart as guide_key= of dream_sc.tl.fit_cis; else use null='permutation' or null='simulation'"
        )
    return pool


def posing(fit: Calibrated, pool: np.ndarray, n: int, seed: int, wrap: Any) -> Refits:
    """NTC guides of `pool` pose as targeting ones."""
    from dream_sc._core.response import calibration, prepare

    mean = np.full(len(fit.fitted.control), np.nan)
    mean[fit.present] = fit.fitted.guide_mean[fit.present]
    sources = calibration.posing_sources(mean, fit.fitted.control, pool, n, seed)
    like = fit.inputs.prepared.likelihood
    known = fit.stats.counts if like.statistics == "counts" else fit.stats.weights * like.unit**2
    counted = known[:, np.isin(fit.stats.guide, pool)].sum(1) >= prepare.MIN_COUNT
    if not counted.any():
        raise ValueError(
            f"no feature has {prepare.MIN_COUNT} {fit.unit} in the cells of the {len(pool)} NTC guides: use "
            "null='simulation'"
        )
    stats, fitted = fit.stats.take(counted), fit.fitted.take(counted)
    nulls = calibration.null_refits(
        fitted, [(stats, s) for s in sources], own_null=True, seed=seed, n=len(sources), progress=wrap
    )
    return Refits(nulls, fit.names[counted], sources)


def n_targeting(fit: Calibrated, source: np.ndarray | None = None) -> int:
    """Number of guides with cells that target, or that are given the dosage of one that does."""
    at = fit.present if source is None else source[source >= 0]
    return int((~fit.fitted.control[at]).sum())


def _observed(fit: Calibrated) -> Any:
    """Evidence of the fit itself; refused if it is not what was stored."""
    from dream_sc._core.response import calibration, decision

    identity = np.arange(len(fit.fitted.control))
    evidence = calibration.refit(fit.fitted, fit.stats, identity)
    stored = fit.frame["log_bf"].to_numpy(float)[fit.inputs.prepared.fitted]
    known = np.isfinite(stored)
    if not np.allclose(decision.log_bf_of(evidence, fit.fitted.prior)[known], stored[known], rtol=SAME, atol=SAME):
        raise ValueError(
            f"the {fit.unit}{', size factors' if fit.unit == COUNTS else ''} or technical fit are not those of the "
            f"trans fit any more{fit.changed}: call dream_sc.tl.fit_trans(data) again first"
        )
    return evidence


def _likely_null(fit: Calibrated) -> np.ndarray:
    from dream_sc._core.response import decision

    log_bf = decision.log_bf_of(fit.observed, fit.fitted.prior)
    keep: np.ndarray = decision.local_fdr(log_bf, fit.fitted.prior) > NULL_LFDR
    if not keep.any():
        raise ValueError("the fit takes no feature for null, so none is left to permute: use null='ntc_guides'")
    return keep


def permuted(fit: Calibrated, n: int, within: str | None, seed: int, wrap: Any) -> Refits:
    """Dosages permuted between guides, or cells between guides, over the features that the fit takes for null."""
    from dream_sc._core.response import calibration

    keep = _likely_null(fit)
    fitted = fit.fitted.take(keep)
    pairs: Iterable[tuple[Any, np.ndarray]]
    if within == "cell":
        sources = [np.arange(len(fitted.control))] * n
        pairs = ((s.take(keep), sources[0]) for s in _permuted_sums(fit, n, seed))
    else:
        sources = calibration.permuted_sources(fit.present, fitted.control, n, seed)
        stats = fit.stats.take(keep)
        pairs = [(stats, s) for s in sources]
    nulls = calibration.null_refits(fitted, pairs, own_null=False, seed=seed, n=len(sources), progress=wrap)
    return Refits(nulls, fit.names[keep], [] if within == "cell" else sources)


def _permuted_sums(fit: Calibrated, n: int, seed: int) -> Iterator[Any]:
    """Sums over rows whose cells are permuted, one pass over the counts for each."""
    from dream_sc._core.response import ambient
    from dream_sc._core.response.calibration import permuted_cells
    from dream_sc._core.response.prepare import bounds_of, count_sums

    opened, rows, cells = fit.inputs.opened, fit.inputs.prepared.rows, fit.inputs.opened.cells
    if cells.size_factor is None or rows is None:
        raise ValueError(f"within='cell' is of counts, not of {opened.likelihood.name!r}: leave it out")
    # a cell keeps the offset of its own guide, wherever it goes
    offset = 2.0 ** fit.inputs.guides["offset"].to_numpy(float)
    bounds = bounds_of(technical_counts(opened), cells) if opened.covariates is None else None
    factor = np.where(rows.row_of_cell >= 0, offset[rows.guide[rows.row_of_cell]], 1.0)
    for s in np.random.default_rng(seed).integers(2**31, size=n).tolist():
        row = permuted_cells(rows.row_of_cell, cells.group, cells.size_factor, DEPTH_STRATA, s)
        sums = count_sums(
            opened.counts(rows.n_rows, 0),
            replace(rows, row_of_cell=row),
            cells.size_factor * factor,
            opened.adata.n_vars,
            covariates=opened.covariates,
            bounds=bounds,
        )
        stats = sums.stats
        if cells.ambient is not None:
            level = ambient.level(technical_counts(opened), cells, opened.guides.control)
            stats = ambient.removed(stats, cells.ambient, level, row, cells.size_factor)
        # units differ as they did, and so does what ambient counts add
        stats = replace(stats, weights=fit.inputs.prepared.stats.weights)
        yield stats.take(fit.inputs.prepared.fitted)


def simulated(fit: Calibrated, n: int, seed: int, wrap: Any) -> Refits:
    from dream_sc._core.response import calibration

    return Refits(calibration.simulated_refits(fit.fitted, fit.observed, n, seed=seed, progress=wrap), None, [])
