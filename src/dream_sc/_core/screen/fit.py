"""The trans step of one target of a library, given what all targets share.

All features have a first pass. Those that it leaves a response possible have the evidence of the kernel, as in a fit of
one target, and those that rather respond are described by draws. Of the others the first pass is all that is said.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import chi2

from dream_sc._core.parallel import each_block
from dream_sc._core.priors import TransPriors
from dream_sc._core.response import all_features, targeting_noise
from dream_sc._core.response.comparison import candidates, compare
from dream_sc._core.response.decision import (
    Decision,
    conclude,
    log_bayes_factor,
    marginals,
    null_distribution,
)
from dream_sc._core.response.departures import learn_departures
from dream_sc._core.response.describe import calls_of, of_draws
from dream_sc._core.response.direction import CALLED, with_direction
from dream_sc._core.response.evidence import Evidence, block_evidence, problem_of
from dream_sc._core.response.graded import Graded
from dream_sc._core.response.guide_contrasts import log_ratios, slope_over
from dream_sc._core.response.inert_guides import Acting, learn_acting
from dream_sc._core.response.joint_departures import pairs_of
from dream_sc._core.response.learned import learn
from dream_sc._core.response.null_scale import strength
from dream_sc._core.response.prepare import Prepared
from dream_sc._core.response.problem import problem
from dream_sc._core.response.rows import Guides
from dream_sc._core.response.wide_effects import with_wide
from dream_sc._core.types import GuideStats, RowDosage

from . import first_pass_columns, null_draws
from .first_pass import log_factors
from .first_pass_columns import Contrasts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dream_sc._core.response.comparison import Comparison
    from dream_sc._core.response.learned import Departures, Prior, Wide
    from dream_sc._core.response.problem import Problem
    from dream_sc._core.response.settings import Settings

    from .controls import Controls
    from .null_draws import Classes, NullDraws

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# log Bayes factor after the first pass, or posterior odds: below, a pair is left there
NO_HOPE, NO_ODDS = 0.5, -1.5
NEAR = 0.5  # lfdr of what is described
AWAY, NOT_AWAY = 3.0, 1.0  # distances of guides from the level, in sds
# median distance of guides from a line over the usual one, and its errors above, for all to be noisy; 1.08 to 1.35
# where they are as NTC guides are, since the prior of guide effects is a little narrow where few cells tell it
NOISIER, ERRORS = 1.2, 3.0
ALONE = 0.01  # share of features in which a guide is away alone, above which its departures are learned


class TargetEvidence(NamedTuple):
    """Evidence of `T` features."""

    marginal: Floats  # (T, M) log evidence of each curve over that of the null
    rows: Ints  # of the features that the kernel saw
    seen: Evidence | None  # of these


def joined(stats: GuideStats, controls: Controls) -> GuideStats:
    """The rows of a target's guides and those of the controls, as one guide more."""
    own, more = stats, controls.stats
    return GuideStats(
        counts=np.concatenate([own.counts, more.counts], 1),
        exposure=np.append(own.exposure, more.exposure),
        exposure2=np.append(own.exposure2, more.exposure2),
        guide=np.append(own.guide, np.full(len(more.guide), own.n_guides)),
        group=np.append(own.group, more.group),
        n_guides=own.n_guides + 1,
        n_groups=max(own.n_groups, more.n_groups),
    )


def dosage_of(guides: Guides, guide: Ints) -> RowDosage:
    """Guides of rows of these guides."""
    return RowDosage(
        guides.mean[guide], guides.spread[guide], guides.sd, guides.control, guides.level_error, guides.escape[guide]
    )


def acting_guides(prepared: Prepared, controls: Controls) -> Acting | None:
    """Which guides of a target act, where all that act share one level; None where it cannot be told."""
    p, learns = _problem(prepared, controls.take(prepared.used)), prepared.learns
    return learn_acting(p if learns is None else p.take(learns), prepared.stats.n_guides)


