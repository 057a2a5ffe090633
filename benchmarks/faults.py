"""Fits that are killed, interrupted or run out of disk, at random moments: what is resumed is what was not interrupted.

A fit with a checkpoint, or a screen with a store, runs in a child process. The child is killed (SIGKILL), interrupted
(SIGINT) or may write files up to a random size only (RLIMIT_FSIZE). The same call is made again until it finishes, and
its table is compared, bit by bit, with that of a fit that was left alone.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import resource
import shutil
import signal
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import dream_sc as ds
from dream_sc._core import parallel
from dream_sc._core.response import decision
from dream_sc._core.screen import null_draws

FAULTS = ("kill", "interrupt", "full disk")
FINISHED, INTERRUPTED, FULL, WRONG = 0, 3, 4, 5  # exit codes of a child


def make(what: str) -> Any:
    """A small screen with the steps before."""
    adata = ds.datasets.titration(300, 12, rng=1, n_guides=6, mean_range=(0.0, 3.0))
    if what == "screen":  # of two targets
        half = adata.obs["guide"].astype(str).str.contains(r"_g0[246]$")
        adata.obs["target"] = pd.Categorical(adata.obs["target"].astype(str).mask(half, "promoter"))
    ds.tl.fit_technical(adata)
    if what == "fit":
        ds.tl.fit_cis(adata, "GFI1B", guide_offsets=False)
        ds.tl.fit_trans(adata, function_type="single_hill", nsamples=20, progress=False)
    return adata


def run(what: str, adata: Any, folder: Path) -> pd.DataFrame:
    if what == "screen":
        return ds.tl.screen(adata, store=folder, min_cells=5, nsamples=20, progress=False)
    hyper = adata.uns["trans"]["hyper"]
    how = {"function_type": "single_hill", "nsamples": 20, "hyper": hyper, "progress": False}
    out = ds.tl.fit_trans(adata, checkpoint=folder, key_added="again", copy=True, **how)
    return out.varm["again"]


def child(what: str, adata: Any, folder: Path, result: Path, limit: int | None) -> int:
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        table = run(what, adata, folder)
    except KeyboardInterrupt:
        return INTERRUPTED if "again" not in adata.uns else WRONG
    except OSError as error:
        with contextlib.suppress(OSError):  # of a log that is longer than the limit allows
            print(f"  says: {str(error)[:110]}", flush=True)
        return FULL if str(folder) in str(error) else WRONG
    if limit is None:
        table.to_pickle(result)
    return FINISHED


def forked(what: str, adata: Any, folder: Path, result: Path, limit: int | None) -> int:
    pid = os.fork()
    if pid == 0:
        code = WRONG
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = child(what, adata, folder, result, limit)
        except KeyboardInterrupt:
            code = INTERRUPTED
        finally:
            os._exit(code)
    return pid


def fault(name: str, what: str, adata: Any, folder: Path, result: Path, longest: float, rng: Any) -> str:
    """One run with a fault, and what became of it."""
    limit = int(rng.integers(1, 6000)) if name == "full disk" else None
    pid = forked(what, adata, folder, result, limit)
    if limit is None:
        time.sleep(rng.uniform(0, longest))
        os.kill(pid, signal.SIGKILL if name == "kill" else signal.SIGINT)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return "killed"
    code = os.WEXITSTATUS(status)
    return {FINISHED: "finished before", INTERRUPTED: "interrupted", FULL: "refused by name"}.get(code, "WRONG")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", default="fit", choices=("fit", "screen"))
    parser.add_argument("--faults", type=int, default=200, help="runs with a fault")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and limits")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no further fault after so many")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of a process with threads that forks
    parallel.BLOCK = 2
    parallel.blocks.__defaults__ = (2,)
    decision.N_NULL = null_draws.N_NULL = 30
    adata, rng = make(args.what), np.random.default_rng(args.seed)
    count: dict[str, int] = collections.Counter()
    root = Path(tempfile.mkdtemp())
    run(args.what, adata, root / "first")  # which loads compiled code, as no child has to
    started = time.perf_counter()
    want = run(args.what, adata, root / "whole")
    longest, begun, done, resumed, same = time.perf_counter() - started, time.perf_counter(), 0, 0, 0
    print(f"{args.what}: {longest:.1f} s without a fault", flush=True)
    while done < args.faults and time.perf_counter() - begun < args.seconds:
        folder, result = root / f"run_{done}", root / "table.pkl"
        result.unlink(missing_ok=True)
        for _ in range(int(rng.integers(1, 4))):  # faults of one run, one after the other
            name = FAULTS[done % len(FAULTS)]
            became = fault(name, args.what, adata, folder, result, longest, rng)
            count[f"{name}: {became}"] += 1
            done += 1
            if result.exists():
                break
        if not result.exists():
            os.waitpid(forked(args.what, adata, folder, result, None), 0)
        resumed += 1
        if result.exists():
            same += bool(pd.read_pickle(result).equals(want))
        left = sorted(file.name for file in folder.rglob("*.tmp")) if folder.exists() else []
        count["temporary files left"] += len(left)
        shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(root, ignore_errors=True)
    print(f"{done} faults: " + "; ".join(f"{k} {v}" for k, v in sorted(count.items())))
    print(f"{same} of {resumed} runs ended with the same table, bit by bit")
    raise SystemExit(0 if same == resumed and not any("WRONG" in k for k in count) else 1)


if __name__ == "__main__":
    main()
