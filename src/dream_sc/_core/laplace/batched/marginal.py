"""Log density of level, amplitudes and group effects, guide effects integrated, with its derivatives.

The arithmetic of `laplace.marginal`, on tensors whose last axes are features and lanes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from . import curves, effects

if TYPE_CHECKING:
    from .layout import Layout, Points, Tensor


class Derivatives(NamedTuple):
    """The log marginal density and its derivatives; of the matrices the lower triangles count."""

    value: Tensor  # (B, L)
    grad: Tensor  # (n, B, L)
    hess: Tensor  # (n, n, B, L) negative Hessian
    gauss: Tensor  # (n, n, B, L) a form of it that is positive definite


def row_means(code: int, theta: Tensor, n_amp: int, at: Points, lay: Layout) -> tuple[Tensor, Tensor, Tensor | None]:
    """Log means of the rows less log phi ``(G, Q, P, 1, B, L)``, without guide effects.

    With the variances ``(G, B, L)`` that the dosages' errors add, and the gradient ``(G Q + 1, A, B, L)`` of the log
    curve.
    """
    n_guides, n_doses = lay.rows.shape[:2]
    level, grad = theta[0].expand(n_guides, n_doses, *theta.shape[1:]), None
    variance = theta.new_full((n_guides, 1, 1), curves.LEAST_VARIANCE)
    if n_amp > 0:
        amplitudes = theta[1 : 1 + n_amp]
        curve, grad = curves.log_curve(code, amplitudes, at.tables.dose)
        level = (theta[0] - curve[-1] + curve[:-1]).unflatten(0, (n_guides, n_doses))
        if not lay.exact:
            variance = curves.dose_variances(code, amplitudes, at.tables, lay)
    base = at.offset + level[:, :, None, None]
    if lay.n_groups > 1:
        shifts = torch.cat([torch.zeros_like(theta[:1]), theta[1 + n_amp :]])
        base = base + shifts[lay.group][:, :, :, None]
    if lay.loads.shape[-1] > 0:
        errors = theta[len(theta) - lay.loads.shape[-1] :]
        base = base + torch.einsum("gqpd,dbl->gqpbl", lay.loads, errors)[:, :, :, None]
    return base, variance, grad


def _by_group(x: Tensor, lay: Layout) -> Tensor:
    """Rows ``(G, Q, P, M, B, L)`` summed by level and group: ``(G, Q, C, M, B, L)``."""
    if lay.n_groups == 1:
        return x.sum(2, keepdim=True)
    n_guides, n_doses, n_rows = x.shape[:3]
    summed = lay.member @ x.reshape(n_guides * n_doses, n_rows, -1)
    return summed.reshape(n_guides, n_doses, lay.n_groups, *x.shape[3:])


def _by_parameter(x: Tensor, jac: Tensor | None) -> Tensor:
    """Sums ``(G, Q, C, M, B, L)`` times the Jacobian, by guide: ``(G, n, M, B, L)``."""
    groups = x.sum(1)
    if jac is None:
        return groups
    along = (x[:, :, :1] * jac[:, :, :, None]).sum(1)
    return torch.cat([groups[:, :1], along, groups[:, 1:]], 1)


def _rows_curvature(kappa: Tensor, jac: Tensor | None, n_amp: int) -> Tensor:
    """Curvature ``(n, n, B, L)`` of the rows, summed by group ``(G, Q, C, B, L)``, the components mixed."""
    n = n_amp + kappa.shape[2]
    out = kappa.new_zeros((n, n, *kappa.shape[3:]))
    by_group = kappa.sum((0, 1))
    out[0, 0] = by_group[0]
    for k in range(1, len(by_group)):
        out[n_amp + k, 0] = out[n_amp + k, n_amp + k] = by_group[k]
    if jac is None:
        return out
    for i in range(n_amp):
        along = (kappa * jac[:, :, i : i + 1]).sum((0, 1))
        out[1 + i, 0], out[1 + n_amp :, 1 + i] = along[0], along[1:]
        out[1 + i, 1 : 2 + i] = (kappa[:, :, :1] * jac[:, :, i : i + 1] * jac[:, :, : i + 1]).sum((0, 1))
    return out


def _load_curvature(out: Tensor, kappa: Tensor, n_amp: int, lay: Layout) -> None:
    """Fill in what group effects and errors of coefficients share, from the rows' curvature ``(G, Q, P, B, L)``."""
    n_loads = lay.loads.shape[-1]
    for i in range(n_loads):
        at = len(out) - n_loads + i
        along = _by_group((kappa * lay.loads[..., i, None, None])[:, :, :, None], lay).sum((0, 1))[:, 0]
        out[at, 1 + n_amp : at + 1] = along[1 : at - n_amp + 1]


