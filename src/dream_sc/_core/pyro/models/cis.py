r"""The cis step in Pyro: the latent log2 dosage of guides and cells.

.. math::

    x_i \sim N(\textstyle\sum_{g \in i} l_g, \sum_{g \in i} s_g^2),\quad
    y_i \sim \mathrm{NB}(e_i 2^{m + x_i}, o_x),\quad l_g \sim \mathrm{StudentT}(3, \mu, \sigma)

with `e_i` the expected count at NTC dosage, `m` the level of the NTC guides, and the overdispersion `o_x` fixed
at its technical estimate. It holds the natural spread of unperturbed cells, so NTC cells sit at their guide's dosage.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch

from dream_sc._core.curves import LN2
from dream_sc._core.likelihoods.negbinom import torch_log_density

if TYPE_CHECKING:
    from dream_sc._core.priors import CisPriors

LEVEL_SD = 1.0


@dataclass(frozen=True)
class CisData:
    """Cells and guides of the cis step as tensors; guides are ordered targeting first."""

    counts: Any  # (N,)
    log_exposure: Any  # (N,) natural log
    guide: Any  # (N, K) long, the guides of each cell, padded with the number of guides
    n_targeting: int
    n_control: int
    phi: float
    priors: CisPriors


def cis(data: CisData) -> None:
    """Joint density of guide means, spreads and the dosage of every targeted cell (non-centred)."""
    p, one = data.priors, data.counts.new_ones(())
    level = pyro.sample("level", dist.Normal(0.0 * one, LEVEL_SD))
    mu = pyro.sample("mu", dist.Normal(0.0 * one, 3.0))
    sigma = pyro.sample("sigma", dist.HalfCauchy(p.sigma_scale * one))
    control_sd = pyro.sample("control_sd", dist.HalfNormal(p.control_sd_scale * one))
    centre = pyro.sample("within_centre", dist.Normal(log(p.within_median) * one, p.within_log_sd / 3**0.5))
    with pyro.plate("targeting", data.n_targeting):
        t_mean = pyro.sample("targeting_mean", dist.StudentT(p.guide_df, mu, sigma))
        within = pyro.sample("within_sd", dist.LogNormal(centre, p.within_log_sd))
    with pyro.plate("control", data.n_control):
        c_mean = pyro.sample("control_mean", dist.Normal(0.0 * one, control_sd))
    targeted = data.guide[:, 0] < data.n_targeting
    with pyro.plate("cells", int(targeted.sum())):
        z = pyro.sample("z", dist.Normal(0.0 * one, one))
    none = data.counts.new_zeros(1)
    x = torch.cat([t_mean, c_mean, none])[data.guide].sum(-1)
    spread = torch.cat([within, data.counts.new_zeros(data.n_control + 1)])[data.guide[targeted]]
    x = x.index_put((targeted,), x[targeted] + (spread**2).sum(-1).sqrt() * z)
    log_mean = data.log_exposure + LN2 * (level + x)
    pyro.factor("counts", torch_log_density(data.counts, log_mean, None, one / data.phi).sum())
