"""Fitting a variational family to a model, and drawing from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro import poutine

from .families import RATE, MeanField

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NITERS = 3000
FINAL_RATE = 0.002
LEAST_NITERS = 100  # for a fit to have converged
DRIFT = 0.5  # in sds, between the last two tenths of the run


def optimise(
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


def draws_of(family: MeanField, n: int, names: Iterable[str] | None = None) -> dict[str, Any]:
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


def moments_of(family: MeanField, n: int, at_once: int | None) -> dict[str, tuple[Any, Any]]:
    """Mean and sd of draws of each site, of which so many are there at a time."""
    size = n if at_once is None else min(at_once, n)
    done, mean, square = 0, dict[str, Any](), dict[str, Any]()
    while done < n:
        found = draws_of(family, min(size, n - done))
        for name, drawn in found.items():
            k, here = len(drawn), drawn.mean(0)
            gap = here - mean.get(name, 0.0)
            mean[name] = mean.get(name, 0.0) + gap * k / (done + k)
            square[name] = square.get(name, 0.0) + ((drawn - here) ** 2).sum(0) + gap**2 * done * k / (done + k)
        done += len(next(iter(found.values())))
    return {name: (mean[name], np.sqrt(square[name] / n)) for name in mean}


def some_cells(n: int, size: int, seed: int, device: Any) -> Callable[[], Any]:
    """What gives some of `n` cells at each call, the same ones whatever the features; None of fewer cells than that."""
    if size >= n:
        return lambda: None
    stream = np.random.default_rng([seed, 3])
    return lambda: torch.as_tensor(stream.choice(n, size, replace=False), device=device)
