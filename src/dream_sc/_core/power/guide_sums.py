"""The sums of guides that a design would give: how much each says, and draws of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.dosage.nodes import dosage_nodes
from dream_sc._core.response.prepare import FEW_GUIDES
from dream_sc._core.response.rows import alike
from dream_sc._core.types import Axis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """Guides of one cis gene at known dosages, beside NTC guides."""

    dosages: Floats  # (G,) log2, of targeting guides
    cells: float  # of each targeting guide
    ntc_cells: Floats  # (H,) of each NTC guide
    depth: float = 1.0  # reads of a cell, relative to those that mean counts are of
    size_factor_sd: float = 0.25  # natural log, between cells
    within_sd: float = 0.2  # log2, between the dosages of the cells of a guide
    cis_mean: float = np.inf  # counts of the cis gene in a cell at NTC dosage, before `depth`; inf: dosages are known
    cis_noise: float = 0.0  # its overdispersion

    @property
    def axis(self) -> Axis:
        """The dosages that are observed."""
        return Axis.of(self.dosages)

    @property
    def one_level(self) -> bool:
        """Whether the dosages of the guides cannot be told apart, so that the trans step sees no curve."""
        return alike(self.dosages, self.dosage_sd)

    @property
    def tells_ec50(self) -> bool:
        """Whether there are dosages enough for an EC50."""
        return len(self.dosages) > FEW_GUIDES and not self.one_level

    @cached_property
    def nodes(self) -> tuple[Floats, Floats]:
        """Nodes ``(G + 1, J)`` of the dosages of the cells of each guide, NTC last, and their weights."""
        spread = np.append(np.full(len(self.dosages), self.within_sd), 0.0)
        return dosage_nodes(np.append(self.dosages, 0.0), spread, np.zeros(len(spread)))

    @cached_property
    def dosage_sd(self) -> Floats:
        """Error of the dosage of each targeting guide ``(G,)``, log2, as the counts of the cis gene tell it."""
        counts = self.cells * self.depth * self.cis_mean * 2.0**self.dosages
        noise = 1.0 / counts + self.cis_noise**2 * np.exp(self.size_factor_sd**2) / self.cells
        return np.asarray(np.sqrt(noise) / np.log(2.0))

    @cached_property
    def exposure(self) -> Floats:
        """Sum of size factors of each guide ``(G + H,)``, targeting guides first."""
        return np.append(np.full(len(self.dosages), float(self.cells)), self.ntc_cells) * self.depth

    @cached_property
    def noise(self) -> Floats:
        """Squared coefficient of variation of a guide's sum ``(G + H,)``, in units of the squared overdispersion."""
        cells = np.append(np.full(len(self.dosages), float(self.cells)), self.ntc_cells)
        return np.exp(self.size_factor_sd**2) / cells


@dataclass(frozen=True)
class Features:
    """Features of which sums are drawn, `N` of them."""

    mean: Floats  # (N,) counts of a cell at NTC dosage, before `Design.depth`
    overdispersion: Floats  # (N,)
    tau: Floats  # (N,) sd of the guide effects, natural log
    curve: Floats  # (N, G) natural log of the mean of each targeting guide over that at NTC dosage

    def take(self, which: NDArray[np.generic] | slice) -> Features:
        """Some of them."""
        return replace(self, **{name: getattr(self, name)[which] for name in self.__dataclass_fields__})


def draw(features: Features, design: Design, rng: np.random.Generator, extra: Floats | float = 0.0) -> Floats:
    """Sums ``(N, G + H)`` of each feature; `extra` ``(G + H,)`` is the variance of further noise, natural log."""
    n, g = features.curve.shape
    log_mean = np.zeros((n, len(design.exposure)))
    log_mean[:, :g] = features.curve
    log_mean += np.sqrt(features.tau[:, None] ** 2 + extra) * rng.standard_normal(log_mean.shape)
    mean = features.mean[:, None] * design.exposure * np.exp(log_mean)
    shape = 1.0 / (features.overdispersion[:, None] ** 2 * design.noise)
    return rng.poisson(mean * rng.standard_gamma(shape) / shape).astype(float)
