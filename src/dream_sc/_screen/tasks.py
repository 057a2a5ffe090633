"""The fit of each target, on the cells of its guides and the controls, one after the other or in several processes."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc._data.storage import cells_in_memory
from dream_sc._keys import ACTING, CIS, GUIDE_IDS, GUIDE_TARGETS, INERT_GUIDES, NO_DOSAGE, PAIR_COLUMNS, TRANS, Slots
from dream_sc._logging import about, logger

from .forecast import Pace
from .store import Part
from .targets import FAILED, FITTED
from .union import CALLED, pairs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from anndata import AnnData

    from .all_targets import AllTargets
    from .store import Store
    from .targets import Target
    from .workers import Fits, Workers

RETRIES = 3  # of targets whose worker is lost
PAUSE = 1.0  # seconds between looks at targets that another process fits


class WorkerLostError(ChildProcessError):
    """A process that fitted a target was ended by the system."""

    def __init__(self) -> None:
        super().__init__(
            "tl.screen: processes that fit targets were ended by the system several times, as for want of memory: take "
            "fewer, n_jobs=. With a store, finished targets stay, and the same call goes on"
        )


@dataclass(frozen=True)
class Steps:
    """Arguments of the steps."""

    technical_key: str
    layer: str | None
    guides: str | None  # key of the matrix of guides
    cis: dict[str, Any]
    trans: dict[str, Any]

    @property
    def without_dosage(self) -> dict[str, Any]:
        """Those of a trans step that compares perturbed with not."""
        trans = {name: value for name, value in self.trans.items() if name != "function_type"}
        of_guides = {} if self.guides is None else {"control_group": self.cis["control_group"]}
        return trans | {"guide_key": self.cis["guide_key"]} | of_guides


def cells_of(adata: AnnData, at: np.ndarray, steps: Steps) -> AnnData:
    """Some cells with what the steps read of them, and no more, in memory."""
    import anndata

    x = _rows(adata.X if steps.layer is None else adata.layers[steps.layer], at)
    slots, key, g = Slots(steps.technical_key), steps.technical_key, steps.guides
    per_feature = (key, slots.effects, slots.effects_sd, slots.covariates, slots.covariates_sd, slots.ambient)
    per_cell = [name for name in (g, slots.ambient) if name is not None and name in adata.obsm]
    matrix = {name: x.iloc[at] if hasattr(x, "iloc") else x[at] for name in per_cell for x in [adata.obsm[name]]}
    of_guides = () if g is None else (g + GUIDE_IDS, g + GUIDE_TARGETS)
    return anndata.AnnData(
        x if steps.layer is None else None,
        # without what a cis fit of another gene has left
        obs=adata.obs.iloc[at].drop(columns=Slots(CIS).guide, errors="ignore"),
        var=adata.var,
        layers={} if steps.layer is None else {steps.layer: x},
        obsm=matrix,
        varm={name: adata.varm[name] for name in per_feature if name in adata.varm},
        uns={name: adata.uns[name] for name in (key, *of_guides) if name in adata.uns},
        shape=None if steps.layer is None else (len(at), adata.n_vars),
    )


def _rows(x: Any, at: np.ndarray) -> Any:
    """Rows of a matrix, wherever it lies."""
    found = cells_in_memory(x, at)
    return found.compute() if hasattr(found, "compute") else found


def fit_target(cells: AnnData, target: Target, steps: Steps) -> Part:
    """The cis and the trans step of one target, written into `cells`."""
    from dream_sc import get, tl
    from dream_sc.tl._inert_guides import inert_names

    started = time.perf_counter()
    about = row_of(target)
    frame = empty()
    labels, acting_key = list(target.labels), CIS
    try:
        if target.dosage == NO_DOSAGE:
            acting_key = f"{TRANS}{ACTING}"
            tl.fit_trans(cells, dosage="none", cis_targets=labels, **steps.without_dosage)
        else:
            tl.fit_cis(cells, target.gene or target.name, cis_targets=labels, **steps.cis)
            tl.fit_trans(cells, **steps.trans)
    except (ValueError, KeyError) as error:
        # what is wrong with one target is no reason to stop the others
        about |= {"status": FAILED, "reason": str(error.args[0] if error.args else error)}
    else:
        frame = pairs_of(target.name, get.trans(cells), steps.trans["features"])
        found = cells.uns[acting_key]
        guides = found["guides"]
        acting = guides["log2_dosage"][~guides["is_control"].to_numpy(bool)]
        acting = acting * np.nan if target.dosage == NO_DOSAGE else acting
        about |= {
            "n_guides": len(acting),
            "n_cells": int(found["n_cells"]["targeting"]),
            "n_control_cells": int(found["n_cells"]["control"]),
            "log2_dosage_min": float(acting.min()),
            "log2_dosage_max": float(acting.max()),
            "n_features": int(frame["qvalue"].notna().sum()),
            "n_calls": int((frame["qvalue"] < CALLED).sum()),
            INERT_GUIDES: inert_names(cells.uns[TRANS]["guides"]),
        }
    about |= {"seconds": time.perf_counter() - started, "n_rows": len(frame)}
    return Part(frame, about)


def fit_together(every: AllTargets, target: Target) -> Part:
    """The fit of one target out of what was measured for all."""
    from .one_target import fit_pairs

    started, about, frame = time.perf_counter(), row_of(target), empty()
    try:
        pairs, found = fit_pairs(every, target)
    except (ValueError, KeyError) as error:
        about |= {"status": FAILED, "reason": str(error.args[0] if error.args else error)}
    else:
        frame = pairs_of(target.name, pairs, every.features)
        called = {"n_features": int(frame["qvalue"].notna().sum()), "n_calls": int((frame["qvalue"] < CALLED).sum())}
        about |= found | called
    about |= {"seconds": time.perf_counter() - started, "n_rows": len(frame)}
    return Part(frame, about)


def row_of(target: Target) -> dict[str, Any]:
    """What is known of a target before its fit."""
    out = asdict(target)
    del out["ntc_guides"]
    names = {"target": out.pop("name"), "cis_gene": out.pop("gene"), "labels": list(out.pop("labels"))}
    return names | out | {"n_rows": 0}


def empty() -> pd.DataFrame:
    """The rows of a target that has none."""
    return pd.DataFrame(columns=["target", "feature", *PAIR_COLUMNS])


def left_out(targets: Sequence[Target], store: Store | None) -> list[Part]:
    """Parts of targets that are not fitted, which say why; the `store` has them too."""
    parts = [Part(empty(), row_of(target)) for target in targets]
    for target, part in zip(targets, parts, strict=True):
        if store is not None and not store.file(target.name, identity(target)).exists():
            store.save(target.name, identity(target), part)
    return parts


def identity(target: Target) -> tuple[Any, ...]:
    """What the fit of a target takes beside the settings of all."""
    return target.gene, target.labels, target.dosage, *target.ntc_guides


def _finished(store: Store | None, target: Target) -> Part | None:
    """The part of a target in the store; one that failed is tried again, since it may have been for want of memory."""
    part = None if store is None else store.load(target.name, identity(target))
    return None if part is None or part.about["status"] == FAILED else part


def work(fit: Callable[[], Part], target: Target, store: Store | None, threads: int | None) -> Part | None:
    """The part of a target, made by `fit` and kept if it is not there; None where another process makes it."""
    from dream_sc._core.parallel import at_most

    with (
        nullcontext(True) if store is None else store.claimed(target.name, identity(target)) as mine,
        _quiet(),
        about(f"target {target.name}"),
    ):
        if not mine:
            return None
        part = _finished(store, target)
        if part is None:
            with at_most(threads):
                part = fit()
            if store is not None:
                store.save(target.name, identity(target), part)
        return part


def run(targets: Sequence[Target], make: Fits, *, store: Store | None, workers: Workers, progress: Any) -> list[Part]:
    """The parts of all targets in their order; what the `store` has is not made again."""
    found: dict[str, Part] = {}
    pace, lost = Pace(workers.size), 0
    while lacking := [t for t in targets if t.name not in found]:
        kept = {t.name: _finished(store, t) for t in lacking}
        there = {name: part for name, part in kept.items() if part is not None}
        if there:
            logger.info("tl.screen: read %d of %d targets from the store", len(there), len(targets))
        found |= there
        progress.advance(len(there))
        made = 0
        free = (t for t in lacking if t.name not in there and (store is None or store.free(t.name, identity(t))))
        try:
            for part in workers.each(free, make, store):
                if part is not None:
                    found[part.about["target"]], made = part, made + 1
                    progress.advance()
                    _say(part, len(found), len(targets))
                    pace.fitted(part.about["seconds"], len(targets) - len(found))
        except WorkerLostError:
            lost += 1
            if lost > RETRIES:
                raise
            logger.warning("tl.screen: a process was ended by the system, perhaps for want of memory; its target again")
            continue
        if made == 0 and len(found) < len(targets):  # all that is lacking is in the hands of others
            time.sleep(PAUSE)
    return [found[t.name] for t in targets]


def _say(part: Part, n: int, n_all: int) -> None:
    """A line in the log for a target that is done."""
    about = part.about
    why = about["reason"]
    level = logging.WARNING if about["status"] == FAILED else logging.INFO
    how, what = "", why
    if about["status"] == FITTED:
        n_calls = about["n_calls"]
        what = f"{n_calls} {'call' if n_calls == 1 else 'calls'} of {about['n_features']} features"
        how = f", without dosages ({why})" if about["dosage"] == NO_DOSAGE else ""
    logger.log(level, "tl.screen: %d of %d, %s%s: %s, %.1f s", n, n_all, about["target"], how, what, about["seconds"])


@contextmanager
def _quiet() -> Iterator[None]:
    """What the steps say of each target is for those who fit one."""
    before = logger.level
    logger.setLevel(max(logging.WARNING, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        logger.setLevel(before)
