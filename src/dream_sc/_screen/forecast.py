"""What a screen will take, said in the log: memory before the counts are read, time as soon as a target is fitted."""

from __future__ import annotations

from dataclasses import dataclass, field

from dream_sc._logging import duration, logger
from dream_sc._memory.budget import SMALL, in_words, memory_budget

SUM_BYTES = 12  # of a sum: in double precision while it is made, in single precision later
PAIR_BYTES = 650  # of a row of the table while it is put together, and of the part that it comes from
TENFOLD = 10  # fitted targets for each worker after which the time is said again


def say_memory(n_rows: int, n_features: int, n_targets: int, n_reported: int) -> int:
    """Say how much memory a screen takes beside its data, and give it in bytes.

    Parameters
    ----------
    n_rows
        Of the sums: guides x technical groups x depth bins.
    n_features, n_reported
        Features of the data, and of the table.
    """
    sums, table = SUM_BYTES * n_rows * n_features, PAIR_BYTES * n_targets * n_reported
    logger.info(
        "tl.screen: about %s of memory beside the data: %s for sums of %d features in %d rows, %s for a table of %d %s",
        in_words(sums + table),
        in_words(sums),
        n_features,
        n_rows,
        in_words(table),
        n_targets,
        "target" if n_targets == 1 else "targets",
    )
    return sums + table


def keep_to(limit: int | str | None, needed: int) -> None:
    """Refuse a screen that needs more bytes than its limit before the counts are read.

    Raises
    ------
    ValueError
        With the smallest limit that would do.
    """
    budget = memory_budget(limit)
    if limit is None or budget < SMALL or needed <= budget:
        return
    raise ValueError(
        f"tl.screen: it needs about {in_words(needed)} beside what is there, more than memory_limit={limit!r}. The "
        f"smallest limit that would do: memory_limit='{-(-needed // 10**6)}MB'. What saves most: fewer features to "
        "report, features=; fewer targets at a time, cis_genes="
    )


@dataclass
class Pace:
    """How fast targets are fitted, by so many workers at a time."""

    n_workers: int
    seconds: list[float] = field(default_factory=list)  # of each target, by its worker

    def fitted(self, seconds: float, n_left: int) -> float | None:
        """Note a target; after the first of each worker, and tenfold, say how long the others take, in seconds."""
        self.seconds.append(seconds)
        n = len(self.seconds)
        if n_left == 0 or n not in (self.n_workers, TENFOLD * self.n_workers):
            return None
        left = sum(self.seconds) / n * n_left / min(self.n_workers, n_left)
        others = "the target" if n_left == 1 else f"the {n_left} targets"
        logger.info("tl.screen: about %s for %s left, by %d fitted so far", duration(left), others, n)
        return left
