"""Tables of the page on memory, computed when the documentation is built."""

from __future__ import annotations

from pathlib import Path

import dream_sc as ds
from dream_sc._core.pyro.choose_family import IAF_BYTES, RESERVE
from dream_sc._memory import svi as svi
from dream_sc._memory import table as table

GB = 1e9
THREADS = {"n_threads": 2}
# of the older guide: sizes, and the figures that it prints (GB): data and guide of the technical step, data and
# gradients of the trans step, and totals of the three steps
EXAMPLES = {
    1: ((5000, 10_000, 2, 100, 5000, 0.85), (0.15, 0.12, 0.3, 0.42), ("4-6", "4-5", "6-10")),
    2: ((20_000, 30_000, 2, 500, 12_000, 0.85), (1.44, 0.48, 3.6, 1.68), ("6-10", "4-6", "12-20")),
    3: ((30_000, 50_000, 2, 1000, 20_000, 0.85), (3.6, 0.72, 9.0, 2.52), ("8-14", "5-8", "16-28")),
    4: ((50_000, 100_000, 4, 2000, 30_000, 0.90), (6.0, 2.0, 20.0, 4.2), ("12-20", "6-10", "32-50")),
    5: ((30_000, 50_000, 2, 1000, 50_000, 0.85), (0.9, 0.72, 9.0, 2.52), ("5.7", "5-8", "16-28")),
}
CIS_GUIDES, NTC_GUIDES = 20, {1: 40, 2: 200, 3: 400, 4: 600, 5: 400}
# peak resident set of whole runs of benchmarks/scale.py, see benchmarks/scaling.md
MEASURED = {1: "0.55", 2: "1.64", 3: "3.5", 4: "6.0 (backed)", 5: "3.5"}


def estimate(example: int, **options) -> ds.memory.Estimate:
    """The estimate of an example: 20 guides of the cis gene and the NTC guides take part."""
    t, n, c, _, ntc, zeros = EXAMPLES[example][0]
    given = {
        "n_groups": c,
        "n_guides": CIS_GUIDES + NTC_GUIDES[example],
        "n_cis_guides": CIS_GUIDES,
        "sparsity": zeros,
        "n_ntc_cells": ntc,
        "use_all_cells": example == 5,
    } | THREADS
    return ds.memory.estimate(t, n, **(given | options))


def recomputed(example: int) -> tuple[float, float, float, float]:
    """The older guide's own formulas, in GB: data, guide, data, gradients."""
    t, n, c, _, ntc, zeros = EXAMPLES[example][0]
    return (
        t * ntc * 4 * (1 - zeros) / GB,
        (c - 1 + 2) * t * 2 * 4 / GB,
        t * n * 4 * (1 - zeros) / GB,
        7 * t * 4 * 3 / GB,
    )


