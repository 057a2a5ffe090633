"""Stochastic variational inference on the Pyro models, with AutoNormal's mean-field normal family.

Features are independent given what is shared, so they are optimised side by side with one stream of noise for
all, and for each place in a chain of sticks: a feature's result does not depend on which others are in its block.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dream_sc._core.curves import LN2
from dream_sc._core.curves import curve as get_curve
from dream_sc._core.device import resolve_device
from dream_sc._core.types import TechnicalFit

from . import scores as _torch_scores
from . import tensors
from .families import FAMILIES
from .models import scores as score_models
from .models.chains import ChainData, chains
from .models.cis import cis as cis_model
from .models.technical import shares as share_model
from .models.technical import technical as technical_model
from .models.trans import cell_level, guide_level
from .optimise import DRIFT, NITERS, draws_of, moments_of, optimise, some_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dream_sc._core.priors import CisPriors, ScorePriors, SharePriors, TechnicalPriors
    from dream_sc._core.sums.pair_sums import ScoreStats
    from dream_sc._core.types import CisCells, CisFit, ScoreFit, ShareFit, ShareStats, TechnicalStats

    from .models.technical import TechnicalData


def trans(
    stats: Any,
    dosage: Any,
    *,
    overdispersion: Any,
    curve: str,
    axis: Any,
    priors: Any,
    hyper: dict[str, Any],
    consts: Any,
    init: Any,
    nsamples: int,
    niters: int | None,
    device: str,
    rng: int,
    degree: int = 6,
    minibatch_size: int | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Draws ``(T, S, P)`` of the guide-level model, and which features converged.

    The start is the mean of the draws `init` ``(T, S, P)``. With `minibatch_size` rows are single cells and the
    model is that of cells, so many of them in a step.
    """
    at, c = resolve_device(device), get_curve(curve)
    with tensors.isolated(rng, at):
        data = tensors.trans_data(
            stats,
            dosage,
            overdispersion=overdispersion,
            axis=axis,
            priors=priors,
            hyper=hyper,
            consts=consts,
            device=at,
        )
        names = c.params[: init.shape[-1]]
        mean = init.mean(1)
        start = {name: tensors.tensor(mean[:, i : i + 1], at) for i, name in enumerate(names)}
        start["log_tau"] = torch.as_tensor(hyper["tau_log_mean"])
        scaled = ("a", "u", "alpha", *(() if c.log_amplitudes else names[1 : len(names) - c.n_shape]))
        units = dict.fromkeys(scaled, priors.unit)
        model = lambda: guide_level(data, c, degree)  # noqa: E731
        if minibatch_size is not None:
            rows = some_cells(data.counts.shape[1], minibatch_size, rng, at)
            model = lambda: cell_level(data, c, degree, rows())  # noqa: E731
        family, drift = optimise(model, start, niters or NITERS, rng, units)
        found = draws_of(family, nsamples, names)
    out = np.concatenate([found[name] for name in names], -1).transpose(1, 0, 2)
    converged = np.stack([drift[name].cpu().numpy()[:, 0] for name in names], 1).max(1) < DRIFT
    return np.ascontiguousarray(out), {"converged": converged}


def trans_chains(
    stats: Any,
    dosage: Any,
    feature: Any,
    *,
    overdispersion: Any,
    axis: Any,
    priors: Any,
    hyper: dict[str, Any],
    lag: Any,
    moves: Any,
    init: tuple[Any, Any],
    nsamples: int,
    niters: int | None,
    device: str,
    rng: int,
) -> tuple[Any, Any, Any]:
    """One Hill for all sticks of a feature (see `models.chains`).

    `init` are draws of level and amplitude ``(T, S, 2)`` and of the shapes ``(F, S, 2)``; returns as much, and which
    features converged.
    """
    at, n_f, names = resolve_device(device), len(init[1]), ("log2_ec50", "log_n")
    with tensors.isolated(rng, at):
        sticks = tensors.trans_data(
            stats,
            dosage,
            overdispersion=overdispersion,
            axis=axis,
            priors=priors,
            hyper=hyper,
            consts=np.zeros((len(lag), 2)),
            device=at,
        )
        of = tensors.tensor(feature, at)
        data = ChainData(sticks, of, tensors.tensor(lag, at), torch.as_tensor(np.array(moves), device=at), n_f)
        first = {n: init[1][..., i] for i, n in enumerate(names)} | {n: init[0][..., i] for i, n in enumerate("ab")}
        start = {name: tensors.tensor(x.mean(1)[:, None], at) for name, x in first.items()}
        start["log_tau"] = torch.as_tensor(hyper["tau_log_mean"])
        starts = np.searchsorted(feature, np.arange(n_f))
        place = tensors.tensor(np.arange(len(lag)) - starts[feature], at)
        family, drift = optimise(lambda: chains(data), start, niters or NITERS, rng, place=place)
        found = draws_of(family, nsamples)
    params, shapes = (
        np.concatenate([found[name] for name in some], -1).transpose(1, 0, 2) for some in (("a", "b"), names)
    )
    moved = {name: drift[name].cpu().numpy()[:, 0] for name in ("a", "b", *names)}
    worst = np.maximum(moved["log2_ec50"], moved["log_n"])
    np.maximum.at(worst, feature, np.maximum(moved["a"], moved["b"]))
    return np.ascontiguousarray(params), np.ascontiguousarray(shapes), worst < DRIFT


