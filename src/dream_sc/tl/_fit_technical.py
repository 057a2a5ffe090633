"""Step 1: technical effects and overdispersion from control cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate
from dream_sc._data import covariates as _covariates
from dream_sc._data import made_from, results, shares
from dream_sc._data.ambient import as_param, check_ambient, measured, read_share, slots_of
from dream_sc._data.groups import check_units, technical_groups
from dream_sc._data.guide_matrix import read_guides
from dream_sc._keys import ID, MADE_FROM, SIZE_FACTOR, TECHNICAL, Slots
from dream_sc._logging import logger
from dream_sc._memory.guard import watched

from . import _technical_counts
from ._confounded_groups import refuse_confounded, refuse_confounded_guides

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData

    from dream_sc._core.engines import Autoguide, Engine
    from dream_sc._core.likelihoods import Distribution, Likelihood
    from dream_sc._data.guide_matrix import Guides

FEW_CONTROLS = 50  # cells, below which a warning is given


@watched("fit_technical")
def fit_technical(
    data: AnnData | MuData,
    *,
    mod: str | None = None,
    layer: str | None = None,
    distribution: Distribution = "negbinom",
    batch_key: str | None = None,
    reference: str | None = None,
    covariates: str | Sequence[str] | None = None,
    target_key: str = "target",
    control: str | list[str] = "NTC",
    guides: str | None = None,
    size_factor_key: str = SIZE_FACTOR,
    unit_key: str | None = None,
    ambient: float | str | Mapping[str, float] | None = None,
    denominator_layer: str | None = None,
    category_key: str | None = None,
    category_layers: Sequence[str] | None = None,
    use_all_cells: bool = False,
    overdispersed: bool = True,
    min_cells: int | None = None,
    inference: Engine = "laplace",
    autoguide: Autoguide | None = None,
    nsamples: int | None = None,
    niters: int | None = None,
    minibatch_size: int | None = None,
    device: str | None = None,
    memory_limit: int | str | None = None,
    rng: int | np.random.Generator = 0,
    progress: bool | None = None,
    key_added: str = TECHNICAL,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Fit baseline, group effects and overdispersion of every feature on control (NTC) cells.

    A count is negative binomial with mean ``mu 2^(a + z b) s`` (`s` the size factor, `a` the effect of the technical
    group, `b` those of the covariates `z`) and variance ``m + o^2 m^2``; the rate of the exponential prior of `o` and
    the scales of the Student t priors of `a` and of each covariate's `b` are learned over features. A share is
    beta-binomial with logit ``logit(mu) + a`` and intra-cell correlation `rho`, ``Var(y) = n p (1 - p)
    (1 + (n - 1) rho)``; a multinomial feature is a chain of such shares, each category out of itself and those with
    fewer counts. Scores are normal or Student t (3 degrees of freedom) around ``mu + a``.

    Parameters
    ----------
    data
        AnnData or MuData with raw counts, or scores, cells x features. What lies in a file is read by blocks; shares,
        and scores in a sparse matrix, are read into memory as sparse matrices.
    mod
        Modality of a MuData.
    layer
        Layer of the counts (numerators of shares) or scores; `.X` by default.
    distribution
        "negbinom": counts. "binomial": counts out of `denominator_layer`. "multinomial": counts of the categories of
        each feature, by `category_key` or `category_layers`. "normal", "studentt": scores, NaN where missing.
    batch_key
        Column of `.obs` with the technical groups (lanes, batches, lines); each needs control cells. None: one
        group.
    reference
        The group with effect 0; by default the one with most control cells.
    covariates
        Columns of `.obs`, or a formula of them such as ``"percent_mt + donor"`` or
        ``"bs(s_score, df=4, extrapolation='clip')"``, for "negbinom". The page "Designs" of the documentation lists
        what a formula may hold; it is never run as code. Numbers are centred on the cells used, text and
        categories become treatment contrasts; write ``C(donor)`` for labels that are numbers. What they do to each
        feature is fitted here, and taken off in `tl.fit_cis` and `tl.fit_trans`, which read the columns again. A factor
        with one level is left out and said so.
    target_key, control
        Column of `.obs` with each cell's target, and the label(s) of non-targeting cells in it.
    guides
        Where cells may have several guides: key of `.obsm` with cells x guides (binary or counts; see
        `pp.guide_matrix`), or the name of a modality of guides; `control` are then labels of guides. Controls are cells
        with NTC guides only. Where there are none or few, as in screens with many guides per cell, `use_all_cells`.
    size_factor_key
        Column of `.obs` with size factors, of counts. If it is the default and missing, totals are used.
    unit_key
        Column of `.obs` with the units within guides: clones, animals, wells. They are the replicates of
        `tl.fit_trans`, which learns for each feature how much units differ. The same label under two guides is two
        units. For counts of cells with one guide; each cell needs a unit.
    ambient
        Share of ambient counts (RNA that leaked from other cells) among the counts of a cell, from 0 to 0.9: a number,
        a column of `.obs`, or a mapping of the groups of `batch_key` to numbers, as SoupX, CellBender or DecontX
        estimate them. `tl.fit_cis` and `tl.fit_trans` take off what is expected of them; the tables of this step are of
        all counts. For counts of cells with one guide.
    denominator_layer
        Layer of what a binomial's counts are out of.
    category_key
        Column of `.var` with the name of each category's feature (the donor of a junction, say).
    category_layers
        Layers with the counts of one category each, of the features in `.var`.
    use_all_cells
        Fit on all cells instead of control cells. For groups that are lanes or batches and do not follow the guides:
        groups then need no control cells, and one fit serves every cis gene. Groups that follow the targets are refused
        (bias-corrected Cramér's V above 0.3), here and, by guide, in `tl.fit_cis`.
    overdispersed
        Whether shares may differ between cells by more than chance. False: plain binomial and multinomial counts.
    min_cells
        Leave out features that fewer control cells have a count of; for counts. The trans step leaves them out, too.
    inference
        "laplace": the fast engine. "svi" or "nuts": the same model by variational inference or the No-U-Turn sampler
        in Pyro, the latter for a few features and not offered for scores.
    autoguide
        Variational family of "svi" for counts: "AutoNormal", independent normals; "AutoIAFNormal", an inverse
        autoregressive flow over all latent numbers, for some hundred features; or "auto", the default: the flow where
        18 bytes times the square of the latent numbers, (groups + 1) x features, fit into the memory of the device less
        10 GB and what is free holds it, else "AutoNormal" with a message. Refused elsewhere.
    nsamples, niters, device
        Draws (1,000 by default), steps of "svi" (3,000) or warm-up of "nuts" (500), and device (a GPU if torch finds
        one) of the Pyro engines. Refused with "laplace", which is deterministic and runs on the CPU.
    minibatch_size
        Of "svi" for counts: bins of control cells in a step (of 32 in each group), and draws that are there at a time;
        all by default.
    memory_limit
        Bytes, or a text such as "4GB", that the fit may add to what is in memory; half of what is available by
        default. Blocks and threads are chosen by it; a fit that cannot keep to it is refused. Limits below 100 MB bound
        the reading of counts and their sums only.
    rng
        Seed, stored with the results; the fast engine is deterministic.
    progress
        Show progress bars while counts are read and features are fitted, counts only; by default on a terminal and in
        a notebook.
    key_added
        Name under which results are stored.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.varm[key_added]` (mu: expected count of a reference control cell at
    size factor 1; overdispersion; their sd; status), `.varm[key_added + "_effects"]` and `"_effects_sd"` (features
    x groups, log2), `.uns[key_added]`. With covariates also `.varm[key_added + "_covariates"]` and
    `"_covariates_sd"`: features x coefficients, log2 per unit of the column; mu is then that of a cell with the mean
    of each column. `.uns[key_added]["covariates"]` holds their names, the columns' means and sds (centre, scale) and
    the learned scales of the priors (prior_scale, log2 per sd).

    With `ambient` also `.varm[key_added + "_ambient"]` (features x groups: how the ambient counts of a group fall on
    features) and `.obsm[key_added + "_ambient"]` (expected ambient counts of each cell, and their share).

    For shares, mu is the share in the reference group, its sd is on the logit ("binomial") or log scale, overdispersion
    is rho, and effects are shifts of the logit, or of the log usage of a category, centred over the feature's
    categories; NaN where a category has no count in the group or in the reference: its usage is 0 there. With
    `category_layers` there are columns ``mu_<layer>`` and the effects are features x groups x layers.
    `.uns[key_added]["sticks"]` and ``"stick_effects"`` hold the chains. For scores, sigma is in place of
    overdispersion, and effects are shifts. The learned `effect_scale` is in the `effect_unit` beside it.

    Raises
    ------
    ValueError, KeyError
        For missing columns, labels or groups without control cells, for values that are not counts or scores, for
        numerators above their denominators, and for covariates with missing values or that are combinations of each
        other or of the technical groups.

    Examples
    --------
    >>> ds.tl.fit_technical(adata, batch_key="batch")
    >>> [str(group) for group in adata.uns["technical"]["groups"]]
    ['batch_1', 'batch_2']
    """
    from dream_sc._core.engines import Inference

    started, labels = results.now(), _validate.label_texts(control)
    params: dict[str, Any] = {
        "layer": layer,
        "distribution": distribution,
        "batch_key": batch_key,
        "target_key": target_key,
        "control": labels,
        "guides": guides,
        "size_factor_key": size_factor_key,
        "unit_key": unit_key,
        "ambient": as_param(ambient),
        "denominator_layer": denominator_layer,
        "category_key": category_key,
        "overdispersed": overdispersed,
        "use_all_cells": use_all_cells,
        "category_layers": _validate.names("category_layers", category_layers) or None,
        "inference": inference,
        "min_cells": min_cells,
    }
    options = {
        "nsamples": nsamples,
        "niters": niters,
        "device": device,
        "autoguide": autoguide,
        "minibatch_size": minibatch_size,
    }
    like = _check_options(params, options, covariates)
    data = results.own(data, copy)
    adata = _validate.resolve(data, mod)
    _validate.new_key(adata, key_added, "tl.fit_technical")
    _has_layers(adata, layer, category_layers)
    if like.statistics == "counts":
        _validate.gene_features(adata, "tl.fit_technical")  # says what is left out
    check_units(adata, unit_key, guides, like.statistics)
    check_ambient(ambient, guides, like.statistics)
    found = None if guides is None else read_guides(data, adata, _validate.guides_key(guides))
    is_control = _controls(adata, target_key, labels, found, use_all_cells)
    groups, group = technical_groups(adata, batch_key, reference, is_control | use_all_cells)
    design = _design(adata, covariates, is_control | use_all_cells, group, groups)
    if use_all_cells:
        _refuse_confounded(adata, (batch_key, group), target_key, is_control, found, labels, design)
    params["covariates"] = design and design.formula
    chosen = Inference.of(inference, results.seed_of(rng), **options)
    row = np.where(is_control | use_all_cells, group, -1)
    share = None if ambient is None else read_share(adata, ambient, groups, group)
    m = _technical_counts.Modality(
        like, layer, denominator_layer, category_key, category_layers, row, len(groups), memory_limit
    )
    slots, info = _fit_modality(adata, m, chosen, params, key_added, design, progress)
    leaked = None if share is None else measured(adata, layer, share, group, len(groups), memory_limit)
    slots |= slots_of(key_added, leaked)
    params |= {name: value for name, value in options.items() if value is not None}
    about = {"groups": list(groups), "n_control_cells": int(is_control.sum())}
    info = results.run_info(started, chosen.seed, params) | info | about
    slots["uns", key_added] = info | _identity(adata, like, slots, info, key_added, row >= 0, design)
    results.write(adata, "tl.fit_technical", slots, started)
    return data if copy else None


