"""Stochastic variational inference on the Pyro models, with AutoNormal's mean-field normal family.

Features are independent given what is shared, so they are optimised side by side with one stream of noise for
all: a feature's result does not depend on which others are in its block.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.transforms import affine_autoregressive
from pyro.poutine.util import site_is_subsample
from torch.distributions import biject_to

from dream_sc._core.dose_response import LN2
from dream_sc._core.dose_response import curve as get_curve
from dream_sc._core.models.cis import cis as cis_model
from dream_sc._core.models.technical import shares as share_model
from dream_sc._core.models.technical import technical as technical_model
from dream_sc._core.models.trans import guide_level
from dream_sc._core.types import TechnicalFit

from . import _torch
from ._device import resolve_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dream_sc._core.models.technical import TechnicalData
    from dream_sc._core.priors import CisPriors, SharePriors, TechnicalPriors
    from dream_sc._core.types import CisCells, CisFit, ShareFit, ShareStats, TechnicalStats

NITERS = 3000
RATE, FINAL_RATE = 0.03, 0.002
START_SCALE = 0.05
FLOW_RATE, FLOW_START = 0.01, 0.01  # learning rate of a flow, and how small its last layer starts
DRIFT = 0.5  # in sds, between the last two tenths of the run


class MeanField:
    """A normal per latent number (after the transform to the real line), noise shared over features.

    Means and sds are in the `units` of their sites, 1 by default.
    """

    def __init__(self, model: Callable[[], None], start: dict[str, Any], units: dict[str, float]):
        trace = poutine.trace(model).get_trace()
        self.sites: dict[str, Any] = {}
        for name, site in trace.nodes.items():
            if site["type"] != "sample" or site["is_observed"] or site_is_subsample(site):
                continue
            density: Any = site["fn"]
            seen = torch.as_tensor(site["value"])
            transform = biject_to(density.support)
            value = torch.as_tensor(start.get(name, seen)).to(seen).expand_as(seen)
            unit = units.get(name, 1.0)
            loc = (transform.inv(value).detach() / unit).clone().requires_grad_()
            log_scale = torch.full_like(loc, np.log(START_SCALE)).requires_grad_()
            by_feature = any(frame.name == "features" for frame in site["cond_indep_stack"])
            self.sites[name] = (loc, log_scale, transform, by_feature, unit)

    def parameters(self) -> list[dict[str, Any]]:
        """What is optimised, with its learning rate."""
        return [{"params": [p for loc, log_scale, *_ in self.sites.values() for p in (loc, log_scale)], "lr": RATE}]

    def sample(self) -> tuple[dict[str, Any], Any]:
        """A draw of every site and the log density of all of them."""
        noise, log_q, values = {}, 0.0, {}
        for name, (loc, log_scale, _, by_feature, _) in self.sites.items():
            shape = loc.shape[1:] if by_feature else loc.shape
            noise[name] = torch.randn(shape, dtype=loc.dtype, device=loc.device)
            z = loc + log_scale.exp() * noise[name]
            log_q = log_q + dist.Normal(loc, log_scale.exp()).log_prob(z).sum()
            values[name], jacobian = self._value(name, z)
            log_q = log_q - jacobian
        return values, log_q

    def _value(self, name: str, z: Any) -> tuple[Any, Any]:
        """A site's value from its number on the real line, and the log of how far it stretches."""
        *_, transform, _, unit = self.sites[name]
        value = transform(unit * z)
        return value, transform.log_abs_det_jacobian(unit * z, value).sum()


