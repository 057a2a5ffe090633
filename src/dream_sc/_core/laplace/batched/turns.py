"""How much two Hills turn, as a factor of their evidence; see `laplace.turns`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dream_sc._core.curves import LN2
from dream_sc._core.laplace.turns import DROP, LEAST, SIGMA_POINTS

if TYPE_CHECKING:
    from .layout import Tables, Tensor


def _weight(b: tuple[Tensor, Tensor], hills: list[Tensor], scale: float) -> Tensor:
    """Weight ``(B, L)`` of curves with these amplitudes; `hills` ``(X, B, L)`` over the axis."""
    f = 1.0 + b[0].exp() * hills[0] + b[1].exp() * hills[1]
    top, bottom = torch.maximum(f[0], f[-1]), torch.minimum(f[0], f[-1])
    turn = torch.maximum(f.amax(0) / top, bottom / f.amin(0)).log()
    return turn * turn / (turn * turn + scale * scale)


def log_mean(theta: Tensor, cov: Tensor, tabs: Tables, x: Tensor, scale: float) -> Tensor:
    """Log of the mean weight ``(B, L)`` over the amplitudes, Gaussian given the shape, by the unscented transform."""
    x, shapes = x[:, None, None], tabs.shapes
    rates = [tabs.consts[i] * LN2 * shapes[2 * i + 1].exp() for i in range(2)]
    hills = [torch.sigmoid(rate * (x - shapes[2 * i])) for i, rate in enumerate(rates)]
    l11 = cov[1, 1].clamp(min=LEAST).sqrt()
    l21 = cov[2, 1] / l11
    l22 = (cov[2, 2] - l21 * l21).clamp(min=LEAST).sqrt()
    mean = torch.zeros_like(l11)
    for u, v, w in SIGMA_POINTS:
        mean = mean + w * _weight((theta[1] + l11 * u, theta[2] + l21 * u + l22 * v), hills, scale)
    return mean.clamp(min=LEAST).log()


def added(log_z: Tensor, log_weight: Tensor) -> Tensor:
    """Evidence ``(B, S, K)`` with the weight of the turn; points that do not matter are dropped."""
    best = log_z.amax((1, 2), keepdim=True)
    return torch.where(log_z > best - DROP, log_z + log_weight, -torch.inf)
