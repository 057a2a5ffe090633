"""How two contexts may differ, and what their curves then share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.curves import NULL

from .modes import kinds_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .shapes import Shapes

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

HYPOTHESES = (NULL.name, "equal", "amplitude", "dosage", "free", "only")
DIFFERS = np.array([False, False, True, True, True, True])  # of the hypotheses in their order
START = np.array([0.8, 0.15, 0.0125, 0.0125, 0.0125, 0.0125])  # weights before anything is learned


@dataclass(frozen=True)
class Sharing:
    """What the curves of two contexts have in common.

    A curve is an EC50, a steepness and an amplitude; `layout` ``(C, 3)`` says which free parameter each of these is,
    -1 in a context without response. `own` is the parameter that each context has for itself, None if there is none.
    """

    layout: Ints
    own: int | None = None

    @property
    def responds(self) -> list[int]:
        """Contexts with a response."""
        return [c for c in range(len(self.layout)) if self.layout[c, 0] >= 0]

    @property
    def n_free(self) -> int:
        """Number of free parameters."""
        return int(self.layout.max()) + 1

    @property
    def kinds(self) -> Ints:
        """Which of a curve's parameters each free one is."""
        return kinds_of(self.layout)

    def theta(self, phi: Floats, c: int) -> Floats:
        """Curves ``(..., 3)`` in a context, of free parameters ``(..., P)``."""
        return np.asarray(phi[..., self.layout[c]])

    def log_prior(self, shapes: Shapes, phi: Floats) -> Floats:
        """Log density ``(...)`` of free parameters ``(..., P)``: each curve by its prior, given what they share."""
        first, *second = (phi[..., self.layout[c]] for c in self.responds)
        out = shapes.log_prior(first)
        if self.own is None:
            return out
        shared = shapes.log_mass_of_steps if self.own == 0 else shapes.log_mass
        return np.asarray(out + shapes.log_prior(second[0]) - shared(first))


NONE = [-1, -1, -1]
SAME = Sharing(np.array([[0, 1, 2], [0, 1, 2]]))
OWN_AMPLITUDE = Sharing(np.array([[0, 1, 2], [0, 1, 3]]), own=2)
OWN_EC50 = Sharing(np.array([[0, 1, 2], [3, 1, 2]]), own=0)
ALONE = (Sharing(np.array([[0, 1, 2], NONE])), Sharing(np.array([NONE, [0, 1, 2]])))  # one context only
