"""A simulated screen with several guides per cell, with its whole truth."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._keys import GUIDE_IDS, GUIDE_TARGETS, GUIDES, NTC, TITRATION, TRUE_EFFECTS

from ._titration import CIS_GENE, _check, _counts, _genes, _guides


def high_moi(
    n_cells: int = 10_000,
    n_genes: int = 300,
    *,
    moi: float = 5.0,
    rng: int | np.random.Generator = 0,
    n_guides: int = 12,
    n_ntc_guides: int = 40,
    n_other_guides: int = 148,
    n_groups: int = 2,
    dosage_range: tuple[float, float] = (-3.0, 0.8),
    within_guide_sd: float = 0.2,
    cis_mean: float = 6.0,
    cis_overdispersion: float = 0.4,
    single_fraction: float = 0.25,
    additive_fraction: float = 0.05,
    mean_range: tuple[float, float] = (-4.0, 5.0),
    group_effect_sd: float = 0.3,
    size_factor_sd: float = 0.25,
    guide_shift_sd: float = 0.0,
    other_effect_fraction: float = 0.02,
    other_effect_sd: float = 0.7,
) -> ad.AnnData:
    """Simulate a screen in which each cell carries any number of guides, some of them on the gene "GFI1B".

    A cell has each guide with the same probability. The log2 effects of its guides on "GFI1B" add up to its dosage,
    their spreads in square; the log2 shifts that its guides have on other genes add up too.

    Parameters
    ----------
    n_cells, n_genes
        Size; the cis gene is the first gene.
    moi
        Mean number of guides per cell.
    rng
        Seed or Generator.
    n_guides, n_ntc_guides, n_other_guides
        Guides on the cis gene, graded over `dosage_range`, non-targeting ones, and those of other targets, two each.
    n_groups
        Technical groups (lanes), crossed with guides.
    dosage_range, within_guide_sd, cis_mean, cis_overdispersion
        See `titration`.
    single_fraction, additive_fraction, mean_range, group_effect_sd, size_factor_sd
        See `titration`.
    guide_shift_sd
        Nuisance: log2 sd of a shift of each (guide, gene) pair, of all guides.
    other_effect_fraction, other_effect_sd
        Fraction of genes that a guide of another target moves, and the log2 sd of its effects.

    Returns
    -------
    AnnData, counts in csr `.X`. `.obsm["guides"]`: cells x guides, csr, with `.uns["guides_ids"]` and
    `.uns["guides_target"]`. `.obs`: batch, size_factor, true_log2_dosage. `.var`: true_model and parameters.
    `.uns["titration"]`: parameters, guides of the cis gene and NTC guides.

    Raises
    ------
    ValueError
        If a size is less than 1, or `moi` is not above 0 or above the number of guides.

    Examples
    --------
    >>> adata = ds.datasets.high_moi(500, 20, rng=0, moi=2.0)
    >>> bool(1.5 < adata.obsm["guides"].sum(1).mean() < 2.5)
    True
    """
    _check(locals())
    _validate.whole("n_other_guides", n_other_guides, 0)
    n_all = n_guides + n_ntc_guides + n_other_guides
    if not 0 < moi <= n_all:
        raise ValueError(f"moi={moi} is not allowed: it is above 0 and at most the number of guides, {n_all}")
    gen = np.random.default_rng(rng)
    guides = _guides(gen, n_guides, n_ntc_guides, dosage_range, within_guide_sd)
    var = _genes(gen, n_genes, (single_fraction, additive_fraction), mean_range, dosage_range)
    var.loc[CIS_GENE, ["true_baseline", "true_overdispersion"]] = cis_mean, cis_overdispersion
    effects = gen.normal(0, group_effect_sd, (n_genes, n_groups))
    effects[:, 0] = 0.0
    shift = gen.normal(0, guide_shift_sd, (n_all, n_genes))
    other = shift[n_all - n_other_guides :]
    other += gen.normal(0, other_effect_sd, other.shape) * (gen.random(other.shape) < other_effect_fraction)
    shift[:, 0] = 0.0
    carried = _carried(gen, n_cells, n_all, moi)
    group, s = gen.integers(0, n_groups, n_cells), np.exp(gen.normal(0, size_factor_sd, n_cells))
    mean, sd = (np.append(guides[c].to_numpy(), np.zeros(n_other_guides)) for c in ("log2_dosage", "within_sd"))
    obs = pd.DataFrame(
        {
            "batch": pd.Categorical([f"batch_{g + 1}" for g in group]),
            "true_size_factor": s / s.mean(),
            "true_log2_dosage": carried @ mean + np.sqrt(carried @ sd**2) * gen.normal(size=n_cells),
            "_group": group,
        },
        index=[f"cell_{i}" for i in range(n_cells)],
    )
    x = _counts(gen, obs, var, effects, carried, shift, np.zeros(n_cells), np.zeros(n_genes))
    obs["size_factor"] = obs["true_size_factor"]
    adata = ad.AnnData(x, obs=obs.drop(columns="_group"), var=var)
    adata.varm[TRUE_EFFECTS] = effects
    adata.obsm[GUIDES] = carried.astype(np.int8)
    adata.uns[GUIDES + GUIDE_IDS] = np.array([*guides["guide"], *(f"other_{i:03d}" for i in range(n_other_guides))])
    others = [f"other_{i // 2:03d}" for i in range(n_other_guides)]
    adata.uns[GUIDES + GUIDE_TARGETS] = np.array([CIS_GENE] * n_guides + [NTC] * n_ntc_guides + others)
    params = {"moi": moi, "guide_shift_sd": guide_shift_sd, "cis_mean": cis_mean}
    adata.uns[TITRATION] = {"cis_gene": CIS_GENE, "guides": guides, "params": params}
    return adata


def _carried(gen: np.random.Generator, n_cells: int, n_guides: int, moi: float) -> sparse.csr_matrix:
    """Which guides each cell carries, each with the same probability; drawn guide by guide."""
    cells = [gen.choice(n_cells, gen.binomial(n_cells, moi / n_guides), replace=False) for _ in range(n_guides)]
    guide = np.repeat(np.arange(n_guides), [len(c) for c in cells])
    return sparse.csr_matrix((np.ones(len(guide)), (np.concatenate(cells), guide)), (n_cells, n_guides))
