r"""What features that respond say of the dosages: their errors are the same for every feature of a context.

The dosage of a guide is wrong by as much for all features, and an error of the NTC level moves all dosages of a context
together. To each feature alone an error looks like another EC50; over many features it is known. Each feature that
responds gives a normal factor for the errors: curves are drawn from its posterior, given a curve the levels of the
guides are linear in the errors, and mean and covariance of the mixture are kept. The product over features, with the
errors that the cis step says, is what dosages are moved by, and what is left of their errors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.parallel import blocks
from dream_sc._core.response.learned import Prior

from .joint_likelihood import of_guides
from .lattice_draws import lattice_evidence
from .measured import levels_of
from .shapes import NODE_WEIGHTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .evidence import Evidence
    from .measured import Measured
    from .pair_likelihood import Pair
    from .question import Question
    from .shapes import Dosages, Shapes

    Floats = NDArray[np.float64]

MOST_FEATURES, N_PICKED = 100, 48  # features that are asked, and draws of each
AT_ONCE = 32  # features that are asked at once: all of them respond, and draws of all are there
FEWER = 2  # draws, by this factor, than for what a feature is judged by
LEAST_EVIDENCE = 5.0  # log Bayes factor of a response, of features that are asked
MOST_LOOKED = 1000  # features among which these are found
TEMPER = 0.5  # of the features' precision: the errors that it leaves are as large as those of simulated screens
LEAST_ERROR = 0.1  # of what the cis step says: the model is not as right as many features together say
LEAST = 1e-3  # log2, error of a dosage
N_BENDS = 3  # a shift, a stretch, and a square of it
N_TOGETHER = 3  # ways in which errors of many guides go together


@dataclass(frozen=True)
class Picked:
    """Draws of all contexts' curves of one feature, all of the same weight."""

    theta: Floats  # (D, C, 3)
    responds: NDArray[np.bool_]  # (D, C)


def with_learned_dosages(
    measured: Measured, question: Question, learns: NDArray[np.bool_], grid: Floats, rho: float
) -> Measured:
    """The same with dosages as all features together say; as it is where hardly a feature responds.

    Parameters
    ----------
    learns
        ``(T,)`` features that may be asked.
    grid
        ``(K,)`` sds of guide effects, of which a share `rho` of the variance is common to the contexts.
    """
    root, asked = _root(measured.dosages), _asked(measured, np.flatnonzero(learns), grid, rho)
    if len(asked) < 2:
        return measured
    log_tau, n_told = Prior.start(measured.priors).log_tau(grid), 0
    total, pull = np.zeros_like(root), np.zeros(len(root))
    for s in blocks(len(asked), AT_ONCE):
        some = measured.take(asked[s])
        levels = levels_of(some, grid, rho)
        found = question.ask(some.shapes, levels, grid, rho, FEWER)
        for i, row in enumerate(found.rows):
            picked = _picked(found, question, i, log_tau)
            factor = _factor(some.shapes, levels.pair.take([row]), float(levels.start[row]), rho, picked, root)
            total, pull = total + factor[0], pull + factor[1]
        n_told += len(found.rows)
    # without the part that a feature has in what it is judged by, as far as one number for all can say
    share = TEMPER * (1.0 - 1.0 / max(n_told, 1))
    covariance = np.asarray(np.linalg.inv(np.eye(len(root)) + share * total), dtype=np.float64)
    mean, covariance = root @ (covariance @ (share * pull)), root @ covariance @ root.T
    return _moved(measured, *_without_common(measured.dosages, mean, covariance, root @ root.T))


