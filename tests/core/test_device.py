"""Devices by name, and what has a use for which."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dream_sc as ds
from dream_sc._core import device


@pytest.mark.parametrize("name", ["tpu", "gpu", "cuda:", "mps", 0, None])
def test_unknown_device(name: Any) -> None:
    with pytest.raises(ValueError, match="is not known: use 'cpu', 'cuda'"):
        device.check_name(name)
    if name is None:  # in a step, that leaves the device to it
        return
    with pytest.raises((ValueError, TypeError), match=r"device=.* is not (known|allowed)"):
        ds.tl.fit_trans(ds.datasets.titration(100, 5), device=name)


def test_the_fast_engine_refuses_a_gpu() -> None:
    device.check_for("cpu", "laplace")
    device.check_for("auto", "laplace")
    with pytest.raises(ValueError, match='inference="laplace", which runs on the CPU'):
        device.check_for("cuda", "laplace")
    with pytest.raises(ValueError, match='use inference="svi" or "nuts"'):
        ds.tl.fit_trans(ds.datasets.titration(100, 5), device="cuda:1")


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds no GPU"):
        device.check_for("cuda", "svi")
    with pytest.raises(ValueError, match="torch finds no GPU"):
        ds.tl.fit_trans(ds.datasets.titration(100, 5), device="cuda", inference="svi")


def test_number_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.resolve_device("auto") == torch.device("cuda")
    assert device.resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"cuda:2.*finds 2"):
        device.resolve_device("cuda:2")
