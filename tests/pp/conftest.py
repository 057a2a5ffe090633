"""Small random sets of junctions: sites are few, so many are shared."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

N = 110
GENES = ["g1", "g2", "g3", ""]


def random_junctions(seed: int, n_cells: int = 40, *, gene: bool = True) -> ad.AnnData:
    """Distinct junctions between sites 1 to 9 of two chromosomes, in random order, with sparse counts."""
    rng = np.random.default_rng(seed)
    every = [(c, a, b, s) for c in ("chr1", "chr10") for a in range(1, 9) for b in range(a, 10) for s in "+-."]
    picked = [every[k] for k in rng.choice(len(every), N, replace=False)]
    var = pd.DataFrame(picked, columns=["chrom", "start", "end", "strand"])
    if gene:
        var["gene"] = rng.choice(GENES, N, p=[0.6, 0.2, 0.05, 0.15])
    var.index = [f"j{k}" for k in range(N)]
    obs = pd.DataFrame({"guide": rng.choice(["a", "b"], n_cells), "size_factor": rng.random(n_cells) + 0.5})
    obs.index = [f"cell{k}" for k in range(n_cells)]
    x = rng.poisson(rng.gamma(0.3, 2.0, N), (n_cells, N))
    x[:, rng.choice(N, 3)] = 0
    return ad.AnnData(sparse.csr_matrix(x.astype(np.int32)), obs, var)


@pytest.fixture(params=range(6))
def junctions(request: pytest.FixtureRequest) -> ad.AnnData:
    return random_junctions(request.param)


@pytest.fixture
def one() -> ad.AnnData:
    return random_junctions(0)
