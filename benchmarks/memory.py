"""Estimated against measured peak memory, each cell of a grid in a fresh process.

    python benchmarks/memory.py [--quick] [--raw measured.jsonl] [--report] [--output docs/_static/memory]
    python benchmarks/memory.py --imports            # what interpreter and imports take by themselves

A child process imports and compiles by small fits, which gives the footprint that is reported apart (that of larger
cells is taken for the same). It then reads the data, or opens the file, and runs the three steps; the kernel's mark of
the highest resident set is put back before each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

import _memory_data as sim

STEPS = ("fit_technical", "fit_cis", "fit_trans")
NITERS = 20  # of "svi": memory does not depend on it
GB = 1e9
WARM = 1e7  # values up to which a child measures its imports itself; they are the same in larger cells
EVERY = tuple((t, n) for t in (2000, 10_000, 30_000) for n in (5000, 20_000, 50_000))
FULL = (  # distribution, features, cells, storage: cells beyond 10^7 values whose trans step, minutes of work, is run
    ("negbinom", 2000, 20_000, "sparse"),
    ("negbinom", 10_000, 5000, "sparse"),
    ("binomial", 2000, 20_000, "backed"),
    ("multinomial", 2000, 5000, "sparse"),
    ("normal", 2000, 50_000, "dense"),
)
THIN = {"sparsity": 0.95}
CELLS = (
    ("negbinom", EVERY, {}),
    ("negbinom", ((2000, 50_000), (10_000, 20_000), (30_000, 5000), (30_000, 50_000)), {"storage": "backed"}),
    ("negbinom", ((2000, 5000), (2000, 50_000), (10_000, 20_000), (30_000, 20_000)), {"storage": "dense"}),
    ("negbinom", ((2000, 5000), (2000, 20_000), (10_000, 5000)), {"inference": "svi"}),
    ("negbinom", ((2000, 20_000), (10_000, 5000)), {"n_ntc_guides": 30, "n_groups": 1}),
    ("binomial", ((2000, 5000), (2000, 50_000), (10_000, 20_000), (30_000, 20_000)), THIN),
    ("binomial", ((2000, 20_000),), THIN | {"storage": "backed"}),
    ("binomial", ((2000, 5000),), THIN | {"inference": "svi"}),
    ("multinomial", ((2000, 5000), (2000, 50_000), (10_000, 5000)), THIN),
    ("multinomial", ((2000, 20_000),), THIN | {"storage": "backed"}),
    ("normal", ((2000, 5000), (2000, 50_000), (10_000, 20_000), (30_000, 20_000)), {"storage": "dense"}),
    ("normal", ((10_000, 20_000),), {"storage": "backed"}),
    ("studentt", ((2000, 5000),), {"storage": "dense"}),
)


def resident() -> tuple[int, int]:
    """Bytes of the resident set: the highest since `forget`, and now."""
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(found["VmHWM"].split()[0]) * 1024, int(found["VmRSS"].split()[0]) * 1024


def forget() -> None:
    """Put the kernel's mark back to what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def grid(quick: bool = False) -> list[sim.Cell]:
    """The cells of the grid; curves of large ones are single Hills, which saves time and hardly memory."""
    out = [sim.Cell(d, t, n, **more) for d, sizes, more in CELLS for t, n in sizes]
    out = [replace(c, function_type="single_hill") if c.n_columns >= 10_000 and c.n_cells < 50_000 else c for c in out]
    out = [replace(c, steps=2) if _slow(c) else c for c in out]
    return [c for c in out if c.n_columns * c.n_cells <= 5e7] if quick else out


def _slow(c: sim.Cell) -> bool:
    """Whether its trans step takes so many minutes that the two before it have to do."""
    if c.n_columns * c.n_cells <= WARM:
        return False
    return c.inference == "svi" or (c.distribution, c.n_features, c.n_cells, c.storage) not in FULL


def write(cell: sim.Cell, folder: Path) -> None:
    """The files of one cell."""
    obs = sim.cells_of(cell)
    if cell.has_counts:
        sim.write_counts(cell, obs, folder / "main.h5ad", cell.n_features)
    else:
        sim.write_counts(sim.Cell(n_cells=cell.n_cells), obs, folder / "cis.h5ad", 40)
        sim.write_modality(cell, obs, folder / "main.h5ad")


def options(cell: sim.Cell) -> tuple[dict, dict, dict]:
    """Arguments of the three steps."""
    svi = {"niters": NITERS, "autoguide": "AutoNormal"}
    engine: dict = {"inference": cell.inference} | (svi if cell.inference == "svi" else {})
    more = {"binomial": {"denominator_layer": "denominator"}, "multinomial": {"category_key": "donor"}}
    technical = {"distribution": cell.distribution, "batch_key": "batch"} | more.get(cell.distribution, {})
    trans = engine | {"progress": False, "function_type": cell.function_type}
    if cell.has_counts:
        return technical | engine, {}, trans
    # the technical step of scores has one engine, that of shares one variational family
    scores = cell.distribution in ("normal", "studentt")
    own = {} if scores else {name: value for name, value in engine.items() if name != "autoguide"}
    return technical | own | {"mod": "other"}, {"mod": "rna"}, trans | {"mod": "other", "cis_mod": "rna"}


