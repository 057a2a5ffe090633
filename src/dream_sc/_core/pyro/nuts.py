"""The No-U-Turn sampler on the Pyro models: the reference, for small problems.

The features of the trans step are sampled one by one: given what is shared they are independent, and one step
size for all would be that of the worst.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc.util import initialize_model
from pyro.infer.reparam import TransformReparam

from dream_sc._core.curves import curve as get_curve
from dream_sc._core.device import resolve_device

from . import tensors
from .models.cis import cis as cis_model
from .models.technical import shares as share_model
from .models.technical import technical as technical_model
from .models.trans import TransData, cell_level, guide_level
from .svi import cis_start, technical_fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from dream_sc._core.curves import Curve
    from dream_sc._core.priors import CisPriors, SharePriors, TechnicalPriors
    from dream_sc._core.types import CisCells, CisFit, ShareFit, ShareStats, TechnicalFit, TechnicalStats

WARMUP = 500
MAX_TREE_DEPTH = 8
MODELS = {"guide": guide_level, "cell": cell_level}
LEAST_EFFECTIVE = 100.0
LARGEST_RHAT = 1.05


def sample(
    model: Callable[[], None],
    start: dict[str, Any],
    n: int,
    warmup: int | None,
    scale: dict[str, Any] | None = None,
    progress: Callable[[Any], Any] = lambda x: x,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws of every site from one chain, and its diagnostics (`n_eff` and split `r_hat` per site).

    The chain walks in ``(value - start) / scale`` on the real line, so that all directions have about unit length.
    `scale` holds a number per site, and a lower triangular matrix for the tuple of scalar sites in its key.
    """
    first, potential, transforms, _ = initialize_model(model, jit_compile=True, skip_jit_warnings=True)
    scale = scale or {}
    centre = {}
    for name, value in first.items():
        at = torch.zeros_like(value)
        if name in start:
            to_real = transforms[name]
            at = torch.as_tensor(start[name]).to(value)
            at = to_real(at.expand_as(to_real.inv(value)))
        centre[name] = at.detach().clone()

    def restore(q: dict[str, Any]) -> dict[str, Any]:
        out = {name: centre[name] + scale.get(name, 1.0) * q[name] for name in centre}
        for names, chol in scale.items():
            if isinstance(names, tuple):
                moved = chol @ torch.cat([q[name].reshape(1) for name in names])
                out |= {name: centre[name] + moved[i] for i, name in enumerate(names)}
        return out

    ticks = iter(progress(range(n + (warmup or WARMUP))))
    with warnings.catch_warnings():
        # tracing warns of sizes that it takes for constants, which they are
        warnings.simplefilter("ignore")
        chain = MCMC(
            NUTS(potential_fn=lambda q: potential(restore(q)), max_tree_depth=MAX_TREE_DEPTH),
            num_samples=n,
            warmup_steps=warmup or WARMUP,
            disable_progbar=True,
            initial_params={name: torch.zeros_like(value) for name, value in centre.items()},
            hook_fn=lambda *_: next(ticks, None),
        )
        chain.run()
        next(ticks, None)  # closes the bar
        diagnostics = {k: v for k, v in chain.diagnostics().items() if isinstance(v, dict) and "n_eff" in v}
    walked = chain.get_samples()
    found: dict[str, list[Any]] = {name: [] for name in centre}
    for i in range(n):
        for name, value in restore({k: v[i] for k, v in walked.items()}).items():
            found[name].append(transforms[name].inv(value))
    return {name: torch.stack(v).cpu().numpy() for name, v in found.items()}, diagnostics


