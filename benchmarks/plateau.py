"""EC50s that are claimed (`p_ec50_inside` > 0.95) where the curve has a plateau, and where it has none.

    python benchmarks/plateau.py [--seeds 10] [--only hill line ...]

Simulated screens of 240 genes and 4,000 cells, 13 graded and 6 NTC guides, guide shifts of sd 0.05 log2. A third of the
genes respond, all with the same kind of curve: a Hill with its EC50 inside; a line in log2 over the whole range; flat,
then a line; a step (n = 20); a bell. They move by 1 to 3 log2 from one end to the other (a bell to its top), up or
down. Over the called ones: the share of those with a claim, of those whose class is biphasic, and of Hills and steps
the share of claims whose 95 % interval holds the true EC50.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

KINDS = {
    "hill": "Hill, n of 1 to 4, EC50 inside the middle 70 % of the dosages",
    "hill_at_end": "Hill, n of 1 to 4, EC50 in the outer 15 % at either end",
    "line": "a line in log2 of the dosage",
    "hinge": "flat, then a line in log2",
    "step": "a step, n = 20",
    "bell": "a bell, one sd of which is an eighth to a quarter of the dosages",
}


def curves(kind: str, x: np.ndarray, low: float, high: float, n: int, gen: Any) -> tuple[np.ndarray, np.ndarray]:
    """Log2 curves ``(n, N)`` relative to NTC, and true EC50s ``(n,)``."""
    move = gen.uniform(1.0, 3.0, n) * gen.choice([-1.0, 1.0], n)
    k = low + (high - low) * gen.uniform(0.15, 0.85, n)
    if kind == "bell":
        k = low + (high - low) * gen.uniform(0.3, 0.7, n)
    elif kind == "hill_at_end":
        k = low + (high - low) * np.where(gen.random(n) < 0.5, gen.uniform(0, 0.15, n), gen.uniform(0.85, 1.0, n))
    at = np.concatenate([x, [low, high, 0.0]])[None]
    if kind == "line":
        f = np.repeat(at, n, 0)
    elif kind == "bell":
        width = (high - low) * gen.uniform(0.125, 0.25, n)[:, None]
        f = move[:, None] * np.exp(-0.5 * ((at - k[:, None]) / width) ** 2)
    elif kind == "hinge":
        above = gen.random(n) < 0.5
        f = np.where(above[:, None], np.maximum(at - k[:, None], 0), np.minimum(at - k[:, None], 0))
    else:
        # the log2 of 1 + (F - 1) h, with F such that it moves by `move`
        steep = 20.0 if kind == "step" else gen.uniform(1.0, 4.0, n)[:, None]
        h = 1 / (1 + 2.0 ** (-steep * (at - k[:, None])))
        e, (h_low, h_high) = 2.0**move, h[:, -3:-1].T
        factor = (e * (1 - h_low) - (1 - h_high)) / np.where(
            np.abs(h_high - e * h_low) < 1e-9, np.nan, h_high - e * h_low
        )
        factor = np.where(factor > 1e-3, factor, np.exp2(move))  # a shape that cannot move so much
        f = np.log2(1 + (factor[:, None] - 1) * h)
    scale = move / (f[:, -2] - f[:, -3]) if kind in ("line", "hinge") else np.ones(n)
    return (f[:, :-3] - f[:, -1:]) * scale[:, None], k


def simulate(kind: str, seed: int, n_genes: int = 240) -> tuple[Any, np.ndarray, np.ndarray]:
    """A screen, which genes respond, and their EC50s."""
    cells = ds.datasets.titration(4000, 1, rng=seed, n_guides=13, n_ntc_guides=6)
    gen, guides = np.random.default_rng([seed, 2]), cells.uns["titration"]["guides"]
    code = cells.obs["guide"].map({g: i for i, g in enumerate(guides["guide"])}).to_numpy(int)
    x, s = (cells.obs[c].to_numpy() for c in ("true_log2_dosage", "true_size_factor"))
    responds = np.arange(n_genes) % 3 == 1
    log2 = np.zeros((n_genes, len(x)))
    low, high = guides["log2_dosage"].min(), guides["log2_dosage"].max()
    log2[responds], ec50 = curves(kind, x, low, high, int(responds.sum()), gen)
    mean, noise = np.exp2(gen.uniform(-1, 4, n_genes)), gen.uniform(0.2, 0.6, n_genes)
    log2[0], mean[0], noise[0] = x, 6.0, 0.4
    shift = gen.normal(0, 0.05, (n_genes, len(guides))) * (np.arange(n_genes) > 0)[:, None]
    mu = (mean[:, None] * 2.0 ** (log2 + shift[:, code]) * s).T
    y = gen.poisson(mu * gen.gamma(noise**-2.0, size=mu.shape) * noise**2.0).astype(np.float32)
    names = ["GFI1B", *(f"g{i:03d}" for i in range(1, n_genes))]
    out = type(cells)(sparse.csr_matrix(y), obs=cells.obs, var=pd.DataFrame(index=names))
    return out, responds, ec50


def one(kind: str, seed: int) -> dict[str, Any]:
    """Claims in one screen."""
    adata, responds, ec50 = simulate(kind, seed)
    ds.pp.size_factors(adata, method="stable")
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, progress=False)
    table = adata.varm["trans"][responds]
    called = (table["qvalue"] < 0.05).to_numpy()
    one_step = called & (table["model"] == "single_hill").to_numpy()
    claimed = called & (table["p_ec50_inside"] > 0.95).to_numpy()
    holds = (table["log2_ec50_q025"] < ec50) & (ec50 < table["log2_ec50_q975"])
    return {
        "kind": kind,
        "called": called.sum(),
        "one_step": one_step.sum(),
        "claimed": claimed.sum(),
        "holds": (holds & claimed).sum(),
        "biphasic": (called & table["class"].astype(str).str.startswith("biphasic").to_numpy()).sum(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", nargs="+", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    for kind in options.only:
        runs = pd.DataFrame([one(kind, seed) for seed in range(options.seeds)]).drop(columns="kind").sum()
        text = f"claims {runs['claimed'] / runs['called']:.3f} of {runs['called']} called"
        text += f", biphasic {runs['biphasic'] / runs['called']:.3f}"
        if kind not in ("line", "hinge", "bell"):
            text += f", of {runs['claimed']} claims {runs['holds'] / max(runs['claimed'], 1):.3f} hold the EC50"
        print(f"{kind}: {text}; {runs['one_step']} with one step", flush=True)


if __name__ == "__main__":
    main()
