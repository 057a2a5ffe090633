"""What counts as inclusion of an exon: is the fraction right, and does it spread as a binomial says?

Reads of the two junctions that include an exon and of the one that skips it are Poisson, those of the two either
independent (each read sees one of them) or the same (each molecule is read in full). Counts are pooled over the cells
of a guide; the spread is the variance of the pooled counts over that of a binomial, 1 where errors are right and more
where they are too small.
"""

from __future__ import annotations

import argparse

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

RATES = ((0.2, 0.2), (0.2, 0.02), (0.02, 0.2), (2.0, 2.0), (2.0, 0.2))  # inclusion, skipping


def pairs(left: np.ndarray, right: np.ndarray, skip: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inclusion and denominator of each cell, by the package's two ways and by two others."""
    var = pd.DataFrame({"chrom": "1", "start": [1, 31, 1], "end": [10, 40, 40], "strand": "+"})
    var.index = ["left", "right", "skip"]
    obs = pd.DataFrame(index=[f"cell{k}" for k in range(len(skip))])
    adata = ad.AnnData(sparse.csr_matrix(np.c_[left, right, skip]), obs, var)
    out = {}
    for way in ("mean", "min"):
        exon = ds.pp.exon_skipping(adata, inclusion=way)
        out[way] = (exon.X.toarray()[:, 0], exon.layers["denominator"].toarray()[:, 0])
    up = (left + right + 1) // 2
    return out | {"rounded up": (up, up + skip), "both, skipping twice": (left + right, left + right + 2 * skip)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--guides", type=int, default=2000)
    parser.add_argument("--cells", type=int, default=200, help="cells of a guide")
    args = parser.parse_args()
    rng, n = np.random.default_rng(0), args.guides * args.cells
    print("reads          counts, truth                 " + "".join(f"{w:>24}" for w in ("mean", "min", "up", "twice")))
    for same in (False, True):
        for rate, skipped in RATES:
            left, skip = rng.poisson(rate, n), rng.poisson(skipped, n)
            right = left if same else rng.poisson(rate, n)
            cells = []
            for x, total in pairs(left, right, skip).values():
                x, total = (v.reshape(args.guides, args.cells).sum(1) for v in (x, total))
                p = x.sum() / total.sum()
                cells.append(f"{p:8.3f}, spread {np.mean((x - p * total) ** 2 / (p * (1 - p) * total)):.2f}")
            print(
                f"{'same' if same else 'independent':<14} {rate:4g} and {skipped:4g}, {rate / (rate + skipped):.3f}"
                + " " * 8
                + "".join(f"{c:>24}" for c in cells),
                flush=True,
            )


if __name__ == "__main__":
    main()
