"""Seconds of the evidence of features: compiled kernel, tensors on the CPU, tensors on a GPU if there is one.

Sums over guides as in `screening.py`. The null at every tau, and shapes of one and of two Hills at every tau: what the
trans step asks of features that may respond. One thread on the CPU, unless `--threads` says otherwise; a call on each
before the clock starts. On a GPU the time includes the transfers.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
import torch
from screening import TAIL, problem

from dream_sc._core.blocks import each_block
from dream_sc._core.curves import curve
from dream_sc._core.device import Target
from dream_sc._core.response import fit
from dream_sc._core.response.problem import Problem
from dream_sc._core.response.problem import evidence as evidence_of
from dream_sc._core.threads import n_threads

SHAPES = {"null": 1, "single_hill": 32, "additive_hill": 48}
WARM = 64  # features of the call that is not timed


def targets() -> dict[str, Target | None]:
    """What to run on; single precision is that of the search for the modes of the guide effects only."""
    out: dict[str, Target | None] = {"cpu, compiled": None}
    for name in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        for dtype in (torch.float64, torch.float32):
            out[f"{name}, tensors, {str(dtype).removeprefix('torch.')}"] = Target(torch.device(name), dtype)
    return out


def evidence(p: Problem, name: str, grid: np.ndarray) -> np.ndarray:
    """Log evidence of the first shapes of the lattice of a curve, spread over it."""
    c = curve(name)
    shapes, _, consts = c.lattice(p.axis, p.priors)
    some = np.linspace(0, len(shapes) - 1, SHAPES[name]).astype(int)

    def call(s: slice) -> np.ndarray:
        q = p.take(s)
        return evidence_of(q, c, shapes[None, some], consts[None, some], q.taus(grid))[0]

    return np.concatenate(each_block(call, len(p.counts), on_device=p.target is not None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=1000)
    parser.add_argument("--guides", type=int, default=12)
    parser.add_argument("--ntc-guides", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1, help="of torch; NUMBA_NUM_THREADS limits the compiled kernel")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    p, c = fit.set_up(problem(args.guides, args.ntc_guides, args.features, 0), fit.Options(), TAIL)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    print(
        f"{len(p.counts)} features, {args.guides} + {args.ntc_guides} guides, {len(c.grid)} taus; GPU: {device}; "
        f"threads: {n_threads()} compiled, {args.threads} tensors"
    )
    print(f"{'curve':15} {'on':24} {'seconds':>8} {'ratio':>6}  largest difference, share above 1e-3 nats")
    for name in SHAPES:
        base, first = None, 0.0
        for label, target in targets().items():
            q = replace(p, target=target)
            evidence(q.take(slice(0, WARM)), name, c.grid)
            start = time.perf_counter()
            found = evidence(q, name, c.grid)
            seconds = time.perf_counter() - start
            if base is None:
                base, first = found, seconds
            near = base > base.max(axis=(1, 2), keepdims=True) - 10
            error = np.abs(found[near] - base[near])
            print(
                f"{name:15} {label:24} {seconds:8.2f} {first / seconds:6.2f}  {error.max():.1e}, "
                f"{(error > 1e-3).mean():.2%}"
            )


if __name__ == "__main__":
    main()