def opened(cell: sim.Cell, folder: Path):
    """The data as a user would have them."""
    import anndata as ad

    backed = "r" if cell.storage == "backed" else None
    main = ad.read_h5ad(folder / "main.h5ad", backed=backed)
    if cell.has_counts:
        return main
    import mudata as md

    import dream_sc as ds

    rna = ad.read_h5ad(folder / "cis.h5ad")
    ds.tl.fit_technical(rna, batch_key="batch")
    return md.MuData({"rna": rna, "other": main})


def warm(cell: sim.Cell) -> None:
    """Import and compile all that the fits of a cell need."""
    import dream_sc as ds

    small = replace(cell, n_features=80, n_cells=600, sparsity=0.6)
    with tempfile.TemporaryDirectory() as folder:
        write(small, Path(folder))
        run(small, opened(small, Path(folder)), ds)


def run(cell: sim.Cell, data, ds) -> dict[str, dict]:
    """Run the steps; peak and seconds of each."""
    technical, cis, trans = options(cell)
    calls = (
        lambda: ds.tl.fit_technical(data, **technical),
        lambda: ds.tl.fit_cis(data, sim.CIS, **cis),
        lambda: ds.tl.fit_trans(data, **trans),
    )
    out = {}
    for name, call in zip(STEPS[: cell.steps], calls, strict=False):
        forget()
        begin = time.perf_counter()
        before = resident()[1]
        call()
        out[name] = {"peak": resident()[0], "before": before, "seconds": time.perf_counter() - begin}
    return out


def child(cell: sim.Cell, folder: Path, *, alone: bool) -> None:
    """Measure one cell and print it."""
    import anndata  # noqa: F401

    import dream_sc as ds

    imported = resident()[1]
    loaded = 0
    if cell.n_columns * cell.n_cells <= WARM and not alone:
        warm(cell)
        forget()
        loaded = resident()[1]
    data = opened(cell, folder)
    read = resident()[1]
    steps = run(cell, data, ds)
    print(json.dumps({"imported": imported, "loaded": loaded, "read": read, "steps": steps}))


