"""A lattice over the shapes that all links of a feature agree on, and what each link says there.

Where the shares of categories move along a line by one Hill, the odds of each link do by a Hill of the same steepness
whose EC50 depends on how much the links before it move: to the power of the Hill coefficient, it is that of the link
before times the ratio of ``1 - q`` at the two ends, `q` being the share of the link. These lags are taken from the
modes at the likeliest shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import expit, log_softmax, logsumexp

from dream_sc._core.curves import LN2
from dream_sc._core.curves.single_hill import CURVE as HILL
from dream_sc._core.curves.single_hill import from_ntc_to_low
from dream_sc._core.response import importance
from dream_sc._core.response.draws import TAU_POINTS, local_lattices, steps, tau_grid
from dream_sc._core.response.problem import SCREEN_TOL, Problem, evidence, null_evidence

from .evidence import CategoryEvidence, together
from .links import Spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve
    from dream_sc._core.response.learned import Prior

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SIZES: dict[int, tuple[tuple[int, ...], ...]] = {0: ((),), 2: ((9, 7), (10, 7)), 4: ((5, 4, 5, 4),)}
QUICK_SIZES: dict[int, tuple[tuple[int, ...], ...]] = {0: ((),), 2: ((7, 4),), 4: ((4, 3, 4, 3),)}
FINE_TOL = 1e-4  # the joint weights of links rest on the evidence of each
HOPELESS = 300.0  # log evidence below that of no movement where the approximation failed
LARGEST_LAG = 6.0  # log2


class Local(NamedTuple):
    """Links on the local lattice of their features."""

    links: importance.Lattice  # `log_z` with tau's prior, without that of the shapes, amplitudes normalised
    consts: Floats  # (F, 2)
    lag: Floats  # (T,) of each link's EC50, log2, times the Hill coefficient
    null: Floats  # (T,) log evidence of no movement
    log_post: Floats  # (F, S) joint log posterior of the shapes
    size: tuple[int, ...]


def log_mass(p: Problem, c: Curve, shapes: Floats, consts: Floats) -> Floats:
    """Log of the mass of the amplitudes that shapes ``(..., d)`` may have."""
    mass = np.broadcast_to(c.amplitude_mass(shapes, consts, p.axis, p.priors), shapes.shape[:-1])
    return np.asarray(np.log(np.maximum(mass, 1e-300)))


def lagged(shapes: Floats, lag: Floats) -> Floats:
    """Shapes ``(T, S, d)`` of the links, given those of their features."""
    if not lag.any():
        return shapes
    out = shapes.copy()
    out[..., 0] += lag[:, None] * np.exp(-shapes[..., 1])
    return out


def _on_lattice(
    p: Problem,
    c: Curve,
    spans: Spans,
    at: tuple[Floats, Floats, Floats],
    tau: tuple[Floats, Floats],
    lag: Floats,
    prior: Prior,
    size: tuple[int, ...],
    *,
    fine: bool,
    degree: int,
) -> Local:
    """Evidence of the links of some features at shapes of their own."""
    shapes, step, consts = at
    mine = np.repeat(np.arange(len(shapes)), spans.length)
    of_links, by_shape = lagged(shapes[mine], lag), np.repeat(consts[mine][:, None], shapes.shape[1], 1)
    log_z, mode, cov = evidence(
        p, c, of_links, by_shape, tau[0], modes=fine, tol=FINE_TOL if fine else SCREEN_TOL, degree=degree
    )
    log_tau = prior.log_density(tau[0])
    log_z = log_z - log_mass(p, c, of_links, by_shape)[:, :, None] + log_tau[:, None]
    null = logsumexp(null_evidence(p, tau[0])[0] + log_tau, axis=1)
    log_z = np.maximum(log_z, null[:, None, None] - HOPELESS)
    log_prior = importance.log_shape_prior(c, shapes, p.priors) + log_mass(p, c, shapes, consts[:, None])
    joint = together(logsumexp(log_z, axis=2) - null[:, None], spans) + log_prior
    links = importance.Lattice(of_links, step[mine], *tau, log_z, log_z, mode, cov, size)
    return Local(links, consts, lag, null, np.asarray(log_softmax(joint, axis=1)), size)


def _lags(p: Problem, spans: Spans, best: Floats, lag: Floats, tau: Floats, prior: Prior) -> Floats:
    """Lags ``(T,)`` by the modes of one Hill at the likeliest shapes ``(F, 2)``, links by their odds of moving."""
    consts = np.zeros((len(tau), 1, 2))
    mine = np.repeat(np.arange(len(best)), spans.length)
    shapes = lagged(best[mine][:, None], lag)
    log_z, mode, _ = evidence(p, HILL, shapes, consts, tau, modes=True)
    log_bf = log_z[:, 0, 0] - log_mass(p, HILL, shapes, consts)[:, 0] - null_evidence(p, tau)[0][:, 0]
    a, b = mode[:, 0, 0, 0], mode[:, 0, 0, 1]
    low = a + from_ntc_to_low(b, shapes[:, 0, 0], np.exp(shapes[:, 0, 1]))
    ratio = expit(log_bf) * (np.logaddexp(0.0, low + b) - np.logaddexp(0.0, low)) / LN2
    out = np.zeros(len(tau))
    for first, length in zip(spans.start, spans.length, strict=True):
        out[first + 1 : first + length] = ratio[first + 1 : first + length].cumsum()
    return np.clip(out, -LARGEST_LAG, LARGEST_LAG)


def localise(
    e: CategoryEvidence,
    p: Problem,
    m: int,
    features: Ints,
    spans: Spans,
    values: Floats,
    *,
    quick: bool,
    degree: int,
) -> Local:
    """A local lattice over the shapes that a feature's links agree on; `values` ``(T, M, K)`` are of the links."""
    comparison, prior = e.links.comparison, e.prior
    c, grid = comparison.curves[m], comparison.grid
    lattice = comparison.lattices[c.name]
    both = np.logaddexp(values[:, 0], values[:, m]) + prior.log_tau(grid)
    tau = tau_grid(both, grid, TAU_POINTS)
    log_post = e.posterior(m, features)
    consts = lattice.consts[log_post.argmax(1)]
    log_post = np.where((lattice.consts[None] == consts[:, None]).all(-1), log_post, -np.inf)
    shapes = np.repeat(lattice.shapes[None], len(features), 0)
    step = np.repeat(steps(lattice.shapes)[None], len(features), 0)
    stages, lag = (QUICK_SIZES if quick else SIZES)[c.n_shape], np.zeros(len(tau.best))
    for i, size in enumerate(stages):
        if size:
            local = local_lattices(shapes, log_post, step, size)
            if c is HILL and spans.length.max() > 1:
                best = shapes[np.arange(len(features)), log_post.argmax(1)]
                lag = _lags(p, spans, best, lag, tau.best, prior)
            shapes, step = local
        fine = i == len(stages) - 1
        taus = (tau.tau, tau.step) if fine and not quick else (tau.best, np.zeros(len(tau.best)))
        found = _on_lattice(p, c, spans, (shapes, step, consts), taus, lag, prior, size, fine=fine, degree=degree)
        log_post = found.log_post
    return found
