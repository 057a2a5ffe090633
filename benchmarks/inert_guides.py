"""Knock-outs without dosages: what guides that do nothing cost, and whether they are named.

Six guides on a target whose mRNA is not measured and six NTC guides, 60 cells each, guide shifts of 0.1 log2; a fifth
of 150 genes moves by 0.4 to 1 log2 where a guide acts. Power: of genes that move by more than 0.6 log2.

    python benchmarks/inert_guides.py [--seeds 3]
"""

from __future__ import annotations

import argparse

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

N_GENES, N_GUIDES, N_CELLS, SHIFT = 150, 6, 60, 0.1


def simulate(seed: int, inert: int) -> tuple[ad.AnnData, np.ndarray, np.ndarray]:
    """Counts, the log2 fold change of each gene where a guide acts, and the genes' means; the last guides are inert."""
    rng = np.random.default_rng(seed)
    guide = np.repeat(np.arange(2 * N_GUIDES), N_CELLS)
    mean = np.exp(rng.normal(0.3, 1, N_GENES))
    phi = 1 / (0.35 + 0.3 / np.sqrt(mean + 0.3)) ** 2
    effect, moves = np.zeros(N_GENES), rng.permutation(N_GENES)[: N_GENES // 5]
    effect[moves] = rng.choice([-1, 1], len(moves)) * rng.uniform(0.4, 1.0, len(moves))
    acts = np.arange(2 * N_GUIDES) < N_GUIDES - inert
    shift = rng.normal(0, SHIFT, (2 * N_GUIDES, N_GENES))
    size = rng.lognormal(0, 0.25, len(guide))
    expected = size[:, None] * mean * 2 ** (acts[guide][:, None] * effect + shift[guide])
    counts = rng.poisson(expected * rng.gamma(phi, 1 / phi, expected.shape)).astype(np.float32)
    adata = ad.AnnData(sparse.csr_matrix(counts))
    adata.var_names = [f"gene_{i}" for i in range(N_GENES)]
    targeting = guide < N_GUIDES
    adata.obs["guide"] = [f"{'ko' if t else 'ntc'}_{g}" for t, g in zip(targeting, guide, strict=True)]
    adata.obs["target"] = np.where(targeting, "TARGET", "NTC")
    adata.obs["size_factor"] = size / size.mean()
    return adata, effect, mean


def one(seed: int, inert: int) -> dict[str, float]:
    """Calls of one screen, and which guides are named as departing from the others."""
    adata, effect, mean = simulate(seed, inert)
    ds.tl.fit_technical(adata)
    ds.tl.fit_trans(adata, dosage="none", cis_targets="TARGET", progress=False)
    called = ds.get.trans(adata)["qvalue"].to_numpy() < 0.05
    large = (np.abs(effect) > 0.6) & (mean > 0.5)
    flags = adata.uns["trans"]["flags"].set_index("flag")["raised"]
    return {
        "inert": inert,
        "power": called[large].mean(),
        "calls": called.sum(),
        "false": (called & (effect == 0)).sum(),
        "guides_disagree": float(flags["guides_disagree"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    rows = [one(seed, inert) for inert in range(4) for seed in range(args.seeds)]
    print(pd.DataFrame(rows).groupby("inert").mean().round(3).to_string())


if __name__ == "__main__":
    main()
