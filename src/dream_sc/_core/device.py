"""Where tensors live: the name of a device to torch's, and what the fast engine runs on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

NAMES = re.compile(r"auto|cpu|cuda(:\d+)?")
FREE_SHARE = 0.5  # of the free memory of a GPU
CPU_BYTES = 2**27


@dataclass(frozen=True)
class Target:
    """A device for the fast engine's tensor form.

    `dtype` is that of the search for the modes of the guide effects; what is computed at the modes is float64.
    """

    device: torch.device
    dtype: torch.dtype

    @property
    def free(self) -> int:
        """Bytes that a batch may take."""
        import torch

        if self.device.type != "cuda":
            return CPU_BYTES
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(FREE_SHARE * (torch.cuda.mem_get_info(self.device)[0] + cached))

    def tensor(self, x: Any) -> torch.Tensor:
        """An array on the device; to a GPU from pinned memory, without waiting for it."""
        import torch

        here = torch.from_numpy(np.require(x, requirements=("C", "W")))
        return here.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else here


def check_name(name: str) -> None:
    if not isinstance(name, str) or not NAMES.fullmatch(name):
        raise ValueError(f"device={name!r} is not known: use 'cpu', 'cuda' (or 'cuda:1', ...) or 'auto'")


def resolve_device(name: str) -> torch.device:
    """The device of this name; "auto" is a GPU if there is one."""
    import torch

    check_name(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f'device="{name}" was asked for, but torch finds no GPU: use device="cpu" or "auto"')
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'device="{name}" was asked for, but torch finds {torch.cuda.device_count()} of them')
    return device


def accelerator(name: str) -> Target | None:
    """What the fast engine runs on beside the CPU, if anything: a GPU that was asked for by name."""
    check_name(name)
    if name in ("cpu", "auto"):
        return None
    device = resolve_device(name)
    import torch

    return Target(device, torch.float64)


def memory_of(name: str) -> tuple[int, int]:
    """Bytes that a device has, and those that are free on it."""
    import psutil
    import torch

    device = resolve_device(name)
    if device.type != "cuda":
        memory = psutil.virtual_memory()
        return int(memory.total), int(memory.available)
    free, total = torch.cuda.mem_get_info(device)
    return int(total), int(free)
