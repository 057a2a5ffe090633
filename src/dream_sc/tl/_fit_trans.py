"""Step 3: the dose-response of every feature."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from dream_sc import _compile, _validate
from dream_sc._data import made_from, results
from dream_sc._keys import ACTING, CIS, FLAGS, ID, MADE_FROM, MEANINGS, NO_DOSAGE, TECHNICAL, TRANS, ZERO, Slots
from dream_sc._memory.guard import watched
from dream_sc._progress import bar, features_of

from ._departures import in_order, tell, with_departures
from ._direct_targets import cis_genes, with_direct
from ._flags import flags
from ._inert_guides import stored_acting, tell_inert, with_acting
from ._near_cis import tell_of_positions, with_near
from ._response_inputs import response_inputs
from ._response_table import asked_for, table_of
from ._single_cells import with_single_cells
from ._trans_settings import check, check_axis, check_categories, likelihood_of, same_distribution, settings_of
from ._without_dosage import STEP, acting_guides, as_holder, check_acting, check_guides, slots_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager
    from os import PathLike

    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from dream_sc._checkpoint import Checkpoint
    from dream_sc._core.curves import FunctionType
    from dream_sc._core.engines import Engine, TransAutoguide
    from dream_sc._core.likelihoods import Distribution
    from dream_sc._core.response.describe import Described
    from dream_sc._core.response.settings import Settings
    from dream_sc._core.types import Axis

    from ._cis_design import ControlGroup
    from ._response_inputs import ResponseInputs


@watched("fit_trans")
def fit_trans(
    data: AnnData | MuData,
    *,
    mod: str | None = None,
    cis_mod: str | None = None,
    layer: str | None = None,
    distribution: Distribution | None = None,
    function_type: FunctionType = "auto",
    dosage: Literal["guide", "cell", "none"] = "guide",
    cis_targets: str | list[str] | None = None,
    guide_key: str | None = None,
    target_key: str | None = None,
    control: str | list[str] | None = None,
    guides: str | None = None,
    control_group: ControlGroup | None = None,
    guide_effects: bool = True,
    guide_offsets: bool = True,
    features: str | Iterable[str] | None = None,
    min_denominator: int | None = None,
    technical_key: str = TECHNICAL,
    cis_key: str = CIS,
    degree: int | None = None,
    inference: Engine = "laplace",
    autoguide: TransAutoguide | None = None,
    nsamples: int = 1000,
    niters: int | None = None,
    minibatch_size: int | None = None,
    memory_limit: int | str | None = None,
    checkpoint: str | PathLike[str] | None = None,
    device: str | None = None,
    hyper: dict[str, Any] | None = None,
    rng: int | np.random.Generator = 0,
    progress: bool | None = None,
    key_added: str = TRANS,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Fit the dose-response of every feature and say which respond.

    Counts are summed over the cells of each guide and technical group. The curve is flat, a switch (all acting guides
    at one level, whatever their dosages), one Hill or two (one rising, one falling); guides shift a feature for reasons
    of their own, with an sd that is integrated; the error and the within-guide spread of the dosage are integrated too.
    Cells with several guides of the cis gene are summed over their set of guides; what its guides do adds up ("laplace"
    only, and not of a multinomial; other fits take cells with one guide). Marginal likelihoods give the local FDR.
    Covariates of the technical fit are taken off, and the errors of their coefficients integrated where guides differ
    in them.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_technical` and `tl.fit_cis` have run.
    mod, cis_mod
        Modality to fit, and the one that holds the dosage (the same by default); cells are matched by name.
    layer
        Layer of the counts; that of the technical fit by default.
    distribution
        That of the technical fit by default; another one is refused. Curves are of the expected count, the odds of a
        share, or the score.
    function_type
        "single_hill", "additive_hill", "polynomial", or "auto": null, switch, one and two Hills compared per feature;
        null and switch where guides have one dosage only; for "multinomial" null, switch and one Hill.
    dosage
        "guide": the guides' dosages. "cell": cells of a guide are split by their own dosage; this takes
        co-expression of cis and trans counts within a guide for effect. "none": guides act or do not, and null and
        switch are compared; it needs no cis step. For knock-outs, whose mRNA stays, and targets that are not measured.
        Guides that do nothing that most guides of the target do, over features, are left out.
    cis_targets
        With dosage "none", target label(s) whose guides act. None: the guides of the fit `cis_key`.
    guide_key, target_key, control, guides, control_group
        With `cis_targets`, where guides and controls are found, as in `tl.fit_cis`.
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
        Of the polynomial, 1 to 6 (the default); refused with other curves.
    inference
        "laplace": the fast engine. "svi": posteriors by stochastic variational inference on the guide-level Pyro
        model; of a multinomial with one Hill only. "nuts": by the No-U-Turn sampler, one feature at a time and by far
        the slowest: the reference for a few features, not of a multinomial. The calls (evidence, local FDR) are the
        fast engine's.
    autoguide
        Variational family of "svi": "AutoNormal", which is what "auto" stands for. Refused with other engines.
    nsamples
        Posterior draws behind the intervals; at most 256 of features whose local FDR is above 0.5, 128 where they have
        several categories.
    niters
        Steps of "svi" (3,000 by default), warm-up of "nuts" (500); refused with "laplace".
    minibatch_size
        With "svi" on counts: fit single cells instead of their sums, as the published method does, `minibatch_size` of
        them in a step. The posterior is that of the sums up to the noise of the steps; it is much slower.
    memory_limit
        Bytes, or a text such as "4GB", that the fit may add to what is in memory, as in `tl.fit_technical`; half of
        what is available by default.
    checkpoint
        Folder for finished blocks of features, for fits that take long. After an interruption the same call goes on
        where it was, with the numbers of a fit that was not interrupted. It is removed once the results are written,
        with its folder if the fit made that. One fit at a time works with it.
    device
        Of the posteriors of "svi" and "nuts": "cpu", "cuda" (or "cuda:1", ...), or "auto", the default: a GPU if torch
        finds one. All else, and "laplace" as a whole, runs on the CPU; with it the argument is refused.
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

    `n_capped_cells`: counts of single cells that the other cells of their guide do not allow are capped in the sums.
    Guides that depart from the curves of many features are named in `.uns[key_added]["guides"]`, columns `departs` and
    `departs_with`, and count less where they do.

    `direct_target` says which features guides act on themselves, besides the cis gene: those named as `cis_targets` of
    `tl.fit_cis`, and other targets of its guides. They are fitted, but take no part in what is learned, and have no
    q-value.

    Where `.var` holds "chrom", "start" and "end", or "gene_chr", "gene_start" and "gene_end", `near_cis` says which
    features are within a million bases of the cis gene (without dosages, of what the guides target): an enhancer or a
    promoter that a guide acts on may be theirs as well.

    Fold changes (`log2fc_full`, `log2fc_half`, `log2fc_max`, `log2fc_range`) are differences of a share (`delta_p_...`)
    or of a score (`delta_...`) for other distributions, and so are amplitude and slope. The EC50 of a share is that of
    the share itself. With `category_key` a row is a category: the numbers of its feature, which are those of the
    category that moves most (`category`), and its own `delta_p_...`, `baseline` and posterior. With `category_layers`
    the numbers of all categories are in the table `.uns[key_added]["categories"]`.

    `lfdr`, `qvalue`, `pvalue`, `log_bf` and `log_bf_loo` say whether a feature responds, by whichever model;
    `lfdr_graded`, `qvalue_graded` and `log_bf_graded` whether it follows the dosage: the curves against the better of
    null and switch. A call is described by a curve where `qvalue_graded` is below 0.05, else by the switch, whose EC50
    and slope are missing.

    With dosage "none" and `cis_targets`, the guides are stored as a cis fit without dosages, under `key_added` +
    "_acting"; features that are targets are direct targets. `.uns[key_added]["guides"]` has `p_acts`, the probability
    that a guide acts; guides below 0.05 do nothing that the others do, and are left out.

    Raises
    ------
    ValueError, KeyError
        If an earlier step is missing, a cell lacks a covariate of the technical fit, an argument is not known, there is
        no GPU for `device="cuda"`, or `checkpoint` is of other data, settings or versions, or in use.
    OSError
        If `checkpoint` cannot be written, as on a full disk. Finished blocks stay.

    Examples
    --------
    >>> ds.tl.fit_technical(adata, batch_key="batch")
    >>> ds.tl.fit_cis(adata, "GFI1B")
    >>> ds.tl.fit_trans(adata)
    >>> len(ds.get.responders(adata)) > 5
    True
    """
    sampling = {"niters": niters, "autoguide": autoguide, "minibatch_size": minibatch_size, "device": device}
    check(function_type, dosage, inference, degree, nsamples, min_denominator, sampling, checkpoint)
    acting = {"guide_key": guide_key, "target_key": target_key, "control": control, "guides": guides}
    acting["control_group"] = control_group
    check_acting(dosage, function_type, {"cis_targets": cis_targets, **acting})
    started, data = results.now(), results.own(data, copy)
    adata = _validate.resolve(data, mod)
    _validate.new_key(adata, key_added, "tl.fit_trans")
    holder, seed = adata if cis_mod is None else _validate.resolve(data, cis_mod), results.seed_of(rng)
    features = features if features is None or isinstance(features, str) else list(features)
    check_guides(holder, cis_key, dosage, cis_targets)
    like = likelihood_of(adata, technical_key, distribution, inference, min_denominator)
    source, own = holder, {}
    if cis_targets is not None:
        own = acting_guides(data, adata, holder, technical_key, cis_targets, acting, seed)
        source, cis_key = as_holder(holder, key_added, own), key_added + ACTING
        _validate.new_key(holder, cis_key, STEP)
    inputs = response_inputs(
        adata,
        source,
        technical_key=technical_key,
        cis_key=cis_key,
        layer=layer,
        dosage=dosage,
        offsets=bool(guide_offsets),
        known=hyper,
        limit=memory_limit,
        min_denominator=min_denominator,
        sets=inference == "laplace" and not like.categories and dosage != NO_DOSAGE,
    )
    check_axis(inputs.prepared.axis, function_type)
    inputs = with_acting(inputs, hyper, learns=guide_effects)
    learned = in_order(hyper, inputs.guides["guide"])
    settings = settings_of(function_type, dosage, degree, guide_effects, nsamples, inference, sampling, seed, learned)
    params = {k: v for k, v in asdict(settings).items() if k not in ("seed", "learned")} | {
        "function_type": function_type,
        "layer": inputs.opened.layer,
        "dosage": dosage,
        "guide_offsets": bool(guide_offsets),
        "distribution": like.name,
        "technical_key": technical_key,
        "cis_key": cis_key,
        "autoguide": autoguide,
        "min_denominator": min_denominator,
        **_categories(inputs.opened.technical["params"]),
    }
    inputs = with_single_cells(inputs, settings, memory_limit)
    with _kept(checkpoint, inputs, params | {"rng": seed, "features": features}, hyper) as kept:
        _compile.ready("trans", progress)
        found = _fit(inputs, settings, features, _bars(progress, hyper is None), kept)
        frame, more = table_of(inputs, found)
        info = results.run_info(started, seed, params) | _about(inputs, found, frame, params)
        info |= more | {"cis_mod": cis_mod}
        _write(adata, holder, key_added, (_with_targets(frame, inputs, holder), found, info), own, started)
        if kept is not None:
            kept.remove()
    return data if copy else None