def fit(
    prepared: Prepared,
    controls: Controls,
    classes: Classes,
    settings: Settings,
    *,
    tell: Callable[[Departures], None] = lambda _: None,
) -> dict[str, Any]:
    """Columns ``(F,)`` of the table of one target.

    Parameters
    ----------
    prepared
        Sums of the target's guides and, as one guide more, of the controls.
    controls
        Of all features.
    classes
        Null draws, which are made here where they are lacking.
    tell
        Is given the departures of guides from the curves, where there are some.
    """
    mine, learns = controls.take(prepared.used), prepared.learns
    p, wide = _problem(prepared, mine), mine.prior.wide
    design = _design(p, mine, wide, settings)
    if settings.guide_effects and (_one_departs(design) or _all_noisier(design)):
        found = learn_departures(p if learns is None else p.take(learns), settings, wide, len(p.targeting))
        if found is not None and found.own.any():
            tell(found)
            design = _design(p, mine, wide._replace(departures=found), settings)
    so_far = design.first_evidence()
    prior = _prior(so_far, learns, mine.prior)
    more = log_bayes_factor(so_far.marginal, prior) + prior.log_odds > NO_ODDS
    more[so_far.rows] = False
    if more.any():
        so_far = design.closely(so_far, np.flatnonzero(more))
        prior = _prior(so_far, learns, mine.prior)
    null = _null_of(design, prepared, controls, classes)
    force = strength(log_bayes_factor(so_far.marginal, prior), design.movement_sd(), p.priors)
    of_null = strength(log_bayes_factor(null.marginal, prior), null.sd, p.priors)
    empty = replace(design.evidence(np.zeros(0, dtype=np.int64)), learns=learns)
    d = conclude(empty, prior, null_distribution(of_null), so_far.marginal, force)
    return _columns(d, so_far, design, prepared)


def _one_departs(design: Design) -> bool:
    """Whether a guide is away from the level, and most others are not, in more features than guides in general."""
    guides, p = design.contrasts(), design.problem
    z = np.abs(guides.ratio / np.sqrt(guides.variance))[p.mean >= np.median(p.mean)][:, guides.targeting]
    if z.shape[1] < 2 or not len(z):
        return False
    alone = [((z[:, g] > AWAY) & (np.median(np.delete(z, g, 1), axis=1) < NOT_AWAY)).mean() for g in range(z.shape[1])]
    return bool(max(alone) > ALONE + design.wide.weight / 2)


def _all_noisier(design: Design) -> bool:
    """Whether guides differ from a line over the dosage by more than NTC guides do, in features in general.

    A line, since features that respond differ from one level by themselves; where many do, so does the median.
    """
    guides, p, controls = design.contrasts(), design.problem, design.controls
    some, dosage = p.mean >= np.median(p.mean), guides.dosage
    more = (controls.tau2 - controls.tau**2)[some, None] / np.where(p.targeting, 1.0, controls.n_guides)
    ratio, variance = guides.ratio[some], guides.variance[some] + more
    n, free = len(ratio), len(dosage) - 1 - int(np.ptp(dosage) > 0)
    if free < 1 or not n:
        return False
    rest = ratio - slope_over(dosage, ratio, variance)[0][:, None] * dosage
    level = (rest / variance).sum(1) / (1.0 / variance).sum(1)
    usual = chi2.median(free)
    share = np.median(((rest - level[:, None]) ** 2 / variance).sum(1)) / usual
    error = 0.5 / (usual * chi2.pdf(usual, free) * np.sqrt(n))
    return bool(share > NOISIER + ERRORS * error)


