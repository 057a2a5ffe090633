"""Whether speed is kept: the three steps on the titration, here and in another checkout, in turns.

Every run is a process of its own with a folder of its own for kernels. Each is run twice: the first time it compiles.
`python benchmarks/kept.py --against FOLDER [--runs 5]`, where `FOLDER` holds the last release. The exit code is 1 where
a median of the ratios of a turn, here over there, is above 1.2.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BAR = 1.2
STEPS = """
import resource, sys
import dream_sc as ds

def used():
    each = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in each)

adata = ds.datasets.titration(int(sys.argv[1]), int(sys.argv[2]), rng=0)
seconds = {}
for step, run in {
    "technical": lambda: ds.tl.fit_technical(adata, batch_key="batch"),
    "cis": lambda: ds.tl.fit_cis(adata, "GFI1B"),
    "trans": lambda: ds.tl.fit_trans(adata),
}.items():
    before = used()
    run()
    seconds[step] = used() - before
print(*seconds.values(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
STEP_NAMES = ("technical", "cis", "trans")


def measured(source: Path, cells: int, genes: int, cache: Path | None) -> list[float]:
    """Processor seconds of the three steps, and the peak of the memory in MB; kernels are kept in `cache`."""
    environment = os.environ | {"PYTHONPATH": str(source)} | ({} if cache is None else {"NUMBA_CACHE_DIR": str(cache)})
    command = [sys.executable, "-c", STEPS, str(cells), str(genes)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [float(x) for x in done.stdout.split()[-4:]]


def turn(source: Path, cells: int, genes: int) -> dict[str, float]:
    """One run that compiles, and one that finds what was compiled."""
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = (measured(source, cells, genes, Path(folder)) for _ in range(2))
    seconds = {f"{step}, processor s": value for step, value in zip(STEP_NAMES, warm[:3], strict=True)}
    return seconds | {"compiling, processor s": sum(cold[:3]) - sum(warm[:3]), "peak memory, MB": warm[3]}


def ratios(turns: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, float]:
    """Of each number the median over turns of what it is here, over what it is there."""
    return {what: statistics.median(here[what] / there[what] for here, there in turns) for what in turns[0][0]}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout, of the last release")
    parser.add_argument("--runs", type=int, default=5, help="turns")
    parser.add_argument("--cells", type=int, default=6000)
    parser.add_argument("--genes", type=int, default=1000)
    given = parser.parse_args(words)
    if given.against is None:
        print("nothing to compare with: --against FOLDER, a checkout of the last release")
        return 0
    sources = Path(__file__).parents[1] / "src", given.against.resolve() / "src"
    if not (sources[1] / "dream_sc").is_dir():
        parser.error(f"--against: {given.against} holds no src/dream_sc")
    turns = []
    for i in range(given.runs):
        order = sources if i % 2 == 0 else sources[::-1]
        found = {source: turn(source, given.cells, given.genes) for source in order}
        turns.append((found[sources[0]], found[sources[1]]))
    print(f"{given.cells} cells x {given.genes} genes, turns: {given.runs}; medians, and the median of the ratios")
    print(f"{'':26s}{'here':>9s}{'there':>9s}{'ratio':>8s}")
    found_ratios = ratios(turns)
    for what, ratio in found_ratios.items():
        here, there = (statistics.median(one[k][what] for one in turns) for k in (0, 1))
        print(f"{what:26s}{here:9.2f}{there:9.2f}{ratio:8.2f}{'  above 1.2' if ratio > BAR else ''}")
    return int(max(found_ratios.values()) > BAR)


if __name__ == "__main__":
    raise SystemExit(main())
