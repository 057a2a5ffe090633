"""Negative binomial counts: ``Var = m + o^2 m^2``, total count ``phi = 1 / o^2``."""

from __future__ import annotations

from math import exp, lgamma, log, log1p

import numba as nb

NAME = "negbinom"


@nb.njit(cache=True, error_model="numpy")
def log_density(y, log_mean, phi):  # type: ignore[no-untyped-def]
    """Log of the density without the terms that do not depend on the mean (see `log_normaliser`)."""
    return y * (log_mean - log(phi)) - (y + phi) * log1p(exp(log_mean) / phi)


@nb.njit(cache=True, error_model="numpy")
def log_normaliser(y, phi):  # type: ignore[no-untyped-def]
    """The terms that do not depend on the mean."""
    return lgamma(y + phi) - lgamma(phi) - lgamma(y + 1.0)


def torch_log_density(y, log_mean, phi):  # type: ignore[no-untyped-def]
    """`log_density` on tensors, for the Pyro models."""
    from torch.nn.functional import softplus

    return y * (log_mean - phi.log()) - (y + phi) * softplus(log_mean - phi.log())
