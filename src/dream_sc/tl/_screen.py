"""Every target of a library: one technical fit, the two other steps for each target, one table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dream_sc import _compile, _validate
from dream_sc._data import made_from, results, stored
from dream_sc._keys import CELLS, GUIDE, ID, KINDS, MADE_FROM, NAMES, NTC, TECHNICAL
from dream_sc._logging import logger
from dream_sc._memory.budget import memory_budget
from dream_sc._progress import stage

from ._cis_design import check_sizes
from ._screen_options import (
    FEWER_DRAWS,
    MANY_DRAWS,
    check_controls,
    check_effort,
    check_labels,
    check_screen,
    client_of,
    fits_of,
    jobs_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from os import PathLike

    import pandas as pd
    from anndata import AnnData
    from distributed import Client
    from mudata import MuData

    from dream_sc._core.curves import FunctionType
    from dream_sc._screen.store import Store
    from dream_sc._screen.targets import Least, Library
    from dream_sc._screen.tasks import Steps

    from ._cis_design import ControlGroup
    from ._screen_options import Effort


def screen(
    data: AnnData | MuData,
    cis_genes: str | Iterable[str] | Mapping[str, str | list[str]] | None = None,
    *,
    control: str | list[str] = NTC,
    mod: str | None = None,
    layer: str | None = None,
    batch_key: str | None = None,
    covariates: str | Sequence[str] | None = None,
    target_key: str | None = None,
    guide_key: str = GUIDE,
    guides: str | None = None,
    control_group: ControlGroup = "nt_cells",
    size_factor_key: str | None = None,
    use_all_cells: bool | None = None,
    pooling: Literal["all", "target"] = "all",
    min_guides: int = 2,
    min_cells: int = 20,
    min_cells_per_guide: int = 5,
    min_count: float = 0.1,
    features: str | Iterable[str] | None = None,
    function_type: FunctionType = "auto",
    guide_effects: bool = True,
    guide_offsets: bool = True,
    nsamples: int | None = None,
    n_null_targets: int = 0,
    technical_key: str = TECHNICAL,
    effort: Effort = "auto",
    store: str | PathLike[str] | None = None,
    n_jobs: int | None = None,
    client: Client | None = None,
    memory_limit: int | str | None = None,
    rng: int | np.random.Generator = 0,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Fit every target of a library, and say which features respond to which target.

    There is one technical fit and one pass over the counts, which sums up every guide. What the NTC guides say of each
    feature is worked out once: its level, the prior of guide effects, the null distribution of the evidence. Then each
    target has its dosages and a first pass over all features; those that may respond have the evidence of
    `tl.fit_trans`, and those that rather respond its draws (`effort`). What is fitted for a target does not depend on
    which other targets are asked for; `qvalue_union` does, which is over all pairs in the table.

    Parameters
    ----------
    data
        AnnData or MuData of counts.
    cis_genes
        Targets to fit, by their labels; all but the controls by default. A label is the name of the cis gene, or its
        symbol in a column of `.var` such as "gene_symbols". For other labels, a mapping of cis gene to label(s).
    control
        Label(s) of non-targeting cells, or guides. Where there is a technical fit already, the default stands for its.
    mod
        Modality of a MuData.
    layer, batch_key, covariates, target_key, guides, size_factor_key, use_all_cells
        As in `tl.fit_technical`. Where there is a technical fit under `technical_key`, it is used, and other values
        than its are refused. `guides` is a key of `.obsm`.
    guide_key, control_group, pooling
        As in `tl.fit_cis`. With `control_group="complement"` each fit takes all cells.
    min_guides, min_cells
        Targets are left out that have fewer guides with `min_cells_per_guide` cells, or fewer cells with such guides.
    min_cells_per_guide, min_count
        As in `tl.fit_cis`; a target whose cis gene has a lower mean count is fitted as perturbed or not, without
        dosages.
    features
        Names of the features to report, as in `tl.fit_trans`. `qvalue_union` is then over the pairs reported.
    function_type, guide_effects, guide_offsets
        As in `tl.fit_trans`, and `guide_offsets` also in `tl.fit_cis`.
    nsamples
        Posterior draws behind the intervals; by default 1,000 in a full fit of each target, and 250 of what is called
        or near after a first pass.
    n_null_targets
        The number of groups of NTC guides that are relabelled as targets, "null_1" and so on, and fitted against the
        other NTC guides without dosages; each of their calls is false. Groups overlap, and depend on the library and
        `rng` only; their pairs count in `qvalue_union`.
    technical_key
        Name of the technical fit; it is written into `data` if it is not there.
    effort
        "full": a `tl.fit_cis` and a `tl.fit_trans` for each target, on the cells of its guides and the controls, with
        the numbers of these two calls. "first_pass": what targets share is worked out once, and the kernel sees only
        pairs that a first pass leaves; it needs labels of cells, a technical fit of control cells without covariates,
        200 features and six NTC guides. "auto": the first pass where it can be had, and the log says so.
    store
        Folder for finished targets, a parquet file each. The same call goes on where it was interrupted, and several
        processes may work on one store. A store of other data or settings is refused; a damaged file is made again.
    n_jobs
        Processes that fit targets, -1 for one per core; the threads are shared among them. By default one target is
        fitted at a time, on all threads. The table does not depend on it.
    client
        A `distributed.Client`, whose workers fit targets in place of `n_jobs`. It needs the first pass, and a `store`
        that all workers see: tasks are the path of a file there and a name. A worker fits as many targets at a time
        as it has threads, each on one of them. A target whose worker is lost is tried again by another one. The table
        does not depend on it.
    memory_limit
        Of each fit, as in `tl.fit_trans`; with a first pass, of the sums of all guides and the table of all targets.
    rng
        Seed of each fit; the same seed gives the same result.
    progress
        Show a progress bar over targets; by default on a terminal and in a notebook.

    Returns
    -------
    A row per target and feature, with `target`, `feature`, the main columns of `get.trans` (`on_knockdown`, `qvalue`
    within the target, `confidence`, `log2fc_full`, `log2_ec50` with their intervals, `p_ec50_inside`, `class`,
    `status`, `note`), the evidence behind them (`score`, `model`, `lfdr`, `pvalue`, `log_bf`, `log_bf_loo`,
    `n_guides_support`, and of following the dosage, `..._graded`) and `qvalue_union`: the false discovery rate over
    all pairs of the table if you keep this one and all better ones. Direct targets have no q-value. `get.screen(table,
    "targets")` gives a row per target: how many guides, cells and calls it has, its lowest dosage, seconds, and in
    `status` and `reason` why it was left out, if it was: "few_guides", "few_cells", or "failed". A target that is no
    feature of the data, or has too few counts for dosages (`min_count`), is fitted all the same, as perturbed or not:
    `dosage` is "none" there, and `reason` says why. Guides of such a target that do nothing are left out of its fit:
    `inert_guides` names them.

    Where the first pass is all that a pair had, its `note` says so: `log2fc_full` and its interval are then those of a
    straight line over log2 dosage, and the columns of the EC50 are missing.

    Raises
    ------
    ValueError, KeyError
        If columns are missing, a target is unknown, there are no counts, an argument contradicts the technical fit, or
        the store is of another screen.

    Examples
    --------
    >>> table = ds.tl.screen(adata, ["GFI1B"], store="screen", progress=False)  # again: read from the store
    >>> bool((table["qvalue_union"] < 0.05).sum() > 5)
    True
    """
    from dream_sc._screen import tasks, union
    from dream_sc._screen.targets import FITTED, Least, library, null_targets, of_library
    from dream_sc._screen.workers import Together, Workers

    draws = MANY_DRAWS if nsamples is None else nsamples
    check_screen(min_guides, min_cells, min_cells_per_guide, control_group, pooling, function_type, draws)
    check_sizes(min_cells_per_guide, min_count)
    memory_budget(memory_limit)
    check_effort(effort, n_null_targets)
    seed, adata = results.seed_of(rng), _validate.resolve(data, mod)
    workers = Workers(jobs_of(n_jobs), client_of(client, n_jobs, store))
    features = None if features is None else _reported(adata, features)
    given = {
        "layer": layer,
        "batch_key": batch_key,
        "covariates": covariates,
        "target_key": target_key,
        "control": _validate.label_texts(control),
        "guides": guides,
        "size_factor_key": size_factor_key,
        "use_all_cells": use_all_cells,
    }
    cis_genes = list(cis_genes) if isinstance(cis_genes, Iterator) else cis_genes  # read twice
    if technical_key not in adata.uns:
        check_labels(adata, given, guide_key, cis_genes)
    technical = _technical(adata, technical_key, given, memory_limit, seed, progress)
    params = technical["params"]
    check_controls(control_group, params["guides"])
    cells = library(
        adata,
        target_key=params["target_key"],
        guide_key=guide_key,
        control=list(params["control"]),
        guides=params["guides"],
        control_group=control_group,
    )
    least = Least(min_guides, min_cells, min_cells_per_guide, min_count)
    baseline = None if params["use_all_cells"] else adata.varm[technical_key]["mu"].to_numpy(float)
    targets = of_library(cells, adata, cis_genes, least, baseline)
    of_trans = {"features": features, "function_type": function_type, "guide_effects": guide_effects, "nsamples": draws}
    of_cis: dict[str, Any] = {"guide_key": guide_key, "control_group": control_group, "pooling": pooling}
    of_cis |= {"min_cells_per_guide": min_cells_per_guide, "min_count": min_count}
    both = {"technical_key": technical_key, "guide_offsets": guide_offsets, "memory_limit": memory_limit, "rng": seed}
    both["progress"] = False
    steps = tasks.Steps(technical_key, params["layer"], params["guides"], of_cis | both, of_trans | both)
    if n_null_targets:
        targets += null_targets(cells, targets, n_null_targets, seed, least)
    wanted = [t for t in targets if t.status == FITTED]
    needs = {"client=": client is not None, "n_null_targets=": n_null_targets > 0}
    fits = fits_of(effort, adata, cells, wanted, steps, [name for name, given in needs.items() if given])
    if nsamples is None and type(fits) is Together:
        steps.trans["nsamples"] = FEWER_DRAWS
    kept = None if store is None else _store(store, adata, technical, cells, steps, least, type(fits) is Together)
    _say(targets, FITTED, cells.unlabelled, adata.n_obs)
    if wanted:
        _compile.ready("cis", progress, then=("trans",))
        _compile.ready("trans", progress)
    with stage(progress, "screen", len(wanted), "targets") as running:
        parts = tasks.run(wanted, fits, store=kept, workers=workers, progress=running)
    return union.table_of(parts + tasks.left_out([t for t in targets if t.status != FITTED], kept))


