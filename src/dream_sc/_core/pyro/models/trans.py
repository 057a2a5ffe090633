r"""The trans step in Pyro, at guide level and at cell level.

Guide level: a row is one guide in one technical group; its count is the sum over the row's cells,

.. math::

    Y_{tr} \sim \mathrm{NB}(W_r \bar f_t(x_r) e^{\zeta_{tr} + l_r \epsilon_t + \alpha_{tc} + u_{tg}},\;
    o_t^2 W2_r / W_r^2), \quad
    u_{tg} \sim (1 - \pi) N(0, \tau_t^2 + \delta_{tg}^2) + \pi N(0, \tau_t^2 + \omega^2 + \delta_{tg}^2)

with :math:`\zeta` the log of what covariates do to the exposure, :math:`\epsilon` the errors of their coefficients
(normal, with loadings `l`), and
:math:`2 \delta = \log f(x_g + e_g) - \log f(x_g - e_g)` for the error :math:`e_g` of a guide's dosage. Cell level:
every cell's count by itself, with overdispersion `o_t`, and the guides' dosages latent, so that their error is exact.
The curve's mean over the within-guide spread of the dosage is taken in both. Where a likelihood has weights (numbers
of trials, precisions of scores), its density takes the place of the negative binomial one; its predictor is the same
sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch

from dream_sc._core.likelihoods import likelihood

if TYPE_CHECKING:
    from dream_sc._core.curves import Curve
    from dream_sc._core.priors import TransPriors
    from dream_sc._core.types import Axis

LEAST_VARIANCE = 1e-10  # of a guide effect, as in the compiled kernel


class Flat(dist.Normal):
    """A density of one everywhere: the prior of the amplitudes, which depends on the shape, is a factor.

    Its samples are standard normal, so that a model has somewhere to start.
    """

    def __init__(self, like: Any, validate_args: bool | None = None) -> None:
        super().__init__(torch.zeros_like(like), torch.ones_like(like), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Flat:
        """The same density for a batch."""
        return Flat(self.loc.expand(batch_shape))

    def log_prob(self, value: Any) -> Any:
        """Zero."""
        return torch.zeros_like(value)


@dataclass(frozen=True)
class TransData:
    """What the models condition on: `R` rows of `G` guides in `C` groups, for `T` features, as float64 tensors."""

    counts: Any  # (T, R)
    log_w: Any  # (R,) log of the sum of size factors
    scale2: Any  # (R,) W2 / W^2; 1 for a single cell
    guide: Any  # (R,) long
    group: Any  # (R,) long
    mean: Any  # (R,) log2 dosage
    at: Any  # (R, J) log2 dosages that stand for the row's cells
    weights: Any  # (R, J)
    moves: Any  # (J,) 1 for nodes that move with the guide's dosage, 0 for that of cells at the NTC level
    own: Any  # (R, 2) the guide's dosage, and that of cells at the NTC level
    shares: Any  # (R, 2) of these two
    error: Any  # (G,) sd of a guide's dosage
    overdispersion: Any  # (T,)
    level: Any  # (T,) centre of the prior of the level
    consts: Any  # (T, 2) constants of the curve
    n_groups: int
    group_effect_sd: float
    tau_log_mean: float
    tau_log_sd: float
    wide_weight: Any  # of the wide component of the guide effects: a number, or (G,) of each guide
    wide_sd: Any
    axis: Axis
    priors: TransPriors
    several: bool = False  # whether several curves compete, so that the factors of their priors count
    row_weights: Any = None  # (T, R) numbers of trials, or precisions
    distribution: str = "negbinom"
    offset: Any = None  # (T, R) what covariates add to the predictor
    loads: Any = None  # (R, D) loadings of the errors of their coefficients
    load_covariance: Any = None  # (T, D, D)

    def some_rows(self, rows: Any) -> TransData:
        """The same features with some of the rows."""
        from dataclasses import replace

        return replace(
            self,
            counts=self.counts[:, rows],
            log_w=self.log_w[rows],
            scale2=self.scale2[rows],
            guide=self.guide[rows],
            group=self.group[rows],
        )

    def feature(self, t: int) -> TransData:
        """The same design for one feature."""
        from dataclasses import replace

        s = slice(t, t + 1)
        return replace(
            self,
            counts=self.counts[s],
            overdispersion=self.overdispersion[s],
            level=self.level[s],
            consts=self.consts[s],
            row_weights=None if self.row_weights is None else self.row_weights[s],
            offset=None if self.offset is None else self.offset[s],
            load_covariance=None if self.load_covariance is None else self.load_covariance[s],
        )


def parameters(data: TransData, curve: Curve, degree: int) -> dict[str, Any]:
    """Sample level, shape, amplitudes, group effects and log tau of each feature; ``(T, 1)`` each."""
    p, one = data.priors, data.level.new_ones(1)
    out = {"a": pyro.sample("a", dist.Normal(data.level[:, None], p.level_sd * one))} | shape(data, curve)
    for name in curve.params[1 : 1 + curve.n_free(degree)]:
        out[name] = pyro.sample(name, Flat(one))
    pyro.factor("amplitudes", curve.torch_prior(out, data.axis, p, data.consts))
    if data.several and curve.factor is not None:
        pyro.factor("factor", curve.factor.torch(out, data.consts, data.axis, p))
    return out


def shape(data: TransData, curve: Curve) -> dict[str, Any]:
    """Sample the shape of curves, in a plate."""
    p, one, out = data.priors, data.level.new_ones(1), {}
    for name in curve.params[1 + curve.n_amplitudes :]:
        ec50 = name.startswith("log2_ec50")
        prior = dist.Normal(p.ec50_mean * one, p.ec50_sd) if ec50 else dist.Normal(p.n_log_mean * one, p.n_log_sd)
        out[name] = pyro.sample(name, prior)
    return out


def row_effects(data: TransData, n: int) -> Any:
    """Log effect ``(T, R)`` of each row's technical group, and of the errors of covariates' coefficients."""
    out = data.level.new_zeros(n, 1)
    if data.load_covariance is not None:
        covariance = data.load_covariance[:, None]
        errors = pyro.sample("errors", dist.MultivariateNormal(covariance.new_zeros(covariance.shape[-1]), covariance))
        out = errors.reshape(n, -1) @ data.loads.T
    return out if data.n_groups == 1 else out + group_effects(data)


def group_effects(data: TransData) -> Any:
    """Log effect of the technical group of each row, ``(T, R)``; the first group is the reference."""
    scale = data.group_effect_sd * data.level.new_ones(data.n_groups - 1)
    alpha = pyro.sample("alpha", dist.Normal(0.0 * scale, scale).to_event(1))
    alpha = alpha.reshape(*alpha.shape[:-2], alpha.shape[-1]) if alpha.dim() > 2 else alpha
    return torch.cat([torch.zeros_like(alpha[:, :1]), alpha], -1)[:, data.group]


def _observe(data: TransData, predictor: Any, scale: float = 1.0) -> None:
    if data.offset is not None:
        predictor = predictor + data.offset
    variance = data.overdispersion[:, None] ** 2 * data.scale2
    density = likelihood(data.distribution).torch_log_density(data.counts, predictor, data.row_weights, variance)
    pyro.factor("counts", scale * density.sum(-1, keepdim=True))


class TwoNormals(dist.Normal):
    """Mixture of a standard normal and a wide one of the same centre, with the real line as its support."""

    def __init__(self, wide_sd: Any, weight: Any, validate_args: bool | None = None) -> None:
        self.wide_sd, self.weight = wide_sd, torch.as_tensor(weight, dtype=wide_sd.dtype, device=wide_sd.device)
        super().__init__(torch.zeros_like(wide_sd), torch.ones_like(wide_sd), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> TwoNormals:
        """The same density for a batch."""
        return TwoNormals(self.wide_sd.expand(batch_shape), self.weight.expand(batch_shape))

    def rsample(self, sample_shape: Any = ()) -> Any:
        """Draws."""
        z = super().rsample(torch.Size(sample_shape))
        return torch.where(torch.rand_like(z) < self.weight, self.wide_sd, torch.ones_like(z)) * z

    def log_prob(self, value: Any) -> Any:
        """Log density."""
        wide = -0.5 * (value / self.wide_sd) ** 2 - self.wide_sd.log() + self.weight.log()
        narrow = -0.5 * value**2 + (1.0 - self.weight).log()
        return torch.logaddexp(narrow, wide) - 0.5 * log(2.0 * pi)


def guide_effect(data: TransData, var: Any) -> Any:
    """Distribution of a guide effect whose narrow component has this variance, written as a scaled one."""
    one = torch.ones_like(var)
    base: Any = dist.Normal(0.0 * one, one)
    if float(torch.as_tensor(data.wide_weight).max()) > 0:
        base = TwoNormals((1.0 + data.wide_sd**2 / var).sqrt(), data.wide_weight)
    return dist.TransformedDistribution(base, [dist.transforms.AffineTransform(0.0, var.sqrt())])


def guide_level(data: TransData, curve: Curve, degree: int = 6) -> None:
    """Joint density of sums per guide and group; the density that the fast engine integrates."""
    with pyro.plate("features", data.counts.shape[0], dim=-2):
        observe_guides(data, curve, parameters(data, curve, degree))


def observe_guides(data: TransData, curve: Curve, params: dict[str, Any]) -> None:
    """Sample guide and group effects and observe the sums, given the curves' parameters; in a plate."""
    n, zero = data.counts.shape[0], data.level.new_zeros(1)
    log_tau = pyro.sample("log_tau", dist.Normal(data.tau_log_mean + zero, data.tau_log_sd))
    rows = curve.torch_rows(params, data.at, data.weights, data.consts)
    at_ntc = curve.torch_rows(params, zero[:, None], zero[:, None] + 1.0, data.consts)
    # a guide's rows have one dosage, so any of them stands for all
    one = _last_row(data.guide, len(data.error))
    moved, still, error = data.own[one, :1], data.own[one, 1:], data.error[:, None]
    up, down = (
        curve.torch_rows(params, torch.cat([moved + s, still], 1), data.shares[one], data.consts)
        for s in (error, -error)
    )
    var = log_tau.exp() ** 2 + (0.5 * (up - down)) ** 2 + LEAST_VARIANCE
    with pyro.plate("guides", len(data.error), dim=-1):
        u = pyro.sample("u", guide_effect(data, var))
    effects = row_effects(data, n)
    _observe(data, data.log_w + params["a"] + rows - at_ntc + effects + u[:, data.guide])