def _with_targets(frame: pd.DataFrame, inputs: ResponseInputs, holder: AnnData) -> pd.DataFrame:
    """The table with what guides may act on themselves."""
    frame = with_direct(frame, inputs.prepared.direct)
    tell_of_positions(inputs.opened.adata, "tl.fit_trans")
    return with_near(frame, inputs.opened.adata, holder, cis_genes(inputs.opened.cis))


def _write(
    adata: AnnData, holder: AnnData, key: str, found: tuple[pd.DataFrame, Described, Any], own: Any, started: float
) -> None:
    """Store the results, and the guides of a fit that found them itself."""
    frame, described, info = found
    if own:
        results.write(holder, STEP, slots_of(key, own), started)
    where = ("varm", Slots(key).posterior)
    slots = {("varm", key): frame, where: described.records.reshape(adata.n_vars, -1), ("uns", key): info}
    results.write(adata, "tl.fit_trans", slots, started)


def _bars(progress: bool | None, learns: bool) -> Any:
    """A bar for each stage of the fit: null features are simulated only where something is learned."""
    stages = ["evidence", "evidence of simulated nulls", "curves"] if learns else ["evidence", "curves"]
    labels = [f"fit_trans {i} of {len(stages)}, {name}" for i, name in enumerate(stages, 1)]
    return bar(progress, labels, "features", size=features_of)


