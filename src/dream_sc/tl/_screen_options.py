"""Which options of a screen go together, who fits its targets, and how much of each is fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._keys import NTC, TARGET
from dream_sc._logging import logger
from dream_sc._memory.budget import memory_budget

from ._cis_design import check_sizes
from ._trans_settings import check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from dream_sc._screen.targets import Library, Target
    from dream_sc._screen.tasks import Steps
    from dream_sc._screen.workers import Fits

Effort = Literal["auto", "full", "first_pass"]
MANY_DRAWS, FEWER_DRAWS = 1000, 250  # of full fits, and after a first pass


def check_controls(control_group: str, guides: str | None) -> None:
    """Refuse all other cells as controls where each cell has one guide."""
    if control_group == "complement" and guides is None:
        raise ValueError(
            "control_group='complement' is for cells with several guides (guides=), and these have one: leave it out"
        )


def check_screen(
    min_guides: int,
    min_cells: int,
    min_cells_per_guide: int,
    control_group: str,
    pooling: str,
    function_type: str,
    nsamples: int,
) -> None:
    """Refuse options that are not known here: in the fit of a target they would be a failure of each."""
    sizes = {"min_guides": min_guides, "min_cells": min_cells, "min_cells_per_guide": min_cells_per_guide}
    for name, value in sizes.items():
        _validate.whole(name, value)
    _validate.one_of("control_group", control_group, ("nt_cells", "complement"))
    _validate.one_of("pooling", pooling, ("all", "target"))
    sampling = dict.fromkeys(("niters", "autoguide", "minibatch_size", "device"))
    check(
        function_type=function_type,
        dosage="guide",
        inference="laplace",
        degree=None,
        nsamples=nsamples,
        min_denominator=None,
        sampling=sampling,
        checkpoint=None,
    )


def options_go_together(**given: Any) -> None:
    """Refuse what `tl.screen` refuses without a look at its data; the defaults stand for what is not given."""
    from inspect import signature

    from ._screen import screen

    of = {name: parameter.default for name, parameter in signature(screen).parameters.items()} | given
    names = ("min_guides", "min_cells", "min_cells_per_guide", "control_group", "pooling", "function_type")
    nsamples = MANY_DRAWS if of["nsamples"] is None else of["nsamples"]
    check_screen(**{name: of[name] for name in names}, nsamples=nsamples)
    check_sizes(of["min_cells_per_guide"], of["min_count"])
    check_effort(of["effort"], of["n_null_targets"])
    jobs_of(of["n_jobs"])
    memory_budget(of["memory_limit"])
    results.seed_of(of["rng"])


def check_labels(adata: AnnData, given: Mapping[str, Any], guide_key: str, cis_genes: Any) -> None:
    """Refuse columns, control labels and targets that are not there before there is a technical fit."""
    from dream_sc._screen.targets import asked_of

    if given.get("batch_key") is not None:
        _validate.column(adata, given["batch_key"], "batch_key")
    if given.get("guides") is not None:
        return  # whose own checks come first in the technical fit
    key, control = given.get("target_key") or TARGET, _validate.label_texts(given.get("control") or NTC)
    target = _validate.labels(adata, key, "target_key")
    _validate.controls(target, control, key)
    _validate.labels(adata, guide_key, "guide_key")
    asked_of(sorted(set(target) - set(control) - {""}), cis_genes)


def check_effort(effort: str, n_null_targets: int) -> None:
    """Refuse an effort that is not known, and what is no number of targets."""
    _validate.whole("n_null_targets", n_null_targets, 0)
    _validate.one_of("effort", effort, get_args(Effort))


def jobs_of(n_jobs: int | None) -> int:
    """Number of processes."""
    if n_jobs is None:
        return 1
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int | np.integer) or n_jobs == 0:
        raise ValueError(f"n_jobs={n_jobs!r} is not allowed: use a whole number of processes, or -1 for one per core")
    import joblib

    return int(joblib.effective_n_jobs(int(n_jobs)))


def client_of(client: Any, n_jobs: int | None, store: Any) -> Any:
    """The client, refused where its workers could not work."""
    if client is None:
        return None
    if not all(hasattr(client, name) for name in ("submit", "scheduler_info", "cancel")):
        raise TypeError(f"client={client!r} is no distributed.Client: give one, such as distributed.Client(cluster)")
    if n_jobs is not None:
        raise ValueError("n_jobs= has no effect with client=: leave one of them out")
    if store is None:
        raise ValueError("client= needs store=, a folder that all workers see: tasks carry its path, not matrices")
    if not client.scheduler_info().get("workers"):
        raise ValueError("client= has no workers: wait for them with client.wait_for_workers(1), or scale the cluster")
    return client


def fits_of(
    effort: str, adata: AnnData, cells: Library, wanted: Sequence[Target], steps: Steps, needed_by: list[str]
) -> Fits:
    """How targets are fitted: each by itself, or out of what is measured once for all, as some arguments need it."""
    from dream_sc._screen.all_targets import all_targets, why_not
    from dream_sc._screen.workers import Single, Together

    technical = adata.uns[steps.technical_key]
    why = 'effort="full"' if effort == "full" else why_not(adata, cells, technical, steps)
    needed_by = ['effort="first_pass"'] * (effort == "first_pass") + needed_by
    if why and needed_by:
        raise ValueError(f"{needed_by[0]} needs the first pass, which is not offered: {why}")
    if why:
        logger.info("tl.screen: each target has a fit of its own (%s)", why)
        return Single(adata, cells, steps)
    return Together(lambda: all_targets(adata, cells, wanted, steps, steps.trans["memory_limit"]))