def _fit_modality(
    adata: AnnData,
    m: _technical_counts.Modality,
    chosen: Any,
    params: dict[str, Any],
    key: str,
    design: Any,
    progress: bool | None,
) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """Slots to write, and what `.uns` stores, of counts or of another modality."""
    if m.likelihood.statistics == "counts":
        return _technical_counts.fit(adata, m, chosen, params, key, design, progress)
    from . import _technical_shares

    return _technical_shares.fit(adata, m, chosen, bool(params["overdispersed"]), key, progress)


def _identity(
    adata: AnnData,
    like: Likelihood,
    slots: dict[tuple[str, str], Any],
    info: dict[str, Any],
    key: str,
    used: np.ndarray,
    design: _covariates.Design | None,
) -> dict[str, Any]:
    """A name for the result, and what it was made from."""
    params, numbers = info["params"], slots["varm", key].select_dtypes("number")
    reads = made_from.of_technical(params, like.statistics == "counts", [] if design is None else design.columns)
    return {
        ID: made_from.id_of(params | {"seed": info["seed"]}, numbers, slots["varm", Slots(key).effects]),
        MADE_FROM: made_from.made_from(adata, reads, used, params, written=slots),
    }


def _has_layers(adata: AnnData, layer: str | None, category_layers: Sequence[str] | None) -> None:
    """Refuse layers that are not there."""
    for name in [layer] if category_layers is None else category_layers:
        _validate.matrix(adata, name)


