"""How often a response would be called, and how well its EC50 would be known, by draws of the sums of a design."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from dream_sc._core.priors import TransPriors
from dream_sc._core.response.decision import LIKELY_NULL
from dream_sc._core.types import Axis

from .ec50_width import N_WIDTHS, expected_width, fine_curves
from .evidence import HILL, Curves, Known, curves_of, log_bayes_factors
from .guide_sums import Design, Features, draw

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.learned import Prior

    Floats = NDArray[np.float64]

N_DRAWS = 200  # of each kind of feature that is asked for
N_OTHERS = 100  # null features, and as many responders, of each level of the population
N_SHAPES = 400  # among which those are found that can move as far as asked
INNER = 0.1  # share of the axis at each end in which no EC50 is drawn
LOG_N_SD = 0.5  # of steepnesses that are drawn
# what the trans step's own evidence says, in comparison to that of this package's closed form; see `as_fitted`
ENGINE_SD, ENGINE_OFFSET, ENGINE_SLOPE = 0.4, 0.2, 0.6
FEW_COUNTS, OF_FALL, MOST_FALL = 10.0, 0.35, 4.0


@dataclass(frozen=True)
class Population:
    """The features of the screen: which others there are decides from which evidence on one is called."""

    mean: Floats  # (L,) counts of a cell, of equally many features each
    overdispersion: Floats  # (L,)
    movement: Floats  # (M,) natural log, sizes of responses, equally many each; none: those of the prior


@dataclass(frozen=True)
class Shape:
    """What is asked of the shape of a response."""

    low: float  # log2 dosages between which it moves
    high: float
    log2_ec50: float | None = None  # None: evenly between them
    hill_n: float | None = None  # None: about 2


@dataclass(frozen=True)
class Gene:
    """A kind of response that is asked for."""

    mean: float  # counts of a cell at NTC dosage, before `Design.depth`
    overdispersion: float
    movement: float  # natural log of the mean at the low end of the axis over that at the high end
    shape: Shape


@dataclass(frozen=True)
class Shapes:
    """Shapes that a gene may have, evenly over what was not asked for."""

    values: Floats  # (N, 2) log2 EC50 and log steepness
    table: Floats  # (N, 2, G + 1) as the curve has it, NTC last


@dataclass(frozen=True)
class Outlook:
    """What a design would find of a gene."""

    power: float
    ec50_width: float  # log2, of the 95 % interval; NaN where the EC50 is outside of the design's dosages


@dataclass(frozen=True)
class Forecast:
    """A design with all that does not depend on the gene that is asked for."""

    design: Design
    population: Population
    prior: Prior  # of null, switch and one Hill, and of tau
    fdr: float
    seed: int = 0
    priors: TransPriors = field(default_factory=TransPriors)

    def of(self, genes: list[Gene]) -> list[Outlook]:
        """Power and width of the EC50's interval for each kind of gene."""
        curves, fine = curves_of(self.design, self.priors), fine_curves(self.design, self.priors)
        threshold, shapes = self.threshold(curves), {gene.shape: self._shapes(gene.shape) for gene in genes}
        return [self._outlook(gene, shapes[gene.shape], (curves, fine), threshold) for gene in genes]

    def threshold(self, curves: Curves) -> float:
        """Log Bayes factor from which on a feature has a q-value below the FDR, among this population.

        It is also more probably a response than not: strong responses would carry features that say nothing over the
        FDR.
        """
        found = [
            self._others(level, curves, responds) for level in range(len(self.population.mean)) for responds in (0, 1)
        ]
        log_bf, weight = (np.concatenate(part) for part in zip(*found, strict=True))
        lfdr = expit(-log_bf - self.prior.log_odds)
        order = np.argsort(lfdr, kind="stable")
        running = np.cumsum((lfdr * weight)[order]) / np.cumsum(weight[order])
        kept = lfdr[order][running <= self.fdr]
        # one with a local FDR below it is called whatever the others are
        lfdr_of_last = min(max(kept[-1] if len(kept) else 0.0, self.fdr), LIKELY_NULL)
        return float(logit(1.0 - lfdr_of_last) - self.prior.log_odds)

    def _others(self, level: int, curves: Curves, responds: int) -> tuple[Floats, Floats]:
        """Log Bayes factors of features of one level, and how much each counts."""
        rng = np.random.default_rng([self.seed, 1, level, responds])
        mean, o, n = self.population.mean[level], self.population.overdispersion[level], N_OTHERS
        moves, fall = np.zeros((n, len(self.design.dosages))), np.zeros(n)
        if responds:
            size = self._movements(rng, n) * rng.choice([-1.0, 1.0], n)
            axis = self.design.axis
            k, log_n = rng.uniform(axis.low, axis.high, n), rng.normal(self.priors.n_log_mean, LOG_N_SD, n)
            moves = self._curves(self._tabulated(np.stack([k, log_n], 1)), size, axis)
            some = np.isfinite(moves).all(1)
            moves, fall = moves[some], (size[some] > 0).astype(float)
        features = self._features(mean, o, moves, rng)
        log_bf = self._evidence(features, curves, fall, rng)
        share = 1 - self.prior.weights[0] if responds else self.prior.weights[0]
        return log_bf + ENGINE_SD * rng.standard_normal(len(log_bf)), np.full(len(log_bf), share / len(log_bf))

    def _movements(self, rng: np.random.Generator, n: int) -> Floats:
        """Sizes of responses: those of the population, or of the moment prior."""
        if len(self.population.movement):
            return rng.choice(self.population.movement, n)
        scale = rng.choice(self.priors.movement_scales, n, p=np.array(self.priors.movement_weights))
        return scale * np.sqrt(rng.chisquare(3, n))

    def _tabulated(self, shapes: Floats) -> Shapes:
        return Shapes(shapes, HILL.tables(shapes, np.zeros((len(shapes), 2)), *self.design.nodes))

    def _curves(self, shapes: Shapes, size: Floats, axis: Axis) -> Floats:
        """Moves ``(N, G)`` of guides under one Hill each, rising by `size` over an axis; NaN where it cannot."""
        amplitude = HILL.amplitudes(axis, shapes.values, np.zeros((len(size), 2)), size[:, None])
        log_mean = HILL.log_mean(amplitude, shapes.table)
        return np.asarray(log_mean[:, :-1] - log_mean[:, -1:])

    def _features(self, mean: float, overdispersion: float, moves: Floats, rng: np.random.Generator) -> Features:
        n = len(moves)
        tau = np.exp(self.prior.tau_log_mean + self.prior.tau_log_sd * rng.standard_normal(n))
        return Features(np.full(n, mean), np.full(n, overdispersion), tau, moves)

    def _evidence(self, features: Features, curves: Curves, fall: Floats, rng: np.random.Generator) -> Floats:
        """Log Bayes factors of draws, as a fit would have them."""
        if not len(features.mean):
            return np.zeros(0)
        known, sums = self._known(features), draw(features, self.design, rng)
        found = log_bayes_factors(sums, known, curves)
        return as_fitted(found, known.mean * self.design.depth * self.design.cells, fall)

    def _known(self, features: Features) -> Known:
        mean, noise = float(features.mean[0]), float(features.overdispersion[0])
        return Known(self.design, mean, noise, self.prior, np.array(self.priors.tau_grid))

    def _outlook(self, gene: Gene, shapes: Shapes, curves: tuple[Curves, Curves], threshold: float) -> Outlook:
        rng = np.random.default_rng([self.seed, 2])
        axis = Axis(gene.shape.low, gene.shape.high, self.design.dosages)
        moves = self._curves(shapes, np.full(N_SHAPES, -gene.movement), axis)
        some = np.flatnonzero(np.isfinite(moves).all(1))
        if not len(some):
            return Outlook(np.nan, np.nan)
        some = np.resize(some, N_DRAWS)
        features = self._features(gene.mean, gene.overdispersion, moves[some], rng)
        fall = np.full(N_DRAWS, float(gene.movement < 0))
        found = self._evidence(features, curves[0], fall, rng)
        power = float(ndtr((found - threshold) / ENGINE_SD).mean())
        return Outlook(power, self._width(gene, features, shapes.values[some], curves[1]))

    def _width(self, gene: Gene, features: Features, values: Floats, curves: Curves) -> float:
        """Expected width of the EC50's interval, of features whose EC50 is among the dosages of the design."""
        axis = self.design.axis
        inside = np.flatnonzero((values[:, 0] > axis.low) & (values[:, 0] < axis.high))[:N_WIDTHS]
        if gene.movement == 0 or not len(inside) or not self.design.tells_ec50:
            return np.nan
        extra = self._of_dosages(gene, values[inside])
        sums = draw(features.take(inside), self.design, np.random.default_rng([self.seed, 3]), extra)
        return expected_width(sums, replace(self._known(features), extra=extra), curves)

    def _of_dosages(self, gene: Gene, shapes: Floats) -> Floats:
        """Variance ``(G + H,)`` that errors of the dosages add, natural log: mean over shapes ``(N, 2)``."""
        consts, axis = np.zeros((len(shapes), 2)), Axis(gene.shape.low, gene.shape.high, self.design.dosages)
        amplitude = HILL.amplitudes(axis, shapes, consts, np.full((len(shapes), 1), -gene.movement))
        params = np.concatenate([np.zeros((len(shapes), 1)), amplitude, shapes], 1)
        slope = HILL.slope(self.design.dosages, params, consts) * np.log(2.0)
        of_guides = (slope**2).mean(0) * self.design.dosage_sd**2
        return np.append(of_guides, np.zeros(len(self.design.ntc_cells)))

    def _shapes(self, asked: Shape) -> Shapes:
        """Shapes that a gene may have, evenly over what is not asked for."""
        rng, even = np.random.default_rng([self.seed, 4]), (np.arange(N_SHAPES) + 0.5) / N_SHAPES
        margin = INNER * (asked.high - asked.low)
        k = asked.low + margin + rng.permutation(even) * (asked.high - asked.low - 2 * margin)
        log_n = self.priors.n_log_mean + LOG_N_SD * ndtri(rng.permutation(even))
        if asked.log2_ec50 is not None:
            k = np.full(N_SHAPES, asked.log2_ec50)
        if asked.hill_n is not None:
            log_n = np.full(N_SHAPES, np.log(asked.hill_n))
        return self._tabulated(np.stack([k, log_n], 1))


def as_fitted(log_bf: Floats, counts: float, fall: Floats) -> Floats:
    """What the trans step would say where the closed form says `log_bf` ``(N,)``.

    The trans step approximates the integral over the amplitude by Laplace's method where the evidence is for a
    response. It then says about 0.2 less, and where a knock-down leaves hardly a count less still: the likelihood is
    then flat beyond some amplitude. `counts` are those of a guide at NTC dosage, `fall` ``(N,)`` is 1 where a feature
    falls on knock-down.
    """
    for_it = np.maximum(log_bf, 0.0)
    less = np.minimum(ENGINE_SLOPE * for_it, ENGINE_OFFSET)
    less += OF_FALL * np.minimum(for_it, MOST_FALL) * fall / (1.0 + counts / FEW_COUNTS)
    return log_bf - less
