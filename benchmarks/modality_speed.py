"""Seconds and memory of shares and usage at the size of a whole screen.

    python benchmarks/modality_speed.py binomial [--features 10000] [--cells 50000]
    python benchmarks/modality_speed.py multinomial [--features 5000] [--cells 50000]

2 % of cells have reads of a feature, 2 on average; a multinomial feature has 2 to 10 categories. 20 guides of the cis
gene, 100 NTC guides, 2 batches; 10 % of features respond. The matrices are made block by block and stay sparse.
"""

from __future__ import annotations

import argparse
import resource
import time

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit

import dream_sc as ds

COVERED = 0.02


def screen(n_cells: int, rng: np.random.Generator) -> ad.AnnData:
    """Cells of 120 guides with a cis gene, whose dosages are fitted."""
    guide = rng.integers(0, 120, n_cells)
    dosage = np.where(guide < 20, np.linspace(-2.5, 1.0, 20)[np.minimum(guide, 19)], 0.0)
    obs = pd.DataFrame(
        {
            "guide": [f"g{i:03d}" for i in guide],
            "target": np.where(guide < 20, "CIS", "NTC"),
            "batch": np.where(rng.random(n_cells) < 0.5, "a", "b"),
            "dosage": dosage,
            "size_factor": 1.0,
        },
        index=[f"c{i}" for i in range(n_cells)],
    )
    counts = rng.poisson(10 * 2.0**dosage * rng.gamma(10, 0.1, n_cells))
    other = rng.poisson(5.0, (n_cells, 3))
    out = ad.AnnData(sparse.csr_matrix(np.column_stack([counts, other]).astype(np.float32)), obs=obs)
    out.var_names = ["CIS", "x", "y", "z"]
    ds.tl.fit_technical(out, batch_key="batch")
    ds.tl.fit_cis(out, "CIS")
    return out


def features(distribution: str, n: int, cells: ad.AnnData, rng: np.random.Generator) -> ad.AnnData:
    """Counts of `n` features, one after another."""
    x, parts, totals, names = cells.obs["dosage"].to_numpy(), [], [], []
    for i in range(n):
        covered = np.flatnonzero(rng.random(len(x)) < COVERED)
        reads = 1 + rng.poisson(1.0, len(covered))
        k = 2 if distribution == "binomial" else int(rng.integers(2, 11))
        low = rng.dirichlet(np.ones(k))
        high = rng.dirichlet(np.ones(k)) if i % 10 == 0 else low
        h = expit(2 * np.log(2) * (x[covered, None] + 1.0))
        counts = rng.multinomial(reads, low + (high - low) * h).astype(np.float32)
        kept = counts[:, :1] if distribution == "binomial" else counts
        for column in kept.T:
            some = column > 0
            shape = (len(x), 1)
            parts.append(sparse.csc_matrix((column[some], (covered[some], np.zeros(some.sum(), int))), shape))
        at = covered, np.zeros(len(covered), int)
        totals.append(sparse.csc_matrix((reads.astype(np.float32), at), (len(x), 1)))
        names += [f"f{i}"] * kept.shape[1]
    out = ad.AnnData(sparse.hstack(parts, format="csr"), obs=cells.obs.copy())
    out.var["donor"] = names
    if distribution == "binomial":
        out.layers["denominator"] = sparse.hstack(totals, format="csr")
    return out


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("distribution", nargs="?", default="binomial", choices=["binomial", "multinomial"])
    parser.add_argument("--features", type=int)
    parser.add_argument("--cells", type=int, default=50_000)
    o = parser.parse_args()
    n = o.features or (10_000 if o.distribution == "binomial" else 5_000)
    rng = np.random.default_rng(0)
    cells = screen(o.cells, rng)
    data = features(o.distribution, n, cells, rng)
    for name in ("cis",):
        data.obsm[name], data.uns[name] = cells.obsm[name], cells.uns[name]
    stored = data.X.nnz + (data.layers["denominator"].nnz if "denominator" in data.layers else 0)
    print(f"{o.distribution}: {n} features, {data.n_vars} columns, {stored / 1e6:.0f} million stored; {peak():.2f} GB")
    given = {"denominator_layer": "denominator"} if o.distribution == "binomial" else {"category_key": "donor"}
    start = time.perf_counter()
    ds.tl.fit_technical(data, distribution=o.distribution, batch_key="batch", **given)
    print(f"fit_technical {time.perf_counter() - start:.0f} s, peak {peak():.2f} GB", flush=True)
    start = time.perf_counter()
    ds.tl.fit_trans(data, progress=False)
    print(f"fit_trans {time.perf_counter() - start:.0f} s, peak {peak():.2f} GB", flush=True)
    table = data.varm["trans"]
    first = ~pd.Index(data.var["donor"]).duplicated()
    called = (table["qvalue"] < 0.05).to_numpy()[first]
    truth = np.arange(n) % 10 == 0
    print(f"{called.sum()} calls, {(called & ~truth).sum()} false, power {called[truth].mean():.2f}")


if __name__ == "__main__":
    main()