def _without_common(
    dosages: tuple[Dosages, ...], mean: Floats, covariance: Floats, said: Floats
) -> tuple[Floats, Floats]:
    """Mean and covariance of the errors, with what bends the axis of all contexts alike as the cis step says.

    Where the EC50s of many features lie, and how steep they are, would tell that if their priors were right.
    """
    x = np.concatenate([d.at[:, 1] for d in dosages])
    bends = np.vander(x / max(np.abs(x).max(), 1e-12), N_BENDS, increasing=True)
    by = covariance @ bends @ np.linalg.inv(bends.T @ covariance @ bends)
    own = covariance - by @ bends.T @ covariance
    return mean - by @ (bends.T @ mean), own + by @ (bends.T @ said @ bends) @ by.T


def _root(dosages: tuple[Dosages, ...]) -> Floats:
    """Root ``(C G, C G)`` of the covariance of the errors in all contexts, as the cis step says."""
    n = len(dosages[0].error)
    out = np.zeros((len(dosages) * n, len(dosages) * n))
    for c, d in enumerate(dosages):
        own = slice(c * n, (c + 1) * n)
        out[own, own] = np.linalg.cholesky(np.diag(d.error**2 + LEAST**2) + d.level_error**2)
    return out


def _asked(measured: Measured, some: NDArray[np.int64], grid: Floats, rho: float) -> NDArray[np.int64]:
    """Those of some features that clearly respond."""
    some = some[np.unique(np.linspace(0, len(some) - 1, min(len(some), MOST_LOOKED)).astype(int))]
    found = []
    for s in blocks(len(some)):
        tables = levels_of(measured.take(some[s]), grid, rho).tables
        found.append(lattice_evidence(measured.shapes, tables)[:, 1:].max(1))
    clear = np.concatenate(found)
    order = np.argsort(-clear, kind="stable")[:MOST_FEATURES]
    return np.sort(some[order[clear[order] > LEAST_EVIDENCE]])


def _picked(found: Evidence, question: Question, i: int, log_tau: Floats) -> Picked:
    """Draws of one feature's posterior, given a response, over all hypotheses by the weights before learning."""
    theta, responds, weight = [], [], []
    for name, posterior in found.posteriors.items():
        log_w = np.logaddexp.reduce(posterior.log_weight[i] + log_tau, axis=1) - np.log(posterior.log_weight.shape[1])
        weight.append(log_w + np.log(question.drawn[name]))
        theta.append(posterior.theta[i].astype(float))
        each = np.arange(theta[-1].shape[1])
        responds.append(np.tile(each == question.alone.get(name, each), (len(log_w), 1)))
    log_weight = np.concatenate(weight)
    cumulative = np.exp(log_weight - log_weight.max()).cumsum()
    at = np.searchsorted(cumulative, (np.arange(N_PICKED) + 0.5) / N_PICKED * cumulative[-1])
    return Picked(np.concatenate(theta)[at], np.concatenate(responds)[at])


def _factor(shapes: Shapes, pair: Pair, tau: float, rho: float, picked: Picked, root: Floats) -> tuple[Floats, Floats]:
    """Precision and pull of one feature for the errors, in units of `root`."""
    gradient, curvature = _linear(shapes, pair, tau, rho, picked)
    whitened = np.einsum("pi,dpq,qj->dij", root, curvature, root, optimize=True)
    covariance = np.linalg.inv(np.eye(len(root)) + whitened)
    mean = np.einsum("dij,dj->di", covariance, gradient @ root)
    of_all = mean.mean(0)
    away = mean - of_all
    total = covariance.mean(0) + away.T @ away / len(away)
    variance, axes = np.linalg.eigh(total)
    known = variance < 1.0  # else the draws are too few to tell
    precision = np.where(known, 1.0 / variance - 1.0, 0.0)
    pull = np.where(known, (of_all @ axes) / variance, 0.0)
    return (axes * precision) @ axes.T, axes @ pull