def measure(cell: sim.Cell, *, alone: bool = False) -> dict:
    """Run one cell in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        write(cell, Path(folder))
        command = [sys.executable, __file__, "--cell", json.dumps(asdict(cell)), "--folder", folder]
        command += ["--alone"] * alone
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def estimate(cell: sim.Cell):
    """The estimate for a cell, from its sizes alone."""
    import dream_sc as ds

    scores = cell.distribution in ("normal", "studentt")
    storage = "backed_dense" if scores and cell.storage == "backed" else cell.storage
    return ds.memory.estimate(
        cell.n_features,
        cell.n_cells,
        n_groups=cell.n_groups,
        n_guides=cell.n_cis_guides + cell.n_ntc_guides,
        n_cis_guides=cell.n_cis_guides,
        sparsity=cell.sparsity,
        distribution=cell.distribution,
        storage=storage,
        n_categories=sim.K if cell.distribution == "multinomial" else None,
        function_type=cell.function_type,
        inference=cell.inference,
        autoguide="AutoNormal",
    )


def compared(found: dict) -> list[tuple]:
    """Cell, step, and bytes above imports, estimated and measured."""
    from dream_sc._memory.table import IMPORTS

    cell = sim.Cell(**found["cell"])
    e, out = estimate(cell), []
    for step, measured in found["steps"].items():
        if step == "fit_cis" and (cell.inference != "laplace" or not cell.has_counts):
            continue  # of another matrix, or by another engine
        own = IMPORTS[cell.inference][step]
        base = found["loaded"] or own
        out.append((cell, step, int(e.totals().loc[step, "RAM"]) - own, measured["peak"] - base))
    return out


def report(every: list[dict], folder: Path | None) -> None:
    """Print, and write, the table and the picture."""
    rows = [row for found in every for row in compared(found)]
    ratio = [e / m for _, _, e, m in rows]
    near = sum(abs(r - 1) <= 0.2 for r in ratio)
    said = (
        f"{len(every)} cells, {len(rows)} steps: {near} within 20 % ({near / len(rows):.0%}), the lowest estimate "
        f"{min(ratio) - 1:+.0%}, the highest {max(ratio) - 1:+.0%}."
    )
    lines = ["| distribution | features | cells | counts | engine | step | estimated | measured | difference |"]
    lines.append("|" + "---|" * 9)
    for c, step, e, m in rows:
        lines.append(
            f"| {c.distribution} | {c.n_features:,} | {c.n_cells:,} | {c.storage} | {c.inference} | "
            f"{step.removeprefix('fit_')} | {e / 1e6:,.0f} | {m / 1e6:,.0f} | {e / m - 1:+.0%} |"
        )
    print("\n".join([*lines, "", said]))
    if folder is None:
        return
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measured.inc").write_text("\n".join([said, "", *lines]) + "\n")
    figure, ax = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
    for step in STEPS:
        mine = [(m / GB, e / GB) for _, s, e, m in rows if s == step]
        ax.loglog(*zip(*mine, strict=True), "o", ms=4, label=step.removeprefix("fit_"))
    ends = [min(m for *_, m in rows) / GB, max(m for *_, m in rows) / GB]
    for factor, style in ((1.0, "-"), (1.2, ":"), (0.8, ":")):
        ax.loglog(ends, [factor * x for x in ends], style, color="#8A8A8A", lw=0.8)
    ax.set(xlabel="measured above imports, GB", ylabel="estimated, GB")
    ax.legend(frameon=False)
    figure.savefig(folder / "estimates.png", dpi=110)


def limited(cell: sim.Cell, folder: Path, limit: str | None) -> None:
    """Child process: the technical and the trans step under a limit, what they added, and marks of their results."""
    import hashlib

    import numpy as np

    import dream_sc as ds

    warm(cell)
    data, (technical, cis, trans) = opened(cell, folder), options(cell)
    adata, out = data if cell.has_counts else data["other"], {}
    calls = {
        "technical": lambda: ds.tl.fit_technical(data, memory_limit=limit, **technical),
        "cis": lambda: ds.tl.fit_cis(data, sim.CIS, **cis),
        "trans": lambda: ds.tl.fit_trans(data, memory_limit=limit, **trans),
    }
    for step, call in calls.items():
        before = resident()[1]
        forget()
        call()
        if step != "cis":
            table = adata.varm[step].select_dtypes("number").to_numpy(float)
            mark = hashlib.sha256(table[np.isfinite(table)].tobytes()).hexdigest()
            out[step] = {"added": resident()[0] - before, "results": mark}
    print(json.dumps(out))


def limits() -> None:
    """Print what the technical and the trans step add under limits, and whether their results are the same."""
    cells = (sim.Cell(n_cells=50_000, storage="backed"), sim.Cell("normal", n_cells=50_000, storage="dense"))
    for cell in cells:
        with tempfile.TemporaryDirectory() as folder:
            write(cell, Path(folder))
            first = None
            for limit in (None, "1GB", "300MB", "200MB", "150MB", "100MB"):
                command = [sys.executable, __file__, "--cell", json.dumps(asdict(cell)), "--folder", folder]
                command += ["--limit", limit or ""]
                done = subprocess.run(command, check=False, capture_output=True, text=True)
                if done.returncode:
                    print(cell.distribution, limit, done.stderr.splitlines()[-1][:160], flush=True)
                    continue
                found = json.loads(done.stdout.splitlines()[-1])
                first = first or found
                said = [
                    f"{step} added {here['added'] / 1e6:.0f} MB, "
                    + ("the same results" if here["results"] == first[step]["results"] else "OTHER RESULTS")
                    for step, here in found.items()
                ]
                print(f"{cell.distribution} {cell.storage} limit {limit}: {'; '.join(said)}", flush=True)


def imports() -> None:
    """Print what each step takes by itself in a fresh process, on a small data set."""
    for engine in ("laplace", "svi"):
        found = measure(sim.Cell(n_features=60, n_cells=300, inference=engine, sparsity=0.6), alone=True)
        print(engine, {step: f"{v['peak'] / 1e6:.0f} MB" for step, v in found["steps"].items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small cells only")
    parser.add_argument("--raw", type=Path, help="json lines of what was measured, to write or to go on with")
    parser.add_argument("--output", type=Path, help="folder for the table and the picture")
    parser.add_argument("--imports", action="store_true", help="only what interpreter and imports take")
    parser.add_argument("--report", action="store_true", help="only compare what --raw holds")
    parser.add_argument("--limits", action="store_true", help="only what steps add under memory limits")
    parser.add_argument("--limit", help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        cell = sim.Cell(**json.loads(args.cell))
        if args.limit is not None:
            limited(cell, args.folder, args.limit or None)
        else:
            child(cell, args.folder, alone=args.alone)
        return
    if args.limits:
        limits()
        return
    if args.imports:
        imports()
        return
    done = {}
    if args.raw and args.raw.exists():
        done = {sim.Cell(**r["cell"]): r for r in map(json.loads, args.raw.read_text().splitlines())}
    cells = sorted(grid(args.quick), key=lambda c: (c.steps, c.n_columns * c.n_cells))
    for cell in cells if not args.report else []:
        if cell in done:
            continue
        done[cell] = {"cell": asdict(cell)} | measure(cell)
        print(cell, {k: round(v["peak"] / 1e6) for k, v in done[cell]["steps"].items()}, flush=True)
        if args.raw:
            with args.raw.open("a") as file:
                file.write(json.dumps(done[cell]) + "\n")
    report(list(done.values()), args.output)


if __name__ == "__main__":
    main()