def converged(diagnostics: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Whether every site mixed."""
    found = [diagnostics[n] for n in names if n in diagnostics]
    # after a very short run they are NaN, and no comparison holds
    n_eff = min(float(np.min(np.asarray(d["n_eff"]))) for d in found)
    r_hat = max(float(np.max(np.asarray(d["r_hat"]))) for d in found)
    return n_eff > LEAST_EFFECTIVE and r_hat < LARGEST_RHAT


def sample_feature(
    data: TransData, c: Curve, init: Any, *, level: str, n: int, warmup: int | None, degree: int = 6
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draws of one feature's guide-level or cell-level model, guide effects non-centred; `init` is ``(S, P)``."""
    model = MODELS[level]
    reparam = poutine.reparam(lambda: model(data, c, degree), {"u": TransformReparam()})
    names = c.params[: init.shape[-1]]
    start = {name: torch.as_tensor(init[:, i].mean()) for i, name in enumerate(names)}
    start["log_tau"] = torch.as_tensor(data.tau_log_mean)
    cov = np.cov(init.T).reshape(len(names), len(names)) + 1e-8 * np.eye(len(names))
    scale: dict[Any, Any] = {names: tensors.tensor(np.linalg.cholesky(cov), data.level.device)}
    scale |= {"log_tau": data.tau_log_sd, "alpha": 0.3 * data.group_effect_sd}
    if data.load_covariance is not None:
        scale["errors"] = torch.diagonal(data.load_covariance[0]).mean().sqrt()
    return sample(reparam, start, n, warmup, scale)


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
    level: str = "guide",
) -> tuple[Any, dict[str, Any]]:
    """Draws ``(T, S, P)``, started from and scaled by the draws `init` ``(T, S, P)``; `niters`: warm-up.

    ``level="cell"`` samples the cell-level model: `stats` then has a row per cell.
    """
    at, c = resolve_device(device), get_curve(curve)
    data = tensors.trans_data(
        stats, dosage, overdispersion=overdispersion, axis=axis, priors=priors, hyper=hyper, consts=consts, device=at
    )
    names = c.params[: init.shape[-1]]
    out, ok = np.zeros((len(init), nsamples, len(names))), np.zeros(len(init), dtype=bool)
    for t in range(len(init)):
        with tensors.isolated(rng, at):
            found, diagnostics = sample_feature(
                data.feature(t), c, init[t], level=level, n=nsamples, warmup=niters, degree=degree
            )
        out[t] = np.stack([found[name].reshape(nsamples) for name in names], 1)
        ok[t] = converged(diagnostics, names)
    return out, {"converged": ok}


def technical(
    stats: TechnicalStats,
    priors: TechnicalPriors,
    *,
    nsamples: int = 1000,
    niters: int | None = None,
    device: str = "auto",
    rng: int = 0,
    progress: Callable[[Any], Any] = lambda x: x,
) -> TechnicalFit:
    """Technical step; all features are sampled together, since they share the rate of the overdispersion."""
    from dream_sc._core.technical.counts import technical as fit_counts

    first, at = fit_counts(stats, priors), resolve_device(device)
    with tensors.isolated(rng, at):
        data = tensors.technical_data(stats, first.effect_scale, priors, at, first.coefficient_scale)
        start = tensors.technical_start(first, at)
        found, diagnostics = sample(lambda: technical_model(data), start, nsamples, niters, progress=progress)
    n_eff = np.minimum(*(np.asarray(diagnostics[n]["n_eff"]).ravel() for n in ("log_mu", "overdispersion")))
    moments = {name: (draws.mean(0), draws.std(0)) for name, draws in found.items()}
    return technical_fit(moments, first, n_eff > LEAST_EFFECTIVE)


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
    """Technical step of sticks; all are sampled together, since they share the rate of the overdispersion."""
    from dream_sc._core.technical.shares import technical_shares as fit_shares

    first, at = fit_shares(stats, priors, overdispersed), resolve_device(device)
    with tensors.isolated(rng, at):
        data = tensors.share_data(stats, first.effect_scale, priors, overdispersed, at)
        start = tensors.share_start(stats, first, at)
        found, diagnostics = sample(lambda: share_model(data), start, nsamples, niters)
    n_eff = np.asarray(diagnostics["level"]["n_eff"]).ravel()
    return tensors.share_fit(found, stats, first, n_eff > LEAST_EFFECTIVE)


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
    """Cis step, with a latent dosage of every targeted cell."""
    at = resolve_device(device)
    with tensors.isolated(rng, at):
        data, order = tensors.cis_data(cells, priors, at)
        start = cis_start(cells, order, priors)
        found, diagnostics = sample(lambda: cis_model(data), start, nsamples, niters, progress=progress)
    return tensors.cis_fit(cells, order, found, converged(diagnostics, ("targeting_mean",)))