def rows(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def gb(value: float) -> str:
    return f"{value / GB:.3g}" if value >= 1e7 else f"{value / GB:.2g}"


def totals(e: ds.memory.Estimate) -> list[str]:
    return [gb(v) for v in e.totals()["RAM"]]


def quick() -> str:
    body = []
    for t, n in ((2000, 5000), (10_000, 20_000), (20_000, 30_000), (30_000, 50_000), (50_000, 100_000)):
        e, b = (ds.memory.estimate(t, n, storage=s, **THREADS) for s in ("sparse", "backed"))
        body.append([f"{t:,}", f"{n:,}", *totals(e), gb(b.peak()[0]), e.machine().split(" RAM")[0]])
    return rows(["features", "cells", "technical", "cis", "trans", "most, backed", "machine"], body)


def examples() -> str:
    body = []
    for i, (_, _, old) in EXAMPLES.items():
        e = estimate(i)
        new = totals(e)
        both = [f"{o} / {n}" for o, n in zip(old, new, strict=True)]
        backed = gb(estimate(i, storage="backed").peak()[0])
        body.append([str(i), *both, backed, MEASURED.get(i, ""), e.machine().split(" RAM")[0]])
    steps = [f"{step}: old / now" for step in ("technical", "cis", "trans")]
    return rows(["example", *steps, "most, backed", "measured, most", "machine"], body)


def arithmetic() -> str:
    body = []
    names = ("sparse counts, technical", "mean-field guide", "sparse counts, trans", "gradients")
    for i, (_, printed, _) in EXAMPLES.items():
        for name, old, new in zip(names, printed, recomputed(i), strict=True):
            ratio = old / new
            if ratio > 1.5:
                body.append([str(i), name, f"{old:g}", f"{new:.3g}", f"{ratio:,.0f}"])
    return rows(["example", "figure", "printed, GB", "by its own formula, GB", "times too large"], body)


def distributions() -> str:
    body = []
    for name in ("negbinom", "binomial", "multinomial", "normal", "studentt"):
        more = {"n_categories": 4} if name == "multinomial" else {}
        zeros = {"sparsity": 0.95} if name in ("binomial", "multinomial") else {}
        e = ds.memory.estimate(5000, 50_000, distribution=name, **more, **zeros, **THREADS)
        where = "dense" if name in ("normal", "studentt") else f"{e.sizes.sparsity:.0%} zeros"
        body.append([name, where, gb(sum(e.sizes.inputs().values())), *totals(e)])
    return rows(["distribution", "stored", "input", "technical", "cis", "trans"], body)


def levers() -> str:
    base = {"n_guides": 420, "n_cis_guides": 20, "autoguide": "AutoNormal"} | THREADS
    sampled = {"inference": "svi"}
    cases = [
        ("counts sparse instead of dense", "fit_trans", {"storage": "dense"}, {}),
        ("counts on disk instead of in memory", "fit_trans", {}, {"storage": "backed"}),
        (
            'blocks by `memory_limit="500MB"`, on disk',
            "fit_technical",
            {"storage": "backed"},
            {"storage": "backed", "memory_limit": "500MB"},
        ),
        ("half of the features (`min_cells=` or a subset)", "fit_trans", {}, {"n_features": 15_000}),
        ("`nsamples=250` instead of 1,000, svi", "fit_technical", sampled, sampled | {"nsamples": 250}),
        ("`minibatch_size=16`, svi", "fit_technical", sampled, sampled | {"minibatch_size": 16}),
        ("the fast engine instead of svi", "fit_technical", sampled, {}),
        ("two threads instead of sixteen", "fit_trans", {"n_threads": 16}, {}),
    ]
    body = []
    for name, step, before, after in cases:
        both = []
        for options in (before, after):
            given = {"n_features": 30_000, "n_cells": 50_000} | base | options
            e = ds.memory.estimate(given.pop("n_features"), given.pop("n_cells"), **given)
            both.append(int(e.totals().loc[step, "RAM"]))
        body.append([name, step.removeprefix("fit_"), gb(both[0]), gb(both[1]), f"{1 - both[1] / both[0]:.0%}"])
    return rows(["change", "step", "before, GB", "after, GB", "saved"], body)


def gpus() -> str:
    body = []
    e = ds.memory.estimate(10_000, 50_000, inference="svi", autoguide="AutoNormal", device="cuda", **THREADS)
    vram = e[(e["step"] == "fit_technical") & ~e["component"].isin(["total", "imports"])]["VRAM"].sum()
    each = vram / 10_000
    for name, size in table.GPUS.items():
        features = (table.SPARE * size * GB - svi.CONTEXT) / each
        latent = (max(size * GB - RESERVE, 0) / IAF_BYTES) ** 0.5
        body.append([name, str(size), f"{features / 1e6:.1f} million", f"{latent / 3:,.0f}" if latent else "none"])
    return rows(["GPU", "GB", "AutoNormal, 2 groups", "the rule of AutoIAFNormal, 2 groups"], body)


def table_of_components() -> str:
    return f"```text\n{estimate(3)!r}\n```\n".rpartition("\n\n")[0] + "\n```\n"


def write(folder: Path) -> None:
    """Write every table as a file that the page includes."""
    folder.mkdir(exist_ok=True)
    for function in (quick, examples, arithmetic, distributions, levers, gpus, table_of_components):
        (folder / f"{function.__name__}.inc").write_text(function())
