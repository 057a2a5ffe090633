"""Step 2: the latent dosage of guides and cells from the counts of the cis gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._core.stats.intervals import Z95
from dream_sc._data import covariates, made_from, results, stored
from dream_sc._data.groups import group_codes
from dream_sc._data.guide_combinations import never_apart
from dream_sc._data.guide_matrix import read_guides
from dream_sc._keys import CIS, CIS_COLUMNS, CIS_POSITION, GUIDE, GUIDE_COLUMNS, ID, MADE_FROM, TECHNICAL, Slots
from dream_sc._memory.guard import watched
from dream_sc._progress import bar

from ._cis_counts import cells_of
from ._cis_design import CisDesign, ControlGroup, by_covariate, check_sizes, guide_priors, of_guides, of_labels
from ._cis_offsets import at_offsets, cis_offsets
from ._cis_resolution import by_group, diagnostics
from ._confounded_groups import refuse_confounded, refuse_confounded_design
from ._guide_sets import slots_of as set_slots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from mudata import MuData

    from dream_sc._core.engines import Engine
    from dream_sc._core.types import CisCells


@watched("fit_cis")
def fit_cis(
    data: AnnData | MuData,
    cis_gene: str,
    *,
    cis_targets: str | list[str] | None = None,
    mod: str | None = None,
    layer: str | None = None,
    guide_key: str = GUIDE,
    target_key: str | None = None,
    control: str | list[str] | None = None,
    guides: str | Literal[False] | None = None,
    control_group: ControlGroup = "nt_cells",
    guide_covariate_key: str | None = None,
    guide_prior: pd.DataFrame | Mapping[str, tuple[float, float]] | None = None,
    pooling: Literal["all", "target"] = "all",
    guide_offsets: bool = True,
    min_cells_per_guide: int = 5,
    min_count: float = 0.1,
    technical_key: str = TECHNICAL,
    inference: Engine = "laplace",
    nsamples: int | None = None,
    niters: int | None = None,
    device: str | None = None,
    memory_limit: int | str | None = None,
    rng: int | np.random.Generator = 0,
    progress: bool | None = None,
    key_added: str = CIS,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Fit the dosage of the cis gene, log2 relative to NTC, for every guide and cell.

    A cell's log2 dosage is normal around its guide's; its count is negative binomial with the overdispersion
    fixed at the technical estimate, so that the dosage cannot take the noise of the counts for itself. That
    overdispersion holds the natural spread of unperturbed cells: only spread beyond that of NTC cells is dosage. What
    covariates of the technical fit do to the count is taken off.
    A guide that fails in a part of its cells gets a dosage in two parts where the counts clearly ask for it: a share
    of its cells (escaper_fraction in the table of guides) is at the NTC level, the others are where the guide acts
    (log2_dosage_acting), and log2_dosage is the log2 of the mean of both. The trans step averages curves over the two.

    Where cells carry several guides (`guides`), those of the cis gene add up: a cell's log2 dosage is the sum of its
    guides' effects, its variance the sum of theirs. Its other guides are not looked at. Guides that are never apart,
    such as the two of a dual-guide construct, count as one, "a+b"; a cell with a part of them takes no part. Escaping
    cells are looked for among cells with one guide of the cis gene.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_technical` has run.
    cis_gene
        Name of the targeted feature.
    cis_targets
        Target label(s) whose guides act on it; its own name by default. Other genes among them are direct targets,
        which the trans step flags (`direct_target`).
    mod
        Modality of a MuData.
    layer
        Layer of the counts; that of the technical fit by default.
    guide_key
        Column of `.obs` with each cell's guide, where cells have one.
    target_key, control
        Column of `.obs` with each cell's target, and the label(s) of non-targeting cells or guides; those of the
        technical fit by default.
    guides
        Where cells may have several guides: key of `.obsm` with cells x guides (binary or counts; see
        `pp.guide_matrix`), or the name of a modality of guides. By default that of the technical fit, if it had one;
        False takes the labels of `guide_key` all the same.
    control_group
        With `guides`: "nt_cells", cells with NTC guides only; "complement", every cell without a guide of the cis
        gene, for screens in which each cell carries many. Controls are split by one NTC guide of each, drawn by `rng`.
    guide_covariate_key
        Column of `.obs`, such as the line: a targeting guide gets a dosage of its own in each level, named
        "guide|level", and so do its own effects in the trans step.
    guide_prior
        With "laplace", what is known of guides' log2 dosages before: a DataFrame with the guides as index and columns
        "log2_dosage" and "sd" (as `get.guides` returns for another screen), or a mapping to pairs of the two. Their
        posterior is then not drawn to that of the other guides.
    pooling
        Guides are drawn to the mean of their population, as far as their counts leave it open: "all" guides are one, or
        those of each "target" ("laplace" only).
    guide_offsets
        Take off the size factors what they do to all genes of a guide alike, as totals do where many genes respond:
        the median over genes that agree between guides, in one pass over the counts. The modality needs some 40
        genes with counts.
    min_cells_per_guide
        Guides with fewer cells are left out, and with them cells that carry one beside others.
    min_count
        Least mean count of the cis gene in control cells at size factor 1.
    technical_key
        Name of the technical fit.
    inference
        "laplace": the fast engine, each cell by quadrature. "svi" or "nuts": the same model in Pyro with a latent
        dosage per cell, without escaping cells; "nuts" for some hundred cells.
    nsamples, niters, device
        Draws (1,000 by default), steps of "svi" (3,000) or warm-up of "nuts" (500), and device (a GPU if torch finds
        one) of the Pyro engines. Refused with "laplace", which runs on the CPU without draws.
    memory_limit
        Bytes, or a text such as "4GB", for reading the counts; half of what is available by default.
    rng
        Seed, stored with the results; the fast engine is deterministic but for the split of controls with `guides`.
    progress
        Show a progress bar, over guides or over the steps of the Pyro engines; by default on a terminal and in a
        notebook.
    key_added
        Name under which results are stored.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.obsm[key_added]` (x_true: median dosage, 1 at NTC; log2_x_true,
    log2_sd, log2_q025, log2_q975; NaN for cells that take no part), `.obs[key_added + "_guide"]` (the guide under which
    a cell counts in the trans step; missing where it takes no part or has several guides of the cis gene) and
    `.uns[key_added]` with a table of guides, and with how many cells are targeted, controls, or excluded. Sets of
    guides that `min_cells_per_guide` cells or more carry (the 200 largest) are in `.uns[key_added]["guide_sets"]` and
    `.obs[key_added + "_guide_set"]`, under which these cells count in the trans step; where together they have less
    than a tenth as many cells as carry one guide, there are none.

    Raises
    ------
    ValueError, KeyError
        If the technical fit is missing, the gene unknown or not counted, no guide acts on it, no cell is a control,
        guides follow the technical groups of a fit on all cells, or a cell lacks a covariate of the technical fit.

    Examples
    --------
    >>> ds.tl.fit_cis(adata, "GFI1B")  # after tl.fit_technical
    """
    from dream_sc._core.engines import Inference, run
    from dream_sc._core.priors import CisPriors

    started, data = results.now(), results.own(data, copy)
    adata = _validate.resolve(data, mod)
    _validate.new_key(adata, key_added, "tl.fit_cis")
    _check_columns(adata, key_added, (guide_key, target_key, guide_covariate_key))
    sampling = {"nsamples": nsamples, "niters": niters, "device": device}
    _check(sampling, control_group, pooling, inference, guide_prior)
    check_sizes(min_cells_per_guide, min_count)
    seed, technical = results.seed_of(rng), _counted(adata, technical_key)
    gene = _validate.feature(adata, cis_gene, "cis gene")
    wanted = _validate.label_texts(cis_gene if cis_targets is None else cis_targets)
    layout = {
        "guide_key": guide_key,
        "target_key": target_key,
        "control": control,
        "guides": guides,
        "control_group": control_group,
        "guide_covariate_key": guide_covariate_key,
    }
    design, layout = _design(data, adata, technical, layout, wanted, min_cells_per_guide, seed)
    layer = technical["params"]["layer"] if layer is None else layer
    cells = cells_of(adata, gene, cis_gene, layer, technical_key, technical, design, min_count, memory_limit, progress)
    _check_ambient(cells, inference, layout["guides"])
    made_from.check(adata, technical_key, "tl.fit_cis", layer)
    if guide_offsets:
        cells = _at_offsets(adata, cells, gene, layer, technical_key, technical, design, memory_limit)
    cells, wrap = _with_priors(cells, design.table, guide_prior, pooling), _bar(progress, cis_gene, inference)
    fit = run("cis", Inference.of(inference, seed, progress=wrap, **sampling), cells, CisPriors())
    info = results.run_info(
        started,
        seed,
        {
            "cis_targets": wanted,
            "technical_key": technical_key,
            "inference": inference,
            "layer": layer,
            "pooling": pooling,
            "guide_offsets": bool(guide_offsets),
            "min_cells_per_guide": min_cells_per_guide,
            "min_count": min_count,
        }
        | {k: v for k, v in (sampling | {"guide_prior": guide_prior is not None or None}).items() if v is not None}
        | layout,
    ) | {
        "cis_gene": cis_gene,
        CIS_POSITION: [gene, adata.n_vars],
        "guides": _guide_table(design.table, fit),
        "n_cells": design.n_cells,
        "diagnostics": diagnostics(fit, cells, cis_gene) | _by_group(adata, technical, cells, design, layout, cis_gene),
    }
    of_cell = pd.Categorical.from_codes(design.row_guide, design.table["guide"])
    table, name = _cell_table(adata, fit, design), Slots(key_added).guide
    info |= _identity(adata, info, design.used, technical_key, technical)
    of_sets, more = set_slots(key_added, design, fit, min_cells_per_guide)
    slots = {("obsm", key_added): table, ("obs", name): of_cell, **more, ("uns", key_added): info | of_sets}
    results.write(adata, "tl.fit_cis", slots, started)
    return data if copy else None


