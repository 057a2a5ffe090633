"""Guide effects integrated by Laplace's method, one component of their prior at a time; see `laplace.effects`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from .curves import bounded_exp

if TYPE_CHECKING:
    from .layout import Points, Tensor

SMALL_STEP = 4e-4  # squared, in posterior variances of the effect
MOST_STEPS = 12


class Integral(NamedTuple):
    """Guide effects integrated."""

    log_density: Tensor  # (G, B, L) of a guide's rows
    odds: Tensor  # (G, M, B, L) posterior probabilities of the components
    shrink: Tensor  # (G, M, B, L) v / (1 + v k), the posterior variance of the effect
    gradient: Tensor  # (G, Q, P, M, B, L) of the marginal density by the rows' log means
    curvature: Tensor  # (G, Q, P, M, B, L)


def search(u: Tensor, variance: Tensor, base: Tensor, at: Points, dtype: torch.dtype) -> Tensor:
    """Modes ``(G, M, B, L)`` of the effects, by Newton steps from `u`; `base` ``(G, Q, P, 1, B, L)``.

    A guide's effect stands still once that of no lane of the feature moves. The last step is small enough for what is
    left to be negligible.
    """
    u, precision, y, n = u.to(dtype), (1.0 / variance).to(dtype), at.y.to(dtype), at.n.to(dtype)
    ratio = bounded_exp(base.to(dtype))
    moving = torch.ones(u.shape[:-1], dtype=torch.bool, device=u.device)
    for _ in range(MOST_STEPS):
        e = ratio * bounded_exp(u)[:, None, None]
        p = 1.0 / (1.0 + e)
        total = n * (e * p)
        gradient = (y - total).sum((1, 2)) - u * precision
        curvature = (total * p).sum((1, 2)) + precision
        step = (gradient / curvature).clamp(-2.0, 2.0)
        u = torch.where(moving[..., None], u + step, u)
        moving = moving & (step * step * curvature >= SMALL_STEP).any(-1)
        if not bool(moving.any()):
            break
    return u.to(variance.dtype)


def integrate(u: Tensor, variance: Tensor, base: Tensor, log_weight: Tensor, at: Points) -> Integral:
    """Laplace's method at the modes, and the mixture of the components."""
    shift = u[:, None, None]
    e = bounded_exp(base) * bounded_exp(shift)
    p = 1.0 / (1.0 + e)
    q = e * p
    value = log_weight - 0.5 * u * u / variance + (at.y * (base + shift) - at.n * torch.log1p(e)).sum((1, 2))
    kappa = at.n * q * p
    third = kappa * (p - q)
    w = 1.0 + variance * kappa.sum((1, 2))
    shrink = variance / w
    value = value - 0.5 * w.log()
    pull = third - (third.sum((1, 2)) * shrink)[:, None, None] * kappa
    gradient = at.y - at.n * q - 0.5 * shrink[:, None, None] * pull
    log_density = torch.logsumexp(value, 1)
    return Integral(log_density, (value - log_density[:, None]).exp(), shrink, gradient, kappa)
