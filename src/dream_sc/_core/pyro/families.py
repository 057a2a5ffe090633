"""Variational families of the latent numbers of a Pyro model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.transforms import affine_autoregressive
from pyro.poutine.util import site_is_subsample
from torch.distributions import biject_to

if TYPE_CHECKING:
    from collections.abc import Callable

RATE = 0.03
START_SCALE = 0.05
FLOW_RATE, FLOW_START = 0.01, 0.01  # learning rate of a flow, and how small its last layer starts
STREAM = 1_000_003  # between the seeds of the noise of places in a chain


class MeanField:
    """A normal per latent number (after the transform to the real line), noise shared over features.

    Means and sds are in the `units` of their sites, 1 by default. Sticks have a `place` ``(T,)`` in their chain: those
    of different places have noise of their own, from generators seeded by `seed` and the place.
    """

    def __init__(
        self,
        model: Callable[[], None],
        start: dict[str, Any],
        units: dict[str, float],
        place: Any = None,
        seed: int = 0,
    ):
        self.place = place
        n_places = 0 if place is None else int(place.max()) + 1
        self.streams = [torch.Generator(place.device).manual_seed(seed + STREAM * (k + 1)) for k in range(n_places)]
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
            plates = [frame.name for frame in site["cond_indep_stack"]]
            kind = next((name for name in ("features", "chains") if name in plates), "")
            self.sites[name] = (loc, log_scale, transform, kind, unit)

    def _noise(self, loc: Any, kind: str) -> Any:
        """Standard normal numbers that fit the means of a site."""
        shape, how = loc.shape[1:] if kind else loc.shape, {"dtype": loc.dtype, "device": loc.device}
        if kind != "features" or self.place is None:
            return torch.randn(shape, **how)
        return torch.stack([torch.randn(shape, generator=stream, **how) for stream in self.streams])[self.place]

    def parameters(self) -> list[dict[str, Any]]:
        """What is optimised, with its learning rate."""
        return [{"params": [p for loc, log_scale, *_ in self.sites.values() for p in (loc, log_scale)], "lr": RATE}]

    def sample(self) -> tuple[dict[str, Any], Any]:
        """A draw of every site and the log density of all of them."""
        values, log_q = {}, 0.0
        for name, (loc, log_scale, _, kind, _) in self.sites.items():
            z = loc + log_scale.exp() * self._noise(loc, kind)
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

    def __init__(
        self,
        model: Callable[[], None],
        start: dict[str, Any],
        units: dict[str, float],
        place: Any = None,
        seed: int = 0,
    ):
        super().__init__(model, start, units, place, seed)
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
