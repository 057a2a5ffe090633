"""Step 3: the dose-response of every feature."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from dream_sc import _checkpoint, _compile, _validate
from dream_sc._data import results, shares
from dream_sc._keys import CATEGORIES, CIS, TECHNICAL, TRANS, Slots, trans_columns
from dream_sc._memory.guard import watched
from dream_sc._progress import bar, features_of

from . import _fit_trans_categories, _trans_cells
from ._near_cis import with_near
from ._rows import OF_EC50, TransInputs, means, trans_inputs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from anndata import AnnData

MIN_DRAWS = 10
MOST_PARETO_K = 0.7


@watched("fit_trans")
def fit_trans(
    data: Any,
    *,
    mod: str | None = None,
    cis_mod: str | None = None,
    layer: str | None = None,
    distribution: str = "negbinom",
    function_type: str = "auto",
    dosage: Literal["guide", "cell"] = "guide",
    guide_effects: bool = True,
    guide_offsets: bool = True,
    features: str | Iterable[str] | None = None,
    min_denominator: int | None = None,
    technical_key: str = TECHNICAL,
    cis_key: str = CIS,
    degree: int = 6,
    inference: str = "laplace",
    autoguide: str = "auto",
    nsamples: int = 1000,
    niters: int | None = None,
    minibatch_size: int | None = None,
    memory_limit: int | str | None = None,
    checkpoint: str | PathLike[str] | None = None,
    device: str = "auto",
    hyper: dict[str, Any] | None = None,
    rng: int | np.random.Generator = 0,
    progress: bool | None = None,
    key_added: str = TRANS,
    copy: bool = False,
) -> Any:
    """Fit the dose-response of every feature and say which respond.

    Counts are summed over the cells of each guide and technical group. The curve is flat, one Hill or two (one
    rising, one falling); guides shift a feature for reasons of their own, with an sd that is integrated; the error
    and the within-guide spread of the dosage are integrated too. Marginal likelihoods give the local FDR. Covariates of
    the technical fit are taken off, and the errors of their coefficients integrated where guides differ in them.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_technical` and `tl.fit_cis` have run.
    mod, cis_mod
        Modality to fit, and the one that holds the dosage (the same by default); cells are matched by name.
    layer
        Layer of the counts; that of the technical fit by default.
    distribution
        That of the technical fit: "negbinom" (which, as the default, stands for whatever that is), "binomial",
        "multinomial", "normal" or "studentt". Curves are of the expected count, the odds of a share, or the score.
    function_type
        "single_hill", "additive_hill", "polynomial", or "auto": null, one and two Hills compared per feature; for
        "multinomial" null and one Hill.
    dosage
        "guide": the guides' dosages. "cell": cells of a guide are split by their own dosage; this takes
        co-expression of cis and trans counts within a guide for effect.
    guide_effects
        Integrate guide-specific shifts; without them cells of a guide count as independent.
    guide_offsets
        Scale each guide's exposure so that the features that differ least between guides do not move in the median:
        where many features respond, size factors follow the dosage, and features that do not respond seem to. Needs
        at least 20 features.
    features
        Names of the features to report, all by default. The others still take part in what is learned (prior odds,
        the prior of the guide effects, q-values); their rows stay empty.
    min_denominator
        Leave out cells whose denominator of a share is below it.
    technical_key, cis_key
        Names of the earlier fits.
    degree
        Of the polynomial, 1 to 6.
    inference
        "laplace": the fast engine. "svi": posteriors by stochastic variational inference on the guide-level Pyro
        model; of a multinomial with one Hill only. "nuts": by the No-U-Turn sampler, one feature at a time and by far
        the slowest: the reference for a few features, not of a multinomial. The calls (evidence, local FDR) are the
        fast engine's.
    autoguide
        Variational family of "svi": "AutoNormal", which is what "auto" stands for.
    nsamples
        Posterior draws behind the intervals; 192 or 256 at most for features whose local FDR is above 0.5.
    niters
        Steps of "svi" (3,000 by default), warm-up of "nuts" (500).
    minibatch_size
        With "svi" on counts: fit single cells instead of their sums, as the published method does, so many of them in
        a step. The posterior is that of the sums up to the noise of the steps; it is much slower.
    memory_limit
        Bytes, or a text such as "4GB", that the fit may add to what is in memory, as in `tl.fit_technical`; half of
        what is available by default.
    checkpoint
        Folder for finished blocks of features, for fits that take long. After an interruption the same call goes on
        where it was, with the numbers of a fit that was not interrupted. It is removed once the results are written.
    device
        "cpu", "cuda" (or "cuda:1", ...), or "auto", a GPU if torch finds one: for the posteriors of "svi" and "nuts".
        All else, and "laplace" as a whole, runs on the CPU.
    hyper
        Learned numbers of an earlier fit, `.uns["trans"]["hyper"]`: with them a feature's row does not depend on
        which others are present.
    rng
        Seed; the same seed gives the same result.
    progress
        Show a progress bar of each stage, over features; by default on a terminal and in a notebook.
    key_added
        Name under which results are stored.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.varm[key_added]` (a row per feature), `.varm[key_added + "_posterior"]`
    (a compact posterior, 1 kB a feature) and `.uns[key_added]`.

    Where `.var` holds "chrom", "start" and "end", `near_cis` says which features are within a million bases of the cis
    gene: an enhancer or a promoter that a guide acts on may be theirs as well.

    Fold changes (`log2fc_full`, `log2fc_half`, `log2fc_max`, `log2fc_range`) are differences of a share (`delta_p_...`)
    or of a score (`delta_...`) for other distributions, and so are amplitude and slope. The EC50 of a share is that of
    the share itself. With `category_key` a row is a category: the numbers of its feature, which are those of the
    category that moves most (`category`), and its own `delta_p_...`, `baseline` and posterior. With `category_layers`
    the numbers of all categories are in the table `.uns[key_added]["categories"]`.

    Raises
    ------
    ValueError, KeyError
        If an earlier step is missing, a cell lacks a covariate of the technical fit, an argument is not known, there is
        no GPU for `device="cuda"`, or `checkpoint` is of other data, settings or versions.
    """
    from dream_sc._core.response import fit as core

    _check(function_type, dosage, inference, autoguide, degree, nsamples, niters, min_denominator, device, checkpoint)
    started, data = results.now(), results.own(data, copy)
    adata = _validate.resolve(data, mod)
    _validate.new_key(adata, key_added, "tl.fit_trans")
    holder, seed = adata if cis_mod is None else _validate.resolve(data, cis_mod), results.seed_of(rng)
    features = features if features is None or isinstance(features, str) else list(features)
    distribution = _distribution(adata, technical_key, distribution, min_denominator)
    inputs = trans_inputs(
        adata,
        holder,
        technical_key,
        cis_key,
        layer,
        dosage,
        offsets=bool(guide_offsets),
        known=hyper,
        limit=memory_limit,
        min_denominator=min_denominator,
    )
    steps = nsamples, niters, inference, device, seed, minibatch_size
    options = core.Options(function_type, guide_effects, degree, *steps)
    params = (
        {k: v for k, v in asdict(options).items() if k != "seed"}
        | {
            "layer": inputs.layer,
            "dosage": dosage,
            "guide_offsets": bool(guide_offsets),
            "distribution": distribution,
            "technical_key": technical_key,
            "cis_key": cis_key,
            "autoguide": autoguide,
            "min_denominator": min_denominator,
        }
        | _categories(adata, technical_key)
    )
    cells = _trans_cells.single_cells(adata, holder, inputs, params, memory_limit)
    kept = _kept(checkpoint, adata, inputs, params | {"rng": seed, "features": features}, hyper)
    _compile.ready("trans", progress)
    found = _fit(adata, inputs, options, hyper, features, _bars(progress, hyper is None), kept, cells)
    info = results.run_info(started, seed, params) | _about(inputs, found) | {"cis_mod": cis_mod}
    frame, where = with_near(found.frame, adata, holder, inputs.cis_gene), ("varm", Slots(key_added).posterior)
    slots = {("varm", key_added): frame, where: found.records, ("uns", key_added): info}
    results.write(adata, "tl.fit_trans", slots, started)
    if kept is not None:
        kept.remove()
    return data if copy else None


def _bars(progress: bool | None, learns: bool) -> Any:
    """A bar for each stage of the fit: null features are simulated only where something is learned."""
    stages = ["evidence", "evidence of simulated nulls", "curves"] if learns else ["evidence", "curves"]
    labels = [f"fit_trans {i} of {len(stages)}, {name}" for i, name in enumerate(stages, 1)]
    return bar(progress, labels, "features", size=features_of)


def _distribution(adata: AnnData, technical_key: str, asked: str, min_denominator: int | None) -> str:
    """That of the technical fit; another one is refused."""
    from dream_sc._core.likelihoods import DISTRIBUTIONS

    _validate.one_of("distribution", asked, DISTRIBUTIONS)
    technical = _validate.step(adata, technical_key, "fit_technical(data)")
    own = str(technical["params"].get("distribution", "negbinom"))
    if asked not in ("negbinom", own):
        raise ValueError(
            f"distribution={asked!r}, but .uns[{technical_key!r}] is a technical fit with {own!r}: leave it out, or "
            f"call dream_sc.tl.fit_technical(data, distribution={asked!r}) first"
        )
    if min_denominator is not None and own not in shares.PAIRS:
        raise ValueError(f"min_denominator= is of shares, but the distribution is {own!r}: leave it out")
    return own


def _categories(adata: AnnData, technical_key: str) -> dict[str, Any]:
    """What names the categories of a multinomial, from the technical fit: whoever reads the result needs it."""
    params = _validate.step(adata, technical_key, "fit_technical(data)")["params"]
    layers = params.get("category_layers")
    return {
        "category_key": params.get("category_key"),
        "category_layers": None if layers is None else list(layers),
    }


def _same_distribution(hyper: dict[str, Any] | None, own: str) -> None:
    """Refuse numbers that were learned on another distribution, whose unit is another."""
    theirs = own if hyper is None else str(hyper.get("distribution", "negbinom"))
    if theirs != own:
        raise ValueError(f"hyper= is of a fit with {theirs!r}, but this one is with {own!r}: leave it out")


def _fit(
    adata: AnnData,
    inputs: TransInputs,
    options: Any,
    hyper: dict[str, Any] | None,
    features: Any,
    progress: Any,
    kept: Any,
    cells: Any,
) -> _fit_trans_categories.Written:
    """Fit all features: those of categories together, the others each by itself."""
    from dream_sc._core.response import fit as core

    _same_distribution(hyper, inputs.distribution)
    if inputs.distribution == "multinomial":
        return _fit_trans_categories.fit(adata, inputs, options, hyper, features, progress, kept)
    ok, asked = inputs.ok, asked_for(adata, features, inputs.ok)
    fit = core.fit(
        inputs.stats.take(ok),
        inputs.dosage,
        inputs.overdispersion[ok],
        axis=inputs.axis,
        priors=inputs.priors,
        alpha_sd=inputs.alpha_sd,
        options=options,
        hyper=hyper,
        report=asked[ok],
        progress=progress,
        kept=kept,
        cells=cells,
    )
    every = np.full((len(ok), fit.records.shape[1]), np.nan, dtype=fit.records.dtype)
    every[ok & asked] = fit.records
    return _fit_trans_categories.Written(_table(adata, fit, inputs, asked), every, fit.hyper)


def _kept(
    checkpoint: str | PathLike[str] | None,
    adata: AnnData,
    inputs: TransInputs,
    settings: dict[str, Any],
    hyper: dict[str, Any] | None,
) -> _checkpoint.Checkpoint | None:
    """The checkpoint, refused if it is of a fit that depends on anything else."""
    if checkpoint is None:
        return None
    s = inputs.sticks
    data = {
        "names of features": adata.var_names.to_numpy(object),
        "sums of counts": inputs.stats,
        "dosages": (inputs.dosage, inputs.axis),
        "overdispersions": inputs.overdispersion,
        "group effects": inputs.alpha_sd,
        "features to fit": inputs.ok,
        "categories": None if s is None else (s.features, s.feature, s.category, s.following, s.column_names),
        "numbers of hyper=": hyper,
    }
    return _checkpoint.open_checkpoint(_checkpoint.usable(checkpoint), settings, data)


def _about(inputs: TransInputs, found: _fit_trans_categories.Written) -> dict[str, Any]:
    """What `.uns` says of the fit beside its parameters."""
    from dream_sc._core.response.posterior_record import LAYOUT_VERSION

    return ({} if found.categories is None else {CATEGORIES: found.categories}) | {
        "cis_gene": inputs.cis_gene,
        "axis": {"low": inputs.axis.low, "high": inputs.axis.high},
        "hyper": found.hyper
        | {
            "distribution": inputs.distribution,
            "guides": inputs.guides["guide"].astype(str).tolist(),
            "guide_offsets": inputs.guides["offset"].tolist(),
        },
        "guides": inputs.guides.copy(),
        "posterior_layout": LAYOUT_VERSION,
        "convergence": {str(k): int(v) for k, v in found.frame["status"].value_counts().items()},
    }


def _check(
    function_type: str,
    dosage: str,
    inference: str,
    autoguide: str,
    degree: int,
    nsamples: int,
    niters: int | None,
    min_denominator: int | None,
    device: str,
    checkpoint: str | PathLike[str] | None,
) -> None:
    """Refuse options that are not known."""
    from dream_sc._core.device import check_for
    from dream_sc._core.engines import ENGINES
    from dream_sc._core.response.fit import FUNCTION_TYPES

    _validate.one_of("function_type", function_type, FUNCTION_TYPES)
    _validate.one_of("dosage", dosage, ("guide", "cell"))
    _validate.one_of("inference", inference, ENGINES)
    _validate.one_of("autoguide", autoguide, ("auto", "AutoNormal"))
    _validate.one_of("degree", degree, range(1, 7))
    _validate.whole("nsamples", nsamples, MIN_DRAWS)
    for name, value in (("niters", niters), ("min_denominator", min_denominator)):
        if value is not None:
            _validate.whole(name, value)
    check_for(device, inference)
    if checkpoint is not None:
        _checkpoint.usable(checkpoint)


def asked_for(adata: AnnData, features: str | Iterable[str] | None, ok: np.ndarray) -> np.ndarray:
    """Which features to report."""
    if features is None:
        return np.ones(adata.n_vars, dtype=bool)
    out = np.zeros(adata.n_vars, dtype=bool)
    names = [features] if isinstance(features, str) else list(features)
    if not names:
        raise ValueError("features=[] asks for nothing: name features, or leave it out for all")
    for name in names:
        out[_validate.feature(adata, name, "features")] = True
    if not (ok & out).any():
        raise ValueError(f"none of features={names} can be fitted: each is the cis gene or has too few counts")
    return out


def _status(inputs: TransInputs, asked: np.ndarray, fit: Any) -> np.ndarray:
    """Status of every feature: how its fit went, or why there is none."""
    status = inputs.reason.copy()
    status[inputs.ok] = "not asked for"
    gap = (fit.columns["single_gap"] > 0) | inputs.one_dosage
    few = inputs.few_guides[inputs.ok & asked]
    fitted = np.where(few, "few_guides", np.where(gap, "single_gap", "converged")).astype(object)
    plain = fitted == "converged"
    fitted[plain & fit.diagnostics["improved"]] = "converged after improvement"
    fitted[plain & (fit.columns["pareto_k"] > MOST_PARETO_K)] = "pareto_k above 0.7: compare with inference='nuts'"
    fitted[~fit.diagnostics["converged"]] = "not converged: raise niters"
    status[inputs.ok & asked] = fitted
    return status


def _within(inputs: TransInputs, fitted: np.ndarray) -> dict[str, np.ndarray]:
    """Slope among the cells of one guide, and its sd."""
    from dream_sc._core.stats.within_guide_slope import within_slope

    if inputs.within is None:
        return {n: np.full(len(fitted), np.nan) for n in ("slope_within", "slope_within_sd")}
    pair = within_slope(
        inputs.within, inputs.stats.counts, inputs.stats.exposure, inputs.overdispersion, inputs.stats.covariates
    )
    return {n: np.where(fitted, v, np.nan) for n, v in zip(("slope_within", "slope_within_sd"), pair, strict=True)}


def _table(adata: AnnData, fit: Any, inputs: TransInputs, asked: np.ndarray) -> pd.DataFrame:
    """One row per feature; what could not be computed is NaN, its reason is in `status`."""
    fitted, no_ec50 = inputs.ok & asked, inputs.few_guides | inputs.one_dosage
    names = trans_columns(inputs.likelihood.effect)
    columns: dict[str, Any] = {}
    for name, values in fit.columns.items():
        if name in ("model", "class"):
            text = np.full(adata.n_vars, None, dtype=object)
            text[fitted] = values
            columns[name] = pd.Categorical(text)
        elif name in names:
            columns[name] = np.full(adata.n_vars, np.nan)
            columns[name][fitted] = values.astype(float)
            if name.startswith(OF_EC50):
                columns[name][no_ec50] = np.nan
    columns |= _within(inputs, fitted)
    columns["overdispersion"] = inputs.overdispersion
    columns["n_cells"] = np.full(adata.n_vars, inputs.n_cells)
    columns["mean"] = means(inputs)
    columns["status"] = pd.Categorical(_status(inputs, asked, fit))
    if inputs.scale is not None:
        _to_scores(columns, inputs)
    return pd.DataFrame({c: columns[c] for c in names if c in columns}, index=adata.var_names)


def _to_scores(columns: dict[str, Any], inputs: TransInputs) -> None:
    """Put what is in sds of a score into its own unit, in place."""
    centre, scale = np.asarray(inputs.centre), np.asarray(inputs.scale)
    for name in columns:
        if "delta" in name or name in ("baseline", "amplitude", "amplitude_b", "slope_ntc", "guide_sd"):
            columns[name] = columns[name] * scale
    columns["baseline"] = columns["baseline"] + centre
    columns["mean"] = centre + columns["mean"] * scale
    columns["centre"], columns["scale"] = centre, scale
    del columns["overdispersion"]
