"""The kernel of the trans step: microseconds for a mode, and how far its evidence is from that of exact modes.

The steps of a simulated titration run once. The kernel's longest call from each place is kept and repeated, as it was
and with Newton steps until nothing moves. `python benchmarks/modes.py [--genes 300] [--cells 4000]`; `PYTHONPATH` may
name the source of another version.
"""

from __future__ import annotations

import argparse
import inspect
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy.special import logsumexp

import dream_sc as ds
from dream_sc._core.laplace import modes
from dream_sc._core.response import problem

EXACT, REPEATS, NEAR = 1e-10, 8, 10.0
NAMES = list(inspect.signature(modes.run.source).parameters)
TAUS, TOL, LOG_Z = (NAMES.index(name) for name in ("taus", "tol", "log_z"))


def kept_calls(n_genes: int, n_cells: int) -> dict[str, list[Any]]:
    """Arguments of the longest call from each place."""
    longest: dict[str, float] = {}
    found: dict[str, list[Any]] = {}

    def run(*arguments: Any) -> None:
        start = time.process_time()
        modes.run(*arguments)
        spent = time.process_time() - start
        names = [frame.function for frame in inspect.stack()[1:6] if not frame.function.startswith("<")]
        place = " < ".join(name.strip("_") for name in names[1:4])
        if spent > longest.get(place, 0.0):
            longest[place], found[place] = spent, list(arguments)

    adata = ds.datasets.titration(n_cells, n_genes)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    problem.kernel = SimpleNamespace(run=run)  # type: ignore[assignment]
    ds.tl.fit_trans(adata)
    problem.kernel = modes
    return dict(sorted(found.items(), key=lambda item: -longest[item[0]]))


def log_z_of(arguments: list[Any], tol: float) -> tuple[np.ndarray, float]:
    """Log evidence ``(T, S, K)``, and the least processor seconds of several runs."""
    given, spent = list(arguments), []
    given[TOL], given[LOG_Z] = tol, np.full_like(arguments[LOG_Z], -np.inf)
    for _ in range(REPEATS if tol > EXACT else 1):
        start = time.process_time()
        modes.run(*given)
        spent.append(time.process_time() - start)
    return given[LOG_Z], min(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--cells", type=int, default=4000)
    parser.add_argument("--places", type=int, default=6)
    given = parser.parse_args()
    print(f"{'from':44s} {'points':>8s} {'us each':>8s}   error of a point: median, 99 %   of the sum: median, most")
    for place, arguments in list(kept_calls(given.genes, given.cells).items())[: given.places]:
        exact, _ = log_z_of(arguments, EXACT)
        fast, seconds = log_z_of(arguments, arguments[TOL])
        n = int((arguments[TAUS] >= 0).sum()) * exact.shape[1]
        near = np.isfinite(exact) & (exact > exact.max(axis=(1, 2), keepdims=True) - NEAR)
        of_point = np.quantile(np.abs(fast[near] - exact[near]), [0.5, 0.99])
        some = near.any(axis=(1, 2))
        of_sum = np.abs(logsumexp(fast[some], axis=(1, 2)) - logsumexp(exact[some], axis=(1, 2)))
        print(
            f"{place:44s} {n:8d} {1e6 * seconds / n:8.1f}   {of_point[0]:14.4f} {of_point[1]:10.4f}"
            f" {np.median(of_sum):18.4f} {of_sum.max():8.4f}"
        )


if __name__ == "__main__":
    main()
