"""Honest nulls of the trans step: how often it calls where nothing responds."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from dream_sc import _compile, _validate
from dream_sc._data import made_from, results
from dream_sc._keys import CALIBRATION, CONFIDENCE, MADE_FROM, THEORY_COLUMNS, TRANS
from dream_sc._progress import bar

from ._calibration_tables import feature_table, held_out_table, quantile_table, rate_table, regrouping_table
from ._null_refits import Calibrated, Refits, n_targeting, ntc_guides, permuted, posing, read_fit, simulated

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

Null = Literal["ntc_guides", "permutation", "simulation"]
LEAST_HALVES, FEW_NTC = 4, 6


def calibrate(
    data: AnnData | MuData,
    *,
    null: Null = "ntc_guides",
    n: int = 20,
    within: Literal["cell"] | None = None,
    key: str = TRANS,
    mod: str | None = None,
    replace: bool = False,
    rng: int | np.random.Generator = 0,
    progress: bool | None = None,
    key_added: str = CALIBRATION,
    copy: bool = False,
) -> AnnData | MuData | None:
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
        p-values among those of the regroupings, an exponential tail beyond, and step-up q-values. A feature with an
        `lfdr` above 0.5 has at least that as its q-value, so that it is not called. The regroupings of one half of
        the NTC guides are tested on the other half and the reverse (table "held_out"). What was there is kept in the
        columns `pvalue_theory` and `qvalue_theory`. `qvalue_graded` is raised where it was below the new
        q-value (`qvalue_graded_theory` keeps it), and `class`, `on_knockdown` and `confidence` are those of the new
        calls.
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

    Examples
    --------
    >>> ds.tl.calibrate(adata, n=5)
    >>> len(ds.get.calibration(adata, "regroupings"))
    5
    """
    started = results.now()
    _check(null, n, within, replace)
    data = results.own(data, copy)
    adata = _validate.resolve(data, mod)
    _validate.new_key(adata, key_added, "tl.calibrate")
    fit = read_fit(data, adata, key)
    pool = ntc_guides(fit) if null == "ntc_guides" else np.zeros(0, dtype=np.int64)
    warning = _too_few(fit, pool, replace) if null == "ntc_guides" else ""
    seed = results.seed_of(rng)
    _compile.ready("trans", progress)
    labels = ["calibration", *(f"calibration, held-out half {i} of 2" for i in (1, 2) if replace)]
    # cells are permuted one pass over the counts at a time, so that there is no list of them
    wrap = bar(progress, labels, "null refits", total=n if within == "cell" else None)
    if null == "ntc_guides":
        _ = fit.observed  # refuses other counts than those of the fit
        run = posing(fit, pool, n, seed, wrap)
    else:
        run = simulated(fit, n, seed, wrap) if null == "simulation" else permuted(fit, n, within, seed, wrap)
    found = _report(fit, run, seed)
    found |= {"warning": warning, "n_ntc_guides": int(fit.fitted.control[fit.present].sum())}
    slots: dict[tuple[str, str], Any] = {}
    if replace:
        slots["varm", key] = _replaced(fit, run)
        found["held_out"] = _held_out(fit, pool, n, seed, wrap)
    params = {"null": null, "n": n, "within": within, "key": key, "replace": replace}
    found[MADE_FROM] = made_from.of_steps({key: fit.info})
    slots["uns", key_added] = results.run_info(started, seed, params) | found
    results.write(adata, "tl.calibrate", slots, started)
    return data if copy else None


def _check(null: str, n: int, within: str | None, replace: bool) -> None:
    _validate.one_of("null", null, get_args(Null))
    _validate.whole("n", n)
    _validate.one_of("within", within, (None, "cell"))
    if within is not None and null != "permutation":
        raise ValueError(f"within={within!r} is of a permutation, but null={null!r}: leave it out")
    if replace and null != "ntc_guides":
        raise ValueError(
            f"replace=True learns from NTC guides and is tested on others of them, but null={null!r}: use "
            "null='ntc_guides', or leave replace out"
        )