def _categories(params: dict[str, Any]) -> dict[str, Any]:
    """What names the categories of a multinomial, from the technical fit: whoever reads the result needs it."""
    layers = params.get("category_layers")
    return {
        "category_key": params.get("category_key"),
        "category_layers": None if layers is None else list(layers),
    }


def _fit(inputs: ResponseInputs, settings: Settings, features: Any, progress: Any, kept: Any) -> Described:
    """Fit all features, and describe those asked for."""
    from dream_sc._core.response.fit import fit

    same_distribution(settings.learned, inputs.opened.likelihood.name)
    if inputs.opened.likelihood.categories:
        check_categories(settings)
    asked = asked_for(inputs, features)
    return fit(inputs.prepared, settings, asked=asked, progress=progress, kept=kept)


def _kept(
    checkpoint: str | PathLike[str] | None,
    inputs: ResponseInputs,
    settings: dict[str, Any],
    hyper: dict[str, Any] | None,
) -> AbstractContextManager[Checkpoint | None]:
    """The checkpoint, refused if it is of a fit that depends on anything else."""
    if checkpoint is None:
        return nullcontext()
    from dream_sc import _checkpoint

    measured, s = inputs.prepared, inputs.sticks
    data = {
        "names of features": inputs.opened.adata.var_names.to_numpy(object),
        "sums of counts": measured.stats,
        "dosages": (measured.dosage, measured.axis),
        "overdispersions": measured.overdispersion,
        "group effects": measured.group_effect_sd,
        "features to fit": measured.fitted,
        "direct targets": measured.direct,
        "categories": None if s is None else (s.features, s.feature, s.category, s.following, s.column_names),
        "numbers of hyper=": hyper,
    }
    return _checkpoint.opened(_checkpoint.usable(checkpoint), settings, data)


