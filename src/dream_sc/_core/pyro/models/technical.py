r"""The technical step in Pyro: control cells, binned by group, size factor and covariates.

.. math::

    y_{it} \sim \mathrm{NB}(\mu_t e^{a_{tc} + z_i b_t} s_i, o_t),\quad o_t \sim \mathrm{Exponential}(\beta_o),\quad
    \beta_o \sim \mathrm{Gamma},\quad a_{tc}, b_{tq} \sim \mathrm{StudentT}

The log-gamma terms of the likelihood come from the numbers of cells above each count (`TechnicalStats.tail`),
so the sums are the whole of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch

if TYPE_CHECKING:
    from dream_sc._core.priors import SharePriors, TechnicalPriors


@dataclass(frozen=True)
class TechnicalData:
    """Sums of `T` features over `B` bins of control cells, as float64 tensors."""

    counts: Any  # (T, B)
    n_cells: Any  # (B,)
    log_s: Any  # (B,)
    group: Any  # (B,) long
    tail: Any  # (T, J)
    tail_at: Any  # (J,)
    log_mu0: Any  # (T,) centre of the prior of log mu
    n_groups: int
    effect_scale: float  # natural log
    priors: TechnicalPriors
    z: Any  # (B, Q) covariates
    coefficient_scale: Any  # (Q,) natural log


def technical(data: TechnicalData) -> None:
    """Joint density of baseline, overdispersion, group effects and coefficients (natural log) of all features."""
    p, one = data.priors, data.log_mu0.new_ones(1)
    beta_o = pyro.sample("beta_o", dist.Gamma(p.beta_o_shape * one[0], p.beta_o_rate))
    with pyro.plate("features", len(data.log_mu0), dim=-2):
        log_mu = pyro.sample("log_mu", dist.Normal(data.log_mu0[:, None], p.log_mu_sd))
        o = pyro.sample("overdispersion", dist.Exponential(beta_o * one))
        eta = log_mu + data.log_s
        if data.n_groups > 1:
            scale = data.effect_scale * data.log_mu0.new_ones(data.n_groups - 1)
            a = pyro.sample("effects", dist.StudentT(p.effect_df, 0.0 * scale, scale).to_event(1))
            a = a.reshape(-1, data.n_groups - 1)
            eta = eta + torch.cat([torch.zeros_like(a[:, :1]), a], -1)[:, data.group]
        if data.z.shape[1] > 0:
            width = data.coefficient_scale
            b = pyro.sample("coefficients", dist.StudentT(p.effect_df, 0.0 * width, width).to_event(1))
            eta = eta + b.reshape(-1, len(width)) @ data.z.T
        phi = 1.0 / o**2
        sums = data.counts * eta - (data.counts + phi * data.n_cells) * torch.log1p(eta.exp() / phi)
        tails = (data.tail * torch.log1p(data.tail_at / phi)).sum(-1, keepdim=True)
        pyro.factor("counts", sums.sum(-1, keepdim=True) + tails)


@dataclass(frozen=True)
class ShareData:
    """Sums of `S` sticks over control cells in `C` groups (see `ShareStats`), as float64 tensors."""

    numerator: Any  # (S, C)
    rest: Any  # (S, C)
    tail_numerator: Any  # (S, C, J)
    tail_rest: Any  # (S, C, J)
    tail_total: Any  # (S, J)
    at: Any  # (J,)
    left: Any  # (S,)
    centre: Any  # (S,) of the prior of the level
    effect_scale: float
    overdispersed: bool
    priors: SharePriors


def shares(data: ShareData) -> None:
    """Joint density of level, group effects (logit) and overdispersion of all sticks; binomial coefficients left out.

    The latent `excess` is ``-log(1 - rho)`` of a stick's feature, whose rho / (1 - rho) is `left` times the stick's.
    """
    p, one, n_groups = data.priors, data.centre.new_ones(1), data.numerator.shape[1]
    if data.overdispersed:
        beta_o = pyro.sample("beta_o", dist.Gamma(p.beta_o_shape * one[0], p.beta_o_rate))
    with pyro.plate("features", len(data.centre), dim=-2):
        eta = pyro.sample("level", dist.Normal(data.centre[:, None], p.level_sd))
        if n_groups > 1:
            scale = data.effect_scale * data.centre.new_ones(n_groups - 1)
            a = pyro.sample("effects", dist.StudentT(p.effect_df, 0.0 * scale, scale).to_event(1))
            a = a.reshape(-1, n_groups - 1)
            eta = eta + torch.cat([torch.zeros_like(a[:, :1]), a], -1)
        log_p, log_q = torch.nn.functional.logsigmoid(eta), torch.nn.functional.logsigmoid(-eta)
        value = (data.numerator * log_p + data.rest * log_q).sum(-1, keepdim=True)
        if data.overdispersed:
            excess = pyro.sample("excess", dist.Exponential(beta_o * one))
            theta = torch.expm1(excess) / data.left[:, None]
            steps = (theta * data.at)[:, None]
            value = value + (data.tail_numerator * torch.log1p(steps / log_p.exp()[..., None])).sum((-1, -2))[:, None]
            value = value + (data.tail_rest * torch.log1p(steps / log_q.exp()[..., None])).sum((-1, -2))[:, None]
            value = value - (data.tail_total * torch.log1p(theta * data.at)).sum(-1, keepdim=True)
        pyro.factor("counts", value)