class Autoregressive(MeanField):
    """Inverse autoregressive flow :cite:p:`Kingma2016` over all latent numbers, around independent normals.

    What `pyro.infer.autoguide.AutoIAFNormal` is, started at independent normals; every number has noise of its own.
    """

    def __init__(self, model: Callable[[], None], start: dict[str, Any], units: dict[str, float]):
        super().__init__(model, start, units)
        some = next(iter(self.sites.values()))[0]
        self.sizes = {name: site[0].numel() for name, site in self.sites.items()}
        n = sum(self.sizes.values())
        self.flow = affine_autoregressive(n, hidden_dims=[n]).to(device=some.device)
        with torch.no_grad():  # near the identity
            last = self.flow.arn.layers[-1]
            last.weight.mul_(FLOW_START)
            last.bias.mul_(FLOW_START)

    def parameters(self) -> list[dict[str, Any]]:
        """Those of the normals, and of the flow."""
        return [*super().parameters(), {"params": list(self.flow.parameters()), "lr": FLOW_RATE}]

    def sample(self) -> tuple[dict[str, Any], Any]:
        """A draw of every site and the log density of all of them."""
        some = next(iter(self.sites.values()))[0]
        eps = torch.randn(sum(self.sizes.values()), device=some.device)  # the flow is in single precision
        z = self.flow(eps)
        log_q = dist.Normal(0.0, 1.0).log_prob(eps).sum() - self.flow.log_abs_det_jacobian(eps, z).sum()
        values = {}
        for (name, site), part in zip(self.sites.items(), z.split(list(self.sizes.values())), strict=True):
            loc, log_scale = site[:2]
            at = loc + log_scale.exp() * part.reshape(loc.shape).to(loc.dtype)
            values[name], jacobian = self._value(name, at)
            log_q = log_q - log_scale.sum() - jacobian
        self.flow.clear_cache()
        return values, log_q


FAMILIES = {"AutoNormal": MeanField, "AutoIAFNormal": Autoregressive}


def _optimise(
    model: Callable[[], None], start: dict[str, Any], niters: int, seed: int, units: dict[str, float] | None = None,
    kind: type[MeanField] = MeanField,
) -> tuple[MeanField, dict[str, Any]]:  # fmt: skip
    """Fit the family; returns it with its means averaged over the last tenth, and each site's drift in sds."""
    start = {name: torch.zeros(()) for name in ("u", "z", "alpha", "errors")} | start
    family = kind(model, start, units or {})
    torch.manual_seed(seed)  # again: how much the start draws depends on the number of features
    optimiser = torch.optim.Adam(family.parameters())
    decay = (FINAL_RATE / RATE) ** (1 / niters)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, decay)
    tenth = max(niters // 10, 1)
    means = [{n: torch.zeros_like(s[0]) for n, s in family.sites.items()} for _ in range(2)]
    for step in range(niters):
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


def trans(
    stats: Any, dosage: Any, *, overdispersion: Any, curve: str, axis: Any, priors: Any, hyper: dict[str, float],
    consts: Any, init: Any, nsamples: int, niters: int | None, device: str, rng: int, degree: int = 6,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """Draws ``(T, S, P)`` of the guide-level model, and which features converged.

    The start is the mean of the draws `init` ``(T, S, P)``.
    """
    at, c = resolve_device(device), get_curve(curve)
    with _torch.isolated(rng, at):
        data = _torch.trans_data(
            stats, dosage, overdispersion=overdispersion, axis=axis, priors=priors, hyper=hyper, consts=consts,
            device=at,
        )  # fmt: skip
        names = c.params[: init.shape[-1]]
        mean = init.mean(1)
        start = {name: _torch.tensor(mean[:, i : i + 1], at) for i, name in enumerate(names)}
        start["log_tau"] = torch.as_tensor(hyper["m_tau"])
        scaled = ("a", "u", "alpha", *(() if c.name == "additive_hill" else names[1 : len(names) - c.n_shape]))
        units = dict.fromkeys(scaled, priors.unit)  # amplitudes of two Hills are logs
        family, drift = _optimise(lambda: guide_level(data, c, degree), start, niters or NITERS, rng, units)
        found = _draws(family, nsamples, names)
    out = np.concatenate([found[name] for name in names], -1).transpose(1, 0, 2)
    converged = np.stack([drift[name].cpu().numpy()[:, 0] for name in names], 1).max(1) < DRIFT
    return np.ascontiguousarray(out), {"converged": converged}


def technical(
    stats: TechnicalStats, priors: TechnicalPriors, *, nsamples: int = 1000, niters: int | None = None,
    device: str = "auto", rng: int = 0, autoguide: str = "AutoNormal", minibatch_size: int | None = None,
) -> TechnicalFit:  # fmt: skip
    """Technical step by SVI; the scale of the group effects is the fast engine's, as is the start.

    `minibatch_size` bins of cells make a step, and as many draws are there at a time; all by default.
    """
    from . import laplace

    first, at = laplace.technical(stats, priors), resolve_device(device)
    with _torch.isolated(rng, at):
        data = _torch.technical_data(stats, first.effect_scale, priors, at, first.coefficient_scale)
        start, kind = _torch.technical_start(first, at), FAMILIES[autoguide]
        model = lambda: technical_model(_some_bins(data, minibatch_size))  # noqa: E731
        family, drift = _optimise(model, start, niters or NITERS, rng, kind=kind)
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
        data, counts=data.counts[:, b] * (every / n), n_cells=data.n_cells[b] * (every / n), log_s=data.log_s[b],
        group=data.group[b], z=data.z[b],
    )  # fmt: skip


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
        np.exp(log_mu), log_mu_sd, o, o_sd, effects, sd, float(found["beta_o"][0]), first.effect_scale, converged,
        b, b_sd, first.coefficient_scale,
    )  # fmt: skip


