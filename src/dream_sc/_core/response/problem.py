"""The trans step by nested Laplace: evidence of each curve at given shapes and guide sds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.curves import NULL, chosen, place
from dream_sc._core.dosage.nodes import dosage_nodes, two_parts
from dream_sc._core.dosage.resolution import told_apart
from dream_sc._core.laplace import modes as kernel
from dream_sc._core.laplace.layout import Anchors, Design
from dream_sc._core.likelihoods import Likelihood, Rows, likelihood
from dream_sc._core.likelihoods import chosen as likelihoods
from dream_sc._core.likelihoods import place as place_of
from dream_sc._core.types import Axis

from . import guide_sets, ntc_guides
from .rows import alike

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.covariates import CovariateEffects
    from dream_sc._core.curves import Curve
    from dream_sc._core.priors import TransPriors
    from dream_sc._core.types import GuideStats, RowDosage

    Floats = NDArray[np.float64]

SCREEN_TOL = 0.05
BACKGROUND_TOL = 1e-3
MANY_NTC, MORE_NTC = 50, 2
ACTING = Axis(0.0, 1.0, np.ones(1))  # of a curve that knows only whether a guide acts


@dataclass(frozen=True)
class Problem:
    """Counts and design with rows sorted by guide, ready for the kernel."""

    counts: Floats  # (T, R)
    weights: Floats  # (T, R), or (T, 0) of a negative binomial: see `GuideStats`
    overdispersion: Floats  # (T,)
    level: Floats  # (T,) of the predictor
    design: Design
    guide: NDArray[np.int64]  # (R,)
    dose_mean: Floats  # (D,) log2 dosage of each entry of the table of dosages, its spread, and the share that escapes
    dose_spread: Floats  # (D,)
    dose_escape: Floats  # (D,)
    dose_acts: NDArray[np.bool_]  # (D,) whether it is one of targeting guides
    targeting: NDArray[np.bool_]  # (G,)
    axis: Axis
    priors: TransPriors
    likelihood: Likelihood
    level_error: float = 0.0  # sd of the NTC level of the dosages, log2
    several: bool = False  # whether several curves compete, so that the factors of their priors count
    background: ntc_guides.Background | None = None  # of the NTC guides, whose rows the kernel then does without
    pooled: bool = False  # whether there are NTC guides enough to be summed up
    tau_weight: Floats | None = None  # (T, K) log weights of the grid of tau, -inf where a feature does without it
    covariates: CovariateEffects | None = None  # on the exposure of each feature and row
    load_precision: Floats | None = None  # (T, D, D) of the errors of their coefficients, along `design.loads`
    codes: NDArray[np.int64] | None = None  # (G,) which of the guides of the cis step each is
    shared: Floats | None = None  # (G, S) guides of each label, where labels are sets: the last of `design.loads`

    def take(self, features: Any) -> Problem:
        """The same design for some of the features."""
        return replace(
            self,
            counts=self.counts[features],
            weights=self.weights[features],
            overdispersion=self.overdispersion[features],
            level=self.level[features],
            background=None if self.background is None else self.background.take(features),
            tau_weight=None if self.tau_weight is None else self.tau_weight[features],
            covariates=None if self.covariates is None else self.covariates.take(features),
            load_precision=None if self.load_precision is None else self.load_precision[features],
        )

    def guides(self, keep: NDArray[np.bool_]) -> Problem:
        """The rows of some guides ``(G,)`` only."""
        d = self.design
        rows = keep[self.guide]
        _, start, guide = np.unique(self.guide[rows], return_index=True, return_inverse=True)
        design = d._replace(
            log_w=d.log_w[rows],
            scale2=d.scale2[rows],
            group=d.group[rows],
            loads=np.ascontiguousarray(d.loads[rows]),
            guide_start=np.append(start, rows.sum()).astype(np.int64),
            dose=d.dose[rows],
            own=d.own[keep],
            shares=d.shares[keep],
            error=d.error[keep],
            wide_sd=np.ascontiguousarray(d.wide_sd[keep]),
            wide_weight=np.ascontiguousarray(d.wide_weight[keep]),
        )
        return replace(
            self,
            counts=np.ascontiguousarray(self.counts[:, rows]),
            weights=np.ascontiguousarray(self.weights[:, rows]) if self.weights.size else self.weights,
            design=design,
            guide=guide.reshape(-1).astype(np.int64),
            targeting=self.targeting[keep],
            codes=None if self.codes is None else self.codes[keep],
            shared=None if self.shared is None else self.shared[keep],
            covariates=None if self.covariates is None else self.covariates.some_rows(rows),
        )

    def seen_by(self, c: Curve) -> Problem:
        """The problem as a curve sees it: all dosages are 1 where a guide acts, to one that knows no others."""
        if not c.by_acting:
            return self
        d, at, escape = self.design, self.dose_acts.astype(float), self.dose_escape
        own = np.stack([self.targeting.astype(float), np.zeros(len(self.targeting))], 1)
        design = d._replace(
            nodes=np.stack([at, np.zeros_like(at)], 1),
            node_weights=np.stack([1.0 - escape, escape], 1),
            own=own,
            error=np.zeros_like(d.error),
            axis=np.array([ACTING.low, ACTING.high]),
        )
        spread = np.zeros_like(self.dose_spread)
        return replace(self, design=design, dose_mean=at, dose_spread=spread, axis=ACTING, level_error=0.0)

    @property
    def offset(self) -> Floats:
        """What covariates add to the predictor ``(T, R)``; (T, 0) where there are none."""
        if self.covariates is None:
            return np.zeros((len(self.counts), 0))
        return self.covariates.log_rows()

    @property
    def log_exposure(self) -> Floats:
        """Log exposure ``(R,)`` of the rows, or ``(T, R)`` with covariates in it."""
        return self.design.log_w if self.covariates is None else self.design.log_w + self.offset

    @property
    def one_dose_each(self) -> bool:
        """Whether all cells of a targeting guide are at one dosage."""
        d = self.design
        first = d.dose[d.guide_start[:-1]]
        return bool((d.dose == first[self.guide])[self.targeting[self.guide]].all())

    @property
    def one_level(self) -> bool:
        """Whether the dosages of the targeting guides, each at one, cannot be told apart, so that no curve is seen."""
        if not self.one_dose_each or not self.targeting.any():
            return False
        mean, error = self.design.own[self.targeting, 0], self.design.error[self.targeting]
        return alike(mean, error) or not told_apart(mean, error)

    def taus(self, grid: Floats) -> Floats:
        """The grid of tau ``(T, K)``, negative where a feature does without a value."""
        every = np.repeat(grid[None], len(self.counts), 0)
        return every if self.tau_weight is None else np.where(np.isfinite(self.tau_weight), every, -1.0)

    @property
    def rows(self) -> Rows:
        """The observations."""
        d = self.design
        return Rows(self.counts, self.weights, self.overdispersion, d.scale2, d.group, d.guide_start[:-1])

    @property
    def mean(self) -> Floats:
        """What a feature has of information ``(T,)``: its mean count, or the sum of its weights."""
        if self.likelihood.statistics != "counts":
            return np.asarray(self.weights.sum(1))
        return np.asarray(self.counts.sum(1) / np.exp(self.design.log_w).sum())

    def in_kernel(self) -> Problem:
        """The problem without the NTC guides that the background sums up."""
        if self.background is None or self.targeting.all():
            return self
        return guide_sets.without_own(self.guides(self.targeting))

    def anchor(self, taus: Floats) -> Anchors:
        """What is known of level and group effects beside the rows that the kernel sees: their prior at least."""
        if self.shared is not None:
            return guide_sets.with_effects(guide_sets.alone(self).anchor(taus), taus, self.shared.shape[1])
        if self.background is not None:
            return self.background.at(taus)
        d, n_t, n_c = self.design, len(self.counts), 1 + int(self.design.group.max())
        sd, n = np.where(np.arange(n_c) == 0, d.level_sd, d.group_effect_sd), n_c + d.loads.shape[1]
        mode, precision = np.zeros((n_t, 1, n)), np.zeros((n_t, 1, n, n))
        mode[:, 0, 0], precision[..., :n_c, :n_c] = self.level, np.diag(sd**-2.0)
        value = np.full((n_t, 1), -np.log(sd).sum() - 0.5 * n * ntc_guides.LOG_2PI)
        if self.load_precision is not None:
            precision[:, 0, n_c:, n_c:] = self.load_precision
            value[:, 0] += 0.5 * np.linalg.slogdet(self.load_precision)[1]
        return Anchors(value, mode, precision)

    def summed_up(self, knots: Floats) -> ntc_guides.Background:
        """The NTC guides summed up at these sds of the guide effects."""
        alone = guide_sets.alone(replace(self, background=None).guides(~self.targeting))
        taus = np.repeat(knots[None], len(self.counts), 0)
        log_z, mode, cov = null_evidence(alone, taus, tol=BACKGROUND_TOL, modes=True)
        return ntc_guides.summed_up(mode, cov, log_z, knots)

    def with_design(self, **changes: Any) -> Problem:
        """The same counts under a design with other entries."""
        return replace(self, design=self.design._replace(**changes))


def problem(
    stats: GuideStats,
    dosage: RowDosage,
    overdispersion: Floats,
    *,
    group_effect_sd: float,
    axis: Axis,
    priors: TransPriors,
) -> Problem:
    """Sort rows by guide and give rows of equal dosage one entry in the table of dosages.

    The priors are in the unit of the likelihood.
    """
    likelihoods.ready(place_of(likelihood(stats.distribution)))
    pooled = _many_ntc(dosage) or dosage.members is not None
    dosage = _at_level(dosage, stats.guide) if pooled else dosage
    order = np.lexsort((stats.group, dosage.mean, stats.guide))
    present, start, guide = np.unique(stats.guide[order], return_index=True, return_inverse=True)
    targeting = _targeting(dosage, order, present, start)
    by_row = np.stack([dosage.mean, dosage.spread, np.broadcast_to(dosage.escape, dosage.mean.shape)], 1)[order]
    by_row = np.concatenate([by_row, targeting[guide.reshape(-1), None]], 1)
    doses, dose = np.unique(by_row, axis=0, return_inverse=True)
    counts, like = np.ascontiguousarray(stats.counts[:, order], dtype=np.float64), likelihood(stats.distribution)
    weights = np.zeros((len(counts), 0)) if stats.weights is None else stats.weights[:, order]
    w = stats.exposure[order]
    mean, spread, escape, acts = (np.ascontiguousarray(column) for column in doses.T)
    nodes, node_weights = dosage_nodes(mean, spread, escape)
    own, shares = two_parts(by_row[start, 0], by_row[start, 2])
    design = Design(
        log_w=np.log(w),
        scale2=stats.exposure2[order] / w**2,
        group=stats.group[order].astype(np.int64),
        loads=np.zeros((len(order), 0)),
        guide_start=np.append(start, len(order)).astype(np.int64),
        dose=dose.reshape(-1).astype(np.int64),
        nodes=nodes,
        node_weights=node_weights,
        own=own,
        shares=shares,
        error=dosage.error[present].astype(np.float64),
        wide_sd=np.zeros((len(present), 1)),
        wide_weight=np.ones((len(present), 1)),
        level_sd=priors.level_sd,
        group_effect_sd=group_effect_sd,
        axis=np.array([axis.low, axis.high]),
        scales=np.array(priors.movement_scales),
        weights=np.array(priors.movement_weights),
        polynomial_sd=priors.polynomial_sd,
        likelihood=place_of(like),
    )
    p = Problem(
        counts=counts,
        weights=np.ascontiguousarray(weights),
        overdispersion=np.maximum(overdispersion, 0.01).astype(np.float64),
        level=like.level(counts, weights, design.log_w),
        design=design,
        guide=guide.reshape(-1).astype(np.int64),
        dose_mean=mean,
        dose_spread=spread,
        dose_escape=escape,
        dose_acts=acts > 0,
        targeting=targeting,
        axis=axis,
        priors=priors,
        likelihood=like,
        level_error=dosage.level_error,
        pooled=pooled,
        codes=present.astype(np.int64),
    )
    p = p if stats.covariates is None else _with_covariates(p, stats.covariates.some_rows(order))
    return p if dosage.members is None else guide_sets.with_members(p, dosage.members[present])


def _with_covariates(p: Problem, covariates: CovariateEffects) -> Problem:
    """The problem with what covariates do to its rows, and the errors of their coefficients."""
    w = np.exp(p.design.log_w)
    loads, covariance = covariates.uncertain(w)
    return replace(
        p.with_design(loads=loads),
        overdispersion=p.overdispersion * covariates.noise(w),
        level=p.level - covariates.log_total(w),
        covariates=covariates,
        load_precision=np.asarray(np.linalg.inv(covariance)) if loads.shape[1] else None,
    )


def _many_ntc(dosage: RowDosage) -> bool:
    """Whether there are NTC guides enough to be summed up: many, and some for each targeting one."""
    if dosage.control is None:
        return False
    n = int(dosage.control.sum())
    return n >= MANY_NTC and n >= MORE_NTC * (len(dosage.control) - n)


def _at_level(dosage: RowDosage, guide: NDArray[np.int64]) -> RowDosage:
    """NTC guides at the NTC level: beside many others, their own dosages are not worth their time."""
    control = np.asarray(dosage.control)
    mean, error = np.where(control[guide], 0.0, dosage.mean), np.where(control, 0.0, dosage.error)
    return replace(dosage, mean=mean, error=error)


def acting(dosage: RowDosage, guide: NDArray[np.int64]) -> RowDosage:
    """Dosages of rows of these guides ``(R,)`` as a curve sees them that knows only where a guide acts."""
    mean = np.where(np.asarray(dosage.control)[guide], 0.0, 1.0)
    return RowDosage(mean, np.zeros_like(mean), np.zeros_like(dosage.error), dosage.control, escape=dosage.escape)


def _targeting(dosage: RowDosage, order: Any, present: Any, start: Any) -> NDArray[np.bool_]:
    if dosage.control is not None:
        return np.asarray(~dosage.control[present])
    return np.asarray(dosage.mean[order][start] != 0.0)


def evidence(
    p: Problem,
    c: Curve,
    shapes: Floats,
    consts: Floats,
    taus: Floats,
    *,
    tol: float = SCREEN_TOL,
    modes: bool = False,
    degree: int = 6,
    starts: Floats | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Log evidence at every (feature, shape, tau), and on request the conditional mode and covariance.

    Parameters
    ----------
    shapes, consts
        ``(1 or T, S, ...)``: the lattice, shared or per feature.
    taus
        ``(T, K)`` sd of the guide effects; a negative value is skipped.
    starts
        ``(T, S, n)`` modes of each shape in a problem that is alike, from which it is looked for; NaN where unknown.
    """
    anchor, p = p.anchor(taus), p.in_kernel().seen_by(c)
    n_amp = c.n_free(degree)
    n_t, n_s, n_k = len(p.counts), shapes.shape[1], taus.shape[1]
    log_z = np.full((n_t, n_s, n_k), -np.inf)
    factor = c.factor if p.several else None
    whole = modes or factor is not None
    n_m = n_t if whole else 1
    n = 1 + n_amp + int(p.design.group.max()) + p.design.loads.shape[1]
    size = (n_s, n_k, n) if whole else (0, 0, 0)
    mode, cov = np.zeros((n_m, *size)), np.zeros((n_m, *size, size[-1]))
    shapes, consts = np.ascontiguousarray(shapes), np.ascontiguousarray(consts)
    chosen.ready(place(c))
    kernel.run(
        place(c),
        n_amp,
        c.start + (np.log(p.priors.unit) if c.log_amplitudes else 0.0),
        p.counts,
        p.weights,
        p.overdispersion,
        p.offset,
        anchor,
        p.design,
        shapes,
        consts,
        np.zeros((0, 0, n)) if starts is None or starts.shape[2] != n else np.ascontiguousarray(starts),
        np.ascontiguousarray(guide_sets.of_kernel(p, taus)),
        tol,
        log_z,
        mode,
        cov,
    )
    if factor is not None:
        factor.add_mean(log_z, mode, cov, shapes, consts, p.axis, p.priors)
    return log_z, mode, cov


def null_evidence(
    p: Problem, taus: Floats, *, tol: float = SCREEN_TOL, modes: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Log evidence ``(T, K)`` of the null, and on request its mode ``(T, K, C)`` and covariance ``(T, K, C, C)``."""
    log_z, mode, cov = evidence(p, NULL, np.zeros((1, 1, 0)), np.zeros((1, 1, 2)), taus, tol=tol, modes=modes)
    return log_z[:, 0], mode[:, 0] if modes else mode, cov[:, 0] if modes else cov
