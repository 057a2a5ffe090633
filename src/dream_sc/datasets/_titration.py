"""A simulated CRISPRi / CRISPRa titration with its whole truth."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._keys import TITRATION, TRUE_EFFECTS

CIS_GENE = "GFI1B"
BLOCK = 1000
MODELS = ("null", "single_hill", "additive_hill")
SIZES = ("n_cells", "n_genes", "n_guides", "n_ntc_guides", "n_groups")
FRACTIONS = (
    "other_effect_fraction",
    "ntc_fraction",
    "single_fraction",
    "additive_fraction",
    "guide_shift_fraction",
    "escaper_fraction",
    "group_confounding",
)


def titration(
    n_cells: int = 3000,
    n_genes: int = 300,
    *,
    rng: int | np.random.Generator = 0,
    n_guides: int = 12,
    n_ntc_guides: int = 6,
    ntc_fraction: float = 0.35,
    n_groups: int = 2,
    dosage_range: tuple[float, float] = (-3.0, 1.2),
    within_guide_sd: float = 0.2,
    cis_mean: float = 6.0,
    cis_overdispersion: float = 0.4,
    single_fraction: float = 0.25,
    additive_fraction: float = 0.05,
    mean_range: tuple[float, float] = (-4.0, 5.0),
    group_effect_sd: float = 0.3,
    size_factor_sd: float = 0.25,
    guide_shift_sd: float = 0.0,
    guide_shift_fraction: float = 1.0,
    cell_state_sd: float = 0.0,
    size_factor_error_sd: float = 0.0,
    escaper_fraction: float = 0.0,
    group_confounding: float = 0.0,
) -> ad.AnnData:
    """Simulate guides that titrate the gene "GFI1B", and genes that respond to its dosage or do not.

    Cells of a targeting guide spread around its dosage; the natural spread of NTC cells is part of the
    overdispersion, so their dosage is 1. Counts are negative binomial.

    Parameters
    ----------
    n_cells, n_genes
        Size; the cis gene is the first gene.
    rng
        Seed or Generator.
    n_guides, n_ntc_guides
        Guides on the cis gene, graded over `dosage_range`, and non-targeting ones.
    ntc_fraction
        Fraction of cells with an NTC guide.
    n_groups
        Technical groups (lanes), crossed with guides.
    dosage_range
        Lowest and highest log2 dosage of the guides relative to NTC: that of the strongest knock-down, and that of the
        strongest activation or the weakest knock-down.
    within_guide_sd
        Mean log2 sd of the cells' dosage within a targeting guide.
    cis_mean, cis_overdispersion
        Mean count and overdispersion of the cis gene in NTC cells; a small mean is the hard case.
    single_fraction, additive_fraction
        Fractions of genes that follow one Hill (half rise, half fall) and two (a peak or a trough).
    mean_range
        Range of the genes' log2 mean counts, which are spread normally between.
    group_effect_sd
        Log2 sd of the group effects.
    size_factor_sd
        Natural log sd of the true size factors.
    guide_shift_sd, guide_shift_fraction
        Nuisance: log2 sd of a shift of each (guide, gene) pair, and the fraction of pairs that get one.
    cell_state_sd
        Nuisance: log2 sd of a state of each cell that moves cis and trans genes together.
    size_factor_error_sd
        Nuisance: log2 error of the given size factors.
    escaper_fraction
        Nuisance: probability that a targeting guide did nothing in a cell, whose dosage is then that of NTC cells.
    group_confounding
        Nuisance: probability that a cell with a targeting guide is in the last technical group whatever it had
        drawn. 0: groups are crossed with guides; 1: targeting guides are in one group only. NTC cells stay in all.

    Returns
    -------
    AnnData, counts in csr `.X`. `.obs`: guide, target, batch, size_factor (as given to the fit), true_size_factor,
    true_log2_dosage and, with escapers, true_escaper. `.var`: true_model and parameters (prefix "true").
    `.uns["titration"]`: parameters, guides.

    Raises
    ------
    ValueError
        If a size is less than 1, a fraction not between 0 and 1, a spread negative or a range reversed, or if groups
        are to be confounded where there is only one.

    Examples
    --------
    >>> adata = ds.datasets.titration(500, 20, rng=0)
    >>> adata.shape, sorted(set(adata.obs["target"]))
    ((500, 20), ['GFI1B', 'NTC'])
    """
    _check(locals())
    gen = np.random.default_rng(rng)
    guides = _guides(gen, n_guides, n_ntc_guides, dosage_range, within_guide_sd)
    obs = _cells(gen, n_cells, guides, ntc_fraction, n_groups, size_factor_sd)
    low, high = guides["log2_dosage"].min(), guides["log2_dosage"].max()
    var = _genes(gen, n_genes, (single_fraction, additive_fraction), mean_range, (low, high))
    var.loc[CIS_GENE, ["true_baseline", "true_overdispersion"]] = cis_mean, cis_overdispersion
    effects = gen.normal(0, group_effect_sd, (n_genes, n_groups))
    effects[:, 0] = 0.0
    shift = gen.normal(0, guide_shift_sd, (len(guides), n_genes))
    shift *= gen.random(shift.shape) < guide_shift_fraction
    shift[:, 0] = 0.0
    state = gen.normal(0, cell_state_sd, n_cells)
    loading = gen.normal(0, 1, n_genes)
    loading[0] = 1.0
    _spoil_cells(gen, obs, n_groups, escaper_fraction, group_confounding)
    alone = sparse.csr_matrix((np.ones(n_cells), (np.arange(n_cells), obs["_guide"])), (n_cells, len(guides)))
    x = _counts(gen, obs, var, effects, alone, shift, state, loading)
    obs["size_factor"] = obs["true_size_factor"] * 2.0 ** gen.normal(0, size_factor_error_sd, n_cells)
    adata = ad.AnnData(x, obs=obs.drop(columns=["_guide", "_group"]), var=var)
    adata.varm[TRUE_EFFECTS] = effects
    adata.uns[TITRATION] = {
        "cis_gene": CIS_GENE,
        "guides": guides.reset_index(drop=True),
        "params": {
            "n_guides": n_guides,
            "n_ntc_guides": n_ntc_guides,
            "guide_shift_sd": guide_shift_sd,
            "cell_state_sd": cell_state_sd,
            "size_factor_error_sd": size_factor_error_sd,
            "cis_mean": cis_mean,
            "escaper_fraction": escaper_fraction,
            "group_confounding": group_confounding,
        },
    }
    return adata


def _check(given: dict[str, Any]) -> None:
    """Refuse what cannot be simulated."""
    for name in (n for n in SIZES if n in given):
        _validate.whole(name, given[name])
    for name in (n for n in FRACTIONS if n in given):
        if not 0 <= given[name] <= 1:
            raise ValueError(f"{name}={given[name]} is not between 0 and 1")
    if given["single_fraction"] + given["additive_fraction"] > 1:
        raise ValueError("single_fraction and additive_fraction are more than 1 together")
    for name in (n for n in given if n.endswith("_sd")):
        if not given[name] >= 0:
            raise ValueError(f"{name}={given[name]} is negative: a spread is 0 or more")
    for name in ("dosage_range", "mean_range"):
        if not given[name][0] <= given[name][1]:
            raise ValueError(f"{name}={given[name]} is reversed: give the lower end first")
    if given.get("group_confounding", 0.0) > 0 and given["n_groups"] == 1:
        raise ValueError(
            f"group_confounding={given['group_confounding']} needs more than one technical group: n_groups is 1"
        )
    for name in ("cis_mean", "cis_overdispersion"):
        if not given[name] > 0:
            raise ValueError(f"{name}={given[name]} is not allowed: use a number above 0")


def _guides(gen: np.random.Generator, n: int, n_ntc: int, span: tuple[float, float], sd: float) -> pd.DataFrame:
    dosage = np.linspace(*span, n) + (gen.normal(0, 0.08, n) if n > 1 else 0.0)
    return pd.DataFrame(
        {
            "guide": [f"{CIS_GENE}_g{i + 1:02d}" for i in range(n)] + [f"NTC_{i + 1:02d}" for i in range(n_ntc)],
            "target": [CIS_GENE] * n + ["NTC"] * n_ntc,
            "log2_dosage": np.r_[dosage, np.zeros(n_ntc)],
            "within_sd": np.r_[sd * gen.uniform(0.5, 1.5, n), np.zeros(n_ntc)],
        }
    )


def _cells(
    gen: np.random.Generator, n_cells: int, guides: pd.DataFrame, ntc: float, n_groups: int, sf_sd: float
) -> pd.DataFrame:
    control = (guides["target"] == "NTC").to_numpy()
    weight = np.where(control, ntc / control.sum(), (1 - ntc) / max((~control).sum(), 1))
    guide = gen.choice(len(guides), n_cells, p=weight / weight.sum())
    group = gen.integers(0, n_groups, n_cells)
    s = np.exp(gen.normal(0, sf_sd, n_cells))
    dosage = guides["log2_dosage"].to_numpy()[guide] + guides["within_sd"].to_numpy()[guide] * gen.normal(size=n_cells)
    return pd.DataFrame(
        {
            "guide": pd.Categorical(guides["guide"].to_numpy()[guide]),
            "target": pd.Categorical(guides["target"].to_numpy()[guide]),
            "batch": pd.Categorical([f"batch_{g + 1}" for g in group]),
            "true_size_factor": s / s.mean(),
            "true_log2_dosage": dosage,
            "_guide": guide,
            "_group": group,
        },
        index=[f"cell_{i}" for i in range(n_cells)],
    )


def _spoil_cells(
    gen: np.random.Generator, obs: pd.DataFrame, n_groups: int, escaper_fraction: float, group_confounding: float
) -> None:
    """Cells their guide did nothing to, and groups that follow the class of the guide; draws only what is asked."""
    targeting = (obs["target"] != "NTC").to_numpy()
    if escaper_fraction > 0:
        escaper = targeting & (gen.random(len(obs)) < escaper_fraction)
        obs["true_escaper"] = escaper
        obs.loc[escaper, "true_log2_dosage"] = 0.0
    if group_confounding > 0:
        moved = targeting & (gen.random(len(obs)) < group_confounding)
        obs.loc[moved, "_group"] = n_groups - 1
        obs["batch"] = pd.Categorical([f"batch_{g + 1}" for g in obs["_group"]])


def _genes(
    gen: np.random.Generator,
    n: int,
    fractions: tuple[float, float],
    mean_range: tuple[float, float],
    span: tuple[float, float],
) -> pd.DataFrame:
    """Truth of every gene; amplitudes are set by the movement in the observed range."""
    names = [CIS_GENE, *(f"gene_{i:04d}" for i in range(1, n))]
    kind = gen.choice(3, n, p=[1 - sum(fractions), *fractions])
    kind[0] = 0
    mean = 2.0 ** np.clip(gen.normal(np.mean(mean_range), np.ptp(mean_range) / 4, n), *mean_range)
    var = pd.DataFrame({"true_model": pd.Categorical(np.array(MODELS)[kind], categories=list(MODELS))}, index=names)
    var["true_baseline"] = mean
    var["true_overdispersion"] = np.clip(0.35 + 0.3 / np.sqrt(mean + 0.3), 0.2, 1.0) * np.exp(gen.normal(0, 0.2, n))
    hill = np.clip(np.exp(gen.normal(np.log(2.0), 0.5, (n, 2))), 0.5, 5.0)
    sign = gen.choice([-1.0, 1.0], n)
    move = gen.uniform(0.5, 4.0, n)
    inner = span[0] + 0.1 * (span[1] - span[0]), span[1] - 0.1 * (span[1] - span[0])
    ec50 = gen.uniform(*inner, n)
    gap = gen.uniform(0.35, 0.7, n) * (inner[1] - inner[0])
    first = inner[0] + gen.random(n) * (inner[1] - inner[0] - gap)
    for c in ("log2_ec50", "hill_n", "amplitude", "log2_ec50_b", "hill_n_b", "amplitude_b"):
        var[f"true_{c}"] = np.nan
    one, two = kind == 1, kind == 2
    var.loc[one, "true_log2_ec50"], var.loc[one, "true_hill_n"] = ec50[one], (sign * hill[:, 0])[one]
    amplitude = [_single_amplitude(ec50[i], hill[i, 0], sign[i] * move[i], span) for i in np.flatnonzero(one)]
    var.loc[one, "true_amplitude"] = amplitude
    var.loc[two, "true_log2_ec50"], var.loc[two, "true_log2_ec50_b"] = first[two], (first + gap)[two]
    var.loc[two, "true_hill_n"] = (sign * np.maximum(hill[:, 0], 1.5))[two]
    var.loc[two, "true_hill_n_b"] = (-sign * np.maximum(hill[:, 1], 1.5))[two]
    strength = np.log2(np.expm1(move * np.log(2)) + 2.0)
    var.loc[two, "true_amplitude"] = strength[two]
    var.loc[two, "true_amplitude_b"] = (strength * gen.uniform(0.7, 1.0, n))[two]
    x = np.linspace(*span, 101)
    curves = np.log2(_curves(var, np.append(x, 0.0)))
    curves -= curves[:, -1:]
    var["true_log2fc_full"], var["true_log2fc_max"] = curves[:, 0], curves[:, -2]
    var["true_log2fc_range"] = curves[:, :-1].max(1) - curves[:, :-1].min(1)
    return var


def _single_amplitude(ec50: float, n: float, move: float, span: tuple[float, float]) -> float:
    """Log2 of the upper over the lower asymptote that gives a movement between the ends, as far as it can be had."""
    from dream_sc._core.curves._hill import hill

    h = hill(np.array(span), ec50, n)
    limit = np.log2(h[1] / h[0]) if move > 0 else np.log2((1 - h[1]) / (1 - h[0]))
    move = float(np.sign(move) * min(abs(move), 0.9 * abs(limit)))
    ratio = 2.0**move
    return float(np.log2(1 + (ratio - 1) / (h[1] - ratio * h[0])))


def _curves(var: pd.DataFrame, x: np.ndarray) -> np.ndarray:
    """True expected counts (genes, X) at size factor 1 and no group effect."""
    from dream_sc._core.curves._hill import hill

    def column(values: Any) -> np.ndarray:
        return np.asarray(values, float)[:, None]

    def shape(at: np.ndarray) -> np.ndarray:
        f = np.ones((len(var), len(at)))
        one = (var["true_model"] == "single_hill").to_numpy()
        two = (var["true_model"] == "additive_hill").to_numpy()
        v = var[one]
        h = hill(at, column(v["true_log2_ec50"]), column(v["true_hill_n"].abs()))
        f[one] += (2.0 ** column(v["true_amplitude"]) - 1) * h
        v = var[two]
        for suffix in ("", "_b"):
            h = hill(at, column(v[f"true_log2_ec50{suffix}"]), column(v[f"true_hill_n{suffix}"]))
            f[two] += (2.0 ** column(v[f"true_amplitude{suffix}"]) - 1) * h
        return f

    return var["true_baseline"].to_numpy()[:, None] * shape(x) / shape(np.zeros(1))


def true_curve(adata: ad.AnnData, features: str | list[str], doses: np.ndarray) -> np.ndarray:
    """True curves of a simulated object.

    Parameters
    ----------
    adata
        What `titration` returned.
    features
        Names of genes.
    doses
        Log2 dosages relative to NTC.

    Returns
    -------
    Expected counts at size factor 1 without technical effect, ``(features, doses)``; the cis gene's are its dosage.

    Raises
    ------
    ValueError, KeyError
        If the object was not simulated, or a feature is unknown.

    Examples
    --------
    >>> adata = ds.datasets.titration(500, 20, rng=0)
    >>> ds.datasets.true_curve(adata, ["GFI1B"], [-1.0, 0.0]).round(2).tolist()
    [[3.0, 6.0]]
    """
    if TITRATION not in getattr(adata, "uns", ()):
        raise ValueError(
            f"adata is a {type(adata).__name__} without .uns[{TITRATION!r}]: only dream_sc.datasets.titration knows "
            "true curves"
        )
    names = [features] if isinstance(features, str) else list(features)
    rows = [_validate.feature(adata, name, "feature") for name in names]
    x = _validate.numbers("doses", doses)
    curves = _curves(adata.var.iloc[rows], x)
    curves[[n == CIS_GENE for n in names]] *= 2.0**x
    return curves


def _counts(
    gen: np.random.Generator,
    obs: pd.DataFrame,
    var: pd.DataFrame,
    effects: np.ndarray,
    carried: sparse.csr_matrix,
    shift: np.ndarray,
    state: np.ndarray,
    loading: np.ndarray,
) -> sparse.csr_matrix:
    x = obs["true_log2_dosage"].to_numpy()
    grid = np.linspace(x.min() - 0.01, x.max() + 0.01, 400)
    table = np.log(_curves(var, grid)).T
    shape = 1.0 / var["true_overdispersion"].to_numpy() ** 2
    group, s = (obs[c].to_numpy() for c in ("_group", "true_size_factor"))
    blocks = []
    for start in range(0, len(obs), BLOCK):
        i = slice(start, min(start + BLOCK, len(obs)))
        position = (x[i] - grid[0]) / (grid[1] - grid[0])
        left = np.minimum(position.astype(int), len(grid) - 2)
        weight = (position - left)[:, None]
        log_mean = (1 - weight) * table[left] + weight * table[left + 1]
        log_mean[:, 0] = np.log(var["true_baseline"].iloc[0]) + np.log(2) * x[i]
        log2_rest = effects[:, group[i]].T + carried[i] @ shift + state[i, None] * loading
        mean = np.exp(log_mean + np.log(2) * log2_rest) * s[i, None]
        rate = gen.standard_gamma(shape, mean.shape) * mean / shape
        blocks.append(sparse.csr_matrix(gen.poisson(rate).astype(np.float32)))
    return sparse.vstack(blocks, format="csr")
