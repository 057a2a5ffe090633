"""How the trans step runs: one object from the call of the user to the last station."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What the user asks of the trans step."""

    function_type: str = "auto"
    guide_effects: bool = True
    degree: int = 6
    nsamples: int = 1000
    niters: int | None = None
    inference: str = "laplace"
    device: str = "auto"
    seed: int = 0
    minibatch_size: int | None = None  # cells of a step of "svi" on single cells
    one_step: bool = False  # whether only curves of one step compete
    learned: dict[str, Any] | None = None  # numbers of an earlier fit; learned anew where there are none
