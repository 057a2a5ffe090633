"""Step 2: the latent dosage of guides and cells from the counts of the cis gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _io, _validate
from dream_sc._keys import CIS, CIS_COLUMNS, GUIDE_COLUMNS, TECHNICAL, Slots
from dream_sc._logging import logger

from ._design import refuse_confounded

if TYPE_CHECKING:
    from anndata import AnnData


def fit_cis(
    data: Any,
    cis_gene: str,
    *,
    cis_targets: str | list[str] | None = None,
    mod: str | None = None,
    guide_key: str = "guide",
    min_cells_per_guide: int = 5,
    min_count: float = 0.1,
    technical_key: str = TECHNICAL,
    inference: str = "laplace",
    nsamples: int = 1000,
    niters: int | None = None,
    device: str = "auto",
    memory_limit: int | str | None = None,
    rng: int | np.random.Generator = 0,
    key_added: str = CIS,
    copy: bool = False,
) -> Any:
    """Fit the dosage of the cis gene, log2 relative to NTC, for every guide and cell.

    A cell's log2 dosage is normal around its guide's; its count is negative binomial with the overdispersion
    fixed at the technical estimate, so that the dosage cannot take the noise of the counts for itself. That
    overdispersion holds the natural spread of unperturbed cells: only spread beyond that of NTC cells is dosage.
    A guide that fails in a part of its cells gets a dosage in two parts where the counts clearly ask for it: a share
    of its cells (escaper_fraction in the table of guides) is at the NTC level, the others are where the guide acts
    (log2_dosage_acting), and log2_dosage is the log2 of the mean of both. The trans step averages curves over the two.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_technical` has run.
    cis_gene
        Name of the targeted feature.
    cis_targets
        Target label(s) whose guides act on it; its own name by default.
    mod
        Modality of a MuData.
    guide_key
        Column of `.obs` with each cell's guide.
    min_cells_per_guide
        Guides with fewer cells are left out.
    min_count
        Least mean count of the cis gene in control cells at size factor 1.
    technical_key
        Name of the technical fit.
    inference
        "laplace": the fast engine, each cell by quadrature. "svi" or "nuts": the same model in Pyro with a latent
        dosage per cell, without escaping cells; "nuts" for some hundred cells.
    nsamples, niters, device
        Draws, steps (warm-up of "nuts") and device of the Pyro engines.
    memory_limit
        Bytes, or a text such as "4GB", for reading the counts; half of what is available by default.
    rng
        Seed, stored with the results; the fast engine is deterministic.
    key_added
        Name under which results are stored.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.obsm[key_added]` (x_true: median dosage, 1 at NTC; log2_x_true,
    log2_sd, log2_q025, log2_q975; NaN for cells that take no part) and `.uns[key_added]` with a table of guides.

    Raises
    ------
    ValueError, KeyError
        If the technical fit is missing, the gene unknown or not counted, or no guide acts on it.
    """
    from dream_sc._core.engines import ENGINES, Inference, run
    from dream_sc._core.priors import CisPriors

    started = _io.now()
    _validate.one_of("inference", inference, ENGINES)
    data = data.copy() if copy else data
    adata = _validate.resolve(data, mod)
    _validate.new_key(adata, key_added, "tl.fit_cis")
    _validate.whole("nsamples", nsamples)
    technical = _validate.step(adata, technical_key, "fit_technical(data)")
    params = technical["params"]
    if params.get("distribution", "negbinom") != "negbinom":
        raise ValueError(
            f".uns[{technical_key!r}] is a technical fit of {params['distribution']} data, but the dosage of the cis "
            'gene comes from counts: call dream_sc.tl.fit_technical on the modality of counts'
        )
    gene = _validate.feature(adata, cis_gene, "cis gene")
    target = _validate.labels(adata, params["target_key"], "target_key")
    guide = _validate.labels(adata, guide_key, "guide_key")
    is_control = _validate.controls(target, list(params["control"]), params["target_key"])
    wanted = [cis_targets or cis_gene] if isinstance(cis_targets, str | None) else list(cis_targets)
    acting = _acting(target, is_control, wanted, params["target_key"])
    table, codes = _guides(guide, target, is_control, acting, min_cells_per_guide)
    if params.get("use_all_cells"):
        follow = np.where(codes >= 0, guide, "")
        refuse_confounded(params["batch_key"], group_codes(adata, technical), {f".obs[{guide_key!r}]": follow})
    cells, used = _cells(adata, gene, cis_gene, technical_key, technical, table, codes, min_count, memory_limit)
    chosen = Inference(inference, nsamples, niters, device, _io.seed_of(rng))
    fit = run("cis", chosen, cells, CisPriors())
    guides = _guide_table(table, fit)
    frame = _cell_table(adata, fit, used)
    info = _io.run_info(
        started, chosen.seed,
        {"cis_targets": wanted, "guide_key": guide_key, "technical_key": technical_key, "inference": inference,
         "nsamples": nsamples, "niters": niters, "device": device,
         "min_cells_per_guide": min_cells_per_guide, "min_count": min_count},
    ) | {"cis_gene": cis_gene, "guides": guides, "diagnostics": dict(fit.hyper) | {"ntc_level_sd": fit.baseline_sd,
         "overdispersion": cells.overdispersion}}  # fmt: skip
    _io.write(adata, "tl.fit_cis", {("obsm", key_added): frame, ("uns", key_added): info}, started)
    return data if copy else None


def _acting(target: np.ndarray, is_control: np.ndarray, wanted: list[str], target_key: str) -> np.ndarray:
    """Cells whose target is among the wanted ones."""
    acting = np.isin(target, wanted) & ~is_control
    if not acting.any():
        seen = sorted(set(target) - {""})
        raise ValueError(
            f"no cell's target is {wanted}: .obs[{target_key!r}] holds {seen[:12]}. "
            "Name the target label(s) of the guides that act on the gene as cis_targets="
        )
    return acting


def _guides(
    guide: np.ndarray, target: np.ndarray, is_control: np.ndarray, acting: np.ndarray, min_cells: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """The guides that take part, targeting ones first, and each cell's guide (-1: none)."""
    take = (is_control | acting) & (guide != "")
    counted = pd.DataFrame({"guide": guide, "target": target, "is_control": is_control})[take]
    both = counted.groupby("guide")["is_control"].nunique().loc[lambda n: n > 1].index
    if len(both):
        raise ValueError(
            f"the guides {list(both)[:12]} occur in control cells and in targeted ones: a guide has one target; check "
            "guide_key and control="
        )
    table = counted.groupby("guide", sort=True).agg(
        target=("target", "first"), is_control=("is_control", "first"), n_cells=("guide", "size")
    )
    small = table.index[table["n_cells"] < min_cells]
    if len(small):
        logger.info("tl.fit_cis: left out guides with fewer than %d cells: %s", min_cells, list(small))
    table = table.drop(index=small).sort_values("is_control", kind="stable").reset_index()
    for label, lacking in (
        ("acts on the cis gene", table["is_control"]),
        ("is a control", ~table["is_control"]),
    ):
        if lacking.all():
            raise ValueError(
                f"no guide that {label} has at least {min_cells} cells: lower min_cells_per_guide, or check guide_key"
            )
    code = dict(zip(table["guide"], range(len(table)), strict=True))
    return table, np.array([code.get(g, -1) if t else -1 for g, t in zip(guide, take, strict=True)])


