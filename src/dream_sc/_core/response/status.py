"""What became of each feature: a status out of a closed list, and a note in words that says why and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dream_sc._core.curves import NULL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .prepare import Prepared

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

CIS_GENE, NOT_ASKED, FILTERED = "cis_gene", "not_asked", "filtered"
NOT_CONVERGED, LOW_ACCURACY, FEW_GUIDES, CONVERGED = "not_converged", "low_accuracy", "few_guides", "converged"
STATUSES = (CIS_GENE, NOT_ASKED, FILTERED, NOT_CONVERGED, LOW_ACCURACY, FEW_GUIDES, CONVERGED)  # the first that holds
NO_FIT = (CIS_GENE, NOT_ASKED, FILTERED)
MOST_PARETO_K = 0.7  # :cite:p:`Vehtari2024`: above it, weighted draws are not to be relied upon

OF_CIS_GENE = "the cis gene itself: its response to its own dosage is not fitted"  # reason of `Prepared`
OF_NOT_ASKED = "features= of dream_sc.tl.fit_trans names others"
OF_NOT_CONVERGED = "the posterior has not settled: raise niters"
OF_LOW_ACCURACY = "pareto_k above 0.7, intervals are rough"
COMPARE = ": compare with inference='nuts'"
OF_FEW_GUIDES = "two targeting guides or fewer have data: calls and fold changes hold, there is no EC50"
OF_ONE_DOSAGE = "all targeting guides have about one dosage: there is no EC50"
OF_SINGLE_GAP = (
    "a single gap of dosages holds most of the movement: EC50 and steepness within it are not told apart, guides of "
    "dosages between would tell"
)


class Went(NamedTuple):
    """How the fits of `n` features went."""

    converged: Bools  # (n,)
    pareto_k: Floats  # (n,) NaN where draws have no weights
    single_gap: Bools  # (n,) whether the movement likely lies in one gap between dosages
    compare: bool = True  # whether there is an engine to compare with


def went(found: dict[str, Any], converged: Bools, *, compare: bool = True) -> Went:
    """How the fits went, given columns ``(n,)`` of the table; a gap is of no interest where nothing moves."""
    moves = np.asarray(found["class"]).astype(str) != NULL.name
    return Went(converged, found["pareto_k"], (found["single_gap"] > 0) & moves, compare)


def told(prepared: Prepared, asked: Bools, went: Went) -> dict[str, NDArray[np.object_]]:
    """Columns `status` and `note` ``(F,)`` of all features, given how those that were fitted and `asked` for went."""
    status, note = np.full(len(asked), NOT_ASKED, dtype=object), np.full(len(asked), OF_NOT_ASKED, dtype=object)
    is_cis = prepared.reason == OF_CIS_GENE
    known = is_cis | (asked & ~prepared.fitted)
    note[known], status[known], status[is_cis] = prepared.reason[known], FILTERED, CIS_GENE
    mine = prepared.fitted & asked
    status[mine], note[mine] = _of_fits(went, prepared.few_guides[mine], one_dosage=prepared.one_dosage)
    return {"status": status, "note": note}


def _of_fits(went: Went, few_guides: Bools, *, one_dosage: bool) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    """Status and note ``(n,)`` of features that were fitted."""
    rough = went.pareto_k > MOST_PARETO_K
    holds = {
        NOT_CONVERGED: (~went.converged, OF_NOT_CONVERGED),
        LOW_ACCURACY: (rough, OF_LOW_ACCURACY + (COMPARE if went.compare else "")),
        FEW_GUIDES: (few_guides, OF_FEW_GUIDES),
    }
    status = np.full(len(rough), CONVERGED, dtype=object)
    for name, (where, _) in reversed(holds.items()):
        status[where] = name
    gap = (~few_guides & one_dosage, OF_ONE_DOSAGE), (~few_guides & went.single_gap & (not one_dosage), OF_SINGLE_GAP)
    note = np.full(len(rough), "", dtype=object)
    for where, text in [*holds.values(), *gap]:
        note[where & (note != "")] += "; "
        note[where] += text
    return status, note