def _controls(adata: AnnData, target_key: str, control: list[str], guides: Guides | None, use_all: bool) -> np.ndarray:
    """Which cells are controls: by their label, or by their guides."""
    if guides is None:
        return _validate.controls(_validate.labels(adata, target_key, "target_key"), control, target_key)
    ntc = guides.controls(control)
    found = guides.only(ntc)
    if not found.any() and not use_all:
        seen, n_some = sorted(set(guides.targets)), int((guides.of_cells(ntc) > 0).sum())
        raise ValueError(
            f"no cell has NTC guides only: {int(ntc.sum())} of {len(ntc)} guides of {guides.key!r} target "
            f"control={control} (targets are {seen[:12]}), {n_some} cells have one of these, each with "
            "others. Where cells have many guides, pass use_all_cells=True; else set control="
        )
    if found.sum() < FEW_CONTROLS and not use_all:
        logger.warning(
            "tl.fit_technical: only %d cells have NTC guides only; use_all_cells=True takes all cells", found.sum()
        )
    return found


def _refuse_confounded(
    adata: AnnData,
    batches: tuple[str | None, np.ndarray],
    target_key: str,
    is_control: np.ndarray,
    guides: Guides | None,
    control: list[str],
    design: _covariates.Design | None,
) -> None:
    """Refuse groups and factors that follow the targets, or what are controls, where all cells are used."""
    kind = is_control.astype(str)
    target = kind if guides is not None else _validate.labels(adata, target_key, "target_key")
    factors, close = _covariates.follow(adata, design, target)
    if close:
        logger.warning(
            "tl.fit_technical: the covariates %s follow the perturbation; learned from all cells, their effects take a "
            "part of it with them",
            close,
        )
    for column in (batches, *factors.items()):
        if guides is not None:
            refuse_confounded_guides(*column, guides, guides.controls(control))
        else:
            follow = {f".obs[{target_key!r}]": target, "whether a cell is a control": kind}
            refuse_confounded(*column, follow)