def _reported(adata: AnnData, features: str | Iterable[str]) -> list[str]:
    """Names of the features to report."""
    names = _validate.label_texts(features)
    if not names:
        raise ValueError("features= names no feature: leave it out to report all")
    for name in names:
        _validate.feature(adata, name, "features")
    return names


def _technical(
    adata: AnnData, key: str, given: dict[str, Any], limit: int | str | None, seed: int, progress: bool | None
) -> Any:
    """The technical fit that is there, or a new one."""
    from ._fit_technical import fit_technical

    if key not in adata.uns:
        made = {name: value for name, value in given.items() if value is not None}
        fit_technical(adata, **made, memory_limit=limit, rng=seed, progress=progress, key_added=key)
    technical = _validate.step(adata, key, "fit_technical(data)")
    stored.check_params(technical["params"], f".uns[{key!r}]['params']")
    like = stored.likelihood_of(technical)
    if like.statistics != "counts":
        raise ValueError(f".uns[{key!r}] is a technical fit of {like.name} data: tl.screen is for counts")
    made_from.check(adata, key, "tl.screen", technical["params"]["layer"])
    params = dict(technical["params"])
    if given["covariates"] is not None:  # a formula may be written in several ways
        from dream_sc._data.formula import formula_of

        given = given | {"covariates": formula_of(adata, given["covariates"])}
    there = params | {"control": _validate.label_texts(params["control"])}
    for name, value in given.items():
        default = value is None or (name == "control" and value == [NTC])
        if not default and str(value) != str(there.get(name)):
            raise ValueError(
                f"{name}={value!r}, but the technical fit .uns[{key!r}] has {there.get(name)!r}: leave it out, or name "
                "another technical_key="
            )
    return technical


