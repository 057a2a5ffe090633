"""How the responses of ordered contexts may differ: trends of the amplitude, of the EC50, of both, or anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.curves import NULL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.response.contexts.shapes import Shapes

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

EQUAL, AMPLITUDE, DOSAGE, BOTH, FREE = "equal", "amplitude_trend", "dosage_trend", "both_trends", "free"
HYPOTHESES = (NULL.name, EQUAL, AMPLITUDE, DOSAGE, BOTH, FREE)
TREND = np.array([False, False, True, True, True, False])  # of the hypotheses in their order
START = np.array([0.8, 0.15, 0.0125, 0.0125, 0.0125, 0.0125])  # weights before anything is learned
AMONG = 20.0  # features that respond which these count as, for the shares of the hypotheses among features that respond
# sd of the change from the first to the last context, log2: a dosage of half to double moves 1, as does an amplitude
EC50_SD, AMPLITUDE_SD = 1.5, 1.0


def places_of(numbers: Floats) -> Floats:
    """Places ``(C,)`` of the contexts' numbers, with mean 0 and a range of 1."""
    return np.asarray((numbers - numbers.mean()) / np.ptp(numbers))


@dataclass(frozen=True)
class Trends:
    """Curves of which the EC50, the amplitude, both or neither change linearly with the places of the contexts.

    Free parameters are the curve at place 0 (log2 EC50, log n, beta), then the changes of the log2 EC50 and of the log2
    amplitude from the first to the last context, where there are any.
    """

    shapes: Shapes
    places: Floats  # (C,)
    of_ec50: bool
    of_amplitude: bool

    @property
    def responds(self) -> list[int]:
        """Contexts with a response: all."""
        return list(range(len(self.places)))

    @property
    def kinds(self) -> Ints:
        """Which of a curve's parameters each free one is, or moves."""
        return np.array([0, 1, 2] + [0] * self.of_ec50 + [2] * self.of_amplitude)

    @property
    def n_free(self) -> int:
        """Number of free parameters."""
        return 3 + self.of_ec50 + self.of_amplitude

    def free(self, theta: Floats, ec50: Floats, amplitude: Floats) -> Floats:
        """Free parameters ``(..., P)`` of a curve at place 0 and of changes ``(...)``."""
        parts = [ec50[..., None]] * self.of_ec50 + [amplitude[..., None]] * self.of_amplitude
        return np.concatenate([theta, *parts], -1)

    def changes(self, phi: Floats) -> tuple[Floats, Floats]:
        """Changes ``(...)`` of log2 EC50 and log2 amplitude from the first to the last context."""
        nothing = np.zeros(phi.shape[:-1])
        return phi[..., 3] if self.of_ec50 else nothing, phi[..., -1] if self.of_amplitude else nothing

    def theta(self, phi: Floats, c: int) -> Floats:
        """Curves ``(..., 3)`` in a context."""
        ec50, amplitude = self.changes(phi)
        out = phi[..., :3].copy()
        out[..., 0] += self.places[c] * ec50
        if self.of_amplitude:
            out[..., 2] = moved_beta(self.shapes, out[..., 2], self.places[c] * amplitude)
        return out

    def log_prior(self, phi: Floats) -> Floats:
        """Log density ``(...)``: of the curve at place 0 that of every curve, of the changes a normal one."""
        out = self.shapes.log_prior(phi[..., :3])
        changes = zip(self.changes(phi), (EC50_SD, AMPLITUDE_SD), (self.of_ec50, self.of_amplitude), strict=True)
        for change, sd, is_free in changes:
            if is_free:
                out = out - 0.5 * (change / sd) ** 2 - np.log(sd * np.sqrt(2.0 * np.pi))
        return out


def moved_beta(shapes: Shapes, beta: Floats, by: Floats | float) -> Floats:
    """`beta` of an amplitude that is larger by a log2 factor."""
    return shapes.beta(shapes.amplitude(beta) * 2.0**by)
