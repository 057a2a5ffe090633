"""Widths of intervals of EC50s are those of the profile likelihood, also where it is skewed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "dose_response.py"
pytestmark = pytest.mark.skipif(not PATH.exists(), reason="the benchmarks are not beside the tests")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dose_response_benchmark", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _table(folder: Path) -> pd.Series:
    """Seven doses, six wells each, whose upper plateau is hardly reached: the EC50 is known to one side only."""
    rng, dose = np.random.default_rng(3), np.repeat([0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2], 6)
    response = 10.0 - 8.0 * dose**1.2 / (dose**1.2 + 1.5**1.2) + rng.normal(0, 0.6, len(dose))
    pd.DataFrame({"dose": dose, "y": response}).to_csv(folder / "skewed.csv", index=False)
    reference = {"dose": "dose", "response": "y", "distribution": "normal", "log2_ed50": np.log2(1.5), "slope": 1.2}
    return pd.Series(reference | {"log2_ed50_se": 0.3, "slope_se": 0.2}, name="skewed")


def test_the_width_of_an_ec50_is_that_of_the_profile_likelihood(benchmark: ModuleType, tmp_path: Path) -> None:
    reference = _table(tmp_path)
    profile = benchmark.by_profile(tmp_path, reference)
    assert profile["log2_ec50_low"] < np.log2(1.5) < profile["log2_ec50_high"]
    middle = (profile["log2_ec50_low"] + profile["log2_ec50_high"]) / 2
    assert middle > np.log2(1.5)  # skewed to the side of the plateau that is hardly seen
    found = benchmark.compared(benchmark.opened(tmp_path, reference), reference, guide_effects=True)
    for name in ("log2_ec50", "hill_n"):
        assert found[f"{name}_covered"]
        assert 1 / 1.5 < found[f"{name}_width"] / profile[f"{name}_width"] < 1.5


def test_a_profile_crosses_its_limit_where_the_parabola_does(benchmark: ModuleType) -> None:
    values = np.linspace(-5, 5, 501)
    low, high = benchmark.profile_interval(values, (values - 1.0) ** 2, 4.0)
    np.testing.assert_allclose([low, high], [-1.0, 3.0], atol=1e-3)
    assert benchmark.profile_interval(values, np.where(values < 0, values**2, 0.0), 4.0)[1] == 5.0
