from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dream_sc._core.compiled import from_python
from dream_sc._core.curves import chosen, place
from dream_sc._core.laplace import curve_tables, layout, marginal


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _density(code, n_amp, theta, y, weights, overdispersion, offset, anchor, tau, shape, consts, d, grad, hess):  # type: ignore[no-untyped-def]
    from_kernel = layout.new_scratch(theta.shape[0], n_amp, d, 1)
    tabs, value = layout.new_tables(d, 1), np.zeros(1)
    counts = layout.counts_of(y, weights, overdispersion, offset, anchor, d.scale2, d.likelihood)
    layout.hold(counts.anchor, 0, 0, from_kernel.anchor)
    tabs.consts[0, 0], tabs.consts[1, 0] = consts
    curve_tables.fill_tables(code, shape, d, tabs)
    for _ in range(3):  # the modes of the guide effects start where the last call left them
        marginal.evaluate(code, theta, n_amp, counts, tau, d, tabs, from_kernel, value)
    for i in range(theta.shape[0]):
        grad[i] = from_kernel.grad[i, 0]
        for j in range(theta.shape[0]):
            hess[i, j] = from_kernel.hess[i, j, 0]
    return value[0]


@pytest.fixture(scope="session")
def kernel_density() -> Callable[..., tuple[float, np.ndarray, np.ndarray]]:
    """Log marginal density of a problem's first feature in the kernel, with gradient and negative Hessian (lower half).

    Called with the problem, the curve, all parameters, and the shape, its constants and tau.
    """
    compiled = from_python(_density)

    def density(p: Any, c: Any, theta: Any, shape: Any, consts: Any, tau: float) -> Any:
        chosen.ready(place(c))
        anchor = p.anchor(np.ones((len(p.counts), 1)))
        grad, hess = np.zeros(len(theta)), np.zeros((len(theta), len(theta)))
        value = compiled(
            place(c),
            c.n_amplitudes,
            np.ascontiguousarray(theta)[:, None],
            p.counts[0],
            p.weights[0],
            float(p.overdispersion[0]),
            p.offset[0],
            layout.Anchor(*(part[0] for part in anchor)),
            np.array([tau]),
            np.ascontiguousarray(shape).reshape(-1, 1),
            np.asarray(consts),
            p.design,
            grad,
            hess,
        )
        return value, grad, hess

    return density
