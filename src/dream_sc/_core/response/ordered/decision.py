"""Which features have a trend over ordered contexts: decided as the question whether two contexts differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dream_sc._core.response.contexts import decision

from .evidence import trend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from dream_sc._core.response.contexts.decision import Block, Decision
    from dream_sc._core.response.contexts.measured import Measured


def decide(measured: Measured, places: NDArray[np.float64], **options: Any) -> tuple[Decision, list[Block]]:
    """Learn over features, and say which have a trend along `places` ``(C,)``, with mean 0 and a range of 1.

    Options are those of two contexts.
    """
    return decision.decide(measured, trend(places), **options)
