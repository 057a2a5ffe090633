"""Negative binomial counts: ``Var = m + o^2 m^2``, total count ``phi = 1 / o^2``; the predictor is the log mean."""

from __future__ import annotations

from math import exp, lgamma, log, log1p
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.compiled import Vector, inline, part

from ._base import LN2, Likelihood, Words, by_guide
from ._compiled import out_of_a_total

if TYPE_CHECKING:
    from ._base import Floats, Rows


@inline
def log_density(y: float, log_mean: float, phi: float) -> float:
    """Log of the density without the terms that do not depend on the mean (see `log_normaliser`)."""
    return y * (log_mean - log(phi)) - (y + phi) * log1p(exp(log_mean) / phi)


@inline
def log_normaliser(y: float, phi: float) -> float:
    """The terms that do not depend on the mean."""
    return lgamma(y + phi) - lgamma(phi) - lgamma(y + 1.0)


def torch_log_density(y, log_mean, weights, variance):  # type: ignore[no-untyped-def]
    """`log_density` on tensors, for the Pyro models; `variance` is ``1 / phi`` but for what units within guides add."""
    from torch.nn.functional import softplus

    variance = variance if weights is None else variance + weights
    x = log_mean + variance.log()
    return y * x - (y + 1.0 / variance) * softplus(x)


@part
def prepare(y: Vector, weights: Vector, overdispersion: float, scale2: Vector, total: Vector, shift: Vector) -> None:
    """Totals are ``y + phi``, and ``log phi`` is taken off the log mean.

    Weights, where there are any, are the squared overdispersions that units within guides add.
    """
    for r in range(y.size):
        variance = overdispersion**2 * scale2[r]
        if weights.size:
            variance += weights[r]
        phi = 1.0 / variance
        total[r], shift[r] = y[r] + phi, log(phi)


def level(counts: Floats, weights: Floats, log_w: Floats) -> Floats:
    """Log of the mean count at size factor 1."""
    return np.asarray(np.log((counts.sum(1) + 0.5) / np.exp(log_w).sum()))


def contrasts(rows: Rows, predictor: Floats, curve: Floats) -> tuple[Floats, Floats, Floats]:
    """Log ratios of observed to expected counts, groups made equal in the sum."""
    expected = np.exp(predictor)
    fitted = expected * np.exp(curve)
    for c in range(1, int(rows.group.max()) + 1):
        mine = rows.group == c
        factor = (rows.counts[:, mine].sum(1) + 0.5) / (fitted[:, mine].sum(1) + 0.5)
        expected[:, mine] *= factor[:, None]
        fitted[:, mine] *= factor[:, None]
    total, mean, fit = (by_guide(m, rows) for m in (rows.counts, expected, fitted))
    extra = by_guide(fitted**2 * rows.scale2, rows) * (rows.overdispersion[:, None] / fit) ** 2
    if rows.weights.size:
        extra += by_guide(fitted**2 * rows.weights, rows) / fit**2
    return np.log((total + 0.5) / (mean + 0.5)), 1.0 / (fit + 0.5) + extra, np.log(fit / mean)


def simulate(rng: np.random.Generator, rows: Rows, predictor: Floats) -> tuple[Floats, Floats]:
    """Sums of counts."""
    variance = rows.overdispersion[:, None] ** 2 * rows.scale2[None]
    phi = 1.0 / (variance + rows.weights if rows.weights.size else variance)
    return rng.poisson(rng.gamma(phi, np.exp(predictor) / phi)).astype(float), rows.weights


WORDS = Words(
    level="mean count of control cells at size factor 1",
    noise="overdispersion $o$ ± sd\n(variance $m + o^2 m^2$)",
    effect=r"$\log_2$ effect of {} ± sd",
    observed="count per cell at size factor 1",
)
LIKELIHOOD = Likelihood(
    name="negbinom",
    effect="log2fc",
    unit=1.0,
    effect_unit=LN2,
    level=level,
    expected=np.exp,
    change=lambda x, ntc: (x - ntc) / LN2,
    contrasts=contrasts,
    simulate=simulate,
    statistics="counts",
    noise="overdispersion",
    technical_unit="log2",
    technical_step="technical",
    words=WORDS,
    kernels=out_of_a_total(prepare),
    torch_log_density=torch_log_density,
)
