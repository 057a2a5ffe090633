"""What the Pyro engines share: device, forked random numbers, scoped parameters, arrays to tensors."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch

from dream_sc._core.curves import LN2
from dream_sc._core.dosage.nodes import N_NODES, dosage_nodes, two_parts
from dream_sc._core.likelihoods import likelihood

from .models.cis import CisData
from .models.technical import ShareData, TechnicalData
from .models.trans import TransData

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dream_sc._core.priors import CisPriors, SharePriors, TechnicalPriors, TransPriors
    from dream_sc._core.types import (
        Axis,
        CisCells,
        CisFit,
        GuideStats,
        RowDosage,
        ShareFit,
        ShareStats,
        TechnicalFit,
        TechnicalStats,
    )


# Pyro's handlers and parameters and torch's random numbers are of the whole process: one fit of Pyro at a time
_PYRO = threading.RLock()


@contextmanager
def isolated(seed: int, device: torch.device) -> Iterator[None]:
    """Seeded random numbers, an empty parameter store and one thread, all put back afterwards.

    The tensors are small: more threads than one spend their time waiting for each other. Fits in other threads of the
    process wait for their turn.
    """
    devices = [device] if device.type == "cuda" else []
    with _PYRO, torch.random.fork_rng(devices=devices), pyro.get_param_store().scope():
        threads = torch.get_num_threads()
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def tensor(x: Any, device: torch.device) -> torch.Tensor:
    """Float64 copy of an array, or int64 of integers."""
    x = np.array(x)
    return torch.as_tensor(x.astype(np.int64 if x.dtype.kind in "iu" else np.float64), device=device)


def trans_data(
    stats: GuideStats,
    dosage: RowDosage,
    *,
    overdispersion: Any,
    axis: Axis,
    priors: TransPriors,
    hyper: dict[str, Any],
    consts: Any,
    device: torch.device,
) -> TransData:
    """Tensors of the guide-level model; rows of single cells give those of the cell-level one."""
    t = lambda x: tensor(x, device)  # noqa: E731
    escape = np.broadcast_to(dosage.escape, dosage.mean.shape)
    at, weights = dosage_nodes(dosage.mean, dosage.spread, escape)
    own, shares = two_parts(dosage.mean, escape)
    row_weights = np.zeros((len(stats.counts), 0)) if stats.weights is None else stats.weights
    level = likelihood(stats.distribution).level(stats.counts, row_weights, np.log(stats.exposure))
    loads, covariance = np.zeros((0, 0)), np.zeros(0)
    if stats.covariates is not None:
        level = level - stats.covariates.log_total(stats.exposure)
        loads, covariance = stats.covariates.uncertain(stats.exposure)
    wide = [x if np.ndim(x) == 0 else t(x) for x in (hyper.get("wide_weight", 0.0), hyper.get("wide_sd", 0.0))]
    return TransData(
        t(stats.counts),
        t(np.log(stats.exposure)),
        t(stats.exposure2 / stats.exposure**2),
        t(stats.guide),
        t(stats.group),
        t(dosage.mean),
        t(at),
        t(weights),
        t(np.arange(at.shape[1]) < N_NODES).double(),
        t(own),
        t(shares),
        t(dosage.error),
        t(np.maximum(overdispersion, 0.01)),
        t(level),
        t(consts),
        stats.n_groups,
        hyper["group_effect_sd"],
        hyper["tau_log_mean"],
        hyper["tau_log_sd"],
        wide[0],
        wide[1],
        axis,
        priors,
        bool(hyper.get("several", 0.0)),
        None if stats.weights is None else t(stats.weights),
        stats.distribution,
        None if stats.covariates is None else t(stats.covariates.log_rows()),
        t(loads),
        t(covariance) if loads.shape[1] else None,
    )


def technical_data(
    stats: TechnicalStats,
    scale: float,
    priors: TechnicalPriors,
    device: torch.device,
    coefficient_scale: Any = (),
) -> TechnicalData:
    """Tensors of the technical model; `scale` of the group effects and those of the coefficients in log2."""
    t = lambda x: tensor(x, device)  # noqa: E731
    exposure = (stats.n_cells * stats.size_factor).sum()
    return TechnicalData(
        t(stats.counts),
        t(stats.n_cells),
        t(np.log(stats.size_factor)),
        t(stats.group),
        t(stats.tail),
        t(stats.tail_at),
        t(np.log((stats.counts.sum(1) + 0.5) / exposure)),
        stats.n_groups,
        scale * LN2,
        priors,
        t(stats.z),
        t(np.asarray(coefficient_scale, dtype=float) * LN2),
    )


def technical_start(first: TechnicalFit, device: torch.device) -> dict[str, Any]:
    """Start of the sampling engines at the fast engine's result."""
    return {
        "log_mu": tensor(np.log(first.mu)[:, None], device),
        "overdispersion": tensor(np.maximum(first.overdispersion, 0.02)[:, None], device),
        "beta_o": torch.as_tensor(first.beta_o),
        "effects": tensor(first.effects[:, None, 1:] * LN2, device),
        "coefficients": tensor(first.coefficients[:, None] * LN2, device),
    }


