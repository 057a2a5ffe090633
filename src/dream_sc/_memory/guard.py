"""Before a fit: its estimate against what is free. After it: what was measured, beside the estimate."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dream_sc._keys import GUIDE, GUIDE_SETS, NO_DOSAGE
from dream_sc._logging import logger

from .budget import SMALL, available, highest_resident, in_words, memory_budget
from .sizes import NO_DEVICE, device_of, takes_sets

if TYPE_CHECKING:
    from collections.abc import Callable

    from .table import Estimate

    Function = TypeVar("Function", bound=Callable[..., Any])

PAUSE = 0.02  # seconds between looks at the resident set
SURE = 1.35  # an estimate is never further above what is needed than this
UNKNOWN = (KeyError, ValueError, TypeError, AttributeError, IndexError)
ASKED = (
    "mod",
    "layer",
    "batch_key",
    "target_key",
    "control",
    "distribution",
    "denominator_layer",
    "category_key",
    "category_layers",
)
SMALLER = {"fit_technical": ("minibatch_size=16",)}  # what takes less of a GPU by step
CHOICES = ("use_all_cells", "function_type", "inference", "autoguide", "nsamples", "minibatch_size")


def watched(step: str) -> Callable[[Function], Function]:
    """Make a fit look at the memory before it runs, obey its limit, and store what it took.

    The entry of `.uns` gets ``"memory"``: bytes that the step was estimated to add to what was there, those that it
    added by measurement, and the highest resident set of the process meanwhile.
    """

    def wrap(function: Function) -> Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # which says it in its own name
            bound.apply_defaults()
            given = dict(bound.arguments)
            estimate = _estimate(step, given)
            plan = _plan(step, estimate, given)
            if estimate is not None and plan is not None:
                estimate = _with_threads(estimate, plan)
            bound.arguments.update(_off_gpu(step, estimate, given))
            with Watch() as watch, _capped(plan):
                out = _call(function, step, bound, estimate)
            _store(out if given.get("copy") else given["data"], step, given, estimate, watch)
            return out

        return run  # type: ignore[return-value]

    return wrap


class Watch:
    """The highest resident set of this process while a block of code runs."""

    def __enter__(self) -> Watch:
        import psutil

        self._process = psutil.Process()
        self.before = self.highest = self._now()
        self._mark = highest_resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="dream_sc memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.highest = max(self.highest, self._now())
        if highest_resident() > self._mark:  # the process has never been larger: the system's own mark misses nothing
            self.highest = max(self.highest, highest_resident())

    def _look(self) -> None:
        while not self._stop.wait(PAUSE):
            self.highest = max(self.highest, self._now())

    def _now(self) -> int:
        return int(self._process.memory_info().rss)


def _estimate(step: str, given: dict[str, Any]) -> Estimate | None:
    """The estimate for a call, None where its arguments do not make sense: the fit says why."""
    from dream_sc.memory import estimate_of

    from .from_data import read_sizes

    try:
        asked = {name: given.get(name) for name in ASKED} | {
            "guide_key": given.get("guide_key", "guide"),
            "guides": None,  # the fit reads the matrix
            "cis_gene": given.get("cis_gene"),
            "cis_targets": given.get("cis_targets"),
            "backed": False,
        }
        options: dict[str, Any] = {name: given[name] for name in CHOICES if given.get(name) is not None}
        if step == "compare":
            given = given | _of_contexts(given, options)
        if step != "fit_technical":
            _from_earlier(step, given, asked, options)
        n_features, n_cells, found, counted = read_sizes(given["data"], asked)
        if "context_cells" in options:
            counted["context_cells"] = options.pop("context_cells")
        if given.get("memory_limit") is not None:
            options["memory_limit"] = memory_budget(given["memory_limit"])
        options["device"] = device_of(given.get("device"), given.get("inference", "laplace"))
        return estimate_of(n_features, n_cells, found | options, counted)
    except UNKNOWN as error:
        logger.debug("tl.%s: no estimate of its memory (%s)", step, error)
        return None


def _of_contexts(given: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What the trans fit that is compared says in place of arguments; the number of contexts goes into `options`."""
    from dream_sc import _validate

    adata = _validate.resolve(given["data"], given["mod"], views=True)
    info = adata.uns[given["key"]]
    labels = _validate.labels(adata, given["by"], "by")
    sizes = np.unique(labels[labels != ""], return_counts=True)[1]
    options |= {"n_contexts": len(sizes), "context_cells": int(sizes.max(initial=1))}
    options["ordered_contexts"] = isinstance(given.get("order"), Mapping) or bool(given.get("order"))
    keys = {name: info["params"][name] for name in ("technical_key", "cis_key", "layer")}
    return keys | {"cis_mod": info["cis_mod"], "cis_targets": None}


def _from_earlier(step: str, given: dict[str, Any], asked: dict[str, Any], options: dict[str, Any]) -> None:
    """Fill in what the earlier steps know: columns, layers, and the guides that take part."""
    from dream_sc import _validate

    adata = _validate.resolve(given["data"], given["mod"], views=True)
    params = adata.uns[given["technical_key"]]["params"]
    for name in ASKED[2:]:
        value = params.get(name)
        asked[name] = list(value) if name in ("control", "category_layers") and value is not None else value
    asked["layer"] = params["layer"] if asked["layer"] is None else asked["layer"]
    options["use_all_cells"] = bool(params.get("use_all_cells", False))
    if step == "fit_trans" and given["cis_targets"] is not None:  # which finds its guides itself
        asked["guide_key"] = given["guide_key"] or GUIDE
    elif step == "fit_trans":
        holder = adata if given["cis_mod"] is None else _validate.resolve(given["data"], given["cis_mod"], views=True)
        guides = holder.uns[given["cis_key"]]["guides"]
        asked["guide_key"] = ""  # the table of guides knows better
        options["n_guides"], options["n_cis_guides"] = len(guides), int((~guides["is_control"].astype(bool)).sum())
        takes = given.get("dosage") != NO_DOSAGE and takes_sets(given.get("inference", ""), asked["distribution"])
        if step == "fit_trans" and takes:
            options["n_guide_sets"] = len(holder.uns[given["cis_key"]].get(GUIDE_SETS, ()))


