"""Simulated screens of any size, written to h5ad block by block: nothing dense beyond one block of cells.

The genes' truth is that of `dream_sc.datasets.titration`. Beside the guides of the cis gene and the NTC guides there
are guides of other genes, whose cells do nothing but take room, as in a genome-wide screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anndata as ad
import h5py
import numba as nb
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import brentq

import dream_sc as ds

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 256  # cells
WIDTH = 12.0  # range of the log2 means


@dataclass(frozen=True)
class Screen:
    """Size of a screen."""

    n_genes: int = 30_000
    n_cells: int = 50_000
    n_groups: int = 2
    n_guides: int = 1000
    n_cis: int = 20
    n_ntc: int = 400
    zeros: float = 0.85
    single_fraction: float = 0.08
    additive_fraction: float = 0.02
    guide_shift_sd: float = 0.05
    seed: int = 0


EXAMPLES = {  # of the memory page; in the fifth all cells are fitted in the technical step
    "1": Screen(n_genes=5000, n_cells=10_000, n_guides=100, n_ntc=40),
    "2": Screen(n_genes=20_000, n_cells=30_000, n_guides=500, n_ntc=200),
    "3": Screen(),
    "4": Screen(n_genes=50_000, n_cells=100_000, n_groups=4, n_guides=2000, n_ntc=600, zeros=0.90),
    "5": Screen(),
}


def _centre(zeros: float) -> float:
    """Centre of the log2 means at which the expected fraction of zeros is this one."""
    z = np.random.default_rng(0).normal(0, WIDTH / 4, 4000).clip(-WIDTH / 2, WIDTH / 2)

    def excess(centre: float) -> float:
        mean = 2.0 ** (centre + z)
        o2 = np.clip(0.35 + 0.3 / np.sqrt(mean + 0.3), 0.2, 1.0) ** 2
        return float(np.exp(-np.log1p(mean * o2) / o2).mean() - zeros)

    return brentq(excess, -15.0, 10.0)


@nb.njit(parallel=True, cache=True)
def _draw(rate, size_factor, phi, seeds, out):
    """Negative binomial counts ``(cells, genes)`` by inversion; `rate` are their means at size factor 1."""
    for i in nb.prange(out.shape[0]):
        np.random.seed(seeds[i])  # noqa: NPY002  # a Generator cannot be made in a compiled loop
        s = size_factor[i]
        for t in range(out.shape[1]):
            m, f = rate[i, t] * s, phi[t]
            u = np.random.random()  # noqa: NPY002
            if u < 1.0 - m:  # the probability of a zero is at least that
                out[i, t] = 0
                continue
            p = np.exp(-f * np.log1p(m / f))
            q, k = m / (m + f), 0
            while u >= p and k < 60_000:
                u -= p
                p *= (k + f) / (k + 1.0) * q
                k += 1
            out[i, t] = k


class _Means:
    """Expected counts of cells at size factor 1: curve at the cell's dosage, group effect, shift of its guide."""

    def __init__(self, screen: Screen) -> None:
        centre = _centre(screen.zeros)
        truth = ds.datasets.titration(
            50,
            screen.n_genes,
            rng=screen.seed,
            n_guides=screen.n_cis,
            n_ntc_guides=screen.n_ntc,
            n_groups=screen.n_groups,
            single_fraction=screen.single_fraction,
            additive_fraction=screen.additive_fraction,
            mean_range=(centre - WIDTH / 2, centre + WIDTH / 2),
        )
        self.var, self.guides = truth.var, truth.uns["titration"]["guides"]
        self.effects = truth.varm["true_technical_effects"].T
        self.base = np.log2(self.var["true_baseline"].to_numpy())
        self.grid = np.linspace(-4.5, 2.5, 100)
        self.curves = np.log2(ds.datasets.true_curve(truth, list(self.var.index), self.grid)).T.copy()
        gen = np.random.default_rng([screen.seed, 2])
        self.shift = screen.guide_shift_sd * gen.standard_normal((screen.n_guides, screen.n_genes), dtype=np.float32)
        self.shift[:, 0] = 0.0

    def __call__(self, guide, group, noise) -> np.ndarray:
        """Means ``(cells, genes)``; `noise` is a standard normal number per cell."""
        out = self.effects[group] + self.shift[guide]
        n_known = len(self.guides)
        mean, sd = (self.guides[c].to_numpy() for c in ("log2_dosage", "within_sd"))
        known = np.minimum(guide, n_known - 1)
        dosage = np.where(guide < n_known, mean[known] + sd[known] * noise, 0.0)
        position = np.clip((dosage - self.grid[0]) / (self.grid[1] - self.grid[0]), 0, len(self.grid) - 1.001)
        left = position.astype(int)
        weight = (position - left)[:, None]
        acts = dosage != 0.0
        out[~acts] += self.base
        out[acts] += ((1 - weight) * self.curves[left] + weight * self.curves[left + 1])[acts]
        return 2.0**out


def write(screen: Screen, path: Path) -> None:
    """Write the screen as h5ad; counts in float32 csr, a block of cells at a time."""
    means = _Means(screen)
    gen = np.random.default_rng([screen.seed, 1])
    n, n_other = screen.n_cells, screen.n_guides - screen.n_cis - screen.n_ntc
    guide = gen.permutation(np.arange(n) % screen.n_guides)
    group = gen.integers(0, screen.n_groups, n)
    size_factor = np.exp(gen.normal(0, 0.25, n))
    size_factor /= size_factor.mean()
    noise, seeds = gen.normal(size=n), gen.integers(0, 2**31, n)
    names = np.r_[means.guides["guide"].to_numpy(), [f"other_{i:04d}" for i in range(n_other)]]
    target = np.r_[means.guides["target"].to_numpy(), [f"gene_of_{i // 4:04d}" for i in range(n_other)]]
    obs = pd.DataFrame(
        {
            "guide": pd.Categorical(names[guide]),
            "target": pd.Categorical(target[guide]),
            "batch": pd.Categorical([f"batch_{g + 1}" for g in group]),
            "size_factor": size_factor,
        },
        index=[f"cell_{i}" for i in range(n)],
    )
    ad.AnnData(sparse.csr_matrix((n, screen.n_genes), dtype=np.float32), obs=obs, var=means.var).write_h5ad(path)
    phi = 1.0 / means.var["true_overdispersion"].to_numpy() ** 2
    with h5py.File(path, "a") as file:
        del file["X"]
        for start in range(0, n, BLOCK):
            i = slice(start, min(start + BLOCK, n))
            rate = means(guide[i], group[i], noise[i])
            counts = np.empty(rate.shape, dtype=np.uint16)
            _draw(rate, size_factor[i], phi, seeds[i], counts)
            block = sparse.csr_matrix(counts.astype(np.float32))
            if start == 0:
                ad.io.write_elem(file, "X", block)
            else:
                ad.io.sparse_dataset(file["X"]).append(block)
