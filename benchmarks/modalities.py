"""Shares, usage and scores: error rate, power and coverage on simulated modalities beside a simulated titration.

    python benchmarks/modalities.py [--distribution binomial multinomial normal studentt] [--seeds 10] [--features 500]
        [--cells 5000] [--shift 0.1] [--rho 0.1] [--rise 0] [--categories 2 8] [--first-seed 0]

For every seed: a titration of the cis gene with 12 graded and 6 NTC guides in 2 batches gives the dosage. Beside it a
modality, 30 % of whose features follow a Hill of the cells' true dosages; all are shifted by batch and by guide (sd
`shift` of the log odds, or of the score in its sd). Shares vary between cells by a correlation `rho` of a cell's reads,
which rises by `rise` log2 per log2 of knock-down;
coverage is 2 to 50 % of cells. Scores are missing in 10 % of cells. All steps by their defaults, dosages estimated.
Reported over seeds: false discovery proportion at q < 0.05, power by the size of the change over the observed dosages,
coverage of 95 % intervals over responders that are called, and over those that change by much, called or not.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit, logit

import dream_sc as ds

SIZES = {"share": (0.05, 0.1, 0.2, 0.4), "score": (0.1, 0.25, 0.5, 1.0)}
LARGE = {"share": 0.2, "score": 0.5}


def titration(seed: int, n_cells: int) -> ad.AnnData:
    """A titration with the dosage of every cell fitted."""
    rna = ds.datasets.titration(n_cells, 40, rng=seed)
    ds.tl.fit_technical(rna, batch_key="batch")
    ds.tl.fit_cis(rna, "GFI1B")
    return rna


class Truth:
    """Hills of `t` features, and what shifts them beside the dosage."""

    def __init__(self, rna: ad.AnnData, o: argparse.Namespace, rng: np.random.Generator):
        t, shift = o.features, o.shift
        self.rng, self.t = rng, t
        self.x = rna.obs["true_log2_dosage"].to_numpy(float)
        self.rho = np.minimum(o.rho * 2.0 ** (-o.rise * self.x), 0.9)[:, None]
        self.responds = rng.random(t) < 0.3
        self.k, self.n = rng.uniform(-2.0, 0.6, t), np.exp(rng.normal(np.log(2), 0.4, t))
        guide, batch = (rna.obs[key].astype("category").cat for key in ("guide", "batch"))
        self.guide, self.batch = guide.codes.to_numpy(), batch.codes.to_numpy()
        self.reference = str(batch.categories[0])  # what the true shares and means are of
        self.n_guides, self.shift = int(self.guide.max()) + 1, shift

    def hill(self, x: np.ndarray, some: slice) -> np.ndarray:
        return expit(self.n[some] * np.log(2) * (np.asarray(x)[:, None] - self.k[some]))

    def effects(self, size: tuple[int, ...]) -> np.ndarray:
        """Shifts of guides and batches by cell, ``(N, ...)``."""
        by_guide = self.rng.normal(0, self.shift, (self.n_guides, *size))
        by_batch = np.where(np.arange(int(self.batch.max()) + 1)[:, None] > 0, 1, 0).reshape(-1, *[1] * len(size))
        by_batch = by_batch * self.rng.normal(0, 0.2, size)
        return by_guide[self.guide] + by_batch[self.batch]


def reads(truth: Truth, share: float, n_cells: int) -> np.ndarray:
    covered = truth.rng.random(n_cells) < share
    return np.where(covered, 1 + truth.rng.poisson(1.0, n_cells), 0)


def spread(rng: np.random.Generator, p: np.ndarray, rho: np.ndarray) -> np.ndarray:
    """Shares of cells ``(N, K)`` around `p`, by correlations ``(N, 1)``."""
    if rho.max() <= 0:
        return p
    gamma = rng.gamma(np.maximum(p * (1 - rho) / rho, 1e-6))
    return gamma / np.maximum(gamma.sum(1, keepdims=True), 1e-300)


def usage(truth: Truth, categories: tuple[int, int], ends: np.ndarray) -> tuple[list, list, list]:
    """Counts of the categories of each feature, and their true shares at `ends` ``(X,)``."""
    counts, shares, cover = [], [], truth.rng.choice([0.02, 0.1, 0.5], truth.t)
    for i in range(truth.t):
        k = int(truth.rng.integers(categories[0], categories[1] + 1))
        low = truth.rng.dirichlet(np.full(k, 2.0))
        high = truth.rng.dirichlet(np.full(k, 2.0)) if truth.responds[i] else low
        p = low + (high - low) * truth.hill(truth.x, slice(i, i + 1))
        p = p * np.exp(truth.effects((k,)))
        p = spread(truth.rng, p / p.sum(1, keepdims=True), truth.rho)
        counts.append(truth.rng.multinomial(reads(truth, cover[i], len(p)), p))
        shares.append(low + (high - low) * truth.hill(ends, slice(i, i + 1)))
    return counts, shares, list(cover)


def shares_modality(truth: Truth, ends: np.ndarray) -> tuple[ad.AnnData, np.ndarray]:
    """Binomial features, and their true shares ``(T, X)``."""
    low = truth.rng.uniform(0.1, 0.9, truth.t)
    high = np.where(truth.responds, truth.rng.uniform(0.05, 0.95, truth.t), low)
    y, n = [], []
    for i, cover in enumerate(truth.rng.choice([0.02, 0.1, 0.5], truth.t)):
        p = low[i] + (high[i] - low[i]) * truth.hill(truth.x, slice(i, i + 1))[:, 0]
        p = expit(logit(p) + truth.effects((1,))[:, 0])
        both = spread(truth.rng, np.stack([p, 1 - p], 1), truth.rho)
        n.append(reads(truth, cover, len(p)))
        y.append(truth.rng.binomial(n[-1], np.clip(both[:, 0], 0, 1)))
    out = ad.AnnData(sparse.csr_matrix(np.stack(y, 1).astype(np.float32)))
    out.layers["denominator"] = sparse.csr_matrix(np.stack(n, 1).astype(np.float32))
    return out, (low + (high - low) * truth.hill(ends, slice(None))).T


def scores_modality(truth: Truth, heavy: bool, ends: np.ndarray) -> tuple[ad.AnnData, np.ndarray]:
    """Scores of sd 1, and their true means ``(T, X)``."""
    move = np.where(truth.responds, truth.rng.normal(0, 1.0, truth.t), 0.0)
    size = (len(truth.x), truth.t)
    noise = truth.rng.standard_t(3, size) if heavy else truth.rng.normal(size=size)
    x = move * truth.hill(truth.x, slice(None)) + truth.effects((truth.t,)) + noise
    x[truth.rng.random(size) < 0.1] = np.nan
    return ad.AnnData(x), (move * truth.hill(ends, slice(None))).T


def one(distribution: str, seed: int, o: argparse.Namespace) -> dict[str, np.ndarray | float]:
    rng = np.random.default_rng([seed, 1])
    rna = titration(seed, o.cells)
    truth = Truth(rna, o, rng)
    table = ds.get.guides(rna)
    doses = table.loc[~table["is_control"].astype(bool), "log2_dosage"]
    ends = np.array([min(doses.min(), -0.05), 0.0, max(doses.max(), 0.05)])
    options = {"distribution": distribution}
    if distribution == "multinomial":
        counts, shares, _ = usage(truth, tuple(o.categories), ends)
        other = ad.AnnData(sparse.csr_matrix(np.concatenate(counts, 1).astype(np.float32)))
        other.var["donor"] = np.repeat([f"d{i}" for i in range(o.features)], [c.shape[1] for c in counts])
        mean = np.concatenate(shares, 1).T
        options["category_key"] = "donor"
    elif distribution == "binomial":
        other, mean = shares_modality(truth, ends)
        options["denominator_layer"] = "denominator"
    else:
        other, mean = scores_modality(truth, distribution == "studentt", ends)
    other.obs = rna.obs[["guide", "target", "batch"]].copy()
    data = md.MuData({"rna": rna, "other": other})
    start = time.perf_counter()
    ds.tl.fit_technical(data, mod="other", batch_key="batch", reference=truth.reference, **options)
    ds.tl.fit_trans(data, mod="other", cis_mod="rna", progress=False)
    return compare(data["other"], truth, mean, distribution) | {"seconds": time.perf_counter() - start}


def compare(adata: ad.AnnData, truth: Truth, mean: np.ndarray, distribution: str) -> dict[str, np.ndarray | float]:
    """Calls and intervals beside the truth, a row per feature."""
    table = adata.varm["trans"]
    effect = "delta" if distribution in ("normal", "studentt") else "delta_p"
    change = mean.max(1) - mean.min(1)
    which = np.arange(len(table))
    if distribution == "multinomial":  # the row of the leading category; the size is the largest change of any
        labels = adata.var["donor"].to_numpy()
        lead = dict(zip(labels, table["category"].astype(str), strict=True))
        largest = pd.Series(change).groupby(labels, sort=False).max()
        names = [f"d{i}" for i in range(truth.t)]
        place = {n: i for i, n in enumerate(adata.var_names)}
        first = {d: i for i, d in reversed(list(enumerate(labels)))}
        which = np.array([place.get(lead[d], first[d]) for d in names])
        change = largest.loc[names].to_numpy()
    row, at = table.iloc[which], mean[which]

    def covered(name: str, value: np.ndarray) -> np.ndarray:
        low, high = row[f"{name}_q025"].to_numpy(float), row[f"{name}_q975"].to_numpy(float)
        return np.where(np.isfinite(low), (low <= value) & (value <= high), np.nan)

    return {
        "responds": truth.responds,
        "change": change,
        "q": row["qvalue"].to_numpy(float),
        "p": row["pvalue"].to_numpy(float),
        "ec50": covered("log2_ec50", truth.k),
        "full": covered(f"{effect}_full", at[:, 0] - at[:, 1]),
        "max": covered(f"{effect}_max", at[:, 2] - at[:, 1]),
        "error": np.abs(row["log2_ec50"].to_numpy(float) - truth.k),
        "k": row["pareto_k"].to_numpy(float),
    }


def report(distribution: str, runs: list[dict], o: argparse.Namespace) -> None:
    kind = "score" if distribution in ("normal", "studentt") else "share"
    every = {name: np.concatenate([np.atleast_1d(r[name]) for r in runs]) for name in runs[0]}
    fdp = np.array([((r["q"] < 0.05) & ~r["responds"]).sum() / max((r["q"] < 0.05).sum(), 1) for r in runs])
    error = fdp.std(ddof=1) / np.sqrt(len(fdp)) if len(fdp) > 1 else np.nan
    called, responds, change = every["q"] < 0.05, every["responds"], every["change"]
    print(f"\n{distribution}, {len(runs)} seeds, guide shifts {o.shift}, rho {o.rho}, rise {o.rise}")
    print(f"  FDP at q < 0.05  {fdp.mean():.3f} +- {error:.3f} (worst seed {fdp.max():.3f})")
    null = ~responds & np.isfinite(every["p"])
    small, smaller = ((every["p"][null] < level).mean() for level in (0.05, 0.005))
    print(f"  nulls with p < 0.05  {small:.4f}; < 0.005 {smaller:.4f}")
    for low, high in pairwise((0.0, *SIZES[kind], np.inf)):
        some = responds & (change >= low) & (change < high)
        print(f"  power, change {low} to {high}: {called[some].mean():.3f} of {some.sum()}")
    for label, some in (
        ("called responders", called & responds),
        ("large changes", responds & (change >= LARGE[kind])),
    ):
        parts = [f"{n} {np.nanmean(every[n][some]):.3f}" for n in ("ec50", "full", "max")]
        print(f"  coverage, {label} ({some.sum()}): {', '.join(parts)}; ", end="")
        print(f"median EC50 error {np.nanmedian(every['error'][some]):.3f}")
    print(f"  pareto_k above 0.7: {np.nanmean(every['k'] > 0.7):.3f}; {every['seconds'].mean():.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ["binomial", "multinomial", "normal", "studentt"]
    parser.add_argument("--distribution", nargs="+", default=every, choices=every)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--features", type=int, default=500)
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--shift", type=float, default=0.1)
    parser.add_argument("--rho", type=float, default=0.1)
    parser.add_argument("--rise", type=float, default=0.0, help="of log2 rho per log2 of knock-down")
    parser.add_argument("--categories", type=int, nargs=2, default=[2, 8])
    o = parser.parse_args()
    for distribution in o.distribution:
        runs = []
        for seed in range(o.first_seed, o.first_seed + o.seeds):
            runs.append(one(distribution, seed, o))
            calls = runs[-1]["q"] < 0.05
            false = (calls & ~runs[-1]["responds"]).sum()
            print(f"{distribution} seed {seed}: {false} false of {calls.sum()} calls", flush=True)
        report(distribution, runs, o)


if __name__ == "__main__":
    main()
