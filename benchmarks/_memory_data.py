"""Modalities of any size with the zeros of real ones, written block by block: what matters here is room, not truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

if TYPE_CHECKING:
    from pathlib import Path

CELLS = 512  # of a block
CIS, K = "GFI1B", 4


@dataclass(frozen=True)
class Cell:
    """One cell of the grid."""

    distribution: str = "negbinom"
    n_features: int = 2000
    n_cells: int = 5000
    storage: str = "sparse"  # or "dense", "backed"
    inference: str = "laplace"
    function_type: str = "auto"
    sparsity: float = 0.85
    n_groups: int = 2
    n_cis_guides: int = 12
    n_ntc_guides: int = 60
    steps: int = 3  # of the three, how many to run

    @property
    def n_columns(self) -> int:
        """Columns of the matrix: categories of a multinomial, else features."""
        return self.n_features * (K if self.distribution == "multinomial" else 1)

    @property
    def has_counts(self) -> bool:
        """Whether the dosage comes from this matrix itself."""
        return self.distribution == "negbinom"


def cells_of(c: Cell) -> pd.DataFrame:
    """Guide, target and batch of each cell; NTC guides have two cells in five."""
    gen = np.random.default_rng(0)
    control = gen.random(c.n_cells) < 0.4
    guide = np.where(control, gen.integers(0, c.n_ntc_guides, c.n_cells), gen.integers(0, c.n_cis_guides, c.n_cells))
    names = np.where(control, "ntc_", "cis_").astype(object) + guide.astype(str)
    batch = np.char.add("batch_", gen.integers(0, c.n_groups, c.n_cells).astype(str))
    table = {"guide": names, "target": np.where(control, "NTC", CIS), "batch": batch}
    return pd.DataFrame({k: pd.Categorical(v) for k, v in table.items()}, index=[f"c{i}" for i in range(c.n_cells)])


def dosage_of(obs: pd.DataFrame) -> np.ndarray:
    """Factor by which each cell's cis gene is moved."""
    number = obs["guide"].astype(str).str.split("_").str[1].astype(int).to_numpy()
    return np.where(obs["target"] == CIS, 2.0 ** (-3.0 + 3.5 * number / max(number.max(), 1)), 1.0)


def write_counts(c: Cell, obs: pd.DataFrame, path: Path, n_features: int) -> None:
    """Negative binomial counts; the first feature is the cis gene, one in fifty follows it."""
    gen, x = np.random.default_rng(1), dosage_of(obs)
    detected = np.clip(gen.beta(0.6, 0.6 * c.sparsity / (1 - c.sparsity), n_features), 0.001, 0.999).astype(np.float32)
    follows = (gen.random(n_features) < 0.02) & (detected < 0.7)

    def block(i: slice) -> np.ndarray:
        p = np.where(follows, detected * np.minimum(x[i, None], 1.4) ** 0.5, detected).astype(np.float32)
        out = (gen.random(p.shape, dtype=np.float32) < p).astype(np.float32)
        out[out > 0] += gen.poisson(0.4, int(out.sum()))
        out[:, 0], out[:, 1] = gen.poisson(6 * x[i]), 1 + gen.poisson(3.0, len(p))  # no cell without a count
        return out

    names = [CIS, *(f"g{j}" for j in range(1, n_features))]
    _write(ad.AnnData(obs=obs, var=pd.DataFrame(index=names)), {"X": block}, path, dense=c.storage == "dense")


def write_modality(c: Cell, obs: pd.DataFrame, path: Path) -> None:
    """Shares, usage of categories or scores."""
    gen = np.random.default_rng(2)
    var = pd.DataFrame(index=[f"f{j}" for j in range(c.n_columns)])
    if c.distribution in ("normal", "studentt"):
        block = lambda i: gen.standard_normal((i.stop - i.start, c.n_columns), dtype=np.float32)  # noqa: E731
        _write(ad.AnnData(obs=obs, var=var), {"X": block}, path, dense=True)
        return
    kept: dict[str, np.ndarray] = {}

    def reads(i: slice) -> np.ndarray:
        out = (gen.random((i.stop - i.start, c.n_columns), dtype=np.float32) > c.sparsity).astype(np.float32)
        out[out > 0] += gen.poisson(1.0, int(out.sum()))
        kept["n"] = out
        return out

    blocks = {"X": reads}
    if c.distribution == "binomial":
        shares = lambda i: gen.binomial(kept["n"].astype(int), 0.5).astype(np.float32)  # noqa: E731
        blocks = {"layers/denominator": reads, "X": shares}
    else:
        var["donor"] = [f"d{j // K}" for j in range(c.n_columns)]
    _write(ad.AnnData(obs=obs, var=var), blocks, path, dense=c.storage == "dense")


def _write(shell: ad.AnnData, blocks: dict, path: Path, *, dense: bool) -> None:
    """Write matrices of float32 a block of cells at a time."""
    n, t = shell.n_obs, shell.n_vars
    empty = sparse.csr_matrix((n, t), dtype=np.float32)
    shell.X = empty
    for name in blocks:
        if name != "X":
            shell.layers[name.split("/")[1]] = empty
    shell.write_h5ad(path)
    with h5py.File(path, "a") as file:
        for name in blocks:
            del file[name]
            if dense:
                made = file.create_dataset(name, (n, t), dtype="f4")
                made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        for start in range(0, n, CELLS):
            i = slice(start, min(start + CELLS, n))
            for name, block in blocks.items():
                if dense:
                    file[name][i] = block(i)
                elif start == 0:
                    ad.io.write_elem(file, name, sparse.csr_matrix(block(i)))
                else:
                    ad.io.sparse_dataset(file[name]).append(sparse.csr_matrix(block(i)))
