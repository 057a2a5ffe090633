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
from pyro import poutine

from dream_sc._core.curves import LN2
from dream_sc._core.curves import curve as get_curve
from dream_sc._core.device import resolve_device
from dream_sc._core.types import TechnicalFit

from . import scores as _torch_scores
from . import tensors
from .families import FAMILIES, RATE, MeanField
from .models import scores as score_models
from .models.chains import ChainData, chains
from .models.cis import cis as cis_model
from .models.technical import shares as share_model
from .models.technical import technical as technical_model
from .models.trans import cell_level, guide_level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dream_sc._core.priors import CisPriors, ScorePriors, SharePriors, TechnicalPriors
    from dream_sc._core.sums.pair_sums import ScoreStats
    from dream_sc._core.types import CisCells, CisFit, ScoreFit, ShareFit, ShareStats, TechnicalStats

    from .models.technical import TechnicalData

NITERS = 3000
FINAL_RATE = 0.002
LEAST_NITERS = 100  # for a fit to have converged
DRIFT = 0.5  # in sds, between the last two tenths of the run


def _optimise(
    model: Callable[[], None],
    start: dict[str, Any],
    niters: int,
    seed: int,
    units: dict[str, float] | None = None,
    kind: type[MeanField] = MeanField,
    place: Any = None,
    progress: Callable[[Any], Any] = lambda x: x,
) -> tuple[MeanField, dict[str, Any]]:
    """Fit the family; returns it with its means averaged over the last tenth, and each site's drift in sds."""
    start = {name: torch.zeros(()) for name in ("u", "z", "alpha", "errors")} | start
    family = kind(model, start, units or {}, place, seed)
    torch.manual_seed(seed)  # again: how much the start draws depends on the number of features
    optimiser = torch.optim.Adam(family.parameters())
    decay = (FINAL_RATE / RATE) ** (1 / niters)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, decay)
    tenth = max(niters // 10, 1)
    means = [{n: torch.zeros_like(s[0]) for n, s in family.sites.items()} for _ in range(2)]
    for step in progress(range(niters)):
        optimiser.zero_grad()
        values, log_q = family.sample()
        trace = poutine.trace(poutine.condition(model, data=values)).get_trace()
        loss = log_q - trace.log_prob_sum()
        loss.backward()
        optimiser.step()
        schedule.step()
        late = step - (niters - 2 * tenth)
        if late >= 0:
            for name, site in family.sites.items():
                means[min(late // tenth, 1)][name] += site[0].detach() / tenth
    drift = {}
    with torch.no_grad():
        for name, (loc, log_scale, *_) in family.sites.items():
            drift[name] = (means[1][name] - means[0][name]).abs() / log_scale.exp()
            if niters < LEAST_NITERS:  # what moves between so few steps says nothing
                drift[name] = torch.full_like(drift[name], torch.inf)
            loc.copy_(means[1][name])
    return family, drift


def _draws(family: MeanField, n: int, names: Iterable[str] | None = None) -> dict[str, Any]:
    """Draws ``(n, ...)`` of some sites, of all by default."""
    wanted, out = list(family.sites if names is None else names), dict[str, Any]()
    with torch.no_grad():
        for i in range(n):
            drawn = family.sample()[0]
            for name in wanted:
                value = drawn[name].cpu().numpy()
                if i == 0:
                    out[name] = np.empty((n, *value.shape), value.dtype)
                out[name][i] = value
    return out


def _moments(family: MeanField, n: int, at_once: int | None) -> dict[str, tuple[Any, Any]]:
    """Mean and sd of draws of each site, of which so many are there at a time."""
    size = n if at_once is None else min(at_once, n)
    done, mean, square = 0, dict[str, Any](), dict[str, Any]()
    while done < n:
        found = _draws(family, min(size, n - done))
        for name, drawn in found.items():
            k, here = len(drawn), drawn.mean(0)
            gap = here - mean.get(name, 0.0)
            mean[name] = mean.get(name, 0.0) + gap * k / (done + k)
            square[name] = square.get(name, 0.0) + ((drawn - here) ** 2).sum(0) + gap**2 * done * k / (done + k)
        done += len(next(iter(found.values())))
    return {name: (mean[name], np.sqrt(square[name] / n)) for name in mean}


def _batches(n: int, size: int, seed: int, device: Any) -> Callable[[], Any]:
    """What gives some of `n` cells at each call, the same ones whatever the features; None of fewer cells than that."""
    if size >= n:
        return lambda: None
    stream = np.random.default_rng([seed, 3])
    return lambda: torch.as_tensor(stream.choice(n, size, replace=False), device=device)


def trans(
    stats: Any,
    dosage: Any,
    *,
    overdispersion: Any,
    curve: str,
    axis: Any,
    priors: Any,
    hyper: dict[str, float],
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
        start["log_tau"] = torch.as_tensor(hyper["m_tau"])
        scaled = ("a", "u", "alpha", *(() if c.log_amplitudes else names[1 : len(names) - c.n_shape]))
        units = dict.fromkeys(scaled, priors.unit)
        model = lambda: guide_level(data, c, degree)  # noqa: E731
        if minibatch_size is not None:
            rows = _batches(data.counts.shape[1], minibatch_size, rng, at)
            model = lambda: cell_level(data, c, degree, rows())  # noqa: E731
        family, drift = _optimise(model, start, niters or NITERS, rng, units)
        found = _draws(family, nsamples, names)
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
    hyper: dict[str, float],
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
        start["log_tau"] = torch.as_tensor(hyper["m_tau"])
        starts = np.searchsorted(feature, np.arange(n_f))
        place = tensors.tensor(np.arange(len(lag)) - starts[feature], at)
        family, drift = _optimise(lambda: chains(data), start, niters or NITERS, rng, place=place)
        found = _draws(family, nsamples)
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
        family, drift = _optimise(model, start, niters or NITERS, rng, kind=kind, progress=progress)
        found = _moments(family, nsamples, minibatch_size)
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
        start = tensors.share_start(first, at)
        family, drift = _optimise(lambda: share_model(data), start, niters or NITERS, rng)
        found = _draws(family, nsamples)
    return tensors.share_fit(found, first, drift["level"].cpu().numpy()[:, 0] < DRIFT)


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
    family, drift = _optimise(model, start, niters or NITERS, rng)
    settled = np.maximum(*(drift[name].cpu().numpy()[:, 0] for name in ("level", "log_sigma"))) < DRIFT
    return _torch_scores.write(first, told, centre, _draws(family, nsamples), settled)


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
        family, drift = _optimise(lambda: cis_model(data), start, niters or NITERS, rng, progress=progress)
        found = _draws(family, nsamples)
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