def cell_level(data: TransData, curve: Curve, degree: int = 6, rows: Any = None) -> None:
    """Joint density of single cells' counts, with latent guide effects and guide dosages.

    Here `data` has a row per cell, ``scale2 = 1``; a guide's cells share its dosage's error and its spread. Of the
    cells some `rows` may stand for all.
    """
    n, n_guides = data.counts.shape[0], len(data.error)
    seen = data if rows is None else data.some_rows(rows)
    zero = data.level.new_zeros(1)
    some = _last_row(data.guide, n_guides)
    with pyro.plate("features", n, dim=-2):
        params = parameters(data, curve, degree)
        log_tau = pyro.sample("log_tau", dist.Normal(data.tau_log_mean + zero, data.tau_log_sd))
        with pyro.plate("guides", n_guides, dim=-1):
            z = pyro.sample("z", dist.Normal(zero, 1.0 + zero))
            u = pyro.sample("u", guide_effect(data, log_tau.exp() ** 2 + 0.0 * z))
        effects = row_effects(seen, n)
        at_ntc = curve.torch_rows(params, zero[:, None], zero[:, None] + 1.0, data.consts)
        x = data.at[some] + (data.error * z)[..., None] * data.moves  # latent dosages, each feature's own
        by_guide = curve.torch_rows(params, x, data.weights[some], data.consts) + u
        scale = data.counts.shape[1] / seen.counts.shape[1]
        _observe(seen, seen.log_w + params["a"] - at_ntc + effects + by_guide[:, seen.guide], scale)


def _last_row(guide: Any, n_guides: int) -> Any:
    """A row of each guide."""
    rows = torch.arange(len(guide), device=guide.device)
    return torch.zeros(n_guides, dtype=torch.long, device=guide.device).scatter_reduce(0, guide, rows, "amax")
