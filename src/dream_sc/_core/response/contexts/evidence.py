"""Evidence of every hypothesis for every feature: the likelihood of both contexts summed over draws of their curves.

Sums over the lattice are enough for features that respond in neither context.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from dream_sc._core.parallel import blocks

from .free_curves import IN_CACHE, put_together
from .hypotheses import ALONE, DIFFERS, HYPOTHESES, OWN_AMPLITUDE, OWN_EC50, SAME, START
from .lattice_draws import lattice_evidence
from .pair_likelihood import Curves, log_likelihood
from .proposals import draw
from .question import Question

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .hypotheses import Sharing
    from .measured import Levels
    from .pair_likelihood import Pair
    from .shapes import Shapes

    Floats = NDArray[np.float64]

N_EQUAL, N_DRAWS, N_FREE = 512, 256, 256  # powers of 2; all that differs is compared with equal curves
NO_HOPE = 0.5  # log Bayes factor of the lattice, of the best hypothesis
SEEDS = {"equal": 1, "amplitude": 2, "dosage": 3, "first": 4, "second": 5, "free": 6}
FIRST, SECOND = "first", "second"  # of the two contexts alone


@dataclass(frozen=True)
class Posterior:
    """Weighted draws of both contexts' curves under one hypothesis."""

    theta: NDArray[np.float32]  # (T, D, 2, 3); the curve of a context without response has no meaning
    log_weight: NDArray[
        np.float32
    ]  # (T, D, K) log of likelihood times prior over the density of the draw, at every tau


@dataclass(frozen=True)
class Evidence:
    """Log evidence of the hypotheses, and what was drawn."""

    values: Floats  # (T, H, K)
    rows: NDArray[np.int64]  # (T',) features that were looked at closely
    posteriors: dict[str, Posterior]  # of these, by hypothesis; "first" and "second" for a response in one only


def evidence(
    shapes: Shapes, pair: Pair, taus: Floats, rho: float, tables: Floats, start: Floats, fewer: int = 1
) -> Evidence:
    """Log evidence of all hypotheses.

    Parameters
    ----------
    taus
        ``(K,)`` sds of the guide effects, of which a share `rho` of the variance is common to the contexts.
    tables
        ``(T, 2, K, N, B)`` log likelihood of each context on the lattice.
    start
        ``(T,)`` the sd about which to look for curves.
    fewer
        A power of 2: draws are as many times fewer.
    """
    null = log_likelihood(pair, Curves.flat(len(pair.mean), pair.n_targeting), taus, rho)
    by_lattice = lattice_evidence(shapes, tables)
    values = null + by_lattice[:, :, None]
    rows = np.flatnonzero(by_lattice.max(1) > NO_HOPE)
    if not len(rows):
        return Evidence(values, rows, {})
    found = _posteriors(shapes, pair.take(rows), taus, rho, start[rows], tables[rows], fewer)
    for i, name in enumerate(HYPOTHESES):
        if name in found:
            values[rows, i] = total(found[name])
    values[rows, 5] = np.logaddexp(total(found[FIRST]), total(found[SECOND])) - np.log(2.0)
    return Evidence(values, rows, found)


def _posteriors(
    shapes: Shapes, pair: Pair, taus: Floats, rho: float, start: Floats, tables: Floats, fewer: int
) -> dict[str, Posterior]:
    """Weighted draws under every hypothesis with a response."""

    def drawn(name: str, sharing: Sharing, n: int) -> tuple[Floats, Floats]:
        n = n // fewer
        one = draw(shapes, pair, start, tables, sharing, n=n, seed=SEEDS[name])
        layout = np.where(sharing.layout >= 0, sharing.layout, 0)
        # in an order of their own: draws of two contexts are paired by their place
        order = np.random.default_rng(SEEDS[name]).permutation(n)
        return one.phi[:, order][:, :, layout], one.log_weight[:, order]

    def weighed(theta: Floats, log_weight: Floats, responds: Sequence[int] = (0, 1)) -> Posterior:
        found = []
        for s in blocks(len(theta), IN_CACHE):
            curves = np.zeros((3, *theta[s].shape[:3], pair.n_targeting))
            for c in responds:
                curves[:, :, :, c] = shapes.with_errors(theta[s, :, c], pair.dosages[c])
            found.append(log_likelihood(pair.take(s), Curves(*curves), taus, rho))
        total = np.concatenate(found) + log_weight[..., None]
        return Posterior(theta.astype(np.float32), total.astype(np.float32))

    shared = {"equal": SAME, "amplitude": OWN_AMPLITUDE, "dosage": OWN_EC50}
    n_draws = {name: N_EQUAL if name == "equal" else N_DRAWS for name in shared}
    found = {name: weighed(*drawn(name, sharing, n_draws[name])) for name, sharing in shared.items()}
    alone = [drawn(name, sharing, N_FREE) for name, sharing in zip((FIRST, SECOND), ALONE, strict=True)]
    for c, name in enumerate((FIRST, SECOND)):
        found[name] = weighed(*alone[c], (c,))
    each = [(theta[:, :, c], log_weight) for c, (theta, log_weight) in enumerate(alone)]
    theta, log_weight = put_together(shapes, pair, taus, rho, start, each, seed=SEEDS["free"])
    return found | {"free": Posterior(theta.astype(np.float32), log_weight.astype(np.float32))}


def total(posterior: Posterior) -> Floats:
    """Log evidence ``(T, K)``."""
    return np.asarray(logsumexp(posterior.log_weight.astype(float), axis=1) - np.log(posterior.log_weight.shape[1]))


def _ask(shapes: Shapes, levels: Levels, taus: Floats, rho: float, fewer: int = 1) -> Evidence:
    return evidence(shapes, levels.pair, taus, rho, levels.tables, levels.start, fewer)


_OF_START = dict(zip(HYPOTHESES, START.tolist(), strict=True))
DIFFERENCE = Question(
    HYPOTHESES,
    START,
    DIFFERS,
    np.array([-0.5, 0.5]),
    _ask,
    {name: _OF_START[name] for name in ("equal", "amplitude", "dosage", "free")}
    | dict.fromkeys((FIRST, SECOND), _OF_START["only"] / 2),
    {FIRST: 0, SECOND: 1},
)
