"""The frozen containers that travel between the steps (`T` features, `R` rows, `G` guides, `C` groups)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .covariates import CovariateEffects

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TechnicalStats:
    """Sums over control cells, binned by technical group and size factor (`B` bins in all).

    `tail` holds, per feature, the number of control cells with a count above `k`, summed over the `k` of
    each of `J` count bins, and `tail_at` the representative `k` of each bin: the log-gamma terms of the
    negative binomial are ``sum_j tail[:, j] * log(phi + tail_at[j])``.
    """

    counts: Floats  # (T, B)
    n_cells: Floats  # (B,)
    size_factor: Floats  # (B,) mean of the bin
    group: Ints  # (B,)
    n_groups: int
    tail: Floats  # (T, J)
    tail_at: Floats  # (J,)
    covariates: Floats | None = None  # (B, Q) mean of the bin, in sds from the mean of all cells

    @property
    def z(self) -> Floats:
        """``(B, Q)`` covariates, (B, 0) where there are none."""
        return np.zeros((len(self.n_cells), 0)) if self.covariates is None else self.covariates


@dataclass(frozen=True)
class TechnicalFit:
    """Posterior of the technical step: baseline, overdispersion and log2 group effects of each feature.

    The baseline is that of a cell with the mean covariates.
    """

    mu: Floats  # (T,) expected count of a control cell of the reference group at size factor 1
    mu_sd: Floats  # (T,) sd of log mu (natural)
    overdispersion: Floats  # (T,) Var = m + o^2 m^2
    overdispersion_sd: Floats  # (T,)
    effects: Floats  # (T, C) log2 factor, column 0 is the reference
    effects_sd: Floats  # (T, C)
    beta_o: float
    effect_scale: float  # log2
    converged: NDArray[np.bool_]  # (T,)
    coefficients: Floats  # (T, Q) of the covariates, log2
    coefficients_sd: Floats  # (T, Q)
    coefficient_scale: Floats  # (Q,) of their priors, log2


@dataclass(frozen=True)
class ShareStats:
    """Sums over the control cells of each technical group: counts out of totals (`S` sticks).

    The tails hold the numbers of cells with a count above each of `at` (from 1 on), summed over bins of counts.
    """

    numerator: Floats  # (S, C) sum of y
    rest: Floats  # (S, C) sum of n - y
    tail_numerator: Floats  # (S, C, J)
    tail_rest: Floats  # (S, C, J)
    tail_total: Floats  # (S, J) of n, over all groups
    at: Floats  # (J,)
    left: Floats  # (S,) share of its feature's counts that a stick divides: 1 of the first stick

    def take(self, which: Ints | slice | NDArray[np.bool_]) -> ShareStats:
        """Some of the sticks."""
        return ShareStats(
            self.numerator[which],
            self.rest[which],
            self.tail_numerator[which],
            self.tail_rest[which],
            self.tail_total[which],
            self.at,
            self.left[which],
        )


@dataclass(frozen=True)
class ShareFit:
    """Posterior of the technical step of sticks, on the logit scale."""

    level: Floats  # (S,) logit of the share in the reference group
    level_sd: Floats  # (S,)
    overdispersion: Floats  # (S,) intra-cell correlation rho
    overdispersion_sd: Floats  # (S,)
    effects: Floats  # (S, C) shift of the logit, column 0 is the reference
    effects_sd: Floats  # (S, C)
    effects_cov: Floats  # (S, C) covariance with the level
    beta_o: float  # rate of the exponential prior of -log(1 - rho)
    effect_scale: float
    converged: NDArray[np.bool_]  # (S,)


@dataclass(frozen=True)
class ScoreFit:
    """Posterior of the technical step of scores, in their own unit."""

    mu: Floats  # (T,) mean (location of a Student t) in the reference group
    mu_sd: Floats  # (T,)
    sigma: Floats  # (T,) sd (scale of a Student t) of a cell around its group
    sigma_sd: Floats  # (T,)
    effects: Floats  # (T, C)
    effects_sd: Floats  # (T, C)
    effect_scale: float  # in units of sigma
    n_cells: Floats  # (T,) with a score
    converged: NDArray[np.bool_]  # (T,) False where sigma is 0 or cannot be told
    settled: NDArray[np.bool_] | None = None  # (T,) whether a sampling engine's run was long enough


@dataclass(frozen=True)
class CisCells:
    """Counts of the cis gene and what is known of each cell.

    The log2 effects of several guides in a cell add up, and so do the variances between cells.
    """

    counts: Floats  # (N,)
    exposure: Floats  # (N,) expected count at NTC dosage
    guide: Ints  # (N,) guide, or from G on the set of targeting guides
    is_control: NDArray[np.bool_]  # (G,)
    overdispersion: float
    sets: Ints = field(default_factory=lambda: np.zeros((0, 1), dtype=np.int64))  # (M, K) guides, padded with -1
    population: Ints | None = None  # (G,) of the guides; one for all if None
    known: Floats | None = None  # (G, 2) what is known before of a guide's log2 effect: mean and sd, NaN if nothing
    offset: Floats | None = None  # (G,) log2, how much of a guide's exposure is its offset; none if None
    offset_var: Floats | None = None  # (G,) of its error
    floor: Floats | None = None  # (N,) ambient counts expected beside those of the cell itself; none if None

    @property
    def floors(self) -> Floats:
        """``(N,)`` the same, 0 where there are none."""
        return np.zeros(len(self.counts)) if self.floor is None else self.floor

    @property
    def members(self) -> Ints:
        """Guides ``(G + M, K)`` of each guide or set, padded with -1."""
        n_g, k = len(self.is_control), self.sets.shape[1]
        alone = np.full((n_g, k), -1, dtype=np.int64)
        alone[:, 0] = np.arange(n_g)
        return np.concatenate([alone, self.sets])


@dataclass(frozen=True)
class CisFit:
    """Posterior of the dosage, in log2 relative to NTC, of guides and of cells."""

    guide_mean: Floats  # (G,) of all cells of a guide
    guide_sd: Floats  # (G,)
    within_sd: Floats  # (G,)
    baseline_sd: float  # sd of the NTC level that all guides share
    cell_median: Floats  # (N,)
    cell_sd: Floats  # (N,)
    cell_q025: Floats  # (N,)
    cell_q975: Floats  # (N,)
    hyper: dict[str, float]
    converged: bool
    escape: Floats  # (G,) share of the guide's cells at the NTC level, 0 where not looked for
    acting_mean: Floats  # (G,) of the other cells
    acting_sd: Floats  # (G,)
    interval: Floats | None = None  # (2, G) 2.5 and 97.5 % points of `guide_mean`; None: those of a normal
    escape_interval: Floats | None = None  # (2, G) the same of `escape`, NaN of controls; None: not looked for


@dataclass(frozen=True)
class GuideStats:
    """Sums over the cells of each row: one guide in one technical group (and dosage bin).

    Of a likelihood with weights, `counts` and `weights` are what its file says, and all exposures are 1.
    """

    counts: Floats  # (T, R)
    exposure: Floats  # (R,) sum of size factors
    exposure2: Floats  # (R,) sum of squared size factors
    guide: Ints  # (R,)
    group: Ints  # (R,)
    n_guides: int
    n_groups: int
    # (T, R) numbers of trials, or precisions; of counts None, or the squared overdispersion that units add
    weights: Floats | None = None
    distribution: str = "negbinom"
    covariates: CovariateEffects | None = None  # on the exposure of each feature and row

    def take(self, features: NDArray[np.generic]) -> GuideStats:
        """The same rows of some features."""
        weights = None if self.weights is None else self.weights[features]
        covariates = None if self.covariates is None else self.covariates.take(features)
        return replace(self, counts=self.counts[features], weights=weights, covariates=covariates)

    def some_rows(self, rows: NDArray[np.generic]) -> GuideStats:
        """Some of the rows."""
        weights = None if self.weights is None else self.weights[:, rows]
        return replace(
            self,
            counts=self.counts[:, rows],
            weights=weights,
            exposure=self.exposure[rows],
            exposure2=self.exposure2[rows],
            guide=self.guide[rows],
            group=self.group[rows],
            covariates=None if self.covariates is None else self.covariates.some_rows(rows),
        )


@dataclass(frozen=True)
class RowDosage:
    """Dosage of each row in log2 relative to NTC, its spread between cells and its estimation error.

    The error of the NTC level shifts all targeting guides alike. A share `escape` of a row's cells is at the NTC level.
    """

    mean: Floats  # (R,)
    spread: Floats  # (R,)
    error: Floats  # (G,)
    control: NDArray[np.bool_] | None = None  # (G,) NTC guides; by default those at a dosage of 0
    level_error: float = 0.0  # sd of the NTC level
    escape: Floats | float = 0.0  # (R,), or one for all
    members: Floats | None = None  # (G, S) guides of each label, where labels are sets of guides whose effects add up


@dataclass(frozen=True)
class SingleCells:
    """The cells behind rows of sums: what is known of each, and where their counts come from."""

    read: Callable[[Ints], Floats]  # features (T,) to their counts (T, N)
    features: Ints  # (T,) that are meant
    exposure: Floats  # (N,)
    guide: Ints  # (N,)
    group: Ints  # (N,)
    dosage: RowDosage  # with a row per cell
    n_groups: int

    def take(self, features: NDArray[np.generic]) -> SingleCells:
        """The same with some of the features."""
        return replace(self, features=self.features[features])

    @property
    def stats(self) -> GuideStats:
        """A row per cell."""
        n_guides = len(self.dosage.error)
        return GuideStats(
            self.read(self.features), self.exposure, self.exposure**2, self.guide, self.group, n_guides, self.n_groups
        )


@dataclass(frozen=True)
class Axis:
    """The observed dosage axis: ``low <= 0 <= high`` and the dosages of the targeting guides, sorted.

    A guide whose dosage is very uncertain may lie beyond the ends. Where controls are at dose 0, which has no log, 0
    stands for it, far below the lowest dose that was tested.
    """

    low: float
    high: float
    guides: Floats  # (n,)
    from_zero: bool = False  # whether controls are at dose 0

    @classmethod
    def of(cls, doses: Floats, *, reach: Floats | None = None, from_zero: bool = False) -> Axis:
        """The axis of these dosages of targeting guides; guides at the NTC level still get one of some length.

        `reach` ``(n,)``: how far the data of each guide say something, where that is less far than its dosage.
        """
        ends = doses if reach is None else reach
        low, high = min(float(ends.min()), -0.05), max(float(ends.max()), 0.05)
        return cls(0.0 if from_zero else low, high, doses[doses.argsort()], from_zero)

    @property
    def bottom(self) -> float:
        """The lowest dosage that has a log."""
        return float(self.guides[0]) if self.from_zero else self.low

    @property
    def half(self) -> float:
        """Half-way to the strongest knock-down, or half the top dose."""
        return self.high - 1.0 if self.from_zero else self.low / 2

    def ends_with_effects(self, least: float) -> tuple[float, float]:
        """Dosages of the full effect and of the one at the strongest activation; NaN nearer to NTC than `least`."""
        if self.from_zero:  # the full effect is that of the top dose
            return self.high, np.nan
        return self.low if self.low <= -least else np.nan, self.high if self.high >= least else np.nan

    def points(self, n: int) -> Floats:
        """Dosages ``(n,)`` from one end to the other, evenly; dose 0 is the first of them."""
        if self.from_zero:
            return np.append(0.0, np.linspace(self.bottom, self.high, n - 1))
        return np.linspace(self.low, self.high, n)
