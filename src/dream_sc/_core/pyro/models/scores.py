r"""The technical step of scores in Pyro: control cells around the location of their group, normal or Student t.

.. math::

    y_i \sim \mathcal{D}(\mu + \sigma a_c, \sigma),\quad a_c \sim \mathrm{StudentT}(\nu_a, 0, s),\quad a_0 = 0

with flat priors of :math:`\mu` and :math:`\ln \sigma`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log, pi
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch

from .trans import Flat

if TYPE_CHECKING:
    from dream_sc._core.priors import ScorePriors


@dataclass(frozen=True)
class NormalData:
    """Sums of `T` features over control cells in `C` groups, as float64 tensors."""

    n_cells: Any  # (T, C) with a score
    total: Any  # (T, C)
    squares: Any  # (T, C)
    effect_scale: float  # in units of sigma
    priors: ScorePriors


@dataclass(frozen=True)
class StudentTData:
    """Scores of `T` features in `N` control cells, as float64 tensors."""

    scores: Any  # (T, N) 0 where missing
    seen: Any  # (T, N) 1 where there is a score
    group: Any  # (N,) long
    n_groups: int
    effect_scale: float
    nu: float
    priors: ScorePriors


def _locations(like: Any, n_groups: int, scale: float, df: float) -> tuple[Any, Any]:
    """Sample level, effects and scale in a plate: location of each group ``(T, C)``, log sigma ``(T, 1)``."""
    one = like.new_ones(1)
    level, log_sigma = pyro.sample("level", Flat(one)), pyro.sample("log_sigma", Flat(one))
    if n_groups == 1:
        return level, log_sigma
    scales = scale * like.new_ones(n_groups - 1)
    a = pyro.sample("effects", dist.StudentT(df, 0.0 * scales, scales).to_event(1)).reshape(-1, n_groups - 1)
    return level + log_sigma.exp() * torch.cat([torch.zeros_like(a[:, :1]), a], -1), log_sigma


def normal(data: NormalData) -> None:
    """Joint density of level, sd and effects (in sds) of normal scores."""
    n_t, n_groups = data.total.shape
    with pyro.plate("features", n_t, dim=-2):
        at, log_sigma = _locations(data.total, n_groups, data.effect_scale, data.priors.effect_df)
        squares = data.squares - 2 * at * data.total + at**2 * data.n_cells
        value = -data.n_cells * (log_sigma + 0.5 * log(2 * pi)) - 0.5 * squares * (-2 * log_sigma).exp()
        pyro.factor("scores", value.sum(-1, keepdim=True))


def studentt(data: StudentTData) -> None:
    """Joint density of location, scale and effects (in scales) of Student t scores."""
    nu = data.nu
    with pyro.plate("features", len(data.scores), dim=-2):
        at, log_sigma = _locations(data.scores, data.n_groups, data.effect_scale, data.priors.effect_df)
        z = (data.scores - at[:, data.group if data.n_groups > 1 else 0 * data.group]) * (-log_sigma).exp()
        const = lgamma(0.5 * (nu + 1)) - lgamma(0.5 * nu) - 0.5 * log(nu * pi)
        value = data.seen * (const - log_sigma - 0.5 * (nu + 1) * torch.log1p(z**2 / nu))
        pyro.factor("scores", value.sum(-1, keepdim=True))
