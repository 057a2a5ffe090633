"""How often could any method tell that two contexts respond differently? The power of an oracle, beside ours.

The screens are those of compare.py. The oracle knows what no method knows: how the simulated curves of each kind are
distributed, the share of each kind, the size of the guide effects, and which features respond in no context. Its local
FDR is that of Bayes' rule, by a sum over curves drawn from the true distribution, with the same likelihood. No rule
with its false discovery rate has more power on average.

    python benchmarks/compare_oracle.py [--seeds 10] [--features 200] [--scenarios plain,knock_down] [--draws 60000]

With --plateaus: which doubled amplitudes can be seen, of curves that are simulated and not fitted.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from _contexts import RANGE, visible
from compare import KINDS, SCENARIOS, SHARES, simulate, truth_of
from scipy.special import logsumexp

from dream_sc._core.response.contexts.decision import TAUS, decide
from dream_sc._core.response.contexts.measured import levels_of
from dream_sc._core.response.contexts.pair_likelihood import Curves, Pair, log_likelihood
from dream_sc._core.response.decision import q_values

if TYPE_CHECKING:
    from _contexts import Truth

    from dream_sc._core.response.contexts.measured import Measured

LN2 = np.log(2.0)
TAU, RHO = 0.1 * LN2, 0.5  # of the simulation
CLOSE = 1500  # drawn curves whose likelihood is worked out in full, the best by a quick one
BLOCK = 10_000
REACHED, N_CURVES = 0.9, 20_000  # part of the way to a plateau that counts as reached


def drawn(rng: np.random.Generator, measured: Measured, kind: str, n: int) -> np.ndarray:
    """Value, variance and slope ``(3, n, 2, G)`` of curves of a kind at the guides' dosages."""
    truth = truth_of(rng, n, tuple(float(k == kind) for k in KINDS))
    theta = truth.theta.copy()
    theta[..., 2] = measured.shapes.beta(theta[..., 2])
    out = np.empty((3, n, 2, measured.n_targeting))
    for c, dosages in enumerate(measured.dosages):
        for i in range(0, n, BLOCK):
            s = slice(i, i + BLOCK)
            out[:, s, c] = measured.shapes.with_errors(theta[s, c], dosages)
    return out * truth.responds[None, :, :, None]


def quick(pair: Pair, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Levels ``(2 G,)`` of one feature and their precisions, with errors of dosages as of a slope of 1."""
    n = pair.n_targeting
    error = LN2 * np.stack([d.error for d in pair.dosages])
    covariance = np.diag((pair.variance[t, :, :n] + TAU**2 + error**2).ravel())
    each = np.arange(n)
    covariance[each, n + each] = covariance[n + each, each] = RHO * TAU**2
    weight = 1.0 / (pair.variance[t, :, n:] + TAU**2)
    level = (weight * pair.mean[t, :, n:]).sum(1) / weight.sum(1)
    for c in range(2):
        covariance[c * n : (c + 1) * n, c * n : (c + 1) * n] += 1.0 / weight[c].sum()
    return (pair.mean[t, :, :n] - level[:, None]).ravel(), np.linalg.inv(covariance)


def oracle(measured: Measured, truth: Truth, seed: int, n_draws: int) -> np.ndarray:
    """Local FDR ``(T,)`` of no difference."""
    rng, taus = np.random.default_rng([seed, 99]), np.array([TAU])
    pair = levels_of(measured, TAUS, RHO).pair
    values = np.full((len(truth.kind), len(KINDS)), -np.inf)
    values[:, 0] = log_likelihood(pair, Curves.flat(len(pair.mean), pair.n_targeting), taus, RHO)[:, 0, 0]
    for i, kind in enumerate(KINDS[1:], 1):
        curves = drawn(rng, measured, kind, n_draws)
        flat = curves[0].reshape(n_draws, -1)
        for t in np.flatnonzero(truth.kind != "null"):
            level, precision = quick(pair, t)
            fit = flat @ (precision @ level) - 0.5 * ((flat @ precision) * flat).sum(1)
            best = np.argpartition(-fit, CLOSE)[:CLOSE]
            some = Curves(*curves[:, None, best])
            values[t, i] = logsumexp(log_likelihood(pair.take([t]), some, taus, RHO)[0, :, 0]) - np.log(n_draws)
    joint = values + np.log(SHARES)
    lfdr = np.exp(logsumexp(joint[:, :2], axis=1) - logsumexp(joint, axis=1))
    return np.where(truth.kind == "null", 1.0, lfdr)


def one(seed: int, n: int, scenario: str, n_draws: int) -> pd.DataFrame:
    """Calls of the features of one screen, by the oracle and by us."""
    measured, truth = simulate(seed, n, SCENARIOS[scenario])
    best = q_values(oracle(measured, truth, seed, n_draws)) < 0.05
    ours = decide(measured, n_null=0)[0].q_value < 0.05
    return pd.DataFrame({"kind": truth.kind, "seen": visible(truth), "oracle": best, "ours": ours})


def plateaus(seed: int) -> None:
    """Share of doubled amplitudes that are seen, by whether the dosages reach the lower of the two plateaus."""
    truth = truth_of(np.random.default_rng(seed), N_CURVES, tuple(float(k == "amplitude") for k in KINDS))
    middle, log_n, b = truth.theta[:, 0].T
    end = np.where(b > 0, RANGE[0], RANGE[1])  # where the lower plateau is
    reached = 1.0 / (1.0 + np.exp(-LN2 * np.exp(log_n) * np.abs(end - middle) * np.sign((middle - end) * b))) > REACHED
    seen = visible(truth)
    print(f"lower plateau within the dosages: {reached.mean():.2f} of {N_CURVES} doubled amplitudes")
    share = [seen[some].mean() for some in (reached, ~reached)]
    print(f"seen: {share[0]:.2f} of these, {share[1]:.2f} of the others, {seen.mean():.2f} of all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--features", type=int, default=200)
    parser.add_argument("--draws", type=int, default=60_000, help="curves of each kind")
    parser.add_argument("--scenarios", default="plain,knock_down")
    parser.add_argument(
        "--plateaus", action="store_true", help="which doubled amplitudes can be seen; nothing is fitted"
    )
    args = parser.parse_args()
    if args.plateaus:
        plateaus(0)
        return
    for name in args.scenarios.split(","):
        found = pd.concat([one(seed, args.features, name, args.draws) for seed in range(args.seeds)])
        found["called"] = ~found["kind"].isin(KINDS[:2])
        table = found.groupby("kind")[["oracle", "ours"]].mean().reindex(KINDS[1:])
        table.loc["amplitude, seen"] = found[(found["kind"] == "amplitude") & found["seen"]][["oracle", "ours"]].mean()
        table["n"] = [
            *found.groupby("kind").size().reindex(KINDS[1:]),
            (found["seen"] & (found["kind"] == "amplitude")).sum(),
        ]
        print(f"{name}, {args.seeds} screens of {args.features} features: share that is called at q < 0.05")
        print(table.round(3).to_string())
        for who in ("oracle", "ours"):
            calls = found[found[who]]
            print(f"{who}: {(~calls['called']).sum()} of {len(calls)} calls are false", flush=True)


if __name__ == "__main__":
    main()