def technical(
    stats: TechnicalStats,
    priors: TechnicalPriors,
    *,
    nsamples: int = 1000,
    niters: int | None = None,
    device: str = "auto",
    rng: int = 0,
    autoguide: str = "AutoNormal",
    minibatch_size: int | None = None,
    progress: Callable[[Any], Any] = lambda x: x,
) -> TechnicalFit:
    """Technical step by SVI; the scale of the group effects is the fast engine's, as is the start.

    `minibatch_size` bins of cells make a step, and as many draws are there at a time; all by default.
    """
    from dream_sc._core.technical.counts import technical as fit_counts

    first, at = fit_counts(stats, priors), resolve_device(device)
    with tensors.isolated(rng, at):
        data = tensors.technical_data(stats, first.effect_scale, priors, at, first.coefficient_scale)
        start, kind = tensors.technical_start(first, at), FAMILIES[autoguide]
        model = lambda: technical_model(_some_bins(data, minibatch_size))  # noqa: E731
        family, drift = optimise(model, start, niters or NITERS, rng, kind=kind, progress=progress)
        found = moments_of(family, nsamples, minibatch_size)
    converged = np.stack([drift[n].cpu().numpy()[:, 0] for n in ("log_mu", "overdispersion")], 1).max(1) < DRIFT
    return technical_fit(found, first, converged)


def _some_bins(data: TechnicalData, n: int | None) -> TechnicalData:
    """The data with some of the bins standing for all: sums over bins keep their expectation."""
    every = len(data.n_cells)
    if n is None or n >= every:
        return data
    b = torch.randperm(every, device=data.n_cells.device)[:n]
    return replace(
        data,
        counts=data.counts[:, b] * (every / n),
        n_cells=data.n_cells[b] * (every / n),
        log_s=data.log_s[b],
        group=data.group[b],
        z=data.z[b],
    )


def technical_fit(found: dict[str, tuple[Any, Any]], first: TechnicalFit, converged: Any) -> TechnicalFit:
    """Summarise means and sds of draws of the technical model."""
    (log_mu, log_mu_sd), (o, o_sd) = ([v[:, 0] for v in found[name]] for name in ("log_mu", "overdispersion"))
    effects, sd = np.zeros_like(first.effects), np.zeros_like(first.effects)
    if "effects" in found:
        effects[:, 1:], sd[:, 1:] = (v.reshape(len(log_mu), -1) / LN2 for v in found["effects"])
    b, b_sd = first.coefficients, first.coefficients_sd
    if "coefficients" in found:
        b, b_sd = (v.reshape(len(log_mu), -1) / LN2 for v in found["coefficients"])
    return TechnicalFit(
        np.exp(log_mu),
        log_mu_sd,
        o,
        o_sd,
        effects,
        sd,
        float(found["beta_o"][0]),
        first.effect_scale,
        converged,
        b,
        b_sd,
        first.coefficient_scale,
    )


def technical_shares(
    stats: ShareStats,
    priors: SharePriors,
    overdispersed: bool = True,
    *,
    nsamples: int = 1000,
    niters: int | None = None,
    device: str = "auto",
    rng: int = 0,
) -> ShareFit:
    """Technical step of sticks by SVI; the scale of the group effects is the fast engine's, as is the start."""
    from dream_sc._core.technical.shares import technical_shares as fit_shares

    first, at = fit_shares(stats, priors, overdispersed), resolve_device(device)
    with tensors.isolated(rng, at):
        data = tensors.share_data(stats, first.effect_scale, priors, overdispersed, at)
        start = tensors.share_start(stats, first, at)
        family, drift = optimise(lambda: share_model(data), start, niters or NITERS, rng)
        found = draws_of(family, nsamples)
    return tensors.share_fit(found, stats, first, drift["level"].cpu().numpy()[:, 0] < DRIFT)


