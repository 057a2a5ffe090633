r"""The Hill function :math:`h = \sigma(n \ln 2 \, (x - k))` and its mean over nodes: numpy, torch and compiled form.

`rate` is ``n ln 2``, negative where the function falls; `k` is the log2 EC50. Nodes stand for the cells' dosages.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from math import exp
from typing import Any

import numpy as np
from scipy.special import expit, log_expit

from dream_sc._core.compiled import Cube, Matrix, Vector, inline, part
from dream_sc._core.compiled.vector_math import vexp

from ._base import LN2
from ._compiled import LEAST, log1p_exp

# ---- numpy -----------------------------------------------------------------------------------------------------------


def rates(log_n: Any, sign: Any = 1.0) -> Any:
    """Rate of a log steepness."""
    return sign * LN2 * np.exp(log_n)


def hill(x: Any, k: Any, n: Any) -> Any:
    """Value at log2 dosages `x`, of steepness `n`, a Hill coefficient."""
    return expit(LN2 * n * (x - k))


def means(rate: Any, k: Any, nodes: Any, weights: Any) -> tuple[Any, Any]:
    """Means ``(S, D)`` of the value and of its complement over nodes ``(D, J)``, of rates and EC50s ``(S,)``."""
    z = rate[:, None, None] * (nodes - k[:, None, None])
    return (weights * expit(z)).sum(-1), (weights * expit(-z)).sum(-1)


def log_values(rate: Any, k: Any, x: Any) -> tuple[Any, Any]:
    """Logs of the value and of its complement."""
    z = rate * (x - k)
    return log_expit(z), log_expit(-z)


# ---- torch -----------------------------------------------------------------------------------------------------------


def torch_log_means(rate: Any, k: Any, nodes: Any, weights: Any) -> tuple[Any, Any]:
    """Logs of the means of the value and of its complement over nodes."""
    log_w = weights.log()
    log_h, log_c = torch_log_values(rate[..., None], k[..., None], nodes)
    return (log_h + log_w).logsumexp(-1), (log_c + log_w).logsumexp(-1)


def torch_log_values(rate: Any, k: Any, x: Any) -> tuple[Any, Any]:
    """Logs of the value and of its complement."""
    from torch.nn.functional import logsigmoid

    z = rate * (x - k)
    return logsigmoid(z), logsigmoid(-z)


# ---- compiled --------------------------------------------------------------------------------------------------------


@inline
def values(rate: float, k: float, x: float, w: float) -> tuple[float, float]:
    """The value and its complement, times a node's weight."""
    z = rate * (x - k)
    e = vexp(-abs(z))
    p = w / (1.0 + e)
    c = e * p
    return (p if z >= 0 else c), (c if z >= 0 else p)


@part
def fill_means(i: int, signs: Vector, shapes: Matrix, nodes: Matrix, weights: Matrix, out: Cube) -> None:
    """Means over nodes ``(D, J)`` of Hill `i` of the lanes' `shapes` (d, L), which rises where its sign is positive.

    The value goes to place ``2 i`` of `out` (D, W, L), its complement to the next.
    """
    n_lanes, h, c = out.shape[2], 2 * i, 2 * i + 1
    rate = np.zeros(n_lanes)
    for lane in range(n_lanes):
        rate[lane] = signs[lane] * LN2 * exp(shapes[c, lane])
    for d in range(nodes.shape[0]):
        for lane in range(n_lanes):
            out[d, h, lane], out[d, c, lane] = LEAST, LEAST
        for j in range(nodes.shape[1]):
            x, w = nodes[d, j], weights[d, j]
            if w == 0.0:
                continue
            for lane in range(n_lanes):
                value, rest = values(rate[lane], shapes[h, lane], x, w)
                out[d, h, lane] += value
                out[d, c, lane] += rest


@part
def fill_logs(i: int, signs: Vector, shapes: Matrix, x: float, out: Matrix) -> None:
    """Logs of the value and of its complement of Hill `i`, without underflow, at the same places of `out` (W, L)."""
    h, c = 2 * i, 2 * i + 1
    for lane in range(out.shape[1]):
        z = signs[lane] * LN2 * exp(shapes[c, lane]) * (x - shapes[h, lane])
        out[h, lane], out[c, lane] = -log1p_exp(-z), -log1p_exp(z)
