r"""Two Hills: :math:`f \propto 1 + e^{b_1} h_1(x) + e^{b_2} h_2(x)`, ``k_a < k_b``.

:math:`h_i = \sigma(\pm n_i \ln 2 (x - k_i))`, one rising and one falling; the amplitudes are positive, so the curve is
never negative, and a falling beside a rising Hill makes a trough or a peak.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np

from ._base import LN2, Curve, sigmoid, softplus, torch_hill, torch_moment
from .single_hill import moment_mass, reachable

PARAMS = ("a", "b1", "b2", "log2_ec50", "log_n", "log2_ec50_b", "log_n_b")
N_TURN = 25  # points of the axis on which a turn is looked for
# one Hill rises, the other falls: two steps of the same sign cannot be told from one Hill at a dozen dosages,
# and would take its features (and the meaning of its EC50) away
SIGNS = ((1.0, -1.0), (-1.0, 1.0))


def _terms(x: Any, params: Any, consts: Any) -> list[tuple[Any, Any, Any]]:
    """Of each Hill: the log of its term, its rate, and the argument of its logistic function."""
    out = []
    for i in range(2):
        rate = np.asarray(consts)[..., i : i + 1] * np.exp(params[..., 4 + 2 * i : 5 + 2 * i])
        z = LN2 * rate * (x - params[..., 3 + 2 * i : 4 + 2 * i])
        out.append((params[..., 1 + i : 2 + i] - softplus(-z), rate, z))
    return out


def raw(x: Any, params: Any, consts: Any) -> Any:
    """Log of the curve over what it is with neither Hill."""
    (t1, *_), (t2, *_) = _terms(x, params, consts)
    return np.logaddexp(0.0, np.logaddexp(t1, t2))


def log_curve(x: Any, params: Any, consts: Any) -> Any:
    """Natural log of the expected count at log2 dosage `x`, shape ``(..., X)``."""
    return params[..., :1] + raw(x, params, consts) - raw(0.0, params, consts)


def slope(x: Any, params: Any, consts: Any) -> Any:
    """Derivative of the log curve by log dosage, shape ``(..., X)``."""
    terms = _terms(x, params, consts)
    total = np.logaddexp(0.0, np.logaddexp(terms[0][0], terms[1][0]))
    return sum(np.exp(t - total) * rate * sigmoid(-z) for t, rate, z in terms)


def lattice(axis: Any, priors: Any, n_k: int = 7) -> tuple[Any, Any, Any]:
    """Grid over both EC50, both steepnesses and both orders of rise and fall."""
    k = np.linspace(axis.low - 0.75, axis.high + 0.75, n_k)
    log_n = np.log([1.2, 3.5])
    rows = [
        (ka, na, kb, nb, sa, sb)
        for (sa, sb) in SIGNS
        for ka, kb in combinations(k, 2)
        for na, nb in product(log_n, log_n)
    ]
    grid = np.array(rows)
    shapes, signs = grid[:, :4], grid[:, 4:]
    log_w = np.zeros(len(grid))
    for i in range(2):
        ki, ni = shapes[:, 2 * i], shapes[:, 2 * i + 1]
        log_w += -0.5 * (ki / priors.ec50_sd) ** 2 - 0.5 * ((ni - priors.n_log_mean) / priors.n_log_sd) ** 2
    mass = amplitude_mass(shapes, signs, axis, priors)
    return shapes, log_w - np.log((np.exp(log_w) * mass).sum()), signs


def amplitude_mass(shapes: Any, consts: Any, axis: Any, priors: Any) -> Any:
    """Integral of the prior of the amplitudes given shapes ``(..., 4)``: the mass of the movements they can make."""
    mass = np.ones(shapes.shape[:-1])
    for i in range(2):
        k, rate = shapes[..., 2 * i], LN2 * np.exp(shapes[..., 2 * i + 1])
        fall, rise = reachable(rate * (axis.low - k), rate * (axis.high - k))
        reach = np.where(consts[..., i] > 0, rise, fall)
        mass = mass * 2 * moment_mass(reach, priors.movement_scales, priors.movement_weights)
    return mass


def turn_weight(x: Any, curves: Any, scale: float) -> Any:
    """``turn^2 / (turn^2 + scale^2)`` of log curves over the axis `x` (last axis), zero for a monotone curve.

    The turn is what a peak rises above both ends of the axis, or a trough falls below both.
    """
    first, last = curves[..., 0], curves[..., -1]
    peak = curves.max(-1) - np.maximum(first, last)
    trough = np.minimum(first, last) - curves.min(-1)
    turn = np.maximum(peak, trough)
    return turn**2 / (turn**2 + scale**2)


def turn_mass(axis: Any, priors: Any, n: int = 64) -> float:
    """Prior mean of the turn weight, over shapes and amplitudes; fixed draws, so that it is a constant."""
    shapes, log_w, signs = lattice(axis, priors)
    rng = np.random.default_rng(0)
    x = np.linspace(axis.low, axis.high, N_TURN)
    scales, weights = np.asarray(priors.movement_scales), np.asarray(priors.movement_weights)
    params = np.zeros((len(shapes), n, 7))
    params[..., 3:] = shapes[:, None]
    inside = np.ones((len(shapes), n), dtype=bool)
    for i in range(2):
        # the moment prior of the movement is a chi distribution with three degrees of freedom
        d = np.linalg.norm(rng.normal(size=(n, 3)), axis=1) * rng.choice(scales, size=n, p=weights)
        rate = signs[:, i] * LN2 * np.exp(shapes[:, 2 * i + 1])
        ends = np.stack([sigmoid(rate * (end - shapes[:, 2 * i])) for end in (axis.low, axis.high)])
        rest = ends.max(0)[:, None] - np.exp(d) * ends.min(0)[:, None]
        inside &= rest > 0
        params[..., 1 + i] = np.log(np.expm1(d) / np.where(rest > 0, rest, 1.0))
    w = turn_weight(x, log_curve(x, params, signs[:, None]), priors.turn_scale)
    # the lattice's weights hold the mass of what each shape can reach
    mass = np.exp(log_w)[:, None] * inside
    return float((mass * w).sum() / mass.sum())


def torch_turn(params: Any, axis: Any, priors: Any, consts: Any) -> Any:
    """Log of the turn weight, ``(T, 1)``, for the Pyro models."""
    import torch

    a = params["a"]
    x = torch.linspace(axis.low, axis.high, N_TURN, dtype=a.dtype, device=a.device)
    curves = torch_rows(params, x[:, None], torch.ones_like(x)[:, None], consts)
    first, last = curves[:, :1], curves[:, -1:]
    peak = curves.amax(-1, keepdim=True) - torch.maximum(first, last)
    trough = torch.minimum(first, last) - curves.amin(-1, keepdim=True)
    square = torch.maximum(peak, trough) ** 2 + 1e-12
    return square.log() - (square + priors.turn_scale**2).log()


def torch_rows(params: Any, at: Any, weights: Any, consts: Any) -> Any:
    """Log curve up to its level ``(T, R)``, averaged over the nodes `at` ``(R, J)``."""
    import torch

    terms = [torch.zeros_like(params["b1"] + at[..., 0])]
    for i, suffix in enumerate(("", "_b")):
        rate = consts[:, i : i + 1] * LN2 * params[f"log_n{suffix}"].exp()
        log_h, _ = torch_hill(rate, params[f"log2_ec50{suffix}"], at, weights)
        terms.append(params[f"b{i + 1}"] + log_h)
    return torch.stack(terms).logsumexp(0)


def torch_prior(params: Any, axis: Any, priors: Any, consts: Any) -> Any:
    """Moment prior on the movement of each Hill, of known sign, between the ends of the observed axis."""
    import torch
    from torch.nn.functional import logsigmoid

    total = 0.0
    for i, suffix in enumerate(("", "_b")):
        sign = consts[:, i : i + 1]
        rate, b = sign * LN2 * params[f"log_n{suffix}"].exp(), params[f"b{i + 1}"]
        ends = [logsigmoid(rate * (end - params[f"log2_ec50{suffix}"])) for end in (axis.low, axis.high)]
        bottom = torch.where(sign > 0, ends[0], ends[1])
        top = torch.where(sign > 0, ends[1], ends[0])
        d = torch.logaddexp(b + top, torch.zeros_like(b)) - torch.logaddexp(b + bottom, torch.zeros_like(b))
        d1 = (b + top).sigmoid() * (-b - bottom).sigmoid() * -(bottom - top).expm1()
        total = total + torch_moment(d, d1, priors) + np.log(2.0)
    return total


CURVE = Curve("additive_hill", 2, PARAMS, 2, log_curve, slope, lattice, torch_rows, torch_prior, amplitude_mass)
