"""What is measured of shares: sums of each guide in each group, worth as much as independent trials."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from dream_sc._core.response.prepare_shares import Technical, shares
from dream_sc._core.response.rows import Cells, Guides

N, N_GUIDES, N_FEATURES = 600, 5, 4
DOSAGES = np.array([-2.0, -1.0, 0.5, 0.0, 0.0])


def test_sums_are_those_of_guides_in_groups(rng: np.random.Generator) -> None:
    guide, group = rng.integers(-1, N_GUIDES, N), rng.integers(0, 3, N)
    n = rng.poisson(2.0, (N, N_FEATURES))
    y = rng.binomial(n, 0.4).astype(float)
    rho = np.array([0.0, 0.0, 0.5, np.nan])
    every = np.ones(N_FEATURES, dtype=bool)
    technical = Technical(rho, 0.3, np.arange(N_FEATURES), every, ~every)
    at = np.where(guide >= 0, DOSAGES[guide], np.nan)
    guides = Guides(DOSAGES, np.full(N_GUIDES, 0.1), np.zeros(N_GUIDES), np.zeros(N_GUIDES), DOSAGES == 0, 0.05)
    blocks = [(slice(0, N_FEATURES), sparse.csr_matrix(y), sparse.csr_matrix(n.astype(float)))]
    found = shares(blocks, Cells(guide, group, at, np.zeros(N)), guides, technical, distribution="binomial")
    stats = found.stats
    assert (stats.n_guides, stats.n_groups) == (N_GUIDES, 3)
    assert found.n_cells == (guide >= 0).sum()
    np.testing.assert_array_equal(found.reason != "", [False, False, False, True])
    for row, (g, c) in enumerate(zip(stats.guide, stats.group, strict=True)):
        mine = (guide == g) & (group == c)
        pairs = (n * (n - 1.0))[mine].sum(0)
        worth = 1.0 + np.nan_to_num(rho) * pairs / n[mine].sum(0)
        np.testing.assert_allclose(stats.counts[:, row], y[mine].sum(0) / worth)
        np.testing.assert_allclose(stats.weights[:, row], n[mine].sum(0) / worth)