def technical_normal(
    stats: ScoreStats,
    priors: ScorePriors,
    *,
    nsamples: int = 1000,
    niters: int | None = None,
    device: str = "auto",
    rng: int = 0,
) -> ScoreFit:
    """Technical step of normal scores by SVI; the scale of the group effects is the fast engine's, as is the start."""
    from dream_sc._core.technical.scores import technical_normal as fit_normal

    first, at = fit_normal(stats, priors), resolve_device(device)
    told = np.flatnonzero(first.converged)
    if not len(told):
        return first
    with tensors.isolated(rng, at):
        data = _torch_scores.normal_data(stats, first, told, priors, at)
        return _scores(lambda: score_models.normal(data), first, told, stats.centre[told], nsamples, niters, at, rng)


def technical_studentt(
    blocks: Iterable[Any],
    row: Any,
    n_rows: int,
    n_features: int,
    priors: ScorePriors,
    *,
    nsamples: int = 1000,
    niters: int | None = None,
    device: str = "auto",
    rng: int = 0,
) -> ScoreFit:
    """Technical step of Student t scores by SVI, block by block; `blocks` are read twice."""
    from dream_sc._core.technical.scores import technical_studentt as fit_studentt

    out, at = fit_studentt(blocks, row, n_rows, n_features, priors), resolve_device(device)
    first = out
    for part, scores in blocks:
        mine = np.flatnonzero(first.converged[part])
        if not len(mine):
            continue
        told = np.arange(n_features)[part][mine]
        with tensors.isolated(rng, at):
            data = _torch_scores.studentt_data(scores[:, mine], row, first, told, priors, at)
            model = partial(score_models.studentt, data)
            out = _scores(model, out, told, first.mu[told], nsamples, niters, at, rng)
    return out


def _scores(
    model: Callable[[], None],
    first: ScoreFit,
    told: Any,
    centre: Any,
    nsamples: int,
    niters: int | None,
    at: Any,
    rng: int,
) -> ScoreFit:
    """`first` with what SVI says of the features `told`, whose scores are relative to `centre`."""
    start = _torch_scores.start(first, told, centre, at)
    family, drift = optimise(model, start, niters or NITERS, rng)
    settled = np.maximum(*(drift[name].cpu().numpy()[:, 0] for name in ("level", "log_sigma"))) < DRIFT
    return _torch_scores.write(first, told, centre, draws_of(family, nsamples), settled)


def cis(
    cells: CisCells,
    priors: CisPriors,
    *,
    nsamples: int = 1000,
    niters: int | None = None,
    device: str = "auto",
    rng: int = 0,
    progress: Callable[[Any], Any] = lambda x: x,
) -> CisFit:
    """Cis step by SVI, with a latent dosage of every targeted cell."""
    at = resolve_device(device)
    with tensors.isolated(rng, at):
        data, order = tensors.cis_data(cells, priors, at)
        start = cis_start(cells, order, priors)
        family, drift = optimise(lambda: cis_model(data), start, niters or NITERS, rng, progress=progress)
        found = draws_of(family, nsamples)
    ok = bool(drift["targeting_mean"].max() < DRIFT)
    return tensors.cis_fit(cells, order, found, ok)


def cis_start(cells: CisCells, order: Any, priors: CisPriors) -> dict[str, Any]:
    """The fast engine's guide means and spreads."""
    from dream_sc._core.dosage.guides import cis as fit_guides

    first = fit_guides(cells, priors)
    control = cells.is_control[order]
    mean, within = first.guide_mean[order], first.within_sd[order]
    t = torch.as_tensor
    return {
        "level": t(first.hyper["ntc_level"]),
        "mu": t(first.hyper["mu"]),
        "sigma": t(first.hyper["sigma"]),
        "control_sd": t(max(first.hyper["ntc_guide_sd"], 0.01)),
        "within_centre": t(np.log(first.hyper["within_median"])),
        "targeting_mean": t(mean[~control]),
        "within_sd": t(within[~control]),
        "control_mean": t(mean[control]),
        "z": t(0.0),
    }
