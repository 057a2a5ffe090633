"""The dosage of a single cell given its count: against sums over a fine grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import nbinom, norm

from dream_sc._core.compiled import from_python
from dream_sc._core.dosage import cells
from dream_sc._core.likelihoods import negbinom

log_normaliser = from_python(negbinom.log_normaliser)


@pytest.mark.parametrize(
    ("y", "expected", "phi", "mean", "sd"),
    [(0.0, 2.0, 4.0, -1.0, 0.3), (7.0, 2.0, 4.0, 0.5, 0.5), (3.0, 40.0, 2.0, -2.0, 0.8), (60.0, 15.0, 10.0, 1.0, 0.2)],
)
def test_integrals_over_the_dosage_of_a_cell_are_those_of_a_grid(
    y: float, expected: float, phi: float, mean: float, sd: float
) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    found = from_python(cells.integrate)(y, expected, phi, mean, sd, nodes, np.log(weights / np.sqrt(2 * np.pi)))
    x = np.linspace(mean - 9 * sd, mean + 9 * sd, 20_001)
    m = expected * 2.0**x
    log_p = nbinom(phi, phi / (phi + m)).logpmf(y) + norm(mean, sd).logpdf(x) + np.log(x[1] - x[0])
    p = np.exp(log_p - logsumexp(log_p))
    assert found[0] + log_normaliser(y, phi) == pytest.approx(logsumexp(log_p), abs=1e-6)
    assert found[1] == pytest.approx(p @ x, abs=1e-6)
    assert found[2] == pytest.approx(p @ (x - p @ x) ** 2, rel=1e-4)