def _store(
    store: Any, adata: AnnData, technical: Any, cells: Library, steps: Steps, least: Least, together: bool
) -> Store:
    """The store, refused if it is of anything else."""
    from importlib.metadata import version

    from dream_sc._screen.store import open_store

    params = technical["params"]
    made = technical.get(MADE_FROM, {})
    reads = list(map(made_from.Read, map(str, made.get(KINDS, ())), map(str, made.get(NAMES, ()))))
    reads += made_from.of_cis(
        {"guide_key": steps.cis["guide_key"], "target_key": params["target_key"]} | params, technical
    )
    every = np.ones(adata.n_obs, dtype=bool)
    seen = made_from.made_from(adata, dict.fromkeys(reads), every, params)[CELLS]
    carried = None if cells.matrix is None else (cells.matrix.carried.indptr, cells.matrix.carried.indices)
    data = {
        "names of cells": adata.obs_names.to_numpy(object),
        "names of features": adata.var_names.to_numpy(object),
        "guides and targets of cells": (cells.target, cells.guide, carried),
        "size factors": _validate.size_factors(adata, params["size_factor_key"]),
        "counts, or columns of .obs": {name: seen[name].to_numpy() for name in seen},
        "technical fits": str(technical.get(ID)),
    }
    settings: dict[str, Any] = {
        "version of dream-sc": version("dream-sc"),
        "min_guides": least.guides,
        "min_cells": least.cells,
    }
    settings["effort"] = "first_pass" if together else "full"
    of_steps = asdict(steps)
    settings |= of_steps.pop("cis") | of_steps.pop("trans") | of_steps
    no_matter = ("memory_limit", "progress")
    return open_store(store, {name: v for name, v in settings.items() if name not in no_matter}, data)


def _say(targets: Sequence[Any], fitted: str, unlabelled: int, n_cells: int) -> None:
    """Say how many targets are left out, and why, and how many cells have no label."""
    if unlabelled:
        logger.warning(
            "tl.screen: %d of %d cells have no label of their target or guide, and take no part", unlabelled, n_cells
        )
    left = [t.status for t in targets if t.status != fitted]
    why = ", ".join(f"{left.count(status)} {status}" for status in dict.fromkeys(left))
    n = len(targets) - len(left)
    what = "target" if n == 1 else "targets"
    logger.info("tl.screen: %d %s to fit%s", n, what, f"; left out: {why}" if left else "")
