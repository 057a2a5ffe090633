"""Whether the cis step tells the dosages of guides, and the same ones in all groups, and what to do where not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dream_sc._keys import GROUP_P, GROUP_SD
from dream_sc._logging import logger

if TYPE_CHECKING:
    import numpy as np

    from dream_sc._core.types import CisCells, CisFit


def diagnostics(fit: CisFit, cells: CisCells, cis_gene: str) -> dict[str, float]:
    """What `.uns` says of the fit: its learned numbers, and whether the dosages of targeting guides are told apart.

    The log says so where they say nothing, or only one thing, and how many counts can be ambient.
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
    return (
        dict(fit.hyper)
        | _ambient_bound(fit, cells, cis_gene)
        | {
            "ntc_level_sd": fit.baseline_sd,
            "overdispersion": cells.overdispersion,
            "dosage_resolution": found.share,
            "share_of_clear_guides": found.clear,
        }
    )


def _ambient_bound(fit: CisFit, cells: CisCells, cis_gene: str) -> dict[str, float]:
    """What `.uns` says of the ambient share where none was told: how much it can be. The log says so, too."""
    from dream_sc._core.dosage.ambient_bound import most_ambient

    if cells.floor is not None:
        return {}
    share = most_ambient(cells, fit)
    logger.info(
        "tl.fit_cis: at most %.2g %% of the counts can be ambient, as %s's guide with the lowest dosage tells; "
        "dosages are of all counts, since tl.fit_technical(ambient=) was told no share",
        100 * share,
        cis_gene,
    )
    return {"ambient_at_most": share}


def by_group(cells: CisCells, group: np.ndarray, names: list[str], column: str | None, cis_gene: str) -> dict[str, Any]:
    """What `.uns` says of dosages that differ between technical groups ``(N,)``, where there are several.

    The log says what to do where they do.
    """
    from dream_sc._core.dosage.group_dosages import between_groups

    if column is None or len(names) < 2:
        return {}
    found = between_groups(cells, group)
    if found.clear:
        logger.warning(
            "tl.fit_cis: guides of %s act differently in the levels of %r (%.2f log2 between them, beyond the noise of "
            "counts): guide_covariate_key=%r gives each guide a dosage in each level",
            cis_gene,
            column,
            found.sd,
            column,
        )
    return {GROUP_SD: found.sd, GROUP_P: found.p_value}