def _cells(
    adata: AnnData,
    gene: int,
    name: str,
    key: str,
    technical: Any,
    table: pd.DataFrame,
    codes: np.ndarray,
    least: float,
    limit: int | str | None,
) -> tuple[Any, np.ndarray]:
    from dream_sc._core.types import CisCells

    params = technical["params"]
    used = codes >= 0
    y = _io.counts(adata, params["layer"], limit).column(gene, used)
    _validate.counts(y, _io.source(params["layer"]))
    row = adata.varm[key].iloc[gene]
    if y[used].sum() == 0:
        raise ValueError(f"the cis gene {name!r} has no count in any cell of its guides and the controls")
    if not np.isfinite(row["mu"]):
        raise ValueError(
            f"the cis gene {name!r} has no baseline, its status in .varm[{key!r}] is {row['status']!r}: without counts "
            "in control cells there is no dosage relative to them"
        )
    s = _validate.size_factors(adata, params["size_factor_key"])
    control = used & table["is_control"].to_numpy(bool)[codes]
    mean = y[control].sum() / s[control].sum() if params.get("use_all_cells") else row["mu"]
    if mean < least or mean == 0:
        raise ValueError(
            f"the cis gene {name!r} has a mean of {mean:.3g} counts in control cells, less than "
            f"min_count={least}: its dosage cannot be told from noise; lower min_count to try all the same"
        )
    exposure = s * row["mu"] * 2.0 ** adata.varm[Slots(key).effects][gene][group_codes(adata, technical)]
    code, control, o = codes[used].astype(np.int64), table["is_control"].to_numpy(bool), float(row["overdispersion"])
    if params.get("use_all_cells"):  # all cells differ in dosage, and the overdispersion must not hold that
        o = _of_controls(y[used][control[code]], exposure[used][control[code]] / row["mu"])
    return CisCells(y[used], exposure[used], code, control, o), used


