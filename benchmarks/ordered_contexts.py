"""Does the EC50 or the amplitude change along with time points or doses? False calls, power and coverage.

Screens are those of compare.py with four contexts at 0, 1, 2 and 3. 60 % of the features respond in no context, 25 %
alike, in 7.5 % the EC50 moves by 1 log2 from the first to the last context, in 7.5 % the amplitude doubles or halves,
each linearly in log2 (movement of 1.5 log2 at least, in the context where it is least; Hill coefficient 1 to 5).
Scenarios add what must not look like a trend. Beside it stand the comparison of the first with the last context
(`tl.compare` without an order), and separate fits of a four-parameter curve in each context with a regression of log2
EC50 and log2 amplitude on the number, each weighted by its error.

    python benchmarks/ordered_contexts.py [--seeds 5] [--features 200] [--scenarios plain,nuisances]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from _contexts import LN2, Cells, Truth, amplitude_of, calls, inside_all, print_screens, separate_fits, sums_of
from scipy.stats import norm

from dream_sc._core.response.calibration import step_up
from dream_sc._core.response.contexts import decision as of_pairs
from dream_sc._core.response.contexts.measured import Measured
from dream_sc._core.response.ordered.decision import decide
from dream_sc._core.response.ordered.describe import described
from dream_sc._core.response.ordered.hypotheses import places_of
from dream_sc._core.types import Axis

NUMBERS = np.array([0.0, 1.0, 2.0, 3.0])
KINDS = ("null", "equal", "dosage", "amplitude", "apart")
SHARES = (0.6, 0.25, 0.075, 0.075, 0.0)


@dataclass(frozen=True)
class Scenario:
    """What differs between the contexts besides the response, an entry for each."""

    knock_down: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)  # factor on all log2 dosages
    level: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)  # factor on the expression of every feature
    depth: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)  # factor on the counts of every cell
    cells: tuple[int, ...] = (200, 200, 200, 200)  # of each guide
    shares: tuple[float, ...] = SHARES


FEWER = (200, 130, 80, 40)
NO_TREND = (0.6, 0.4, 0.0, 0.0, 0.0)
SCENARIOS = {
    "plain": Scenario(),
    "knock_down": Scenario(knock_down=(1.0, 0.8, 0.65, 0.5)),
    "nuisances": Scenario(level=(1.0, 1.6, 2.5, 4.0), depth=(1.0, 0.7, 0.5, 1 / 3), cells=FEWER),
    "no_trend": Scenario(shares=NO_TREND),
    "no_trend_nuisances": Scenario(
        (1.0, 0.8, 0.65, 0.5), (1.0, 1.6, 2.5, 4.0), (1.0, 0.7, 0.5, 1 / 3), FEWER, shares=NO_TREND
    ),
    "one_apart": Scenario(shares=(0.6, 0.25, 0.0, 0.0, 0.15)),
}


def truth_of(rng: np.random.Generator, n: int, shares: tuple[float, ...], numbers: np.ndarray) -> Truth:
    """Curves of all contexts."""
    kind, at = rng.choice(KINDS, n, p=shares), (numbers - numbers.min()) / np.ptp(numbers)
    theta = np.zeros((n, len(numbers), 3))
    for t in range(n):
        sign, steep = rng.choice([-1.0, 1.0]), np.clip(np.exp(rng.normal(LN2, 0.5)), 1.0, 5.0)
        move, ec50, way = rng.uniform(1.5, 3.0), rng.uniform(-2.4, 0.6), rng.choice([-1.0, 1.0])
        ends = (ec50, ec50)
        if kind[t] in ("dosage", "apart"):
            ec50 = rng.uniform(-2.0, -0.3)
            ends = (ec50, ec50 + 1.0)[:: int(way)]
        b = max((amplitude_of(sign * move, k, steep) for k in ends), key=abs)
        theta[t, :, 0] = ends[0] + (ends[1] - ends[0]) * at
        theta[t, :, 1], theta[t, :, 2] = np.log(steep), b
        if kind[t] == "amplitude":
            theta[t, :, 2] = b * 2.0 ** (at if way > 0 else 1.0 - at)
        if kind[t] == "apart":
            theta[t, :, 0] = ends[0]
            theta[t, rng.integers(1, len(numbers) - 1), 0] = ends[1]
    return Truth(kind, theta, np.repeat(kind[:, None] != "null", len(numbers), 1))


def simulate(seed: int, n: int, s: Scenario, numbers: np.ndarray = NUMBERS) -> tuple[Measured, Truth]:
    """Sums of all contexts."""
    rng = np.random.default_rng([seed, 31])
    truth = truth_of(rng, n, s.shares, numbers)
    contexts = [Cells(*each) for each in zip(s.knock_down, s.level, s.depth, s.cells, strict=True)]
    return sums_of(rng, truth, contexts, (0.0, 4.0)), truth


def of_contexts(measured: Measured, some: list[int]) -> Measured:
    """Some of the contexts."""
    sums, dosages = (tuple(each[c] for c in some) for each in (measured.sums, measured.dosages))
    axis = Axis.of(np.concatenate([d.at[:, 1] for d in dosages]))
    return Measured(sums, dosages, measured.targeting, axis, measured.priors)


def regressions(measured: Measured, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slopes ``(T, 2)`` of log2 EC50 and log2 amplitude of separate fits on the number, weighted, and their SEs."""
    estimate, se = separate_fits(measured)
    with np.errstate(all="ignore"):
        se = np.stack([se[..., 0], se[..., 1] / np.abs(estimate[..., 1]) / LN2], -1)
        estimate = np.stack([estimate[..., 0], np.log2(np.abs(estimate[..., 1]))], -1)
        w = np.where(np.isfinite(estimate) & np.isfinite(se) & (se > 0), se**-2.0, 0.0)
        y, x = np.where(w > 0, estimate, 0.0), numbers[None, :, None]
        centre = (w * x).sum(1) / w.sum(1)
        away = x - centre[:, None]
        information = (w * away**2).sum(1)
        return (w * away * y).sum(1) / information, information**-0.5


