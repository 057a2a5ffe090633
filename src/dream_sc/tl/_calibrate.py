"""Honest nulls of the trans step: how often it calls where nothing responds."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _compile, _validate
from dream_sc._data import results
from dream_sc._data import stored as _stored
from dream_sc._keys import CALIBRATION, THEORY_COLUMNS, TRANS
from dream_sc._progress import bar

from ._calibration_tables import feature_table, held_out_table, quantile_table, rate_table, regrouping_table
from ._response_inputs import ResponseInputs, response_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from anndata import AnnData

NULLS = ("ntc_guides", "permutation", "simulation")
LEAST_NTC, LEAST_HALVES, FEW_NTC = 2, 4, 6
DEPTH_STRATA = 5
NULL_LFDR = 0.5  # features above it are taken for null by the fit
SAME = 1e-3  # of log Bayes factors computed twice


def calibrate(
    data: Any,
    *,
    null: Literal["ntc_guides", "permutation", "simulation"] = "ntc_guides",
    n: int = 20,
    within: Literal["cell"] | None = None,
    key: str = TRANS,
    mod: str | None = None,
    replace: bool = False,
    rng: int | np.random.Generator = 0,
    progress: bool | None = None,
    key_added: str = CALIBRATION,
    copy: bool = False,
) -> Any:
    """Refit the trans step where nothing can respond, and count what it calls.

    Counts are summed once (once per permutation of cells); every refit computes evidence only. The offsets of guides,
    the prior of the guide effects and the technical fit are those of the fit; for q-values the prior odds and the
    prior of tau are learned anew in each refit, as an analysis of its own would.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    null
        "ntc_guides": NTC guides pose as targeting ones, as many as there are but at most half of the NTC guides,
        with the dosages of real guides (if fewer, dosages spread evenly over theirs); all other NTC guides stay
        controls. They have numbers of cells of their own, so p-values are from null features simulated in that design.
        This has the guide effects of real cells, and is the one to believe.
        "permutation": dosages, each with its error, its spread and its control flag, permuted between all guides,
        over the features that the fit takes for null. Features that respond unnoticed are in it.
        "simulation": features simulated without response from the fit. It tests the machine, not the model.
    n
        Number of regroupings, permutations or simulations; fewer if there are not as many different ones.
    within
        "cell", for a permutation: move cells instead of dosages, between guides, within technical group and fifth of
        depth. It breaks guide effects up, so it is too kind: the difference to "ntc_guides" is what they do.
    key
        Name of the fit.
    mod
        Modality of a MuData.
    replace
        Put p-values from the regroupings in place of those from simulated null features: ranks of the theoretical
        p-values among those of the regroupings, an exponential tail beyond, and step-up q-values. The regroupings of
        one half of the NTC guides are tested on the other half and the reverse (table "held_out"). What was there is
        kept in the columns `pvalue_theory` and `qvalue_theory`.
    rng
        Seed; the same seed gives the same result.
    progress
        Show a progress bar, over null refits; by default on a terminal and in a notebook.
    key_added
        Name under which results are stored.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.uns[key_added]`, whose tables `get.calibration` returns: false-positive
    rates at p of 0.05, 1e-3 and 1e-5 with standard errors over regroupings, calls at q < 0.05 of each regrouping, the
    features called most, and quantiles of p by expression; with `replace` also `.varm[key]`.

    Warns
    -----
    UserWarning
        With fewer than 6 NTC guides: what they cannot show.

    Raises
    ------
    ValueError, KeyError
        If the fit is missing or older than the steps before it, an argument is not known, or there are fewer than 2
        NTC guides (4 with `replace`).
    """
    started = results.now()
    _check(null, n, within, replace)
    data = results.own(data, copy)
    adata = _validate.resolve(data, mod)
    _validate.new_key(adata, key_added, "tl.calibrate")
    fit = _read(data, adata, key)
    pool = _ntc_guides(fit) if null == "ntc_guides" else np.zeros(0, dtype=np.int64)
    warning = _too_few(fit, pool, replace) if null == "ntc_guides" else ""
    seed = results.seed_of(rng)
    _compile.ready("trans", progress)
    labels = ["calibration", *(f"calibration, held-out half {i} of 2" for i in (1, 2) if replace)]
    # cells are permuted one pass over the counts at a time, so that there is no list of them
    wrap = bar(progress, labels, "null refits", total=n if within == "cell" else None)
    if null == "ntc_guides":
        _ = fit.observed  # refuses other counts than those of the fit
        run = _ntc(fit, pool, n, seed, wrap)
    else:
        run = _simulated(fit, n, seed, wrap) if null == "simulation" else _permuted(fit, n, within, seed, wrap)
    found = _report(fit, run, seed)
    found |= {"warning": warning, "n_ntc_guides": int(fit.fitted.control[fit.present].sum())}
    slots: dict[tuple[str, str], Any] = {}
    if replace:
        slots["varm", key] = _replaced(fit, run)
        found["held_out"] = _held_out(fit, pool, n, seed, wrap)
    params = {"null": null, "n": n, "within": within, "key": key, "replace": replace}
    slots["uns", key_added] = results.run_info(started, seed, params) | found
    results.write(adata, "tl.calibrate", slots, started)
    return data if copy else None


@dataclass(frozen=True)
class _Fit:
    """The fit that is calibrated, and its sums of the features that were fitted."""

    holder: AnnData
    info: Any
    frame: pd.DataFrame
    inputs: ResponseInputs
    stats: Any  # GuideStats of the features to fit
    fitted: Any  # calibration.Fitted
    names: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """Guides that have cells."""
        return np.unique(self.stats.guide)

    @cached_property
    def observed(self) -> Any:
        """Evidence of the fit itself; refused if it is not what was stored."""
        return _observed(self)


@dataclass(frozen=True)
class _Run:
    """The null refits and what they were of."""

    nulls: Any  # calibration.Nulls
    names: np.ndarray | None  # (T,) None where features are simulated
    sources: list[np.ndarray]


def _check(null: str, n: int, within: str | None, replace: bool) -> None:
    _validate.one_of("null", null, NULLS)
    _validate.whole("n", n)
    _validate.one_of("within", within, (None, "cell"))
    if within is not None and null != "permutation":
        raise ValueError(f"within={within!r} is of a permutation, but null={null!r}: leave it out")
    if replace and null != "ntc_guides":
        raise ValueError(
            f"replace=True learns from NTC guides and is tested on others of them, but null={null!r}: use "
            "null='ntc_guides', or leave replace out"
        )


def _read(data: Any, adata: AnnData, key: str) -> _Fit:
    """The fit, with its counts summed over guides in one pass."""
    from dream_sc._core.response.calibration import Fitted
    from dream_sc._core.response.decision import restore
    from dream_sc._core.response.settings import FUNCTION_TYPES, Settings

    info = _validate.step(adata, key, "fit_trans(data)")
    params, hyper = info["params"], info.get("hyper")
    _stored.check_learned(hyper, f".uns[{key!r}]['hyper']")
    _validate.one_of("function_type", params["function_type"], FUNCTION_TYPES)
    if params.get("distribution") == "multinomial":
        raise ValueError(
            f".uns[{key!r}] is a fit of features with several categories, which tl.calibrate does not know: calibrate "
            'one category against the others, as distribution="binomial"'
        )
    holder = adata if info["cis_mod"] is None else _validate.resolve(data, info["cis_mod"])
    before = info["guides"]
    cis = _validate.step(holder, params["cis_key"], "fit_cis(data, cis_gene)")["guides"]
    same = len(cis) == len(before) and (cis["guide"].to_numpy() == before["guide"].to_numpy()).all()
    if not (same and np.allclose(cis["log2_dosage"], before["log2_dosage"])):
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
    )
    settings = Settings(
        function_type=params["function_type"], guide_effects=bool(params["guide_effects"]), degree=int(params["degree"])
    )
    measured, guides, by_guide = inputs.prepared, inputs.opened.guides, params["dosage"] == "guide"
    prior, null = restore(hyper)
    if not settings.guide_effects:  # not even those of a fit whose `hyper` was taken
        prior = replace(prior, wide_weight=0.0)
    fitted = Fitted(
        dosage=measured.dosage,
        guide=measured.stats.guide,
        guide_mean=guides.mean,
        guide_spread=guides.spread if by_guide else None,
        control=guides.control,
        guide_escape=guides.escape * by_guide,
        overdispersion=measured.overdispersion[measured.fitted],
        group_effect_sd=measured.group_effect_sd,
        priors=measured.priors,
        settings=settings,
        prior=prior,
        null=null,
    )
    stats, names = measured.stats.take(measured.fitted), np.asarray(adata.var_names)[measured.fitted]
    return _Fit(holder, info, adata.varm[key], inputs, stats, fitted, names)


def _ntc_guides(fit: _Fit) -> np.ndarray:
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


def _too_few(fit: _Fit, pool: np.ndarray, replace: bool) -> str:
    """Warn of few NTC guides; the text is stored too."""
    m = len(pool)
    if replace and m < LEAST_HALVES:
        raise ValueError(
            f"{m} NTC guides: replace=True needs at least {LEAST_HALVES}, two to learn from and two to test on; "
            "leave replace out"
        )
    if m >= FEW_NTC:
        return ""
    n_posing = min(m // 2, _n_targeting(fit))
    text = (
        f"only {m} NTC guides: {n_posing} pose(s) as targeting, {m - n_posing} stay(s) control. Shifts that one guide "
        "in ten has are hardly among them, all regroupings share the same few guides (their standard errors are too "
        "small), and error rates far below 0.05 cannot be known; 6 or more NTC guides would tell"
    )
    warnings.warn(text, UserWarning, stacklevel=3)
    return text


def _ntc(fit: _Fit, pool: np.ndarray, n: int, seed: int, wrap: Any) -> _Run:
    """NTC guides of `pool` pose as targeting ones."""
    from dream_sc._core.response import calibration, prepare

    mean = np.full(len(fit.fitted.control), np.nan)
    mean[fit.present] = fit.fitted.guide_mean[fit.present]
    sources = calibration.posing_sources(mean, fit.fitted.control, pool, n, seed)
    known = (
        fit.stats.counts if fit.stats.weights is None else fit.stats.weights * fit.inputs.prepared.likelihood.unit**2
    )
    counted = known[:, np.isin(fit.stats.guide, pool)].sum(1) >= prepare.MIN_COUNT
    if not counted.any():
        raise ValueError(f"no feature has {prepare.MIN_COUNT} counts in the cells of the {len(pool)} NTC guides")
    stats, fitted = fit.stats.take(counted), fit.fitted.take(counted)
    nulls = calibration.null_refits(
        fitted, [(stats, s) for s in sources], own_null=True, seed=seed, n=len(sources), progress=wrap
    )
    return _Run(nulls, fit.names[counted], sources)


def _n_targeting(fit: _Fit, source: np.ndarray | None = None) -> int:
    """Number of guides with cells that target, or that are given the dosage of one that does."""
    at = fit.present if source is None else source[source >= 0]
    return int((~fit.fitted.control[at]).sum())


def _observed(fit: _Fit) -> Any:
    """Evidence of the fit itself; refused if it is not what was stored."""
    from dream_sc._core.response import calibration, decision

    identity = np.arange(len(fit.fitted.control))
    evidence = calibration.refit(fit.fitted, fit.stats, identity)
    stored = fit.frame["log_bf"].to_numpy(float)[fit.inputs.prepared.fitted]
    known = np.isfinite(stored)
    if not np.allclose(decision.log_bf_of(evidence, fit.fitted.prior)[known], stored[known], rtol=SAME, atol=SAME):
        raise ValueError(
            "the counts, size factors or technical fit are not those of the trans fit any more: call "
            "dream_sc.tl.fit_trans(data) again first"
        )
    return evidence


def _likely_null(fit: _Fit) -> np.ndarray:
    from dream_sc._core.response import decision

    log_bf = decision.log_bf_of(fit.observed, fit.fitted.prior)
    keep: np.ndarray = decision.local_fdr(log_bf, fit.fitted.prior) > NULL_LFDR
    if not keep.any():
        raise ValueError("the fit takes no feature for null, so none is left to permute: use null='ntc_guides'")
    return keep


def _permuted(fit: _Fit, n: int, within: str | None, seed: int, wrap: Any) -> _Run:
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
    return _Run(nulls, fit.names[keep], [] if within == "cell" else sources)


def _permuted_sums(fit: _Fit, n: int, seed: int) -> Iterator[Any]:
    """Sums over rows whose cells are permuted, one pass over the counts for each."""
    from dream_sc._core.response.calibration import permuted_cells
    from dream_sc._core.response.prepare import count_sums

    opened, rows, cells = fit.inputs.opened, fit.inputs.prepared.rows, fit.inputs.opened.cells
    if cells.size_factor is None or rows is None:
        raise ValueError(f"within='cell' is of counts, not of {opened.distribution!r}: leave it out")
    # a cell keeps the offset of its own guide, wherever it goes
    offset = 2.0 ** fit.inputs.guides["offset"].to_numpy(float)
    factor = np.where(rows.row_of_cell >= 0, offset[rows.guide[rows.row_of_cell]], 1.0)
    for s in np.random.default_rng(seed).integers(2**31, size=n).tolist():
        row = permuted_cells(rows.row_of_cell, cells.group, cells.size_factor, DEPTH_STRATA, s)
        sums = count_sums(
            opened.counts(rows.n_rows, 0),
            replace(rows, row_of_cell=row),
            cells.size_factor * factor,
            opened.adata.n_vars,
            covariates=opened.covariates,
        )
        yield sums.stats.take(fit.inputs.prepared.fitted)


def _simulated(fit: _Fit, n: int, seed: int, wrap: Any) -> _Run:
    from dream_sc._core.response import calibration

    return _Run(calibration.simulated_refits(fit.fitted, fit.observed, n, seed=seed, progress=wrap), None, [])


def _report(fit: _Fit, run: _Run, seed: int) -> dict[str, Any]:
    """What `.uns` says of the null refits."""
    nulls = run.nulls
    table = regrouping_table(nulls, run.sources, fit.fitted.control, fit.inputs.guides["guide"].to_numpy(str))
    any_call = table["n_calls"] > 0
    share = float(any_call.mean())
    return {
        "cis_gene": str(fit.inputs.cis_gene),
        "n_regroupings": len(table),
        "n_features": int(nulls.pvalue.shape[1]),
        "n_posing": _n_targeting(fit, run.sources[0]) if run.sources else 0,
        "n_targeting": _n_targeting(fit),
        "any_call": share,
        "any_call_se": float(np.sqrt(share * (1 - share) / len(table))),
        "mean_calls": float(table["n_calls"].mean()),
        "fpr": rate_table(nulls.pvalue),
        "regroupings": table,
        "features": feature_table(nulls, run.names),
        "qq": quantile_table(nulls, seed),
    }


def _held_out(fit: _Fit, pool: np.ndarray, n: int, seed: int, wrap: Any) -> pd.DataFrame:
    """Learn the null on regroupings of one half of the NTC guides, test it on the other half, and the reverse."""
    order = np.random.default_rng(seed).permutation(pool)
    halves = [np.sort(order[: len(pool) // 2]), np.sort(order[len(pool) // 2 :])]
    return held_out_table(*(_ntc(fit, half, n, seed + i, wrap).nulls.pvalue for i, half in enumerate(halves)))


def _replaced(fit: _Fit, run: _Run) -> pd.DataFrame:
    """The table of the fit with p- and q-values by the regroupings; the theoretical ones in columns of their own."""
    from dream_sc._core.response import calibration, decision

    theory = fit.fitted.null.p_value(decision.strength(fit.observed, fit.fitted.prior))
    p = calibration.recalibrated(calibration.empirical_null(run.nulls.pvalue), theory)
    frame = fit.frame.copy()
    reported = frame["pvalue"].notna().to_numpy()
    for (name, kept), values in zip(THEORY_COLUMNS.items(), (p, calibration.step_up(p)), strict=True):
        if kept not in frame:
            frame.insert(frame.columns.get_loc(name) + 1, kept, frame[name])
        every = np.full(len(frame), np.nan)
        every[fit.inputs.prepared.fitted] = values
        frame[name] = np.where(reported, every, np.nan)
    return frame