def _of_controls(y: np.ndarray, s: np.ndarray) -> float:
    """Overdispersion of one gene in control cells, given their counts and size factors, effects of groups in them."""
    from scipy import sparse

    from dream_sc._core import suffstats
    from dream_sc._core.counts import CountBlock
    from dream_sc._core.engines import laplace
    from dream_sc._core.priors import TechnicalPriors

    every, one = np.ones(len(y), dtype=bool), np.zeros(len(y), dtype=np.int64)
    bins, group_of_bin = suffstats.size_factor_bins(s, one, every)
    sums = suffstats.RowSums(bins, len(group_of_bin), 1)
    tails = suffstats.TailSums(every, 1, float(y.max()))
    block = CountBlock.of(sparse.csr_matrix(y[:, None].astype(np.float64)))
    sums.add(block)
    tails.add(block)
    stats = suffstats.technical_stats(sums, tails, s, group_of_bin, 1)
    return float(laplace.technical(stats, TechnicalPriors()).overdispersion[0])


def group_codes(adata: AnnData, technical: Any) -> np.ndarray:
    """Technical group of each cell, in the order of the technical fit."""
    key = technical["params"]["batch_key"]
    if key is None:
        return np.zeros(adata.n_obs, dtype=np.int64)
    code = {str(n): i for i, n in enumerate(technical["groups"])}
    labels = _validate.labels(adata, key, "batch_key")
    unknown = sorted(set(labels) - set(code))
    if unknown:
        raise ValueError(
            f"the groups {unknown} were not there in the technical fit: call dream_sc.tl.fit_technical again"
        )
    return np.array([code[n] for n in labels], dtype=np.int64)


def _cell_table(adata: AnnData, fit: Any, used: np.ndarray) -> pd.DataFrame:
    obs = np.full((adata.n_obs, len(CIS_COLUMNS)), np.nan)
    obs[used] = np.column_stack(
        [2.0**fit.cell_median, fit.cell_median, fit.cell_sd, fit.cell_q025, fit.cell_q975]
    )
    return pd.DataFrame(obs, index=adata.obs_names, columns=list(CIS_COLUMNS))


def _guide_table(table: pd.DataFrame, fit: Any) -> pd.DataFrame:
    low, high = fit.guide_mean - 1.959964 * fit.guide_sd, fit.guide_mean + 1.959964 * fit.guide_sd
    return table.assign(
        log2_dosage=fit.guide_mean, sd=fit.guide_sd, log2fc=fit.guide_mean, log2fc_q025=low, log2fc_q975=high,
        within_sd=fit.within_sd, escaper_fraction=fit.escape, log2_dosage_acting=fit.acting_mean,
        sd_acting=fit.acting_sd,
    )[list(GUIDE_COLUMNS)]  # fmt: skip
