"""Counts simulated again from a fitted object, with their truth."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from dream_sc import _validate
from dream_sc._data import ambient as _ambient
from dream_sc._data import covariates as _covariates
from dream_sc._data import results
from dream_sc._keys import FROM_FIT, TRANS, ZERO, Slots

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from dream_sc.get._names import TransFit
    from dream_sc.get._points import Cells

    Floats = np.ndarray[Any, np.dtype[np.float64]]

LOG_2 = float(np.log(2.0))
SMALL = 1e-12  # mean count of a feature without any


def from_fit(
    data: AnnData | MuData,
    *,
    key: str = TRANS,
    mod: str | None = None,
    rng: int | np.random.Generator = 0,
) -> AnnData:
    """Simulate counts again from a fitted object, to see whether the fit finds back what it says.

    Cells, guides, technical groups and size factors are those of the data. A truth is drawn from the posterior: the
    dosage of each guide with its error, whether a feature responds (with probability ``1 - lfdr``), its curve (one
    posterior draw), and an effect of each guide by the feature's `guide_sd`. Counts are negative binomial, with the
    fitted overdispersion, group effects, covariates and ambient counts. Run the steps on the result as they were run on
    `data`, and compare the new table with the truth: which features are called, and whether intervals hold the truth.

    Parameters
    ----------
    data
        AnnData or MuData after the three steps, with counts.
    key
        `key_added` of the trans fit.
    mod
        Modality of a MuData.
    rng
        Seed or Generator. The counts of a feature do not depend on which others were fitted.

    Returns
    -------
    AnnData of the cells and features that took part in the fit and of the cis gene, counts in csr `.X`, `.obs` as in
    `data` with ``true_log2_dosage``. `.var`: ``true_model`` ("null" or the curve), ``true_baseline`` (count at size
    factor 1 and NTC dosage), ``true_log2fc_full`` (as ``log2fc_full`` of `get.trans`: at the dosage
    ``log2_dosage_full`` of the fit against NTC dosage), ``true_log2_ec50`` and ``true_hill_n`` of one Hill,
    ``true_overdispersion`` and ``true_guide_sd`` (log2). `.uns["from_fit"]`: the cis gene and the guides with their
    true log2 dosage, that of all their cells (``log2_dosage``, the log2 of the mean) and that of the cells in which
    they act (``log2_dosage_acting``), as in `get.guides`.

    Raises
    ------
    KeyError
        If there is no such fit.
    ValueError
        If the fit is not of counts, has no dosages or given ones (`tl.set_dosage`), is of cells with several guides,
        or has the cis gene in another modality.

    Examples
    --------
    >>> again = ds.datasets.from_fit(adata, rng=1)
    >>> sorted(set(again.var["true_model"]) - {"single_hill", "additive_hill", "switch"})
    ['cis_gene', 'null']
    >>> "true_log2_dosage" in again.obs
    True
    """
    from dream_sc.get._names import trans_fit
    from dream_sc.get._points import cells

    fit = trans_fit(data, key, mod)
    _refuse(fit)
    c = cells(data, fit)
    seed = results.seed_of(rng)
    used = np.flatnonzero(c.guide >= 0)
    guides, dosage = _dosages(c, used, seed)
    rows = np.flatnonzero(np.isfinite(fit.records[:, 0]) | (fit.names == fit.info["cis_gene"]))
    truth = _truth(fit, c, rows, seed)
    x = _counts(fit, c, rows, truth, used, dosage, seed)
    written = Slots(fit.info["params"]["cis_key"])
    obs = fit.adata.obs.iloc[used].drop(columns=[written.guide, written.guide_set], errors="ignore")
    obs["true_log2_dosage"] = dosage
    size_factor = c.technical["params"]["size_factor_key"]
    if size_factor not in obs:
        obs[size_factor] = _validate.size_factors(fit.adata, size_factor)[used]
    var = truth.drop(columns=["_draw"]).add_prefix("true_").set_axis(fit.names[rows].astype(str))
    out = ad.AnnData(x, obs=obs, var=var)
    out.uns[FROM_FIT] = {"cis_gene": str(fit.info["cis_gene"]), "guides": guides, "seed": seed, "key": key}
    return out


def _refuse(fit: TransFit) -> None:
    where = f".uns[{fit.key!r}]"
    if fit.likelihood.statistics != "counts":
        raise ValueError(
            f"{where} is a fit with distribution={fit.distribution!r}: dream_sc.datasets.from_fit simulates counts only"
        )
    if not np.isfinite(fit.info["axis"]["low"]):
        raise ValueError(f'{where} is a fit without dosages (dosage="none"): from_fit needs those of tl.fit_cis')
    if fit.info["axis"].get(ZERO) is not None:
        raise ValueError(f"{where} is a fit of doses by tl.set_dosage: from_fit needs dosages by tl.fit_cis")
    if fit.info["cis_mod"] is not None:
        raise ValueError(f"the cis gene of {where} is in the modality {fit.info['cis_mod']!r}: from_fit simulates one")


def _dosages(c: Cells, used: np.ndarray, seed: int) -> tuple[pd.DataFrame, Floats]:
    """True log2 dosages of the guides, by their posterior, and of the cells that take part."""
    cis = _validate.step(c.fit.adata, c.fit.info["params"]["cis_key"], "fit_cis(data, cis_gene)")
    given = str(cis.get("step", "")).endswith("set_dosage")
    if given or cis["params"].get("guides") is not None or "within_sd" not in cis["guides"]:
        raise ValueError(
            "from_fit takes cells with one guide each and dosages by tl.fit_cis(guide_key=): this fit has a matrix of "
            "guides or given dosages"
        )
    gen = np.random.default_rng([seed, 1])
    table = cis["guides"].set_index("guide").reindex(c.table["guide"])
    control = table["is_control"].to_numpy(bool)
    escapes = table["escaper_fraction"].fillna(0.0).to_numpy(float)
    # what a guide does to the cells in which it acts is told apart from the rest only where some escape
    mean, sd = (
        np.where(escapes > 0, table[f"{name}_acting"].to_numpy(float), table[name].to_numpy(float))
        for name in ("log2_dosage", "sd")
    )
    acting = np.where(control, 0.0, mean + sd * gen.standard_normal(len(table)))
    guide = c.guide[used]
    within = np.where(control, 0.0, table["within_sd"].fillna(0.0).to_numpy(float))
    acts = gen.random(len(used)) >= escapes[guide]
    dosage = np.where(acts, acting[guide] + within[guide] * gen.standard_normal(len(used)), 0.0)
    n = np.bincount(guide, minlength=len(table))
    whole = np.log2(np.bincount(guide, 2.0**dosage, len(table)) / np.maximum(n, 1))
    shown = {"guide": c.table["guide"].astype(str), "target": table["target"].to_numpy(), "log2_dosage": whole}
    return pd.DataFrame(shown | {"log2_dosage_acting": acting}).reset_index(drop=True), dosage


def _truth(fit: TransFit, c: Cells, rows: np.ndarray, seed: int) -> pd.DataFrame:
    """Whether each feature responds, and its curve."""
    from dream_sc._core.curves import NULL
    from dream_sc._core.response import posterior_record, summary
    from dream_sc._core.types import Axis
    from dream_sc.get._points import counts_of_many

    frame, technical = fit.frame.iloc[rows], fit.adata.varm[fit.info["params"]["technical_key"]].iloc[rows]
    share = c.table["n_cells"].to_numpy(float)
    level = counts_of_many(c, rows)[0] @ (share / share.sum())
    low, high = fit.info["axis"]["low"], fit.info["axis"]["high"]
    axis, found = Axis(low, high, np.array([low, high])), []
    for i, r in enumerate(rows):
        name = str(fit.names[r])
        row: dict[str, Any] = {"model": NULL.name, "baseline": level[i], "log2fc_full": 0.0, "_draw": None}
        row |= dict.fromkeys(("log2_ec50", "hill_n"), np.nan)
        lfdr = float(frame["lfdr"].iloc[i])
        if name == fit.info["cis_gene"]:
            row |= {"model": "cis_gene", "baseline": float(technical["mu"].iloc[i]), "log2fc_full": np.nan}
        elif not _generator(seed, name, 2).random() < lfdr:
            curve, consts, _ = posterior_record.unpack(fit.records[r])
            draw = posterior_record.draw(fit.records[r], 1, seed, name)
            at = np.array([0.0, float(frame["log2_dosage_full"].iloc[i])])
            ntc, full = curve.log_curve(_places(curve, at), draw, consts)[0]
            row |= {"model": curve.name, "baseline": np.exp(ntc), "log2fc_full": (full - ntc) / LOG_2}
            row["_draw"] = (curve, draw, consts)
            hills = summary.of_steps(draw[None], curve, consts[None], axis, fit.likelihood)
            row |= {name: float(hills[name][0]) for name in ("log2_ec50", "hill_n")}
        found.append(row)
    out = pd.DataFrame(found, columns=[*found[0]])
    out["overdispersion"] = technical["overdispersion"].to_numpy(float)
    out["guide_sd"] = frame["guide_sd"].fillna(0.0).to_numpy(float)
    return out


def _places(curve: Any, x: Floats) -> Floats:
    """Places of the axis at which a curve is evaluated: a switch has one level at all dosages but that of NTC."""
    return np.where(x == 0.0, 0.0, 1.0) if curve.by_acting else x


def _generator(seed: int, name: str, what: int) -> np.random.Generator:
    """Random numbers of one feature, whatever others there are."""
    return np.random.default_rng([seed, what, zlib.crc32(name.encode())])


def _counts(
    fit: TransFit, c: Cells, rows: np.ndarray, truth: pd.DataFrame, used: np.ndarray, dosage: Floats, seed: int
) -> sparse.csr_matrix:
    """Counts of the features, one after another."""
    key, guide, group = fit.info["params"]["technical_key"], c.guide[used], c.group[used]
    s = _validate.size_factors(fit.adata, c.technical["params"]["size_factor_key"])[used]
    s = s * 2.0 ** c.table["offset"].to_numpy(float)[guide]
    factor_of = _covariates.log_factors_by_feature(fit.adata, c.technical, key, c.guide >= 0)
    ambient = _ambient.stored(fit.adata, c.technical, key)
    columns = []
    for i, r in enumerate(rows):
        gen = _generator(seed, str(fit.names[r]), 3)
        row = truth.iloc[i]
        log2_mean = c.effects(int(r))[group] + np.log2(max(row["baseline"], SMALL))
        log2_mean = log2_mean + np.broadcast_to(factor_of(int(r)), c.guide.shape)[used]
        if row["model"] == "cis_gene":
            log2_mean = log2_mean + dosage
        else:
            log2_mean = log2_mean + (row["guide_sd"] * gen.standard_normal(len(c.table)))[guide]
        if row["_draw"] is not None:
            curve, draw, consts = row["_draw"]
            change = curve.log_curve(_places(curve, dosage), draw, consts)[0] / LOG_2
            log2_mean = log2_mean + change - np.log2(row["baseline"])
        mean = s * 2.0**log2_mean
        if row["overdispersion"] > 0:
            shape = row["overdispersion"] ** -2.0
            mean = mean * gen.standard_gamma(shape, len(mean)) / shape
        if ambient is not None:
            mean = mean + ambient.counts[used] * ambient.profile[r][group]
        columns.append(sparse.csc_matrix(gen.poisson(mean).astype(np.float32)[:, None]))
    return sparse.csr_matrix(sparse.hstack(columns, format="csr"))
