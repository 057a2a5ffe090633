"""What units within guides add to the overdispersion of counts: the same in every form of the density."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.special import gammaln
from scipy.stats import nbinom

from dream_sc._core.likelihoods import likelihood, negbinom
from dream_sc._core.priors import TransPriors
from dream_sc._core.response.problem import null_evidence
from dream_sc._core.response.problem import problem as problem_of
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[np.linspace(-2.5, 1.0, 6), np.zeros(4)]
R, T = len(DOSES), 5


def _stats(rng: np.random.Generator) -> GuideStats:
    exposure = rng.uniform(5, 40, R)
    counts = rng.poisson(3.0 * exposure, (T, R)).astype(float)
    guide = np.arange(R)
    return GuideStats(counts, exposure, exposure**2 / 20, guide, np.zeros(R, dtype=int), R, 1)


def test_the_kernel_adds_it_to_the_overdispersion_of_cells(rng: np.random.Generator) -> None:
    stats, dosage = _stats(rng), RowDosage(DOSES, np.zeros(R), np.full(R, 0.03), DOSES == 0)
    small, large = np.full(T, 0.4), np.full(T, 0.9)
    scale2 = stats.exposure2 / stats.exposure**2
    added = replace(stats, weights=np.repeat(((0.9**2 - 0.4**2) * scale2)[None], T, 0))
    given = {"group_effect_sd": 0.3, "axis": Axis.of(DOSES[:6]), "priors": TransPriors()}
    tau = np.full((T, 2), [0.05, 0.3])
    one = null_evidence(problem_of(added, dosage, small, **given), tau, tol=1e-8)[0]
    other = null_evidence(problem_of(stats, dosage, large, **given), tau, tol=1e-8)[0]
    np.testing.assert_allclose(one, other, rtol=1e-9)


def test_tensors_have_scipys_density(rng: np.random.Generator) -> None:
    y, log_mean = np.array([0.0, 4.0, 90.0]), np.log(np.array([1.5, 6.0, 60.0]))
    weights, variance = np.array([0.3, 0.02, 0.5]), np.array([0.1, 0.4, 0.01])
    got = negbinom.torch_log_density(*(torch.tensor(v) for v in (y, log_mean, weights, variance))).numpy()
    phi = 1.0 / (weights + variance)
    terms = gammaln(y + phi) - gammaln(phi) - gammaln(y + 1.0)
    np.testing.assert_allclose(got + terms, nbinom(phi, phi / (phi + np.exp(log_mean))).logpmf(y), rtol=1e-10)


def test_simulated_sums_have_this_variance(rng: np.random.Generator) -> None:
    stats, dosage = _stats(rng), RowDosage(DOSES, np.zeros(R), np.zeros(R), DOSES == 0)
    stats = replace(stats, weights=np.full((T, R), 0.5))
    given = {"group_effect_sd": 0.3, "axis": Axis.of(DOSES[:6]), "priors": TransPriors()}
    rows = problem_of(stats, dosage, np.full(T, 0.4), **given).rows
    mean = 40.0
    draws = [likelihood("negbinom").simulate(rng, rows, np.full((T, R), np.log(mean)))[0] for _ in range(4000)]
    want = mean + mean**2 * (0.4**2 * rows.scale2 + 0.5)
    np.testing.assert_allclose(np.var(draws, axis=0).mean(0), want, rtol=0.1)