def one(seed: int, n: int, s: Scenario, n_null: int) -> dict[str, float]:
    """False calls, power and coverage of one screen."""
    measured, truth = simulate(seed, n, s)
    started = time.process_time()
    decision, blocks = decide(measured, places_of(NUMBERS), n_null=n_null)
    found = described(measured, decision, blocks, NUMBERS)
    seconds = time.process_time() - started
    ends, _ = of_pairs.decide(of_contexts(measured, [0, len(NUMBERS) - 1]), n_null=0)
    slope, se = regressions(measured, NUMBERS)
    z = slope / se
    p = np.where(np.isfinite(z), 2 * norm.sf(np.abs(z)), 1.0)
    peer = step_up(np.minimum(2 * p.min(1), 1.0))
    has = np.isin(truth.kind, ["dosage", "amplitude"])
    out: dict[str, float] = {}
    for name, called in (("", decision.q_value < 0.05), ("ends_", ends.q_value < 0.05), ("fits_", peer < 0.05)):
        out |= calls(truth, called, has, ("dosage", "amplitude"), name)
    named = np.isin(found["hypothesis"], ["amplitude_trend", "dosage_trend"]) & has & (decision.q_value < 0.05)
    right = np.char.startswith(found["hypothesis"], np.where(truth.kind == "dosage", "dosage", "amplitude"))
    out["named_rightly"] = right[named].mean() if named.any() else np.nan
    out["differs_fdp"] = ((decision.q_differs < 0.05) & np.isin(truth.kind, ["null", "equal"])).sum() / max(
        (decision.q_differs < 0.05).sum(), 1
    )
    for edge in (0.05, 0.2):
        out[f"p_below_{edge}"] = (decision.p_value[~has] < edge).mean()
    out |= coverage(measured, truth, found, slope, se)
    return out | {"rho": decision.rho, "ms_per_feature": 1000 * seconds / n}


def coverage(
    measured: Measured, truth: Truth, found: dict[str, np.ndarray], slope: np.ndarray, se: np.ndarray
) -> dict[str, float]:
    """How often true slopes are inside 95 % intervals: of features that respond, with all EC50s inside all ranges."""
    ec50, amplitude = truth.theta[..., 0], np.abs(truth.theta[..., 2]) + 1e-9
    inside = inside_all(measured, truth) & np.isfinite(found["log2_ec50"][0]) & (truth.kind != "apart")
    width, out = np.ptp(NUMBERS), {}
    true = {
        "log2_ec50": (ec50[:, -1] - ec50[:, 0]) / width,
        "log2_amplitude": np.log2(amplitude[:, -1] / amplitude[:, 0]) / width,
    }
    for i, (name, value) in enumerate(true.items()):
        _, low_end, high_end = found[name]
        out[f"n_{name}"] = inside.sum()
        out[f"covered_{name}"] = ((low_end <= value) & (value <= high_end))[inside].sum()
        out[f"covered_fits_{name}"] = (np.abs(slope[:, i] - value) < 1.96 * se[:, i])[inside].sum()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--features", type=int, default=200)
    parser.add_argument("--null", type=int, default=100, help="simulated features for p-values")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    args = parser.parse_args()
    for name in filter(None, args.scenarios.split(",")):
        rows = pd.DataFrame([one(seed, args.features, SCENARIOS[name], args.null) for seed in range(args.seeds)])
        covered = print_screens(name, rows, args.features)
        for what in ("log2_ec50", "log2_amplitude"):
            n = max(int(covered[f"n_{what}"]), 1)
            print(
                f"coverage of the slope of {what}: {covered[f'covered_{what}'] / n:.3f} of {n}, "
                f"separate fits {covered[f'covered_fits_{what}'] / n:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
