"""Whether the cis step tells the dosages of guides, and what to do where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream_sc._logging import logger

if TYPE_CHECKING:
    from dream_sc._core.types import CisCells, CisFit


def diagnostics(fit: CisFit, cells: CisCells, cis_gene: str) -> dict[str, float]:
    """What `.uns` says of the fit: its learned numbers, and whether the dosages of targeting guides are told apart.

    The log says so where they say nothing, or only one thing.
    """
    from dream_sc._core.dosage.resolution import resolution

    acts = ~cells.is_control
    found = resolution(fit.guide_mean[acts], fit.guide_sd[acts], fit.baseline_sd)
    if found.none:
        logger.warning(
            "tl.fit_cis: the dosages of %s's guides are told apart neither from each other nor from the controls', as "
            "where a knock-out (Cas9) leaves the mRNA: dream_sc.tl.fit_trans(data, dosage='none') asks what the guides "
            "change together; dosages known otherwise go into guide_prior= or dream_sc.tl.set_dosage",
            cis_gene,
        )
    elif found.one_level:
        logger.info(
            "tl.fit_cis: %s's guides differ from the controls but not from each other, so that responses have a size "
            "and no EC50",
            cis_gene,
        )
    return dict(fit.hyper) | {
        "ntc_level_sd": fit.baseline_sd,
        "overdispersion": cells.overdispersion,
        "dosage_resolution": found.share,
        "share_of_clear_guides": found.clear,
    }
