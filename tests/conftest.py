"""What every test shares: no test may leave global state behind, and figures need no screen."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

mpl.use("Agg")


def _torch_state() -> dict[str, Any]:
    """The global state of torch and Pyro; of a library that is not loaded yet, the state it starts with."""
    state: dict[str, Any] = {"dtype": "torch.float32", "device": "cpu", "params": ()}
    state |= {"deterministic": False, "grad": True}
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        state["dtype"] = str(torch.get_default_dtype())
        state["device"] = str(torch.get_default_device())
        state["deterministic"] = torch.are_deterministic_algorithms_enabled()
        state["grad"] = torch.is_grad_enabled()
    if "pyro" in sys.modules:
        state["params"] = tuple(sorted(sys.modules["pyro"].get_param_store().keys()))
    return state


@pytest.fixture(autouse=True)
def _torch_state_untouched() -> Iterator[None]:
    before = _torch_state()
    yield
    after = _torch_state()
    changed = {name: (value, after[name]) for name, value in before.items() if after[name] != value}
    if changed:
        pytest.fail(f"the test left global state behind (before, after): {changed}")


@pytest.fixture(autouse=True)
def _torch_stream_untouched() -> Iterator[None]:
    """A fit forks torch's and numpy's global random numbers; a test that seeds them itself would hide it."""
    import numpy as np

    before_numpy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    before_torch = sys.modules["torch"].get_rng_state() if "torch" in sys.modules else None
    yield
    after_numpy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    same = before_numpy["pos"] == after_numpy["pos"] and (before_numpy["key"] == after_numpy["key"]).all()
    if not same:
        pytest.fail("the test drew from numpy's global random numbers")
    if before_torch is not None and not bool((before_torch == sys.modules["torch"].get_rng_state()).all()):
        pytest.fail("the test drew from torch's global random numbers; fork them (torch.random.fork_rng)")


@pytest.fixture(autouse=True)
def _figures_closed() -> Iterator[None]:
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def restore_settings() -> Iterator[None]:
    """Put the session's settings and the package's logger back."""
    from dream_sc import settings

    logger = logging.getLogger("dream_sc")
    before = (list(logger.handlers), logger.level, logger.propagate, settings.progress, settings._handler)
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
    settings.progress, settings._handler = before[3], before[4]
