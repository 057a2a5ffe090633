"""Does the first pass lose calls? Every feature by it, against every curve, shape and tau by the kernel.

Sums over guides are simulated directly, with guide shifts of 0.1 log2, for two designs: 12 guides and 6 NTC guides, and
20 with 100 NTC guides that the engine sums up. Calls are made from both sets of evidence in the same way.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

import dream_sc as ds
from dream_sc._core.parallel import blocks, each
from dream_sc._core.priors import TransPriors
from dream_sc._core.response import decision, learned
from dream_sc._core.response.comparison import set_up
from dream_sc._core.response.evidence import block_evidence
from dream_sc._core.response.problem import Problem
from dream_sc._core.response.problem import problem as problem_of
from dream_sc._core.response.settings import Settings
from dream_sc._core.types import Axis, GuideStats, RowDosage

DESIGNS = ((12, 6), (20, 100))
SHIFT = 0.1  # log2
EXPOSURE = 60.0  # cells of a guide, about
TAIL = (0.01, 0.3)


@dataclass(frozen=True)
class Result:
    """What one design gave."""

    design: tuple[int, int]
    n: int
    called: int
    lost: int  # called with all effort, not after the first pass
    gained: int
    log_bf_ratio: float  # median over the calls
    worst_lost: float  # least q-value, all effort, among the lost
    seconds: tuple[float, float]


def problem(n_cis: int, n_ntc: int, n: int, seed: int) -> Problem:
    """Sums over the guides of features of which a tenth responds."""
    rng = np.random.default_rng(seed)
    truth = ds.datasets.titration(
        50,
        n + 1,
        rng=seed,
        n_guides=n_cis,
        n_ntc_guides=n_ntc,
        single_fraction=0.08,
        additive_fraction=0.02,
        mean_range=(-8.0, 4.0),
    )
    table = truth.uns["titration"]["guides"]
    dose = table["log2_dosage"].to_numpy()
    names = list(truth.var_names[1:])
    mean = ds.datasets.true_curve(truth, names, dose) * 2.0 ** rng.normal(0, SHIFT, (n, len(dose)))
    o = truth.var["true_overdispersion"].to_numpy()[1:]
    w = EXPOSURE * rng.uniform(0.7, 1.3, len(dose))
    phi = w[None] / o[:, None] ** 2
    counts = rng.poisson(rng.gamma(phi, mean * w / phi)).astype(float)
    keep = counts.sum(1) >= 10
    guide = np.arange(len(dose))
    stats = GuideStats(counts[keep], w, w, guide, np.zeros(len(dose), dtype=np.int64), len(dose), 1)
    control = guide >= n_cis
    dosage = RowDosage(dose, np.where(control, 0.0, 0.2), np.where(control, 0.02, 0.08), control)
    axis = Axis.of(dose[:n_cis])
    return problem_of(stats, dosage, o[keep], group_effect_sd=0.3, axis=axis, priors=TransPriors())


def compare(design: tuple[int, int], n: int, seed: int) -> Result:
    """Calls of one design from both sets of evidence."""
    p, c = set_up(problem(*design, n, seed), Settings(), TAIL)
    found, seconds = [], []
    for whole in (False, True):
        begin = time.perf_counter()
        parts = [
            v.values
            for _, v in each(lambda s, whole=whole: block_evidence(p.take(s), c, whole=whole), blocks(len(p.counts)))
        ]
        seconds.append(time.perf_counter() - begin)
        values = np.concatenate(parts)
        prior = learned.learn(values, c.grid, p.priors, wide=TAIL)
        log_bf = decision.log_bayes_factor(decision.marginals(values, c.grid, prior), prior)
        found.append((decision.q_values(decision.local_fdr(log_bf, prior)), log_bf))
    (q, log_bf), (q_all, log_bf_all) = found
    a, b = q < 0.05, q_all < 0.05
    lost = b & ~a
    return Result(
        design,
        len(q),
        int(b.sum()),
        int(lost.sum()),
        int((a & ~b).sum()),
        float(np.median((log_bf / log_bf_all)[b])),
        float(q_all[lost].min()) if lost.any() else np.nan,
        tuple(seconds),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=2000, help="of both designs together")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("guides     features   called  lost  gained  changed  log BF ratio  least q of a lost one  s look  s all")
    for design in DESIGNS:
        r = compare(design, args.features // 2, args.seed)
        print(
            f"{r.design[0]:3d} + {r.design[1]:<4d} {r.n:9,d} {r.called:8d} {r.lost:5d} {r.gained:7d}  "
            f"{(r.lost + r.gained) / r.n:7.4%} {r.log_bf_ratio:13.4f} {r.worst_lost:22.4f} "
            f"{r.seconds[0]:7.1f} {r.seconds[1]:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
