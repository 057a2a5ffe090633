"""What all readers do with guides: names of controls, and the slots that the steps read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from dream_sc._keys import GUIDE, GUIDE_IDS, GUIDE_TARGETS, GUIDES, N_GUIDES, NTC, TARGET
from dream_sc._logging import logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData

SHOWN = 8
# "Non-Targeting", "non-targeting|3", "NTC", "non_targeting_00012"
NON_TARGETING = re.compile(r"(non[-_ .]?target(ing|ed|s)?|ntc)([-_|. :]?\d+)?", re.IGNORECASE)


def is_control(target: Any) -> bool:
    """Whether a target is a name of no target."""
    return NON_TARGETING.fullmatch(str(target).strip()) is not None


def with_controls(targets: Mapping[str, str]) -> dict[str, str]:
    """Targets of guides, those of non-targeting guides called "NTC"."""
    return {guide: NTC if is_control(target) else str(target) for guide, target in targets.items()}


def refuse_controls_only(targets: Iterable[str], where: str) -> None:
    """Refuse guides that are all non-targeting: nothing could be asked of them, and the column is likely another."""
    seen = list(targets)
    if seen and all(target == NTC for target in seen):
        raise ValueError(
            f"all {len(seen)} guides of {where} are non-targeting: there is no gene whose dosage they change; fill in "
            "the targets of the other guides, or pass targets={guide: target}"
        )


def given_targets(targets: Mapping[str, str] | Any, names: Sequence[str]) -> dict[str, str]:
    """Targets of these guides out of what a user gave; "NTC" for controls."""
    known = with_controls({str(g): str(t) for g, t in targets.items()})
    lacking = [name for name in names if name not in known]
    if lacking:
        raise ValueError(f"targets= lacks {len(lacking)} of {len(names)} guides, {lacking[:SHOWN]}")
    return {name: known[name] for name in names}


def unique(names: Sequence[str], what: str, where: str) -> None:
    """Refuse names that are empty or occur twice."""
    seen: set[str] = set()
    for i, name in enumerate(names, 1):
        if not name or name == "nan":
            raise ValueError(f"{what} number {i} of {where} has no name")
        if name in seen:
            raise ValueError(f"{what} {name!r} is in {where} more than once")
        seen.add(name)


def slots(
    carried: Any, names: Sequence[str], targets: Mapping[str, str] | None, key: str = GUIDES
) -> dict[tuple[str, str], Any]:
    """Guides as `guides=` of the steps and `pp.assign_guides` look for them.

    Parameters
    ----------
    carried
        Cells x guides, UMIs or 1 where a cell carries a guide.
    names
        Of the guides.
    targets
        Of the guides by their names; None where they are not known.
    key
        Of `.obsm`.
    """
    x = sparse.csr_matrix(carried)
    x.eliminate_zeros()
    out: dict[tuple[str, str], Any] = {
        ("obsm", key): x,
        ("uns", key + GUIDE_IDS): np.array(list(names), dtype=str),
        ("obs", N_GUIDES): np.diff(x.indptr).astype(np.int64),
    }
    if targets is not None:
        out["uns", key + GUIDE_TARGETS] = np.array([targets[name] for name in names], dtype=str)
    return out


def store(adata: AnnData, carried: Any, names: Sequence[str], targets: Mapping[str, str] | None) -> None:
    """Write them into a new object."""
    for (attribute, key), value in slots(carried, names, targets).items():
        getattr(adata, attribute)[key] = value


def say(step: str, adata: AnnData, key: str = GUIDES) -> None:
    """Say how many guides cells carry, and what cells without a guide count as."""
    n = adata.obs[N_GUIDES].to_numpy()
    logger.info(
        "%s: %d cells x %d features; %d guides, %.2f per cell, %d cells with one, %d with several",
        step,
        adata.n_obs,
        adata.n_vars,
        len(adata.uns[key + GUIDE_IDS]),
        n.mean() if len(n) else 0.0,
        (n == 1).sum(),
        (n > 1).sum(),
    )
    if (n == 0).any():
        logger.warning(
            "%s: %d of %d cells have no guide. They are no NTC cells and get no label; with "
            'control_group="complement" they would be controls: to leave them out, data[data.obs[%r] > 0].copy()',
            step,
            (n == 0).sum(),
            len(n),
            N_GUIDES,
        )


def label(adata: AnnData, guide: np.ndarray, targets: Mapping[str, str]) -> None:
    """Write the guide and the target of each cell; the empty string is no guide."""
    import pandas as pd

    series = pd.Series(guide, adata.obs_names, dtype=object).where(guide != "")
    adata.obs[GUIDE] = pd.Categorical(series.to_numpy())
    adata.obs[TARGET] = pd.Categorical(series.map(dict(targets)).to_numpy(dtype=object))


def one_guide(carried: sparse.csr_matrix, names: Sequence[str]) -> np.ndarray:
    """``(N,)`` guide of each cell that has exactly one, the empty string of others."""
    n = np.diff(carried.indptr)
    out = np.full(len(n), "", dtype=object)
    one = n == 1
    out[one] = np.array(list(names), dtype=object)[carried.indices[carried.indptr[:-1][one]]]
    return out


def label_low_moi(
    adata: AnnData, step: str, targets: Mapping[str, str], moi: str | None = None, key: str = GUIDES
) -> None:
    """Name the guide of cells with exactly one, where the MOI is low.

    Without `moi` it is taken for low if at least half of the cells with guides have one.
    """
    n = adata.obs[N_GUIDES].to_numpy()
    low = moi == "low" if moi is not None else bool((n == 1).sum() >= (n > 1).sum() and (n == 1).any())
    if low:
        label(adata, one_guide(adata.obsm[key], list(adata.uns[key + GUIDE_IDS])), targets)
    elif moi is None:
        logger.warning(
            '%s: most cells have several guides, so .obs names none; pass guides=%r to the steps, or moi="low"',
            step,
            key,
        )
