"""The curves as tensors: tables per shape, log curve, amplitude prior; the arithmetic of `laplace.curves`."""

from __future__ import annotations

from math import log, pi, sqrt
from typing import TYPE_CHECKING

import torch

from dream_sc._core.curves import LN2

from .layout import Tables

if TYPE_CHECKING:
    from .layout import Layout, Tensor

SQRT_2PI = sqrt(2.0 * pi)
LEAST = 1e-300
LEAST_VARIANCE = 1e-10
LEAST_CURVATURE = 1e-3
LEAST_MIXTURE = 1e-280
LARGEST = 996.0 * LN2  # argument of an exponential
MATCHED = 1e-6, 1e6  # factors of amplitudes that are taken over from another shape


def bounded_exp(x: Tensor) -> Tensor:
    """Exponential that neither overflows nor vanishes."""
    most = LARGEST if x.dtype == torch.float64 else 80.0
    return x.clamp(-most, most).exp()


def softplus(z: Tensor) -> Tensor:
    """``log(1 + exp(z))`` without overflow."""
    return z.clamp(min=0.0) + torch.log1p((-z.abs()).exp())


# ---- tables ----------------------------------------------------------------------------------------------------------


def _rates(code: int, shapes: Tensor, consts: Tensor) -> list[Tensor]:
    """Slopes of the Hills' arguments."""
    if code == 1:
        return [LN2 * shapes[1].exp()]
    return [consts[i] * LN2 * shapes[2 * i + 1].exp() for i in range(2)]


def _means(code: int, shapes: Tensor, consts: Tensor, nodes: Tensor, weights: Tensor) -> Tensor:
    """Tables ``(D, W, B, L)`` at dosages that are means over nodes ``(D, J)``: Hills and complements, or powers."""
    shape = nodes.shape[1], nodes.shape[0], 1, 1
    pairs = list(zip(nodes.T.reshape(shape), weights.T.reshape(shape), strict=True))
    if code == 3:
        t = [(x - consts[0]) / consts[1] for x, _ in pairs]
        powers = [sum(w * z**k for z, (_, w) in zip(t, pairs, strict=True)) for k in range(1, 7)]
        return torch.stack([torch.as_tensor(x) for x in powers], 1)
    out = []
    for i, rate in enumerate(_rates(code, shapes, consts)):
        h, hc = LEAST, LEAST
        for x, w in pairs:
            z = rate * (x - shapes[2 * i])
            h, hc = h + w * torch.sigmoid(z), hc + w * torch.sigmoid(-z)
        out += [h, hc]
    return torch.stack([torch.as_tensor(x) for x in out], 1)


def _end(code: int, shapes: Tensor, consts: Tensor, x: float) -> Tensor:
    """Tables ``(W, B, L)`` at an end of the axis: logs of Hill values and of their complements, or powers."""
    if code == 3:
        at = torch.full((1, 1), x, dtype=consts.dtype, device=consts.device)
        return _means(code, shapes, consts, at, torch.ones_like(at))[0]
    out = []
    for i, rate in enumerate(_rates(code, shapes, consts)):
        z = rate * (x - shapes[2 * i])
        out += [-softplus(-z), -softplus(z)]
    return torch.stack(out)


def tables(code: int, shapes: Tensor, consts: Tensor, lay: Layout) -> Tables:
    """Tables of shapes ``(d, B, L)`` with their constants ``(2, B, L)``."""
    if code == 0:
        none = consts.new_zeros((0, *consts.shape[1:]))
        return Tables(none, none, none, none, none, consts, shapes)
    dose = _means(code, shapes, consts, lay.nodes, lay.node_weights)
    up = down = dose[:0]
    if not lay.exact:
        up, down = (_means(code, shapes, consts, at, lay.shares) for at in (lay.up, lay.down))
    low, high = (_end(code, shapes, consts, x) for x in lay.axis)
    return Tables(dose, up, down, low, high, consts, shapes)


# ---- log curve -------------------------------------------------------------------------------------------------------


