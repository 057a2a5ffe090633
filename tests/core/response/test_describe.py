"""What the Pyro engines take of a problem are the sums that it was made from."""

from __future__ import annotations

import numpy as np

from dream_sc._core.priors import TransPriors
from dream_sc._core.response.describe import for_pyro
from dream_sc._core.response.learned import Prior
from dream_sc._core.response.problem import problem
from dream_sc._core.response.settings import Settings
from dream_sc._core.types import Axis, GuideStats, RowDosage

DOSES = np.r_[-2.0, -1.0, -0.5, 0.5, 0.0, 0.0]


def test_sums_come_back(rng: np.random.Generator) -> None:
    n_g = len(DOSES)
    guide, group = np.repeat(np.arange(n_g), 2), np.tile([0, 1], n_g)
    w = rng.uniform(50, 300, 2 * n_g)
    stats = GuideStats(rng.poisson(3.0 * w, (4, 2 * n_g)).astype(float), w, 1.3 * w, guide, group, n_g, 2)
    dosage = RowDosage(DOSES[guide], np.zeros(2 * n_g), np.full(n_g, 0.05), DOSES == 0)
    axis = Axis.of(DOSES[DOSES != 0])
    p = problem(stats, dosage, np.full(4, 0.3), group_effect_sd=0.3, axis=axis, priors=TransPriors())
    found, doses, hyper = for_pyro(p, Prior.start(p.priors), Settings())
    np.testing.assert_allclose(found.exposure, w)
    np.testing.assert_allclose(found.exposure2, 1.3 * w)
    for name in ("counts", "guide", "group", "n_guides", "n_groups"):
        np.testing.assert_array_equal(getattr(found, name), getattr(stats, name), name)
    np.testing.assert_allclose(doses.mean, DOSES[guide])
    assert hyper["group_effect_sd"] == 0.3
    # without guide effects their sd is next to nothing
    assert (
        for_pyro(p, Prior.start(p.priors), Settings(guide_effects=False))[2]["tau_log_mean"]
        < hyper["tau_log_mean"] - 3.0
    )
