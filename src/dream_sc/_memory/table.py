"""The table of an estimate: what it says in words, whether it fits, and the smallest machine that would do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from . import contexts
from . import steps as formulas
from .budget import in_words, memory_budget
from .sizes import CSR, Sizes

if TYPE_CHECKING:
    from collections.abc import Callable

    from .steps import Phase

TOTAL = "total"
# what interpreter, imports and compiled code take by themselves in a process that has come to a step, measured by
# `python benchmarks/memory.py --imports` on Linux
IMPORTS = {
    "laplace": {"fit_technical": 303_000_000, "fit_cis": 307_000_000, "fit_trans": 356_000_000},
    "svi": {"fit_technical": 595_000_000, "fit_cis": 600_000_000, "fit_trans": 660_000_000},
}
IMPORTS["nuts"] = IMPORTS["svi"]
ALLOCATOR = 1.05  # of what is held: what freed pieces between others keep
RAM_SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # GB, of machines
GPUS = {
    "RTX 3070": 8,
    "RTX 3060": 12,
    "V100 or RTX 4080": 16,
    "A100 40 GB": 40,
    "RTX 6000 Ada": 48,
    "A100 or H100 80 GB": 80,
    "H200": 141,
}
GPU_PLANNED = 40e9  # bytes of a GPU that is planned with where there is none
SPARE = 0.9  # of a machine, that may be planned with
GB = 10**9


def device_memory(s: Sizes) -> tuple[float, float]:
    """Bytes of the device that a variational guide would live on, and those that are free."""
    import psutil

    from .budget import available

    if s.device.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            return GPU_PLANNED, GPU_PLANNED
        free, total = torch.cuda.mem_get_info(torch.device(s.device))
        return total, free
    return int(psutil.virtual_memory().total), available()


def _phases(s: Sizes, step: str, guide: str) -> tuple[list[Phase], list[Phase]]:
    """What RAM and what VRAM hold in each phase of a step."""
    if step == contexts.STEP:
        return contexts.compare(s), []
    ram: list[Phase] = getattr(formulas, step.removeprefix("fit_"))(s)
    if s.inference == "laplace":
        return ram, []
    from . import svi

    if step == "fit_technical":
        tensors, more = svi.technical(s, guide), svi.draws(s)
    else:
        tensors, more = getattr(svi, step.removeprefix("fit_"))(s), 0.0
    if not tensors:
        return ram, []
    last = ram[-1]
    if svi.on_gpu(s):
        return [*ram, _added(last, {"draws": more})], tensors
    return [*ram, *(_added(last, t) for t in tensors), _added(last, _added(tensors[-1], {"draws": more}))], []


def _added(a: Phase, b: Phase) -> Phase:
    return {name: a.get(name, 0.0) + b.get(name, 0.0) for name in (*a, *(n for n in b if n not in a))}


def _largest(phases: list[Phase]) -> Phase:
    return max(phases, key=lambda phase: sum(phase.values()), default={})


def _steps(s: Sizes) -> tuple[str, ...]:
    """The steps that are estimated."""
    return (*formulas.STEPS, contexts.STEP) if s.n_contexts else formulas.STEPS


def _imports(s: Sizes, step: str) -> int:
    """Bytes of interpreter, imports and compiled code; the comparison of contexts follows the trans step."""
    return IMPORTS[s.inference].get(step, IMPORTS[s.inference]["fit_trans"])


def table(s: Sizes) -> Estimate:
    """The estimate for all steps."""
    from dream_sc._core.likelihoods import likelihood

    guide = ""
    if s.inference == "svi":
        from .svi import guide_of

        guide = guide_of(s, *device_memory(s))
    rows = []
    for step in _steps(s):
        own = s if step != "fit_cis" else replace(s, distribution=likelihood().name)
        ram, vram = (_largest(p) for p in _phases(own, step, guide))
        ram = {name: ALLOCATOR * value for name, value in ram.items()}
        there: Phase = {"imports": _imports(s, step), **s.inputs()}
        ram = _added(there, ram)
        if vram:
            from .svi import CONTEXT

            vram = vram | {"imports": CONTEXT}
        names = [n for n in formulas.COMPONENTS if ram.get(n, 0.0) or vram.get(n, 0.0)]
        rows += [(step, n, round(ram.get(n, 0.0)), round(vram.get(n, 0.0))) for n in names]
        rows.append((step, TOTAL, round(sum(ram.values())), round(sum(vram.values()))))
    out = Estimate(pd.DataFrame(rows, columns=["step", "component", "RAM", "VRAM"]))
    out.sizes, out.guide = s, guide
    return out


class Estimate(pd.DataFrame):
    """Bytes by step and component, with a row "total" for each step.

    `.fits`, `.advice`, `.machine` and `.input_bytes` say what follows from it. Parts of it are plain DataFrames.

    Examples
    --------
    >>> estimate = ds.memory.estimate(5000, 50_000)
    >>> estimate.fits(ram="64GB")
    True
    >>> estimate.totals().columns.tolist()
    ['RAM', 'VRAM']
    """

    _metadata = ["sizes", "guide"]  # noqa: RUF012 -- pandas adds lists
    sizes: Sizes
    guide: str

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def totals(self) -> pd.DataFrame:
        """Bytes of each step."""
        return self[self["component"] == TOTAL].set_index("step")[["RAM", "VRAM"]]

    def peak(self) -> tuple[int, int]:
        """The most RAM and VRAM that any step takes."""
        most = self.totals().max()
        return int(most["RAM"]), int(most["VRAM"])

    def added(self, step: str) -> int:
        """What a step adds to imports and input."""
        rows = self[(self["step"] == step) & (self["component"] != TOTAL)]
        return int(rows["RAM"].sum() - _imports(self.sizes, step) - sum(self.sizes.inputs().values()))

    def fits(self, ram: int | str | None = None, vram: int | str | None = None) -> bool:
        """Whether all steps fit.

        Parameters
        ----------
        ram, vram
            Memory of the machine and of its GPU: bytes, or a text such as "32GB"; what this machine has by default.
        """
        have_ram, have_vram = this_machine(ram, vram, need_gpu=self.peak()[1] > 0)
        need_ram, need_vram = self.peak()
        return need_ram <= have_ram and need_vram <= have_vram

    def machine(self) -> str:
        """The smallest machine that would do, in words."""
        ram, vram = self.peak()
        size = next((n for n in RAM_SIZES if n * SPARE * GB >= ram), None)
        text = f"{size} GB RAM" if size else f"more than {RAM_SIZES[-1]} GB RAM"
        if not vram:
            return f"{text}, no GPU needed"
        gpu = next(((name, n) for name, n in GPUS.items() if n * SPARE * GB >= vram), None)
        return f"{text}, {gpu[1]} GB VRAM ({gpu[0]})" if gpu else f"{text}, more VRAM than one GPU has"

    def advice(self, ram: int | str | None = None, vram: int | str | None = None) -> str:
        """A recommendation in words: whether it fits, and the three changes that save most where it does not."""
        have, have_gpu = this_machine(ram, vram, need_gpu=self.peak()[1] > 0)
        need, need_gpu = self.peak()
        step = str(self.totals()["RAM"].idxmax())
        said = f"tl.{step} takes most: {in_words(need)} of {in_words(have)} RAM"
        said += f", {in_words(need_gpu)} of {in_words(have_gpu)} VRAM" if need_gpu else ""
        if self.fits(ram, vram):
            return f"It fits. {said}. The smallest machine that would do: {self.machine()}."
        listed = " ".join(f"({i}) {text}." for i, text in enumerate(changes(self), 1))
        return f"It does not fit. {said}. {listed} Or a machine with {self.machine()}."

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        return f"<pre>{describe(self)}</pre>"


def this_machine(ram: int | str | None, vram: int | str | None, *, need_gpu: bool) -> tuple[int, int]:
    """Bytes of RAM and VRAM given, or those that are there."""
    if ram is None:
        import os

        import psutil

        from .budget import available

        have = available() + psutil.Process(os.getpid()).memory_info().rss
    else:
        have = memory_budget(ram, "ram")
    if vram is not None:
        return have, memory_budget(vram, "vram")
    gpu = 0
    if need_gpu:
        import torch

        gpu = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    return have, gpu


def changes(e: Estimate) -> list[str]:
    """The three changes that save most, with what each saves of the largest step."""
    s, (ram, vram) = e.sizes, e.peak()
    options: list[tuple[str, dict[str, Any]]] = [
        ("leave the counts on disk, anndata.read_h5ad(path, backed='r')", {"storage": "backed", "held": None}),
        ("use a sparse matrix, scipy.sparse.csr_matrix(X)", {"storage": "sparse", "held": None}),
        (
            "keep well-detected features, adata[:, (adata.X > 0).sum(0) >= n], or min_cells= of tl.fit_technical; half "
            "of them",
            {
                "n_features": max(1, s.n_features // 2),
                "stored": s.stored and s.stored // 2,
                "held": s.held and s.held // 2,
            },
        ),
        ("fewer draws, nsamples=250", {"nsamples": min(s.nsamples, 250)}),
        ("draw and compute in batches, minibatch_size=16", {"minibatch_size": 16}),
        ("the fast engine, inference='laplace'", {"inference": "laplace"}),
        ("a mean-field guide, autoguide='AutoNormal'", {"autoguide": "AutoNormal"}),
        ("fewer blocks of counts at a time, memory_limit='200MB'", {"memory_limit": 200_000_000}),
        ("run on the CPU, device='cpu'", {"device": "cpu"}),
    ]
    if s.is_backed:
        options = options[2:]
    elif not s.is_dense:
        options.pop(1)
    found = []
    for text, change in options:
        other = table(replace(s, **change))
        saved = other.peak()[1] - vram if vram and change.keys() <= {"device"} else other.peak()[0] - ram
        if -saved > 0.02 * ram:
            found.append((saved, f"{text}: {in_words(-saved)} less"))
    return [text for _, text in sorted(found)[:3]] or ["take fewer features at a time, adata[:, genes]"]


def describe(e: Estimate) -> str:
    """The table in text: GB by step and component."""
    s = e.sizes
    kind = f", {s.n_categories} categories each" if s.likelihood.categories else ""
    where = {"sparse": "sparse, in memory", "dense": "dense, in memory"}.get(s.storage, "in a file")
    lines = [
        f"{s.n_features:,} features x {s.n_cells:,} cells ({s.distribution}{kind}), {s.n_groups} groups, "
        f"{s.n_guides:,} guides," + (f" {s.n_guide_sets:,} sets of guides," if s.n_guide_sets else ""),
        f"counts {where}"
        + ("" if s.is_dense else f", {s.sparsity:.0%} zeros, {CSR} bytes a value")
        + f"; inference={s.inference!r}"
        + (f" with {e.guide}" if s.inference == "svi" else "")
        + f", {s.n_threads} threads",
        "",
    ]
    gpu = e.peak()[1] > 0
    wide = e.pivot(index="component", columns="step", values=["RAM", "VRAM"])
    order = [n for n in (*formulas.COMPONENTS, TOTAL) if n in wide.index]
    shown = ("RAM", "VRAM") if gpu else ("RAM",)
    head = [f"{step.removeprefix('fit_')} {kind}" for kind in shown for step in _steps(s)]
    lines.append(f"{'GB':<30}" + "".join(f"{name:>16}" for name in head))
    for name in order:
        values = [wide.loc[name, (kind, step)] for kind in shown for step in _steps(s)]
        cells = ["-" if pd.isna(v) or v == 0 else f"{v / GB:.3f}" for v in values]
        lines.append(f"{name:<30}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join([*lines, "", e.advice()])