def _design(
    adata: AnnData, covariates: str | Sequence[str] | None, used: np.ndarray, group: np.ndarray, groups: list[str]
) -> _covariates.Design | None:
    """The covariates of the cells used."""
    if covariates is None:
        return None
    from dream_sc._data.formula import formula_of

    return _covariates.first_design(adata, formula_of(adata, covariates), used, group, groups)


def _check_options(p: dict[str, Any], options: dict[str, Any], covariates: Any) -> Likelihood:
    """Refuse options that are not known, or not of this distribution; gives its likelihood."""
    from dream_sc._core.engines import ENGINES
    from dream_sc._core.likelihoods import likelihood

    _validate.one_of("inference", p["inference"], ENGINES)
    if options["autoguide"] is not None:
        from dream_sc._core.engines import GUIDES

        _validate.one_of("autoguide", options["autoguide"], GUIDES)
    like = likelihood(p["distribution"])
    _validate.offered(p["inference"], like.name, like.technical_engines)
    shares.check(like, p["denominator_layer"], p["category_key"], p["category_layers"], p["layer"])
    _validate.sampling(p["inference"], options["nsamples"], options["niters"], options["device"])
    for name, value in (("minibatch_size", options["minibatch_size"]), ("min_cells", p["min_cells"])):
        if value is not None:
            _validate.whole(name, value)
    if like.statistics != "counts":
        of_counts = {
            "covariates": covariates,
            "min_cells": p["min_cells"],
            "size_factor_key": None if p["size_factor_key"] == SIZE_FACTOR else p["size_factor_key"],
        }
        _validate.without_effect(of_counts, f"on {like.statistics}, only on counts")
    if like.statistics != "shares" and not p["overdispersed"]:
        _validate.without_effect({"overdispersed": False}, f"on {like.statistics}, only on shares")
    if like.statistics != "counts" or p["inference"] != "svi":
        of_svi = {name: options[name] for name in ("autoguide", "minibatch_size")}
        _validate.without_effect(
            of_svi, f'with inference={p["inference"]!r} on {like.statistics}, only with "svi" on counts'
        )
    return like