class Design(NamedTuple):
    """The problem of `T` features, the curves that compete, and what the controls say."""

    problem: Problem
    comparison: Comparison
    controls: Controls
    wide: Wide
    settings: Settings

    def evidence(self, rows: Ints) -> Evidence:
        """That of some features by the kernel."""
        p, c = self.problem.take(rows), self.comparison
        parts = each_block(lambda s: block_evidence(p.take(s), c, prior=self.controls.prior), len(rows))
        if not parts:
            return Evidence(p, c, self.settings, self.wide, np.zeros((0, len(c.curves), len(c.grid))), ())
        values, masses = zip(*parts, strict=True)
        of_curves = tuple(np.concatenate(mass) for mass in zip(*masses, strict=True))
        return Evidence(p, c, self.settings, self.wide, np.concatenate(values), of_curves)

    def first_evidence(self) -> TargetEvidence:
        """The first pass, and the kernel where it leaves a response possible."""
        factors = log_factors(self.problem, self.comparison.columns or {}, self.controls.tau)
        marginal = np.concatenate([np.zeros((len(factors), 1)), factors], 1)
        nothing = TargetEvidence(marginal, np.zeros(0, dtype=np.int64), None)
        return self.closely(nothing, np.flatnonzero(factors.max(1) > NO_HOPE))

    def closely(self, so_far: TargetEvidence, rows: Ints) -> TargetEvidence:
        """The same with the evidence of the kernel for some features more."""
        if not len(rows):
            return so_far
        found, marginal, every = self.evidence(rows), so_far.marginal.copy(), np.append(so_far.rows, rows)
        by_model = marginals(found.values, self.comparison.grid, self.controls.prior)
        marginal[rows] = by_model - by_model[:, :1]
        seen = found if so_far.seen is None else _both(so_far.seen, found, self.problem.take(every))
        return TargetEvidence(marginal, every, seen)

    def contrasts(self) -> Contrasts:
        """Distances of the guides from the level that controls tell; the controls have the variance of their mean."""
        curve, controls = self.comparison.curves[-1], self.controls
        p, tau = self.problem.seen_by(curve), controls.tau
        level = controls.background.at(tau[:, None]).mode[:, 0, 0]
        ratio, variance, dosage, _ = log_ratios(p, level, np.zeros((len(level), len(p.dose_mean))))
        variance = variance + tau[:, None] ** 2 / np.where(p.targeting, 1.0, controls.n_guides)
        if self.wide.departures is not None and _are_noisy(self.wide):
            found, codes = self.wide.departures, np.asarray(p.codes)
            variance = variance + np.where(p.targeting, found.weight[codes] * found.sd[codes] ** 2, 0.0)
        return Contrasts(ratio, variance, dosage, p.targeting, p.axis, curve.by_acting, level)

    def movement_sd(self) -> Floats:
        """How well the movement ``(T,)`` over the observed dosages is known, natural log."""
        guides = self.contrasts()
        return np.asarray((guides.axis.high - guides.axis.low) * guides.line[1])


def _both(one: Evidence, other: Evidence, p: Problem) -> Evidence:
    """The evidence of the features of both, which `p` is of."""
    masses = tuple(np.concatenate(mass) for mass in zip(one.masses, other.masses, strict=True))
    return replace(one, problem=p, values=np.concatenate([one.values, other.values]), masses=masses)


def _problem(prepared: Prepared, controls: Controls) -> Problem:
    """The problem of the features that are fitted, with the NTC guides summed up."""
    return replace(problem_of(prepared), background=controls.background)


def _design(p: Problem, controls: Controls, wide: Wide, settings: Settings) -> Design:
    """The problem with what depends on settings and guide effects, and the curves that compete."""
    curves = candidates(settings.function_type, p.axis, one_level=p.one_level)
    p = with_wide(replace(p, several=len(curves) > 2, tau_weight=controls.tau_weight), *wide)
    c = replace(compare(p, curves, controls.grid, settings.degree), pairs=pairs_of(p, wide))
    return Design(p, c, controls, wide, settings)


def _prior(so_far: TargetEvidence, learns: NDArray[np.bool_] | None, known: Prior) -> Prior:
    """The prior of the models, learned over the features of the target; that of the guide effects is known."""
    some = so_far.marginal if learns is None else so_far.marginal[learns]
    found = learn(some[:, :, None], np.ones(1), TransPriors(), wide=known.wide)
    return replace(known, weights=found.weights)


