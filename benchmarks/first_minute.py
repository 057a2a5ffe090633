"""The first analysis on a machine: compiling ahead, and the quick start with an empty and with a full cache.

Every run is a process of its own with a cache folder of its own. Processor seconds are those of the process and of the
workers that it starts. `python benchmarks/first_minute.py [--runs 3] [--against FOLDER]`; with `--against` the same is
done with the package in another checkout, in turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUICK_START = """
import dream_sc as ds
adata = ds.datasets.titration()
ds.pp.size_factors(adata)
ds.tl.fit_technical(adata)
ds.tl.fit_cis(adata, "GFI1B")
ds.tl.fit_trans(adata)
table = ds.get.trans(adata).sort_values("qvalue")
ds.pl.dose_response(adata, table.index[0])
"""


def timed(code: str, source: Path, cache: Path) -> tuple[float, float]:
    """Wall and processor seconds of a program."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(source), "MPLBACKEND": "Agg"}
    before, clock = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - clock, used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout")
    given = parser.parse_args()
    sources = {"here": Path(__file__).parents[1] / "src"}
    if given.against is not None:
        sources["there"] = given.against / "src"
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(given.runs):
        for name, source in sources.items():
            with tempfile.TemporaryDirectory() as folder:
                cold, warm = (timed(QUICK_START, source, Path(folder)) for _ in range(2))
            for what, value in (
                ("quick start, empty cache, wall s", cold[0]),
                ("the same, second time, wall s", warm[0]),
                ("compiling, processor s", cold[1] - warm[1]),
                ("second time, processor s", warm[1]),
            ):
                found.setdefault((what, name), []).append(value)
    print(f"{'':36s}" + "".join(f"{name:>24s}" for name in sources))
    for what in dict.fromkeys(key[0] for key in found):
        values = (found[what, name] for name in sources)
        cells = (f"{statistics.median(v):.1f} [{min(v):.1f}, {max(v):.1f}]" for v in values)
        print(f"{what:36s}" + "".join(f"{cell:>24s}" for cell in cells))


if __name__ == "__main__":
    main()