def _too_few(fit: Calibrated, pool: np.ndarray, replace: bool) -> str:
    """Warn of few NTC guides; the text is stored too."""
    m = len(pool)
    if replace and m < LEAST_HALVES:
        raise ValueError(
            f"{m} NTC guides: replace=True needs at least {LEAST_HALVES}, two to learn from and two to test on; "
            "leave replace out"
        )
    if m >= FEW_NTC:
        return ""
    n_posing = min(m // 2, n_targeting(fit))
    text = (
        f"only {m} NTC guides: {n_posing} pose(s) as targeting, {m - n_posing} stay(s) control. Shifts that one guide "
        "in ten has are hardly among them, all regroupings share the same few guides (their standard errors are too "
        "small), and error rates far below 0.05 cannot be known; 6 or more NTC guides would tell"
    )
    warnings.warn(text, UserWarning, stacklevel=4)  # past `calibrate` and the check of its arguments
    return text


def _report(fit: Calibrated, run: Refits, seed: int) -> dict[str, Any]:
    """What `.uns` says of the null refits."""
    nulls = run.nulls
    table = regrouping_table(nulls, run.sources, fit.fitted.control, fit.inputs.guides["guide"].to_numpy(str))
    any_call = table["n_calls"] > 0
    share = float(any_call.mean())
    return {
        "cis_gene": str(fit.inputs.cis_gene),
        "n_regroupings": len(table),
        "n_features": int(nulls.pvalue.shape[1]),
        "n_posing": n_targeting(fit, run.sources[0]) if run.sources else 0,
        "n_targeting": n_targeting(fit),
        "any_call": share,
        "any_call_se": float(np.sqrt(share * (1 - share) / len(table))),
        "mean_calls": float(table["n_calls"].mean()),
        "fpr": rate_table(nulls.pvalue),
        "regroupings": table,
        "features": feature_table(nulls, run.names),
        "qq": quantile_table(nulls, seed),
    }


def _held_out(fit: Calibrated, pool: np.ndarray, n: int, seed: int, wrap: Any) -> pd.DataFrame:
    """Learn the null on regroupings of one half of the NTC guides, test it on the other half, and the reverse."""
    order = np.random.default_rng(seed).permutation(pool)
    halves = [np.sort(order[: len(pool) // 2]), np.sort(order[len(pool) // 2 :])]
    return held_out_table(*(posing(fit, half, n, seed + i, wrap).nulls.pvalue for i, half in enumerate(halves)))


def _replaced(fit: Calibrated, run: Refits) -> pd.DataFrame:
    """The table of the fit with p- and q-values by the regroupings; the theoretical ones in columns of their own."""
    from dream_sc._core.response import calibration, confidence, decision, direction

    theory = fit.fitted.null.p_value(decision.strength(fit.observed, fit.fitted.prior))
    p = calibration.recalibrated(calibration.empirical_null(run.nulls.pvalue), theory)
    frame = fit.frame.copy()
    reported = frame["pvalue"].notna().to_numpy()
    learns, q = fit.inputs.prepared.learns, np.full(len(p), np.nan)
    some = slice(None) if learns is None else learns  # direct targets have no q-value
    q[some] = calibration.step_up(p[some])
    q = decision.none_unlikely(q, frame["lfdr"].to_numpy(float)[fit.inputs.prepared.fitted])
    for name, kept in THEORY_COLUMNS.items():
        if name in frame and kept not in frame:
            frame.insert(frame.columns.get_loc(name) + 1, kept, frame[name])
    for name, values in (("pvalue", p), ("qvalue", q)):
        every = np.full(len(frame), np.nan)
        every[fit.inputs.prepared.fitted] = values
        frame[name] = np.where(reported, every, np.nan)
    graded = THEORY_COLUMNS["qvalue_graded"]
    if graded in frame:  # what follows the dosage responds
        frame["qvalue_graded"] = np.maximum(frame[graded], frame["qvalue"].where(frame[graded].notna()))
    if CONFIDENCE in frame:
        of_calls = direction.of_calls(frame)
        frame = frame.assign(**{name: pd.Categorical(values) for name, values in of_calls.items()})
        frame[CONFIDENCE] = pd.Categorical(confidence.confidence(frame))
    return frame
