"""What is known before a screen: levels, noise and guide effects, read off an earlier fit or given as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc import _validate
from dream_sc._core.curves import NULL
from dream_sc._core.curves.switch import CURVE as SWITCH
from dream_sc._core.power.forecast import Population
from dream_sc._core.response.learned import Prior
from dream_sc._keys import NO_DOSAGE, ZERO

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc.get._names import TransFit

    Floats = NDArray[np.float64]

N_LEVELS = 5  # of the population
LEVELS = (0.05, 0.2, 0.6, 2.0, 6.0)  # mean counts of a cell, of the features of a screen without a pilot
ASKED = (0.1, 0.5, 2.0)  # mean counts that are asked for without one
QUANTILES = (0.1, 0.5, 0.9)  # of the pilot's, that are asked for otherwise
GUIDE_SD, GUIDE_SD_SPREAD = 0.1, 0.3  # log2; natural log, of its spread over features
RESPONDERS, OF_SWITCH = 0.1, 0.1  # share of features; share of them whose guides share one level
SIZE_FACTOR_SD, WITHIN_SD = 0.25, 0.2
CIS_MEAN, CIS_NOISE = 3.0, 0.5
NEIGHBOURS = 50  # features whose median overdispersion is that of a level
MOST_MOVEMENTS = 200
LEAST_CALLS = 20  # for the sizes of responses to be taken from the pilot
LEAST_SHARE = 1e-4
LN2 = float(np.log(2.0))
NUMBERS = ("level", "overdispersion", "guide_sd", "responders", "log2fc", "size_factor_sd", "within_sd", "cis_mean")
HOW = (
    "pilot= is a fitted AnnData or MuData, a mapping with some of "
    f"{list(NUMBERS)}, or None for what is usual in such screens"
)


@dataclass(frozen=True)
class Pilot:
    """What a forecast takes for known."""

    level: Floats  # (T,) mean counts of a cell
    overdispersion: Floats  # (T,), or empty for the usual trend
    prior: Prior
    movement: Floats  # natural log, sizes of responses; empty for those of the prior
    asked: tuple[float, ...]  # mean counts that are asked for where the user names none
    size_factor_sd: float = SIZE_FACTOR_SD
    within_sd: float = WITHIN_SD
    cis_mean: float = CIS_MEAN  # counts of the cis gene in a control cell
    cis_noise: float = CIS_NOISE  # its overdispersion
    plan: Mapping[str, Any] | None = None  # that of the pilot itself

    @property
    def population(self) -> Population:
        """The features of the screen, as a few levels."""
        n = min(N_LEVELS, len(np.unique(self.level)))
        level = np.quantile(self.level, (np.arange(n) + 0.5) / n)
        return Population(level, np.array([self.noise(m) for m in level]), self.movement)

    def noise(self, mean: float) -> float:
        """Overdispersion of a feature with this mean count."""
        if not len(self.overdispersion):
            return float(0.35 + 0.3 / np.sqrt(mean + 0.3))
        near = np.argsort(np.abs(np.log(self.level) - np.log(mean)), kind="stable")[:NEIGHBOURS]
        return float(np.median(self.overdispersion[near]))


def read_pilot(pilot: Any, *, key: str, mod: str | None) -> Pilot:
    """The pilot: an object with its fits, numbers, or what is usual."""
    if pilot is None or isinstance(pilot, Mapping):
        _validate.without_effect({"mod": mod}, "pilot= is no MuData, whose modality it names")
        given = {} if pilot is None else dict(pilot)
        for name in given.keys() - {*NUMBERS}:
            raise KeyError(f"pilot= has {name!r}, which is not known{_validate.close(name, NUMBERS)}: {HOW}")
        return _of_numbers({name: value for name, value in given.items() if value is not None})
    if not hasattr(pilot, "uns") and not hasattr(pilot, "mod"):
        raise TypeError(f"pilot={type(pilot).__name__} is not allowed: {HOW}")
    from dream_sc.get._names import trans_fit

    return _of_fit(trans_fit(pilot, key, mod), pilot)


def _of_numbers(given: dict[str, Any]) -> Pilot:
    level = _positive("level", given.get("level", LEVELS))
    asked = tuple(level.tolist()) if "level" in given and len(level) <= len(QUANTILES) else None
    if asked is None:
        asked = tuple(np.quantile(level, QUANTILES).tolist()) if "level" in given else ASKED
    noise = _positive("overdispersion", given["overdispersion"]) if "overdispersion" in given else np.zeros(0)
    if len(noise) not in (0, 1, len(level)):
        raise ValueError(f"pilot= has {len(noise)} overdispersions for {len(level)} levels: give one each, or one")
    noise = np.full(len(level), noise[0]) if len(noise) == 1 else noise
    share = float(_positive("responders", given.get("responders", RESPONDERS))[0])
    if not share < 1:
        raise ValueError(f"pilot= has responders={share}: that is their share of the features, between 0 and 1")
    sd = float(_positive("guide_sd", given.get("guide_sd", GUIDE_SD))[0])
    prior = Prior(_weights(share, OF_SWITCH), float(np.log(sd * LN2)), GUIDE_SD_SPREAD)
    sizes = LN2 * _positive("log2fc", given["log2fc"]) if "log2fc" in given else np.zeros(0)
    between = _spread("size_factor_sd", given.get("size_factor_sd", SIZE_FACTOR_SD))
    within = _spread("within_sd", given.get("within_sd", WITHIN_SD))
    cis = float(_positive("cis_mean", given.get("cis_mean", CIS_MEAN))[0])
    return Pilot(level, noise, prior, sizes, asked, between, within, cis)


def _positive(name: str, value: Any) -> Floats:
    """Numbers above 0."""
    try:
        found = np.atleast_1d(np.asarray(value, dtype=float)).ravel()
    except (TypeError, ValueError):
        raise TypeError(f"pilot= has {name}={value!r}: use numbers above 0") from None
    if not len(found) or not (np.isfinite(found) & (found > 0)).all():
        raise ValueError(f"pilot= has {name}={value!r}: use numbers above 0")
    return found


def _spread(name: str, value: Any) -> float:
    if _validate.number(name, value) < 0:
        raise ValueError(f"pilot= has {name}={value!r}: a spread is 0 or more")
    return float(value)


def _weights(share: float, of_switch: float) -> Floats:
    """Prior weights of null, switch and Hill."""
    found = np.array([1 - share, share * of_switch, share * (1 - of_switch)])
    return found / found.sum()


def _of_fit(fit: TransFit, data: Any) -> Pilot:
    """What a fit of counts has learned."""
    if fit.likelihood.effect != "log2fc":
        raise ValueError(f"pilot= has a trans fit of distribution {fit.distribution!r}: forecasts are of counts")
    technical = fit.adata.uns.get(fit.info["params"]["technical_key"], {})
    if technical.get("params", {}).get("unit_key") is not None:
        raise ValueError(
            "pilot= was fitted with units within guides (unit_key=), whose differences a plan of guides and cells does "
            "not hold: fit the pilot without unit_key=, so that they count as differences between guides"
        )
    learned, frame = fit.info["hyper"], fit.frame
    weights = dict(zip(map(str, learned["curves"]), np.asarray(learned["model_weights"], float), strict=True))
    null = weights.pop(NULL.name)

    share = min(max(1 - null, LEAST_SHARE), 1 - LEAST_SHARE)
    of_switch = min(max(weights.get(SWITCH.name, 0.0) / max(1 - null, LEAST_SHARE), LEAST_SHARE), 1 - LEAST_SHARE)
    tau = float(learned["tau_log_mean"]), float(learned["tau_log_sd"])
    mean, noise = frame["mean"].to_numpy(float), frame["overdispersion"].to_numpy(float)
    ok = np.isfinite(mean) & (mean > 0) & np.isfinite(noise) & frame["lfdr"].notna().to_numpy()
    if not ok.any():
        raise ValueError("pilot= has no feature that was fitted: fit more cells, or give numbers in a mapping")
    called = ok & (frame["qvalue"].to_numpy(float) < 0.05)
    sizes = LN2 * np.abs(frame["log2fc_range"].to_numpy(float)[called])
    sizes = np.sort(sizes[np.isfinite(sizes) & (sizes > 0)])
    sizes = sizes if len(sizes) >= LEAST_CALLS else np.zeros(0)
    if len(sizes) > MOST_MOVEMENTS:
        sizes = np.quantile(sizes, (np.arange(MOST_MOVEMENTS) + 0.5) / MOST_MOVEMENTS)
    plan, within = _plan_of(fit, data)
    return Pilot(
        mean[ok],
        noise[ok],
        Prior(_weights(share, of_switch), *tau),
        sizes,
        tuple(np.quantile(mean[ok], QUANTILES).round(3).tolist()),
        _size_factor_sd(fit),
        within,
        *_cis_gene(fit, data),
        plan,
    )


def _plan_of(fit: TransFit, data: Any) -> tuple[dict[str, Any], float]:
    """The plan of the pilot itself, and the spread of dosage within its guides."""
    holder = _holder(fit, data)
    params = fit.info["params"]
    if params["dosage"] == NO_DOSAGE or ZERO in fit.info["axis"]:
        raise ValueError("pilot= has a trans fit without dosages relative to controls, which forecasts are of")
    guides = _validate.step(holder, params["cis_key"], "fit_cis(data, cis_gene)")["guides"]
    control = guides["is_control"].to_numpy(bool)
    n_cells, own = guides["n_cells"].to_numpy(float), guides[~control]
    plan = {
        "n_guides": int((~control).sum()),
        "n_cells_per_guide": round(float(np.mean(n_cells[~control]))),
        "n_ntc_cells": int(n_cells[control].sum()),
        "n_ntc_guides": int(control.sum()),
        "log2_dosages": np.sort(own["log2_dosage"].to_numpy(float)).tolist(),
    }
    within = float(np.nanmedian(own["within_sd"].to_numpy(float)))
    return plan, within if np.isfinite(within) else WITHIN_SD


def _cis_gene(fit: TransFit, data: Any) -> tuple[float, float]:
    """Mean count of the cis gene in control cells, and its overdispersion, where a technical fit has them."""
    holder = _holder(fit, data)
    key = holder.uns[fit.info["params"]["cis_key"]]["params"].get("technical_key")
    gene, table = str(fit.info["cis_gene"]), holder.varm.get(key) if key else None
    if table is None or gene not in table.index or not {"mu", "overdispersion"} <= set(table):
        return CIS_MEAN, CIS_NOISE
    mean, noise = (float(table.loc[gene, name]) for name in ("mu", "overdispersion"))
    return (mean, noise) if np.isfinite([mean, noise]).all() and mean > 0 else (CIS_MEAN, CIS_NOISE)


def _holder(fit: TransFit, data: Any) -> Any:
    """The object with the cis fit."""
    other = getattr(data, "mod", {}).get(fit.info.get("cis_mod"))
    return fit.adata if other is None else other


def _size_factor_sd(fit: TransFit) -> float:
    """Spread of the size factors, natural log."""
    technical = fit.adata.uns.get(fit.info["params"]["technical_key"], {})
    column = technical.get("params", {}).get("size_factor_key")
    if column not in fit.adata.obs:
        return SIZE_FACTOR_SD
    value = fit.adata.obs[column].to_numpy(float)
    return float(np.std(np.log(value[value > 0])))