def _linear(shapes: Shapes, pair: Pair, tau: float, rho: float, picked: Picked) -> tuple[Floats, Floats]:
    """Slope ``(D, C G)`` and curvature ``(D, C G, C G)`` of the log likelihood of one feature by errors of dosages."""
    n, n_contexts, common = pair.n_targeting, len(pair.dosages), rho * tau**2
    f, v, s = np.empty((3, len(picked.theta), n_contexts, n))
    for c, dosages in enumerate(pair.dosages):
        line = _line(shapes, picked.theta[:, c], dosages)
        f[:, c], v[:, c], s[:, c] = (part * picked.responds[:, c, None] for part in line)
    own = (1 - rho) * tau**2
    _, held, pulled = of_guides(pair.mean[:1, None, :, n:], pair.variance[:1, None, :, n:] + own, None, common)
    # the precision of the levels of a guide is diagonal, less a product
    w = 1.0 / (v + pair.variance[0, :, :n] + own)  # (D, C, G)
    shrunk = common / (1.0 + common * w.sum(1, keepdims=True))
    r = pair.mean[0, :, :n] - f
    y = w * (r - shrunk * (w * r).sum(1, keepdims=True))
    p = np.eye(n_contexts)[:, :, None] * w[:, :, None] - (w * shrunk)[:, :, None] * w[:, None]  # (D, C, C, G)
    inverse = np.linalg.inv(held[0, 0] + pair.level_sd**-2.0 * np.eye(n_contexts) + p.sum(-1))  # of the levels
    level = np.einsum("dce,de->dc", inverse, pulled[0, 0] + y.sum(-1))
    ps = p * s[:, :, None]  # (D, C, C, G)
    gradient = s * y - np.einsum("dceg,de->dcg", ps, level)
    flat = np.swapaxes(ps, 2, 3).reshape(len(s), n_contexts * n, n_contexts)  # by the levels
    curvature = -flat @ inverse @ np.swapaxes(flat, 1, 2)
    each, by = np.arange(n), ps * s[:, None]
    for c in range(n_contexts):
        for e in range(n_contexts):
            curvature[:, c * n + each, e * n + each] += by[:, c, e]
    return gradient.reshape(len(s), -1), curvature


def _line(shapes: Shapes, theta: Floats, dosages: Dosages) -> tuple[Floats, Floats, Floats]:
    """The line ``(D, G)`` that is nearest to curves over the errors: value, variance about it, and slope."""
    sd = np.sqrt(dosages.error**2 + dosages.level_error**2 + LEAST**2)
    apart = np.sqrt(3.0) * sd[:, None]
    low, middle, high = (shapes.curve(theta, dosages.moved(by))[0] for by in (-apart, 0.0, apart))
    mean = NODE_WEIGHTS[1] * middle + NODE_WEIGHTS[0] * (low + high)
    slope = (high - low) / (2.0 * apart[:, 0])
    variance = NODE_WEIGHTS[1] * (middle - mean) ** 2 + NODE_WEIGHTS[0] * ((low - mean) ** 2 + (high - mean) ** 2)
    return mean, np.maximum(variance - (slope * sd) ** 2, 0.0), slope


def _moved(measured: Measured, mean: Floats, covariance: Floats) -> Measured:
    """With dosages moved by `mean` ``(C G,)``, and errors of this covariance: what goes together, and each guide's own.

    What goes together are the first `N_TOGETHER` principal components: a shift of the axis, or its length.
    """
    n = len(mean) // len(measured.dosages)
    variance, axes = np.linalg.eigh(covariance)
    first = axes[:, -N_TOGETHER:] * np.sqrt(np.maximum(variance[-N_TOGETHER:], 0.0))
    rest = np.diag(covariance) - (first**2).sum(1)
    dosages = []
    for c, d in enumerate(measured.dosages):
        own = slice(c * n, (c + 1) * n)
        error = np.sqrt(np.maximum(rest[own], (LEAST_ERROR * d.error) ** 2))
        dosages.append(replace(d.moved(mean[own, None]), error=error))
    return measured.with_dosages(tuple(dosages), first.T.reshape(-1, len(dosages), n))