def share_data(
    stats: ShareStats, scale: float, priors: SharePriors, overdispersed: bool, device: torch.device
) -> ShareData:
    """Tensors of the technical model of sticks."""
    t = lambda x: tensor(x, device)  # noqa: E731
    centre = np.log((stats.numerator.sum(1) + 0.5) / (stats.rest.sum(1) + 0.5))
    return ShareData(
        t(stats.numerator),
        t(stats.rest),
        t(stats.tail_numerator),
        t(stats.tail_rest),
        t(stats.tail_total),
        t(stats.at),
        t(stats.left),
        t(centre),
        scale,
        overdispersed,
        priors,
    )


def share_start(stats: ShareStats, first: ShareFit, device: torch.device) -> dict[str, Any]:
    """Start of the sampling engines at the fast engine's result."""
    rho = np.clip(first.overdispersion, 1e-4, 0.98)
    return {
        "level": tensor(first.level[:, None], device),
        "effects": tensor(first.effects[:, None, 1:], device),
        "excess": tensor(np.log1p(stats.left * rho / (1 - rho))[:, None], device),
        "beta_o": torch.as_tensor(first.beta_o),
    }


def share_fit(draws: dict[str, Any], stats: ShareStats, first: ShareFit, converged: Any) -> ShareFit:
    """Summarise draws (first axis) of the technical model of sticks."""
    from dataclasses import replace

    level = draws["level"][..., 0]
    effects = np.zeros((len(level), *first.effects.shape))
    if "effects" in draws:
        effects[..., 1:] = draws["effects"].reshape(*level.shape, -1)
    theta = np.expm1(draws["excess"][..., 0]) / stats.left if "excess" in draws else np.zeros_like(level)
    rho = theta / (1 + theta)
    covariance = (effects * (level - level.mean(0))[..., None]).mean(0)
    return replace(
        first,
        level=level.mean(0),
        level_sd=level.std(0),
        overdispersion=rho.mean(0),
        overdispersion_sd=rho.std(0),
        effects=effects.mean(0),
        effects_sd=effects.std(0),
        effects_cov=covariance,
        beta_o=float(draws["beta_o"].mean()) if "beta_o" in draws else first.beta_o,
        converged=converged,
    )


def cis_data(cells: CisCells, priors: CisPriors, device: torch.device) -> tuple[CisData, Any]:
    """Tensors of the cis model, and the order of its guides (targeting first)."""
    order = np.argsort(cells.is_control, kind="stable")
    rank = np.argsort(order)
    n_control = int(cells.is_control.sum())
    rank = np.append(rank, len(order))  # what pads the guides of a cell comes last
    data = CisData(
        tensor(cells.counts.astype(float), device),
        tensor(np.log(cells.exposure), device),
        tensor(rank[cells.members[cells.guide]], device),
        len(order) - n_control,
        n_control,
        1.0 / max(cells.overdispersion, 0.01) ** 2,
        priors,
    )
    return data, order


def cis_fit(cells: CisCells, order: Any, draws: dict[str, Any], converged: bool) -> CisFit:
    """Summarise draws (first axis) of the cis model; dosages are relative to the precision-weighted NTC level."""
    from dream_sc._core.types import CisFit

    d = {name: np.asarray(value) for name, value in draws.items()}
    guide = np.concatenate([d["targeting_mean"], d["control_mean"]], 1)
    rank = np.argsort(order)
    by_guide, within = guide[:, rank], np.zeros(len(order))
    within[~cells.is_control] = np.sqrt((d["within_sd"] ** 2).mean(0))
    members = cells.members[cells.guide]
    x = np.where(members >= 0, by_guide[:, members], 0.0).sum(-1)
    targeted = ~cells.is_control[members[:, 0]]
    there = members[targeted] >= 0
    local = np.where(there, rank[members[targeted]], 0)
    x[:, targeted] += np.sqrt(np.where(there, d["within_sd"][:, local] ** 2, 0.0).sum(-1)) * d["z"]
    median, low, high = np.quantile(x, [0.5, 0.025, 0.975], axis=0)
    hyper = {
        "mu": float(d["mu"].mean()),
        "sigma": float(d["sigma"].mean()),
        "ntc_guide_sd": float(d["control_sd"].mean()),
        "within_median": float(np.exp(d["within_centre"]).mean()),
        "ntc_level": float(d["level"].mean()),
    }
    mean, sd = by_guide.mean(0), by_guide.std(0)
    return CisFit(
        mean,
        sd,
        within,
        float(d["level"].std()),
        median,
        x.std(0),
        low,
        high,
        hyper,
        converged,
        np.zeros_like(mean),
        mean,
        sd,
    )