def _by_group(
    adata: AnnData, technical: Any, cells: CisCells, design: CisDesign, layout: dict[str, Any], cis_gene: str
) -> dict[str, Any]:
    """Whether dosages differ between technical groups, unless guides have one in each level of a column."""
    if layout["guide_covariate_key"] is not None:
        return {}
    groups = list(technical["groups"])
    return by_group(
        cells, group_codes(adata, technical)[design.used], groups, technical["params"]["batch_key"], cis_gene
    )


def _identity(
    adata: AnnData, info: dict[str, Any], used: np.ndarray, technical_key: str, technical: Any
) -> dict[str, Any]:
    """A name for the result, and what it was made from."""
    params, reads = info["params"], made_from.of_cis(info["params"], technical)
    return {
        ID: made_from.id_of(params | {"seed": info["seed"]}, info["guides"].select_dtypes("number")),
        MADE_FROM: made_from.made_from(adata, reads, used, params, {technical_key: technical}),
    }


def _bar(progress: bool | None, gene: str, inference: str) -> Any:
    """A bar over what the engine goes through."""
    return bar(progress, f"dosage of {gene}", "guides" if inference == "laplace" else "steps")


def _check(sampling: dict[str, Any], control_group: str, pooling: str, inference: str, guide_prior: Any) -> None:
    """Refuse options that are not known."""
    from dream_sc._core.engines import ENGINES

    _validate.one_of("inference", inference, ENGINES)
    _validate.one_of("control_group", control_group, get_args(ControlGroup))
    _validate.sampling(inference, **sampling)
    if inference != "laplace" and (pooling != "all" or guide_prior is not None):
        raise ValueError(f"pooling='target' and guide_prior= are of inference='laplace', not of {inference!r}")


