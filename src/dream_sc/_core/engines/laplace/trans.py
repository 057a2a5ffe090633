"""The trans step by nested Laplace: evidence of each curve at given shapes and guide sds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._core.dosage import dosage_nodes
from dream_sc._core.dose_response.additive_hill import N_TURN, turn_weight

from . import kernel
from .design import Design

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.dose_response import Curve
    from dream_sc._core.priors import TransPriors
    from dream_sc._core.types import Axis, GuideStats, RowDosage

    Floats = NDArray[np.float64]

SCREEN_TOL = 0.05
TURN_DROP = 14.0


@dataclass(frozen=True)
class Problem:
    """Counts and design with rows sorted by guide, ready for the kernel."""

    counts: Floats  # (T, R)
    overdispersion: Floats  # (T,)
    level: Floats  # (T,) log of the mean count
    design: Design
    guide: NDArray[np.int64]  # (R,)
    dose_spread: Floats  # (D,)
    targeting: NDArray[np.bool_]  # (G,)
    axis: Axis
    priors: TransPriors
    turn: bool = False  # whether two Hills have to turn: see additive_hill.turn_weight

    @property
    def dose_mean(self) -> Floats:
        """Mean log2 dosage ``(D,)`` of each entry of the table of dosages."""
        return self.design.mean

    def take(self, features: Any) -> Problem:
        """The same design for some of the features."""
        return replace(
            self,
            counts=self.counts[features],
            overdispersion=self.overdispersion[features],
            level=self.level[features],
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
            guide_start=np.append(start, rows.sum()).astype(np.int64),
            dose=d.dose[rows],
            error=d.error[keep],
        )
        return replace(
            self,
            counts=np.ascontiguousarray(self.counts[:, rows]),
            design=design,
            guide=guide.reshape(-1).astype(np.int64),
            targeting=self.targeting[keep],
        )

    def with_design(self, **changes: Any) -> Problem:
        """The same counts under a design with other entries."""
        return replace(self, design=self.design._replace(**changes))


def problem(
    stats: GuideStats,
    dosage: RowDosage,
    overdispersion: Floats,
    *,
    alpha_sd: float,
    axis: Axis,
    priors: TransPriors,
) -> Problem:
    """Sort rows by guide and give rows of equal dosage one entry in the table of dosages."""
    order = np.lexsort((stats.group, dosage.mean, stats.guide))
    present, start, guide = np.unique(stats.guide[order], return_index=True, return_inverse=True)
    pairs = np.stack([dosage.mean[order], dosage.spread[order]], 1)
    doses, dose = np.unique(pairs, axis=0, return_inverse=True)
    counts = np.ascontiguousarray(stats.counts[:, order], dtype=np.float64)
    w = stats.exposure[order]
    nodes, node_weights = dosage_nodes(doses[:, 0], doses[:, 1])
    design = Design(
        log_w=np.log(w),
        scale2=stats.exposure2[order] / w**2,
        group=stats.group[order].astype(np.int64),
        guide_start=np.append(start, len(order)).astype(np.int64),
        dose=dose.reshape(-1).astype(np.int64),
        mean=np.ascontiguousarray(doses[:, 0]),
        nodes=nodes,
        node_weights=node_weights,
        error=dosage.error[present].astype(np.float64),
        wide_sd=np.array([0.0]),
        wide_weight=np.array([1.0]),
        level_sd=priors.level_sd,
        alpha_sd=alpha_sd,
        axis=np.array([axis.low, axis.high]),
        scales=np.array(priors.movement_scales),
        weights=np.array(priors.movement_weights),
        polynomial_sd=priors.polynomial_sd,
    )
    return Problem(
        counts=counts,
        overdispersion=np.maximum(overdispersion, 0.01).astype(np.float64),
        level=np.log((counts.sum(1) + 0.5) / w.sum()),
        design=design,
        guide=guide.reshape(-1).astype(np.int64),
        dose_spread=np.ascontiguousarray(doses[:, 1]),
        targeting=_targeting(dosage, order, present, start),
        axis=axis,
        priors=priors,
    )


def _targeting(dosage: RowDosage, order: Any, present: Any, start: Any) -> NDArray[np.bool_]:
    if dosage.control is not None:
        return np.asarray(~dosage.control[present])
    return np.asarray(dosage.mean[order][start] != 0.0)


def n_amplitudes(curve: Curve, degree: int) -> int:
    """Number of amplitudes of a curve, for a polynomial of this degree."""
    return degree if curve.name == "polynomial" else curve.n_amplitudes


def evidence(
    p: Problem,
    curve: Curve,
    shapes: Floats,
    consts: Floats,
    taus: Floats,
    *,
    tol: float = SCREEN_TOL,
    modes: bool = False,
    degree: int = 6,
) -> tuple[Floats, Floats, Floats]:
    """Log evidence at every (feature, shape, tau), and on request the conditional mode and covariance.

    Parameters
    ----------
    shapes, consts
        ``(1 or T, S, ...)``: the lattice, shared or per feature.
    taus
        ``(T, K)`` sd of the guide effects; a negative value is skipped.
    """
    n_amp = n_amplitudes(curve, degree)
    n_t, n_s, n_k = len(p.counts), shapes.shape[1], taus.shape[1]
    log_z = np.full((n_t, n_s, n_k), -np.inf)
    turning = p.turn and curve.name == "additive_hill"
    n_m = n_t if modes or turning else 1
    n = 1 + n_amp + int(p.design.group.max())
    size = (n_s, n_k, n) if modes or turning else (0, 0, 0)
    mode, cov = np.zeros((n_m, *size)), np.zeros((n_m, *size, size[-1]))
    kernel.run(
        curve.code,
        n_amp,
        p.counts,
        p.overdispersion,
        p.level,
        p.design,
        np.ascontiguousarray(shapes),
        np.ascontiguousarray(consts),
        np.ascontiguousarray(taus),
        tol,
        log_z,
        mode,
        cov,
    )
    if turning:
        _weigh_turns(p, curve, shapes, consts, log_z, mode[..., :3], cov[..., :3, :3])
    return log_z, mode, cov


def _weigh_turns(
    p: Problem, curve: Curve, shapes: Floats, consts: Floats, log_z: Floats, mode: Floats, cov: Floats
) -> None:
    """Add the log of the mean turn weight to the evidence of every point that may matter, in place.

    The mean over the amplitudes, Gaussian given the shape, is by the five points of the unscented transform.
    """
    near = log_z > log_z.max((1, 2), keepdims=True) - TURN_DROP
    t, s, k = np.nonzero(near)
    i = t if len(shapes) > 1 else np.zeros_like(t)
    centre, chol = mode[t, s, k], np.linalg.cholesky(cov[t, s, k] + 1e-12 * np.eye(3))
    x = np.linspace(p.axis.low, p.axis.high, N_TURN)
    mean = np.zeros(len(t))
    for column, sign in ((0, 0.0), (1, 1.0), (1, -1.0), (2, 1.0), (2, -1.0)):
        point = centre + sign * np.sqrt(3.0) * chol[:, :, column]
        params = np.concatenate([point, shapes[i, s]], 1)
        weight = turn_weight(x, curve.log_curve(x, params, consts[i, s]), p.priors.turn_scale)
        mean += (1 / 6 if sign else 1 / 3) * weight
    log_z[~near] = -np.inf
    log_z[t, s, k] += np.log(np.maximum(mean, 1e-12))