def _plan(step: str, estimate: Estimate | None, given: dict[str, Any]) -> int | None:
    """The number of threads to keep to, None for all; warn, or refuse, where there is too little memory."""
    if estimate is None:
        return None
    from .table import changes

    limit = given.get("memory_limit")
    asked = None if limit is None else memory_budget(limit)
    free = available() if asked is None or asked < SMALL else min(asked, available())
    need = estimate.added(step)
    if need <= free:
        return None
    alone = _with_threads(estimate, 1).added(step)
    if alone <= free:
        return 1
    what = f"memory_limit={limit!r}" if asked == free else "free memory"
    listed = "; ".join(f"({i}) {text}" for i, text in enumerate(changes(estimate), 1))
    said = f"tl.{step}: it needs about {in_words(alone)} beside what is there, more than the {what} of {in_words(free)}"
    if asked == free:
        least = -(-least_limit(step, estimate) // 10**6)
        said += f". The smallest limit that would do: memory_limit='{least}MB'"
        raise ValueError(f"{said}. What saves most: {listed}")
    if alone > SURE * free:
        raise ValueError(f"{said}. What saves most: {listed}")
    logger.warning("%s, and may fail. What saves most: %s", said, listed)
    return 1


def least_limit(step: str, estimate: Estimate) -> int:
    """The smallest limit in bytes that a step keeps to by its estimate, on one thread."""
    from dataclasses import replace

    from .table import table

    sizes = replace(estimate.sizes, n_threads=1)
    low, high = SMALL, max(SMALL, table(replace(sizes, memory_limit=None)).added(step))
    while high - low > 10**6:  # what blocks take grows more slowly than the limit
        middle = (low + high) // 2
        fits = table(replace(sizes, memory_limit=middle)).added(step) <= middle
        low, high = (low, middle) if fits else (middle, high)
    return high


def _off_gpu(step: str, estimate: Estimate | None, given: dict[str, Any]) -> dict[str, str]:
    """The CPU in place of a GPU that was not asked for by name and has too little memory; else a warning."""
    if estimate is None:
        return {}
    need = int(estimate.totals().loc[step, "VRAM"])
    if not need or need <= (free := _free_vram()):
        return {}
    said = f"tl.{step}: it needs about {in_words(need)} of the GPU's memory, of which {in_words(free)} are free"
    if given.get("device") in NO_DEVICE:
        logger.warning("%s: the CPU is used", said)
        return {"device": "cpu"}
    helps = ["device='cpu'", *SMALLER.get(step, ()), "fewer features"]
    logger.warning("%s, and may fail. What helps: %s", said, "; ".join(f"({i}) {t}" for i, t in enumerate(helps, 1)))
    return {}


def _free_vram() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else 0


def _with_threads(estimate: Estimate, n: int) -> Estimate:
    from dataclasses import replace

    from .table import table

    return table(replace(estimate.sizes, n_threads=n))


def _capped(n: int | None) -> Any:
    from dream_sc._core.parallel import at_most

    return at_most(n)


def _call(function: Callable[..., Any], step: str, bound: inspect.BoundArguments, estimate: Estimate | None) -> Any:
    """Call the fit; out of memory, fall back to the CPU where the device was its own choice, or say what to change."""
    try:
        return function(*bound.args, **bound.kwargs)
    except MemoryError as error:
        raise MemoryError(_explained(step, "memory", estimate)) from error
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        torch.cuda.empty_cache()
        if bound.arguments.get("device") not in NO_DEVICE:
            raise MemoryError(_explained(step, "memory of the GPU", estimate)) from error
    logger.warning("tl.%s: the GPU ran out of memory, the fit starts again on the CPU", step)
    bound.arguments["device"] = "cpu"
    return function(*bound.args, **bound.kwargs)


def _explained(step: str, what: str, estimate: Estimate | None) -> str:
    """What to change where memory ran out."""
    from .table import changes

    listed = changes(estimate) if estimate is not None else ["take fewer features at a time, adata[:, genes]"]
    if "GPU" in what:
        listed = ["device='cpu'", *SMALLER.get(step, ()), *listed][:4]
    return f"tl.{step} ran out of {what}. What helps: " + "; ".join(f"({i}) {t}" for i, t in enumerate(listed, 1))


def _store(data: Any, step: str, given: dict[str, Any], estimate: Estimate | None, watch: Watch) -> None:
    """Put estimate and measurement into the entry of `.uns`."""
    from dream_sc import _validate

    mod = given.get("cis_mod") if step == "fit_cis" and given.get("cis_mod") else given.get("mod")
    entry = _validate.resolve(data, mod, views=True).uns.get(given["key_added"])
    if not isinstance(entry, Mapping):
        return
    found = {"measured": watch.highest - watch.before, "peak": watch.highest}
    if estimate is not None:
        found |= {"estimated": estimate.added(step), "estimated_total": int(estimate.totals().loc[f"{step}", "RAM"])}
    entry["memory"] = found  # type: ignore[index]