def _check_columns(adata: AnnData, key_added: str, inputs: tuple[str | None, ...]) -> None:
    """Refuse a `key_added` whose columns of `.obs` are the user's."""
    for column in (Slots(key_added).guide, Slots(key_added).guide_set):
        _validate.new_column(adata, column, key_added, inputs)


def _at_offsets(
    adata: AnnData,
    cells: CisCells,
    gene: int,
    layer: str | None,
    technical_key: str,
    technical: Any,
    design: CisDesign,
    limit: int | str | None,
) -> CisCells:
    """The cells with what their size factors do to all genes of a guide alike taken off."""
    groups = group_codes(adata, technical)
    return at_offsets(cells, *cis_offsets(adata, gene, layer, technical_key, technical, groups, design, limit))


def _check_ambient(cells: CisCells, inference: str, guides: Any) -> None:
    """Refuse ambient counts where they are not offered."""
    if cells.floor is not None and (inference != "laplace" or guides is not None):
        raise ValueError(
            "the technical fit has ambient=, which tl.fit_cis takes into account with inference='laplace' and one "
            f"guide per cell, not with inference={inference!r} and guides={guides!r}: leave these out, or call "
            "dream_sc.tl.fit_technical without ambient="
        )


def _counted(adata: AnnData, technical_key: str) -> Any:
    """The technical fit, of counts."""
    technical = _validate.step(adata, technical_key, "fit_technical(data)")
    like = stored.likelihood_of(technical)
    if like.statistics != "counts":
        raise ValueError(
            f".uns[{technical_key!r}] is a technical fit of {like.name} data, but the dosage of the cis "
            "gene comes from counts: call dream_sc.tl.fit_technical on the modality of counts"
        )
    return technical


