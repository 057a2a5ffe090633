"""Counts out of a number of trials, such as reads that include an exon; the predictor is the log odds.

Cells differ by more than chance (intra-cell correlation `rho`): the variance of a row's sum is that of the binomial
times ``1 + rho sum n (n - 1) / sum n``. Both sums are divided by it, which keeps the mean and gives the right variance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from dream_sc._core.compiled import Vector, part

from ._base import Likelihood, Words, by_guide
from ._compiled import out_of_a_total

if TYPE_CHECKING:
    from ._base import Floats, Rows


def torch_log_density(y: Any, log_odds: Any, n: Any, variance: Any) -> Any:
    """Log of the density without the terms that do not depend on the log odds, on tensors."""
    from torch.nn.functional import softplus

    return y * log_odds - n * softplus(log_odds)


def effective(y: Floats, n: Floats, pairs: Floats, rho: Floats) -> tuple[Floats, Floats]:
    """Sums ``(T, R)`` of counts and of trials, divided by what overdispersion adds to their variance.

    `pairs` are the sums ``(T, R)`` of ``n (n - 1)`` over cells, `rho` ``(T,)`` the correlation of reads of one cell.
    """
    factor = 1.0 + rho[:, None] * pairs / np.maximum(n, 1.0)
    return y / factor, n / factor


@part
def prepare(y: Vector, weights: Vector, overdispersion: float, scale2: Vector, total: Vector, shift: Vector) -> None:
    """Totals are the trials."""
    for r in range(y.size):
        total[r], shift[r] = weights[r], 0.0


def level(counts: Floats, weights: Floats, log_w: Floats) -> Floats:
    """Log odds of all rows together."""
    return np.asarray(np.log((counts.sum(1) + 0.5) / ((weights - counts).sum(1) + 0.5)))


def contrasts(rows: Rows, predictor: Floats, curve: Floats) -> tuple[Floats, Floats, Floats]:
    """Differences of log odds, groups made equal in the sum."""
    moved = predictor + curve
    for c in range(1, int(rows.group.max()) + 1):
        mine = rows.group == c
        n, y = rows.weights[:, mine].sum(1), rows.counts[:, mine].sum(1)
        shift = _log_odds(y, n) - _log_odds((rows.weights[:, mine] * expit(moved[:, mine])).sum(1), n)
        moved[:, mine] += shift[:, None]
    at_ntc = moved - curve
    n = by_guide(rows.weights, rows)
    y, mean, fit = (by_guide(m, rows) for m in (rows.counts, rows.weights * expit(at_ntc), rows.weights * expit(moved)))
    variance = 1.0 / (fit + 0.5) + 1.0 / (n - fit + 0.5)
    empty = n <= 0
    observed = np.where(empty, 0.0, _log_odds(y, n) - _log_odds(mean, n))
    return observed, np.where(empty, 1e6, variance), np.where(empty, 0.0, _log_odds(fit, n) - _log_odds(mean, n))


def _log_odds(y: Floats, n: Floats) -> Floats:
    return np.asarray(np.log((y + 0.5) / (n - y + 0.5)))


def simulate(rng: np.random.Generator, rows: Rows, predictor: Floats) -> tuple[Floats, Floats]:
    """Counts of whole numbers of trials, those of the rows rounded up or down at random."""
    n = np.floor(rows.weights + rng.random(rows.weights.shape))
    return rng.binomial(n.astype(np.int64), expit(predictor)).astype(float), n


def half(low: Any, high: Any) -> Any:
    """Log odds of the part of a step of the odds at which half of it is done in the proportion."""
    return np.logaddexp(0.0, low) - np.logaddexp(0.0, high)


def ec50_of_share(log2_ec50: Any, n: Any, low: Any, high: Any) -> Any:
    """EC50 on the scale of the proportion, of a Hill of the odds between two log odds.

    A Hill of the odds is a Hill of the proportion, with the same coefficient, at another dosage.
    """
    return log2_ec50 + half(low, high) / (n * np.log(2.0))


WORDS = Words(
    level="share in control cells",
    noise=r"overdispersion $\rho$ ± sd" "\n" r"(variance $n p (1 - p) (1 + (n - 1) \rho)$)",
    effect="effect of {} ± sd (logit)",
    observed="PSI (share of reads)",
)
LIKELIHOOD = Likelihood(
    name="binomial",
    effect="delta_p",
    unit=1.0,
    effect_unit=1.0,
    level=level,
    expected=expit,
    change=lambda x, ntc: expit(x) - expit(ntc),
    contrasts=contrasts,
    simulate=simulate,
    statistics="shares",
    noise="overdispersion",
    technical_unit="logit",
    technical_step="technical_shares",
    words=WORDS,
    denominator=True,
    kernels=out_of_a_total(prepare),
    torch_log_density=torch_log_density,
    half=half,
    linear=False,
)