def technical_shares(
    stats: ShareStats, priors: SharePriors, overdispersed: bool = True, *, nsamples: int = 1000,
    niters: int | None = None, device: str = "auto", rng: int = 0,
) -> ShareFit:  # fmt: skip
    """Technical step of sticks by SVI; the scale of the group effects is the fast engine's, as is the start."""
    from . import laplace

    first, at = laplace.technical_shares(stats, priors, overdispersed), resolve_device(device)
    with _torch.isolated(rng, at):
        data = _torch.share_data(stats, first.effect_scale, priors, overdispersed, at)
        start = _torch.share_start(first, at)
        family, drift = _optimise(lambda: share_model(data), start, niters or NITERS, rng)
        found = _draws(family, nsamples)
    return _torch.share_fit(found, first, drift["level"].cpu().numpy()[:, 0] < DRIFT)


def cis(
    cells: CisCells, priors: CisPriors, *, nsamples: int = 1000, niters: int | None = None, device: str = "auto",
    rng: int = 0,
) -> CisFit:  # fmt: skip
    """Cis step by SVI, with a latent dosage of every targeted cell."""
    at = resolve_device(device)
    with _torch.isolated(rng, at):
        data, order = _torch.cis_data(cells, priors, at)
        family, drift = _optimise(lambda: cis_model(data), cis_start(cells, order, priors), niters or NITERS, rng)
        found = _draws(family, nsamples)
    ok = bool(drift["targeting_mean"].max() < DRIFT)
    return _torch.cis_fit(cells, order, found, ok)


def cis_start(cells: CisCells, order: Any, priors: CisPriors) -> dict[str, Any]:
    """The fast engine's guide means and spreads."""
    from . import laplace

    first = laplace.cis(cells, priors)
    control = cells.is_control[order]
    mean, within = first.guide_mean[order], first.within_sd[order]
    t = torch.as_tensor
    return {
        "level": t(first.hyper["ntc_level"]), "mu": t(first.hyper["mu"]), "sigma": t(first.hyper["sigma"]),
        "control_sd": t(max(first.hyper["ntc_guide_sd"], 0.01)),
        "within_centre": t(np.log(first.hyper["within_median"])), "targeting_mean": t(mean[~control]),
        "within_sd": t(within[~control]), "control_mean": t(mean[control]),
        "z": t(0.0),
    }  # fmt: skip
