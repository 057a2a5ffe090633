"""The road of the trans step: what was measured, what it says of each curve, which features respond, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .decision import decide
from .describe import describe
from .evidence import gather

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from dream_sc._core.parallel import Kept

    from .describe import Described
    from .prepare import Prepared
    from .settings import Settings


def fit(
    prepared: Prepared,
    settings: Settings,
    *,
    asked: NDArray[np.bool_] | None = None,
    progress: Callable[[Any], Any] = lambda x: x,
    kept: Kept | None = None,
) -> Described:
    """Fit every feature that can be.

    Parameters
    ----------
    asked
        ``(F,)`` features to describe; all take part in what is learned.
    progress
        Wraps the iterable of blocks, such as tqdm.
    kept
        Where results of blocks are kept for a fit of the same arguments that goes on after an interruption.

    Features with several categories take the same road, and share the station of the evidence.
    """
    evidence = gather(prepared, settings, progress=progress, kept=kept)
    if prepared.links is not None:
        from .categories.decision import decide as decide_links
        from .categories.describe import describe as describe_links

        of_links = decide_links(evidence, progress=progress, kept=kept)
        return describe_links(of_links, prepared, prepared.links, asked=asked, progress=progress, kept=kept)
    decision = decide(evidence, progress=progress, kept=kept)
    return describe(decision, prepared, asked=asked, progress=progress, kept=kept)
