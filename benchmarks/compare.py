"""Do two contexts respond differently? False calls, power and coverage on simulated sums, beside separate fits.

Each screen has 12 graded and 6 NTC guides with 200 cells in both contexts, a guide effect of sd 0.1 log2 of which half
is common to the contexts, and dosages with the errors that a cis gene of 6 counts leaves. 60 % of the features respond
in no context, 25 % alike, 15 % differently: 5 % with the EC50 1 log2 apart, 5 % with the amplitude doubled, 5 % in one
context only (movement of 1.5 to 3 log2, Hill coefficient 1 to 5). Scenarios add what must not look like a difference of
response. Beside it stand separate fits of a four-parameter curve in each context with a z-test on log2 EC50 and
amplitude.

    python benchmarks/compare.py [--seeds 10] [--features 200] [--scenarios plain,knock_down] [--true-dosages]

With the folder of a real screen as --data or in the environment variable DREAM_SC_DATA (see real_schraivogel.py), its
two lanes are compared as contexts: no feature should differ between lanes. With --regroupings 600, NTC guides drawn at
random pose as the guides of UBR5 so often, with the dosages of these in each lane, and the lanes are compared: again
none should differ.

    python benchmarks/compare.py --scenarios "" --data FOLDER --regroupings 600 --null 100
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from _contexts import CELLS, LN2, Cells, Truth, amplitude_of, calls, inside_all, print_screens, separate_fits, sums_of
from scipy.stats import norm

from dream_sc._core.response.calibration import step_up
from dream_sc._core.response.contexts.decision import decide
from dream_sc._core.response.contexts.describe import described
from dream_sc._core.response.contexts.guide_levels import Sums
from dream_sc._core.response.contexts.measured import Measured

KINDS = ("null", "equal", "dosage", "amplitude", "only")
SHARES = (0.6, 0.25, 0.05, 0.05, 0.05)


@dataclass(frozen=True)
class Scenario:
    """What differs in the second context besides the response."""

    knock_down: float = 1.0  # factor on all log2 dosages
    level: float = 1.0  # factor on the expression of every feature
    depth: float = 1.0  # factor on the counts of every cell, the cis gene's too
    cells: int = CELLS  # of each guide
    log2_mean: tuple[float, float] = (0.0, 4.0)  # range of the mean count of a cell in the first context
    shares: tuple[float, ...] = SHARES


SCENARIOS = {
    "plain": Scenario(),
    "knock_down": Scenario(knock_down=0.5),
    "level": Scenario(level=4.0),
    "depth": Scenario(depth=1 / 3),
    "cells": Scenario(cells=CELLS // 5),
    "low_counts": Scenario(cells=CELLS // 5, log2_mean=(-4.0, 0.0)),
    "no_difference": Scenario(shares=(0.6, 0.4, 0.0, 0.0, 0.0)),
}


def truth_of(rng: np.random.Generator, n: int, shares: tuple[float, ...]) -> Truth:
    """Draw the curves."""
    kind = rng.choice(KINDS, n, p=shares)
    theta, responds = np.zeros((n, 2, 3)), np.repeat(kind[:, None] != "null", 2, 1)
    for t in range(n):
        sign, steep, ec50 = rng.choice([-1.0, 1.0]), np.exp(rng.normal(LN2, 0.5)), rng.uniform(-2.4, 0.6)
        steep, move = np.clip(steep, 1.0, 5.0), rng.uniform(1.5, 3.0)
        if kind[t] == "dosage":
            ec50 = rng.uniform(-2.0, -0.3)
            # a movement of 1.5 log2 for both of the EC50s
            wide = max((amplitude_of(sign * move, k, steep) for k in (ec50, ec50 + 1.0)), key=abs)
            pair = [(ec50, np.log(steep), wide), (ec50 + 1.0, np.log(steep), wide)]
        else:
            b = amplitude_of(sign * move, ec50, steep)
            pair = [(ec50, np.log(steep), b), (ec50, np.log(steep), 2 * b if kind[t] == "amplitude" else b)]
        theta[t] = pair[:: rng.choice([-1, 1])]
        if kind[t] == "only":
            responds[t, rng.integers(2)] = False
    return Truth(kind, theta, responds)


def simulate(seed: int, n: int, s: Scenario, *, exact: bool = False) -> tuple[Measured, Truth]:
    """Sums of both contexts; `exact`: with the true dosages."""
    rng = np.random.default_rng([seed, 24])
    truth = truth_of(rng, n, s.shares)
    contexts = (Cells(), Cells(s.knock_down, s.level, s.depth, s.cells))
    return sums_of(rng, truth, contexts, s.log2_mean, exact=exact), truth


def z_test(estimate: np.ndarray, se: np.ndarray) -> np.ndarray:
    """P-values ``(T,)`` of a difference of EC50 or amplitude, the smaller of the two times two; 1 without a fit."""
    z = (estimate[:, 1] - estimate[:, 0]) / np.sqrt((se**2).sum(1))
    p = np.where(np.isfinite(z), 2 * norm.sf(np.abs(z)), 1.0)
    return np.minimum(2 * p.min(1), 1.0)


def one(seed: int, n: int, s: Scenario, n_null: int, *, exact: bool = False) -> dict[str, float]:
    """False calls, power and coverage of one screen."""
    measured, truth = simulate(seed, n, s, exact=exact)
    started = time.process_time()
    decision, blocks = decide(measured, n_null=n_null)
    found = described(measured, decision, blocks, LN2)
    seconds = time.process_time() - started
    estimate, se = separate_fits(measured)
    peer = step_up(z_test(estimate, se))
    differs = ~np.isin(truth.kind, ["null", "equal"])
    out = {}
    for name, called in (("", decision.q_value < 0.05), ("z_", peer < 0.05)):
        out |= calls(truth, called, differs, KINDS[2:], name)
    out["p_below_0.05"] = (decision.p_value[~differs] < 0.05).mean()
    out |= coverage(measured, truth, found, estimate, se)
    return out | {"rho": decision.rho, "ms_per_feature": 1000 * seconds / n}


def coverage(
    measured: Measured, truth: Truth, found: dict[str, np.ndarray], estimate: np.ndarray, se: np.ndarray
) -> dict[str, float]:
    """Share of the truth inside the 95 % intervals: features that respond in both, EC50s inside both ranges."""
    ec50, inside = truth.theta[:, :, 0], inside_all(measured, truth) & np.isfinite(found["log2_ec50"][0])
    true = {
        "log2_ec50": ec50[:, 1] - ec50[:, 0],
        "log2_amplitude_ratio": np.log2(
            np.abs(truth.theta[:, 1, 2] / np.where(inside, truth.theta[:, 0, 2], 1.0)) + 1e-9
        ),
        "effect": np.diff([truth.change(measured.full, c)[:, 0] for c in range(2)], axis=0)[0] / LN2,
    }
    differs = ~np.isin(truth.kind, ["null", "equal"]) & np.isfinite(found["effect"][0])
    out = {}
    for name, value in true.items():
        some = differs if name == "effect" else inside
        _, low_end, high_end = found[name]
        out[f"n_{name}"] = some.sum()
        out[f"covered_{name}"] = ((low_end <= value) & (value <= high_end))[some].sum()
    away = (estimate[:, 1, 0] - estimate[:, 0, 0] - true["log2_ec50"]) / np.sqrt((se[:, :, 0] ** 2).sum(1))
    out["covered_z_log2_ec50"] = (np.abs(away) < 1.96)[inside].sum()
    return out


def lanes(folder: str | None) -> None:
    """Two lanes of a real screen as contexts, for each of its targets."""
    from real_schraivogel import CONTROL, RUNS, load

    import dream_sc as ds

    adata = load(folder)
    if adata is None:
        print("no real screen: give its folder as --data")
        return
    rows = []
    ds.tl.fit_technical(adata, batch_key="batch", control=CONTROL)
    for name, (gene, label) in RUNS.items():
        ds.tl.fit_cis(adata, gene, cis_targets=label)
        ds.tl.fit_trans(adata, progress=False)
        ds.tl.compare(adata, "batch", n_null=200, progress=False)
        table = ds.get.compare(adata)
        p = table["pvalue_differs"].dropna()
        calls = int((table["qvalue_differs"] < 0.05).sum())
        rows.append({"target": name, "features": len(p), "calls": calls, "p_below_0.05": (p < 0.05).sum()})
    print(pd.DataFrame(rows).to_string(index=False))


def posing(folder: str | None) -> Measured | None:
    """Sums of NTC guides alone in two lanes; the first guides are at the dosages that those of UBR5 have there."""
    from real_schraivogel import CONTROL, POSED, load

    import dream_sc as ds
    from dream_sc.tl import _contexts

    adata = load(folder)
    if adata is None:
        return None
    adata = adata[adata.obs["target"].isin([CONTROL, POSED])].copy()
    ds.tl.fit_technical(adata, batch_key="batch", control=CONTROL)
    ds.tl.fit_cis(adata, POSED)
    ds.tl.fit_trans(adata, progress=False)
    fit = _contexts.read_fit(adata, None, "trans")
    names, labels = _contexts.contexts_of(fit, "batch", None)
    pair = _contexts.shared(*(_contexts.fit_context(fit, name, "batch", labels, 0) for name in names))
    found = pair.measured
    ntc = np.cumsum(~found.targeting) - 1
    sums = [renumbered(each, np.where(found.targeting, -1, ntc)) for each in found.sums]
    targeting = np.arange((~found.targeting).sum()) < found.targeting.sum()
    return Measured((sums[0], sums[1]), found.dosages, targeting, found.axis, found.priors)


def renumbered(sums: Sums, number: np.ndarray) -> Sums:
    """The same with other numbers ``(G,)`` of the guides; those with -1 are left out."""
    stats = sums.stats
    rows = np.flatnonzero(number[stats.guide] >= 0)
    parts = {name: getattr(stats, name)[rows] for name in ("exposure", "exposure2", "group")}
    guide = number[stats.guide[rows]]
    stats = replace(stats, counts=stats.counts[:, rows], guide=guide, n_guides=int((number >= 0).sum()), **parts)
    return replace(sums, stats=stats)


def regroup(folder: str | None, n: int, n_null: int, seed: int = 0) -> None:
    """NTC guides that pose as targeting ones in both lanes: how often does any feature differ, and the p-values."""
    measured = posing(folder)
    if measured is None:
        print("no real screen: give its folder as --data")
        return
    rng, rows = np.random.default_rng(seed), []
    started = time.process_time()
    for i in range(n):
        number = rng.permutation(len(measured.targeting))
        first, second = (renumbered(each, number) for each in measured.sums)
        decision, _ = decide(measured.with_sums(first, second), seed=i, n_null=n_null)
        differs = decision.lfdr < 0.5
        p = decision.p_value
        rows.append(
            {"calls": ((decision.q_value < 0.05) & differs).sum(), "p": (p < 0.05).mean(), "p2": (p < 0.2).mean()}
        )
        if i % 50 == 49 or i == n - 1:
            table = pd.DataFrame(rows)
            se = table["p"].std() / len(table) ** 0.5
            print(
                f"{len(table)} regroupings of {len(p)} features: any difference called in "
                f"{(table['calls'] > 0).mean():.4f}, p < 0.05 in {table['p'].mean():.4f} +- {se:.4f}, "
                f"p < 0.2 in {table['p2'].mean():.4f} ({(time.process_time() - started) / len(table):.2f} s each)",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="seed of the first screen")
    parser.add_argument("--features", type=int, default=200)
    parser.add_argument("--true-dosages", action="store_true", help="without errors of the dosages")
    parser.add_argument("--null", type=int, default=200, help="simulated features for p-values")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS))
    parser.add_argument("--data", default=os.environ.get("DREAM_SC_DATA"))
    parser.add_argument("--seed", type=int, default=0, help="of the regroupings")
    parser.add_argument("--regroupings", type=int, default=0, help="of NTC guides, on real cells, in place of targets")
    args = parser.parse_args()
    for name in filter(None, args.scenarios.split(",")):
        screens = range(args.first, args.first + args.seeds)
        given = (args.features, SCENARIOS[name], args.null)
        rows = pd.DataFrame([one(seed, *given, exact=args.true_dosages) for seed in screens])
        covered = print_screens(name, rows, args.features)
        for what in ("log2_ec50", "log2_amplitude_ratio", "effect"):
            n = int(covered[f"n_{what}"])
            print(f"coverage of {what}: {covered[f'covered_{what}'] / max(n, 1):.3f} of {n}")
        print(
            f"... log2_ec50, separate fits: {covered['covered_z_log2_ec50'] / max(covered['n_log2_ec50'], 1):.3f}",
            flush=True,
        )
    if args.regroupings:
        regroup(args.data, args.regroupings, args.null, args.seed)
    else:
        lanes(args.data)


if __name__ == "__main__":
    main()
