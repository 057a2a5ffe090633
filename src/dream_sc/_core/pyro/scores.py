"""Scores of the technical step as tensors, in units of the fast engine's scale, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dream_sc._core.technical.scores import NU

from .models.scores import NormalData, StudentTData
from .tensors import tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.priors import ScorePriors
    from dream_sc._core.sums.pair_sums import ScoreStats
    from dream_sc._core.types import ScoreFit

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def normal_data(
    stats: ScoreStats, first: ScoreFit, told: Ints, priors: ScorePriors, device: torch.device
) -> NormalData:
    """Sums of the features `told` as scores less `stats.centre`, in sds."""
    s = first.sigma[told, None]
    return NormalData(
        tensor(stats.n_cells[told], device),
        tensor(stats.total[told] / s, device),
        tensor(stats.squares[told] / s**2, device),
        first.effect_scale,
        priors,
    )


def studentt_data(
    scores: Floats, row: Ints, first: ScoreFit, told: Ints, priors: ScorePriors, device: torch.device
) -> StudentTData:
    """`scores` ``(N, features told)`` less their location in the reference, in scales; row -1: not used."""
    used = row >= 0
    x = ((scores[used] - first.mu[told]) / first.sigma[told]).T
    seen = np.isfinite(x)
    return StudentTData(
        tensor(np.where(seen, x, 0.0), device),
        tensor(seen.astype(float), device),
        tensor(row[used], device),
        first.effects.shape[1],
        first.effect_scale,
        NU,
        priors,
    )


def start(first: ScoreFit, told: Ints, centre: Floats, device: torch.device) -> dict[str, Any]:
    """Start at the fast engine's result; scores are relative to `centre` ``(len(told),)``."""
    s = first.sigma[told]
    return {
        "level": tensor(((first.mu[told] - centre) / s)[:, None], device),
        "log_sigma": torch.zeros(()),
        "effects": tensor((first.effects[told] / s[:, None])[:, None, 1:], device),
    }


def write(first: ScoreFit, told: Ints, centre: Floats, draws: dict[str, Any], settled: Any) -> ScoreFit:
    """`first` with the numbers of the features `told` from draws (first axis)."""
    s = first.sigma[told]
    level, sigma = centre + s * draws["level"][..., 0], s * np.exp(draws["log_sigma"][..., 0])
    effects = np.zeros((len(level), len(told), first.effects.shape[1]))
    if "effects" in draws:
        effects[..., 1:] = draws["effects"].reshape(*level.shape, -1) * sigma[..., None]
    out = {name: getattr(first, name).copy() for name in ("mu", "mu_sd", "sigma", "sigma_sd", "effects", "effects_sd")}
    for name, values in (("mu", level), ("sigma", sigma), ("effects", effects)):
        out[name][told], out[f"{name}_sd"][told] = values.mean(0), values.std(0)
    done = np.ones(len(first.mu), dtype=bool) if first.settled is None else first.settled.copy()
    done[told] = settled
    return replace(first, **out, settled=done)