def _about(inputs: ResponseInputs, found: Described, frame: pd.DataFrame, params: dict[str, Any]) -> dict[str, Any]:
    """What `.uns` says of the fit beside its parameters."""
    from dream_sc._core.response.posterior_record import LAYOUT_VERSION
    from dream_sc.get._columns import explained

    axis, opened = inputs.prepared.axis, inputs.opened
    steps = {params["technical_key"]: opened.technical, params["cis_key"]: opened.cis}
    guides = with_departures(inputs.guides, found.learned).head(len(opened.cis["guides"]))
    tell(guides, found.learned["wide_weight"], int(inputs.prepared.fitted.sum()))
    tell_inert(guides, inputs.acting)
    return {
        ID: made_from.id_of(params, frame.select_dtypes("number")),
        MADE_FROM: made_from.of_steps(steps),
        "cis_gene": inputs.cis_gene,
        "axis": _axis(axis, inputs),
        "hyper": found.learned
        | stored_acting(inputs)
        | {
            "distribution": inputs.opened.likelihood.name,
            "guides": inputs.guides["guide"].astype(str).tolist(),
            "guide_offsets": inputs.guides["offset"].tolist(),
        },
        "guides": guides,
        FLAGS: flags(inputs, dict(frame.items())),
        MEANINGS: explained(inputs.opened.likelihood.name),
        "posterior_layout": LAYOUT_VERSION,
        "convergence": {str(k): int(v) for k, v in frame["status"].value_counts().items()},
    }


def _axis(axis: Axis, inputs: ResponseInputs) -> dict[str, float]:
    """The ends of the axis in the unit of the user, NaN where there is none."""
    zero = inputs.zero
    if inputs.opened.no_dosage:
        return dict.fromkeys(("low", "high"), float("nan"))
    if zero is None:
        return {"low": axis.low, "high": axis.high}
    return {"low": axis.bottom + zero, "high": axis.high + zero, ZERO: zero}
