"""What is asked of features in several contexts: the hypotheses that compete, and those that answer it with yes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from .evidence import Evidence
    from .measured import Levels
    from .shapes import Shapes

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]


class Ask(Protocol):
    """Log evidence of all hypotheses, at each of the sds of guide effects ``(K,)``; draws are `fewer` times fewer."""

    def __call__(self, shapes: Shapes, levels: Levels, taus: Floats, rho: float, fewer: int = 1) -> Evidence:
        """Of features with these levels."""


@dataclass(frozen=True)
class Question:
    """A question, such as whether contexts differ."""

    names: tuple[str, ...]  # (H,) of the hypotheses; no response, and equal ones, come first
    start: Floats  # (H,) their weights before anything is learned
    yes: Bools  # (H,)
    places: Floats  # (C,) of the contexts: the answer is a change along these
    ask: Ask
    drawn: Mapping[str, float]  # weights of what is drawn, by the names of the posteriors
    alone: Mapping[str, int]  # of these the ones in which a single context responds, and which
    among: float | None = None  # features that respond which the start counts as, for the shares among these
    few_respond: bool = False  # whether p-values have to hold where few features respond, and weakly
