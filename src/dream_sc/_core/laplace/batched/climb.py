"""Damped Newton steps to the modes of many points at once; see `laplace.kernel.climb`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from . import linalg
from .layout import some, take
from .marginal import evaluate

if TYPE_CHECKING:
    from .layout import Layout, Points, Tensor

MOST_STEPS = 40
FIRST_RADIUS, LEAST_RADIUS = 1.5, 1e-3
DROP = 1e-3


@dataclass
class Climb:
    """Points on their way; the last axes of all tensors are features and lanes."""

    theta: Tensor  # (n, B, L)
    u: Tensor  # (G, M, B, L) modes of the guide effects
    value: Tensor  # (B, L) log density at the mode, -inf where there is none
    chol: Tensor  # (n, n, B, L) factor of the negative Hessian there
    radius: Tensor  # (B, L)
    previous: Tensor  # (B, L) density before the last step
    open: Tensor  # (B, L) whether a point still moves

    def take(self, features: Tensor) -> Climb:
        """That of some features."""
        return Climb(*(take(x, features) for x in vars(self).values()))

    def put(self, features: Tensor, other: Climb) -> None:
        """Take over some features of another, in place."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine.index_copy_(-2, features, theirs)


def _factor(hess: Tensor, gauss: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factors of the negative Hessians, or of their positive definite forms, and where there are any."""
    chol, ok = linalg.cholesky(hess)
    if bool((ok | ~wanted).all()):
        return chol, ok
    other, fine = linalg.cholesky(gauss)
    return torch.where(ok, chol, other), ok | fine


def _step(code: int, n_amp: int, c: Climb, at: Points, lay: Layout, tol: float, *, first: bool) -> None:
    """One damped Newton step of the points that are open, in place."""
    found, c.u = evaluate(code, c.theta, c.u, n_amp, at, lay)
    here = found.value
    c.value = torch.where(c.open, here, c.value)
    if not first:
        dropped = c.open & (here < c.previous - DROP)
        c.radius = torch.where(dropped, (0.5 * c.radius).clamp(min=LEAST_RADIUS), c.radius)
    c.previous = torch.where(c.open, here, c.previous)
    chol, ok = _factor(found.hess, found.gauss, c.open)
    ok &= here.isfinite()
    c.value = torch.where(c.open & ~ok, -torch.inf, c.value)
    c.open = c.open & ok
    c.chol = torch.where(c.open, chol, c.chol)
    step = linalg.solve(chol, found.grad)
    decrement = (found.grad * step).sum(0)
    shrink = (c.radius / step.abs().amax(0)).clamp(max=1.0)
    c.theta = torch.where(c.open, c.theta + shrink * step, c.theta)
    done = c.open & (decrement < tol)
    # what the last step gains is known to second order
    c.value = torch.where(done, c.value + 0.5 * decrement, c.value)
    c.open = c.open & ~done


def climb(code: int, n_amp: int, theta: Tensor, u: Tensor, at: Points, lay: Layout, tol: float) -> Climb:
    """Modes of all points. Features whose points have all arrived step aside, so that the others go on without them."""
    n, shape = len(theta), theta.shape[1:]
    full = [theta.new_full(shape, x) for x in (-torch.inf, FIRST_RADIUS, -torch.inf)]
    open_ = torch.ones(shape, dtype=torch.bool, device=theta.device)
    left = Climb(theta, u, full[0], theta.new_zeros((n, n, *shape)), full[1], full[2], open_)
    out, features = None, torch.arange(shape[0], device=theta.device)
    for iteration in range(MOST_STEPS):
        _step(code, n_amp, left, at, lay, tol, first=iteration == 0)
        going = left.open.any(-1)
        stay = going.nonzero()[:, 0]
        if len(stay) == 0:
            break
        if len(stay) < len(going):
            if out is None:
                out = left.take(features)
            else:
                gone = (~going).nonzero()[:, 0]
                out.put(features[gone], left.take(gone))
            left, at, features = left.take(stay), some(at, stay), features[stay]
    if out is None:
        return left
    out.put(features, left)
    return out