def _design(
    data: Any, adata: AnnData, technical: Any, layout: dict[str, Any], wanted: list[str], min_cells: int, seed: int
) -> tuple[CisDesign, dict[str, Any]]:
    """Which cells take part under which guide, and the arguments that say so, with those of the technical fit."""
    params = technical["params"]
    layout = {k: params.get(k) if v is None else v for k, v in layout.items()}
    layout["guides"] = None if layout["guides"] is False else layout["guides"]
    control = _validate.label_texts(layout["control"])
    layout["control"], key = control, layout["guide_covariate_key"]
    levels = None if key is None else _validate.labels(adata, key, "guide_covariate_key")
    columns = [(params["batch_key"], group_codes(adata, technical))] if params.get("use_all_cells") else []
    if columns:
        columns += covariates.factors(adata, technical).items()
    if layout["guides"] is not None:
        _validate.guides_key(layout["guides"])
        found, barred = never_apart(read_guides(data, adata, layout["guides"]), wanted, control)
        acting = found.targeting(wanted)
        if levels is not None:  # a cell whose level is missing has no guide of known dosage, nor is it a control
            barred |= (levels == "") & (found.of_cells(acting) > 0)
        apart = found if levels is None else found.by(levels, acting)
        design = of_guides(apart, wanted, control, layout["control_group"], min_cells, seed, barred)
        for name, groups in columns:
            refuse_confounded_design(name, groups, design, found, acting)
        return design, layout
    if layout["control_group"] != "nt_cells":
        raise ValueError(
            f"control_group={layout['control_group']!r} is for cells with several guides: name their matrix as guides="
        )
    target = _validate.labels(adata, layout["target_key"], "target_key")
    guide = _validate.labels(adata, layout["guide_key"], "guide_key")
    is_control = _validate.controls(target, control, layout["target_key"])
    taken_apart = guide if levels is None else np.where(is_control, guide, by_covariate(guide, levels))
    design = of_labels(taken_apart, target, is_control, wanted, min_cells, layout["target_key"])
    for name, groups in columns:
        refuse_confounded(name, groups, {f".obs[{layout['guide_key']!r}]": np.where(design.used, guide, "")})
    return design, layout


def _with_priors(cells: CisCells, table: pd.DataFrame, known: Any, pooling: str) -> CisCells:
    """The cells with the populations of their guides, and what is known of these before."""
    from dataclasses import replace

    if pooling == "target":
        cells = replace(cells, population=pd.factorize(table["target"])[0].astype(np.int64))
    return cells if known is None else replace(cells, known=guide_priors(known, table))


def _cell_table(adata: AnnData, fit: Any, design: CisDesign) -> pd.DataFrame:
    obs = np.full((adata.n_obs, len(CIS_COLUMNS)), np.nan)
    obs[design.used] = np.column_stack(
        [2.0**fit.cell_median, fit.cell_median, fit.cell_sd, fit.cell_q025, fit.cell_q975]
    )
    return pd.DataFrame(obs, index=adata.obs_names, columns=list(CIS_COLUMNS))


def _guide_table(table: pd.DataFrame, fit: Any) -> pd.DataFrame:
    # against the NTC level, whose error all guides share: half widths add up in squares
    error = Z95 * np.where(table["is_control"], 0.0, fit.baseline_sd)
    half = Z95 * fit.guide_sd
    low, high = (fit.guide_mean - half, fit.guide_mean + half) if fit.interval is None else fit.interval
    low, high = (fit.guide_mean + s * np.hypot(end - fit.guide_mean, error) for s, end in ((-1, low), (1, high)))
    share = np.full((2, len(table)), np.nan) if fit.escape_interval is None else fit.escape_interval
    return table.assign(
        log2_dosage=fit.guide_mean,
        sd=fit.guide_sd,
        log2fc=fit.guide_mean,
        log2fc_q025=low,
        log2fc_q975=high,
        within_sd=fit.within_sd,
        escaper_fraction=fit.escape,
        escaper_fraction_q025=share[0],
        escaper_fraction_q975=share[1],
        log2_dosage_acting=fit.acting_mean,
        sd_acting=fit.acting_sd,
    )[list(GUIDE_COLUMNS)]