def _squares(weight: Tensor, x: Tensor) -> Tensor:
    """Lower triangle ``(n, n, B, L)`` of the sum over guides and components of ``weight x x'``; `x` (G, n, M, B, L)."""
    n = x.shape[1]
    out = x.new_zeros((n, n, *x.shape[3:]))
    for i in range(n):
        out[i, : i + 1] = ((weight * x[:, i])[:, None] * x[:, : i + 1]).sum((0, 2))
    return out


def _curve_curvature(grad: Tensor, row_grad: Tensor) -> Tensor:
    """Second derivatives ``(A, A, B, L)`` of the log curve, a log of a sum of exponentials, by the rows' gradients."""
    slots, ntc, total = grad[:-1], grad[-1], row_grad.sum(0)
    n_amp, out = len(ntc), []
    for i in range(n_amp):
        same = torch.zeros(n_amp, 1, 1, dtype=grad.dtype, device=grad.device)
        same[i] = 1.0
        here = (row_grad[:, None] * slots[:, i : i + 1] * (same - slots)).sum(0)
        out.append(here - total * ntc[i] * (same - ntc))
    return torch.stack(out)


def _add_anchor(theta: Tensor, n_amp: int, at: Points, d: Derivatives) -> Tensor:
    """Add what the anchor says of level and group effects to the derivatives, in place; returns its log density."""
    which = [0, *range(1 + n_amp, len(theta))]
    diff = torch.cat([theta[:1], theta[1 + n_amp :]]) - at.mode
    pull = (at.precision * diff).sum(1)
    for c, i in enumerate(which):
        d.grad[i] -= pull[c]
        for k, j in enumerate(which[: c + 1]):
            d.gauss[i, j] += at.precision[c, k]
    return at.value - 0.5 * (diff * pull).sum(0)


def evaluate(code: int, theta: Tensor, u: Tensor, n_amp: int, at: Points, lay: Layout) -> tuple[Derivatives, Tensor]:
    """Log marginal density at `theta` ``(n, B, L)``, and the modes of the guide effects, which start at `u`."""
    base, v_dose, curve_grad = row_means(code, theta, n_amp, at, lay)
    variance = (at.tau2 + lay.wide2 + v_dose.unsqueeze(-3)).expand(u.shape)
    u = effects.search(u, variance, base, at, lay.dtype)
    found = effects.integrate(u, variance, base, lay.log_weight, at)
    jac = None
    if curve_grad is not None:
        jac = (curve_grad[:-1] - curve_grad[-1]).unflatten(0, lay.rows.shape[:2])
    kappa, gradient = _by_group(found.curvature, lay), _by_group(found.gradient, lay)
    odds = found.odds[:, None, None]
    first, second = _by_parameter(gradient, jac), _by_parameter(kappa, jac)
    grad = (found.odds[:, None] * first).sum((0, 2))
    gauss = _rows_curvature((odds * kappa).sum(3), jac, n_amp)
    _load_curvature(gauss, (odds * found.curvature).sum(3), n_amp, lay)
    gauss = gauss - _squares(found.odds * found.shrink, second)
    more = torch.zeros_like(gauss)
    if found.odds.shape[1] > 1:
        total = (found.odds[:, None] * first).sum(2, keepdim=True)
        more = _squares(torch.ones_like(total[:, 0]), total) - _squares(found.odds, first)
    if curve_grad is not None and code != 3:
        row_grad = (found.odds[:, None] * gradient[:, :, 0]).sum(2).flatten(0, 1)
        more[1 : 1 + n_amp, 1 : 1 + n_amp] -= _curve_curvature(curve_grad, row_grad)
    out = Derivatives(found.log_density.sum(0), grad, more, gauss)
    value = out.value + _add_anchor(theta, n_amp, at, out)
    if n_amp > 0:
        log_prior, slope, curvature = curves.prior(code, theta[1 : 1 + n_amp], at.tables, lay)
        value = value + log_prior
        grad[1 : 1 + n_amp] += slope
        for i in range(n_amp):
            gauss[1 + i, 1 + i] -= curvature[i]
    return Derivatives(value, grad, more + gauss, gauss), u
