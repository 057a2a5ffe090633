"""Where tensors live: the name of a device to torch's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

NAMES = re.compile(r"auto|cpu|cuda(:\d+)?")


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


def check_for(name: str, inference: str) -> None:
    """Refuse a device that is not there, or a GPU where the engine has no use for one."""
    check_name(name)
    if not name.startswith("cuda"):
        return
    if inference == "laplace":
        raise ValueError(
            f'device="{name}" has no effect with inference="laplace", which runs on the CPU: '
            'leave device out, or use inference="svi" or "nuts"'
        )
    resolve_device(name)


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
