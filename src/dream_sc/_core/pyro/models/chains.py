r"""The trans step of features with several categories in Pyro, at guide level.

The links ("sticks") of a feature share the shape of one Hill,

.. math::

    k \sim N(0, \sigma_k^2),\quad \ln n \sim N(\mu_n, \sigma_n^2),\quad p(k, n) \propto M(k, n)

with `M` the mass of the movements that a shape can make; link `j` has its EC50 at :math:`k + l_j / n`, with lags `l`
that are given. Otherwise each is a binomial as in `trans`, its prior of the amplitude normalised by the mass at its own
shape. Which links move is given: those that do not may still move a little, by the normal prior that the moment prior
is made from, and say nothing of the shape, which they take as it is (no gradient passes from them to it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch

from dream_sc._core.curves._base import torch_moment
from dream_sc._core.curves.single_hill import CURVE as HILL
from dream_sc._core.curves.single_hill import torch_log_mass, torch_movement

from .trans import Flat, observe_guides, shape

if TYPE_CHECKING:
    from .trans import TransData


@dataclass(frozen=True)
class ChainData:
    """The sticks of `F` features, those of a feature one after another."""

    sticks: TransData
    feature: Any  # (T,) long
    lag: Any  # (T,) of each stick's EC50, log2, times the Hill coefficient
    moves: Any  # (T,) bool
    n_features: int


def chains(data: ChainData) -> None:
    """Joint density of the shapes of features, and of levels, amplitudes and effects of their sticks."""
    s = data.sticks
    p, one, moves = s.priors, s.level.new_ones(1), data.moves[:, None]
    with pyro.plate("chains", data.n_features, dim=-2):
        shared = shape(s, HILL)
        pyro.factor("mass", torch_log_mass(shared, s.axis, p))
    own = {name: value[data.feature] for name, value in shared.items()}
    own = {name: torch.where(moves, value, value.detach()) for name, value in own.items()}
    own["log2_ec50"] = own["log2_ec50"] + data.lag[:, None] * (-own["log_n"]).exp()
    with pyro.plate("features", len(s.level), dim=-2):
        params = {"a": pyro.sample("a", dist.Normal(s.level[:, None], p.level_sd * one))} | own
        params["b"] = pyro.sample("b", Flat(one))
        d, d1 = torch_movement(params, s.axis)
        prior = torch.where(moves, torch_moment(d, d1, p), torch_moment(d, d1, p, square=False))
        pyro.factor("amplitudes", prior - torch_log_mass(own, s.axis, p))
        observe_guides(s, HILL, params)
