"""From the evidence of links to calls of features with several categories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.parallel import under
from dream_sc._core.response import decision as calls
from dream_sc._core.response import null_scale
from dream_sc._core.response.evidence import evaluate
from dream_sc._core.response.learned import learn
from dream_sc._core.response.simulated_nulls import by_content, simulated_alike

from .evidence import CategoryEvidence, joined_evidence
from .links import Spans

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.parallel import Kept
    from dream_sc._core.response.evidence import Evidence

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """Which of `F` features with several categories respond."""

    evidence: CategoryEvidence
    calls: calls.Decision  # of the features; its evidence is that of the links


def decide(evidence: Evidence, *, progress: Callable[[Any], Any] = lambda x: x, kept: Kept | None = None) -> Decision:
    """Learn the prior and the null distribution, or take them from an earlier fit, and say which features respond."""
    e, spans = evidence, Spans.of(np.asarray(evidence.feature))
    if e.settings.learned is None:
        of_links = learn(e.values, e.comparison.grid, e.problem.priors, wide=e.wide)
        joined = joined_evidence(e, spans, replace(of_links, weights=np.ones(1)))
        null = _null_of(joined, progress=progress, kept=under(kept, "simulated"))
    else:
        prior, null = calls.known(e)
        joined = joined_evidence(e, spans, prior)
    return Decision(joined, calls.conclude(e, joined.prior, null, joined.marginal, strength(joined)))


def strength(e: CategoryEvidence) -> Floats:
    """Strength ``(F,)`` of the evidence, which null features are compared by."""
    links, n = e.links, e.links.values.shape[1]
    even = replace(e.prior, weights=np.append(0.5, np.full(n - 1, 0.5 / (n - 1))))
    p = links.problem.seen_by(links.comparison.curves[-1])  # a switch that is alone moves with no dosage
    sd = null_scale.movement_sd(p, links.values, links.comparison.grid, even)
    known = 1.0 / np.sqrt(e.spans.sum(1.0 / sd**2))
    return null_scale.strength(calls.log_bayes_factor(e.marginal, e.prior), known, links.problem.priors)


def _null_of(e: CategoryEvidence, *, progress: Callable[[Any], Any], kept: Kept | None) -> calls.NullDistribution:
    """Of the strength of features simulated without response, alike the likely null ones, with all their links."""
    links, prior = e.links, e.prior
    rng = np.random.default_rng(links.settings.seed)
    lfdr = calls.local_fdr(calls.log_bayes_factor(e.marginal, prior), prior)
    likely = np.flatnonzero(lfdr >= min(0.5, np.quantile(lfdr, 0.9)))
    likely = likely[by_content(e.spans.sum(links.problem.counts)[likely])]
    mine, spans = e.spans.links(np.resize(rng.permutation(likely), calls.N_NULL))
    sim = simulated_alike(links.problem, mine, links.values[mine, 0], links.comparison.grid, prior, rng)
    found = evaluate(sim, links.settings, prior.wide, progress=progress, kept=kept)
    return calls.null_distribution(strength(joined_evidence(found, spans, prior)))