def _null_of(design: Design, prepared: Prepared, controls: Controls, classes: Classes) -> NullDraws:
    """Null draws of the class of a design, or of the design itself where those of its class compare other curves."""
    curves, own = tuple(c.name for c in design.comparison.curves), _guides(prepared)
    if _are_noisy(design.wide):
        found = _null_design(own, prepared, controls, classes, design)
        return null_draws.NullDraws(found.first_evidence().marginal, found.movement_sd())
    usual = null_draws.guides_like(own.mean[:-1])
    for guides in (usual, own):
        key = (curves, tuple(guides.mean[:-1].tolist()))
        if key not in classes.found:
            found = _null_design(guides, prepared, controls, classes, design)
            if guides is usual and tuple(c.name for c in found.comparison.curves) != curves:
                continue
            classes.found[key] = null_draws.NullDraws(found.first_evidence().marginal, found.movement_sd())
        return classes.found[key]
    raise AssertionError("a design compares the curves that it compares")


def _guides(prepared: Prepared) -> Guides:
    """The guides of a target, and the controls as one guide at last."""
    d, (_, first) = prepared.dosage, np.unique(prepared.stats.guide, return_index=True)
    escape = np.broadcast_to(d.escape, d.mean.shape)[first]
    control = np.asarray(d.control)
    return Guides(d.mean[first], d.error, d.spread[first], escape, control, level_error=d.level_error)


def _are_noisy(wide: Wide) -> bool:
    """Whether the guides move every feature: null features do so as well."""
    found = wide.departures
    return found is not None and bool((found.own & (found.weight >= targeting_noise.WEIGHT)).any())


def _null_design(guides: Guides, prepared: Prepared, controls: Controls, classes: Classes, design: Design) -> Design:
    """The design of simulated features without a response, of guides as noisy as those of a `design`."""
    which, rows, n = null_draws.picked(controls, classes.seed), classes.rows, len(guides.mean) - 1
    mine, n_r = controls.take(which), len(rows.exposure)
    stats = GuideStats(
        np.zeros((len(which), n * n_r)),
        np.tile(rows.exposure, n),
        np.tile(rows.exposure2, n),
        np.repeat(np.arange(n), n_r),
        np.tile(rows.group, n),
        n,
        prepared.stats.n_groups,
    )
    every = joined(stats, mine)
    p = problem(
        every,
        dosage_of(guides, every.guide),
        mine.overdispersion,
        group_effect_sd=prepared.group_effect_sd,
        axis=guides.axis(every.guide),
        priors=prepared.priors,
    )
    wide = design.wide if _are_noisy(design.wide) else mine.prior.wide
    p = null_draws.simulated(replace(p, background=mine.background), mine, classes.seed, wide)
    return _design(p, mine, wide, design.settings)


def _columns(d: Decision, so_far: TargetEvidence, design: Design, prepared: Prepared) -> dict[str, Any]:
    """Columns ``(F,)``: of draws where a feature rather responds, of the first pass elsewhere."""
    out = first_pass_columns.columns(d, prepared, design.contrasts())
    place = np.full(len(d.lfdr), -1)
    place[so_far.rows] = np.arange(len(so_far.rows))
    which = np.flatnonzero(((d.lfdr < NEAR) | (d.q_value < CALLED)) & (place >= 0))
    if not len(which) or so_far.seen is None:
        return out
    described = np.zeros(len(place), dtype=bool)
    described[which] = True
    asked = all_features.spread(prepared.fitted, described.astype(float)) == 1.0
    some = _some(d, which, so_far.seen.take(place[which]))
    found = of_draws(some, None, progress=lambda x: x, kept=None, coarse=True)
    columns = with_direction(found.columns | calls_of(some), prepared.likelihood.effect)
    mine = all_features.columns(prepared, asked, columns, found.flags)
    return {name: np.where(asked, mine.get(name, values), values) for name, values in out.items()}


def _some(d: Decision, which: Ints, evidence: Evidence) -> Decision:
    """The decision of some features, which have this evidence."""
    per_feature = ("log_bf", "lfdr", "q_value", "p_value", "q_graded", "best", "model")
    some = {name: getattr(d, name)[which] for name in per_feature}
    return replace(d, evidence=evidence, graded=Graded(d.graded.log_bf[which], d.graded.lfdr[which]), **some)