def log_curve(code: int, amplitudes: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """Log curve ``(D, B, L)`` up to its level, and its gradient ``(D, A, B, L)`` by the amplitudes ``(A, B, L)``."""
    if code == 3:
        table = table[:, : len(amplitudes)]
        return (amplitudes * table).sum(1), table.expand(len(table), *amplitudes.shape)
    parts = bounded_exp(amplitudes) * table[:, 0::2]
    f = parts.sum(1) + (table[:, 1] if code == 1 else 1.0)
    return f.log(), parts / f[:, None]


def dose_variances(code: int, amplitudes: Tensor, tabs: Tables, lay: Layout) -> Tensor:
    """Variance ``(G, B, L)`` of each guide's log curve by the error of its dosage: see `laplace.curves`."""
    move = 0.5 * (log_curve(code, amplitudes, tabs.up)[0] - log_curve(code, amplitudes, tabs.down)[0])
    return torch.where(lay.known[:, None, None], 0.0, move**2) + LEAST_VARIANCE


# ---- amplitudes ------------------------------------------------------------------------------------------------------


def movement(b: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Movement D of the single Hill between the ends of the axis, and its derivative by the amplitude."""
    zl, zh = low[0] - low[1], high[0] - high[1]
    d = softplus(b + zh) - softplus(zh) - softplus(b + zl) + softplus(zl)
    return d, torch.sigmoid(b + zh) - torch.sigmoid(b + zl)


def _normal_mixture(d: Tensor, lay: Layout) -> tuple[Tensor, Tensor]:
    """Log of ``sum_s w_s / s^2 Normal(d; 0, s)`` and the responsibility-weighted mean of ``1 / s^2``."""
    shape = (-1, *(1,) * d.dim())
    s2 = (lay.scales**2).reshape(shape)
    height = (lay.weights / lay.scales**3 / SQRT_2PI).reshape(shape)
    each = height * (-0.5 * d * d / s2).exp()
    total = each.sum(0)
    far = total < LEAST_MIXTURE
    safe = torch.where(far, 1.0, total)
    value = torch.where(far, height[-1].log() - 0.5 * d * d / s2[-1], safe.log())
    return value, torch.where(far, 1.0 / s2[-1], (each / s2).sum(0) / safe)


def _slopes(low: Tensor, high: Tensor, gap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives of a difference of two softplus by its argument; `gap` is how much lower the lower argument is."""
    pl, ph = torch.sigmoid(low), torch.sigmoid(high)
    # ph - pl without cancellation
    d1 = (ph * (1.0 - pl) * -torch.expm1(gap)).clamp(min=LEAST)
    d2 = ph * (1 - ph) - pl * (1 - pl)
    return d1, d2, ph * (1 - ph) * (1 - 2 * ph) - pl * (1 - pl) * (1 - 2 * pl)


def _prior_one(b: Tensor, low: Tensor, high: Tensor, lay: Layout) -> tuple[Tensor, Tensor, Tensor]:
    zl, zh = low[0] - low[1], high[0] - high[1]
    d1, d2, d3 = _slopes(b + zl, b + zh, zl - zh)
    d = softplus(b + zh) - softplus(zh) - softplus(b + zl) + softplus(zl)
    value, r1 = _normal_mixture(d, lay)
    curvature = -r1 * d1 * d1 - r1 * d * d2 + d3 / d1 - (d2 / d1) ** 2
    return value + d1.log(), -d * r1 * d1 + d2 / d1, curvature.clamp(max=-LEAST_CURVATURE)


def _prior_two(b: Tensor, bottom: Tensor, top: Tensor, lay: Layout) -> tuple[Tensor, Tensor, Tensor]:
    d1, d2, d3 = _slopes(b + bottom, b + top, bottom - top)
    d = (softplus(b + top) - softplus(b + bottom)).clamp(min=LEAST)
    value, r1 = _normal_mixture(d, lay)
    grad = (2.0 / d - d * r1) * d1 + d2 / d1
    curvature = (-2.0 / d**2 - r1) * d1 * d1 + (2.0 / d - d * r1) * d2 + d3 / d1 - (d2 / d1) ** 2
    return log(2.0) + value + 2.0 * d.log() + d1.log(), grad, curvature.clamp(max=-LEAST_CURVATURE)


def prior(code: int, amplitudes: Tensor, tabs: Tables, lay: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Log prior ``(B, L)`` of the amplitudes given the shape, gradient and curvature ``(A, B, L)``, which is kept < 0.

    For the single Hill the factor D^2 of the moment prior is left out: its expectation is taken at the end.
    """
    if code == 1:
        value, grad, curvature = _prior_one(amplitudes[0], tabs.low, tabs.high, lay)
        return value, grad[None], curvature[None]
    if code == 2:
        falls = tabs.consts < 0
        top = torch.where(falls, tabs.low[0::2], tabs.high[0::2])
        bottom = torch.where(falls, tabs.high[0::2], tabs.low[0::2])
        value, grad, curvature = _prior_two(amplitudes, bottom, top, lay)
        return value.sum(0), grad, curvature
    sd = lay.polynomial_sd
    value = -0.5 * (amplitudes / sd) ** 2 - log(sd * SQRT_2PI)
    return value.sum(0), -amplitudes / sd**2, torch.full_like(amplitudes, -1.0 / sd**2)


def _matched(e: Tensor, top: Tensor, bottom: Tensor, complements: tuple[Tensor, Tensor] | None, b: Tensor) -> Tensor:
    """Amplitude whose factor is `e` between two Hill values (their logs and those of their complements), or `b`."""
    above, under = (1.0, 1.0) if complements is None else (complements[0].exp(), complements[1].exp())
    below = top.exp() - e * bottom.exp()
    ratio = torch.where(below != 0.0, (e * under - above) / below, -1.0)
    fits = (ratio > MATCHED[0]) & (ratio < MATCHED[1])
    return torch.where(fits, torch.where(fits, ratio, 1.0).log(), b)


def match(code: int, old: Tensor, low: Tensor, high: Tensor, tabs: Tables) -> Tensor:
    """Amplitudes ``(A, B, L)`` with which shapes move as much over the axis as `old` ``(A, B, 1)`` does with its own.

    `low` and `high` ``(W, B, 1)`` are the tables of the old shapes. Unchanged where a shape cannot.
    """
    new_low, new_high = tabs.low, tabs.high
    if code == 1:
        e = movement(old[0], low, high)[0].exp()
        return _matched(e, new_high[0], new_low[0], (new_high[1], new_low[1]), old[0])[None]
    if code == 2:
        rise = (softplus(old + high[0::2]) - softplus(old + low[0::2])).exp()
        fall = (softplus(old + low[0::2]) - softplus(old + high[0::2])).exp()
        rising = _matched(rise, new_high[0::2], new_low[0::2], None, old)
        falling = _matched(fall, new_low[0::2], new_high[0::2], None, old)
        return torch.where(tabs.consts > 0, rising, falling)
    return old
