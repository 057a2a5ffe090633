"""What comparing contexts holds at once, phase by phase: a context's cells while it is fitted, then the sums of all."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from dream_sc._core.parallel import BLOCK

from . import steps
from .lattices import AXIS

if TYPE_CHECKING:
    from .sizes import Sizes
    from .steps import Phase

STEP = "compare"
F8, F4 = 8, 4
PARAMETERS, HYPOTHESES = 6, 6  # of two curves
TABLES = 5  # of the lattice, at once: likelihoods, their exponentials, products of both contexts
LEVELS = 8  # arrays of guides, of a context: levels, variances, what the rows have beside them
ROW = 40 * F8 + 400  # of a feature's row in the table
POINTS = 25 * 3  # of a stored curve and its band
# of ordered contexts: arrays of the lattice of each context and beside these; of all lines through it; arrays of draws
LATTICES, BESIDE, LINES, ARRAYS = 3, 5, 8 * 25, 12
# what rests on dosages: arrays of the lattice at all guides while its curves are made, and of precisions of errors
AT_GUIDES, PRECISIONS = 8, 4


@cache
def curves_of_lattice() -> int:
    """Curves of the lattice, on the axis of a usual titration."""
    from dream_sc._core.priors import TransPriors
    from dream_sc._core.response.contexts.shapes import Shapes
    from dream_sc._core.types import Axis

    return int(Shapes(Axis.of(AXIS), TransPriors()).lattice.log_prior.size)


@cache
def drawn() -> int:
    """Bytes of the draws that are kept of a feature that may respond."""
    from dream_sc._core.response.contexts.decision import TAUS
    from dream_sc._core.response.contexts.evidence import N_DRAWS, N_EQUAL, N_FREE

    return (N_EQUAL + 2 * N_DRAWS + 3 * N_FREE) * F4 * (PARAMETERS + len(TAUS))


def compare(s: Sizes) -> list[Phase]:
    """Phases of `tl.compare`, each context with as many cells as the largest; those of the fast engine."""
    n, t = s.n_contexts, s.n_sticks
    cells = -(-s.n_cells // n) if s.context_cells is None else s.context_cells
    share = cells / s.n_cells
    own = replace(s, n_cells=cells, n_ntc_cells=max(int(s.n_ntc_cells * share), 1), n_contexts=0, held=None)
    own = replace(own, n_guide_sets=0)  # cells with one guide of the cis gene are compared
    # a context is copied into memory, also where the counts are in a file
    stored = None if s.stored is None else round(s.stored * share)
    own = replace(own, storage="dense" if s.is_dense else "sparse", stored=stored)
    arrays = 1 if s.likelihood.statistics == "counts" else 2
    sums: float = F8 * t * own.n_rows * 3 * arrays
    copied = own.inputs()
    phases: list[Phase] = []
    for phase in (*steps.technical(own), *steps.cis(own), *steps.trans(own)[:-2]):
        more = dict(phase)
        for name, size in (*copied.items(), ("sufficient statistics", (n - 1) * sums)):
            more[name] = more.get(name, 0.0) + size
        phases.append(more)
    of_step = _along_order(own, n) if s.ordered_contexts else _pairs(own, n)
    at_once = n if s.ordered_contexts else 2
    lattice = curves_of_lattice() * F8 * own.n_cis_guides
    curves = {"sufficient statistics": n * sums, "parameters": 2 * at_once * lattice}  # at dosages as said, and learned
    learning = max(AT_GUIDES * lattice, PRECISIONS * _picked() * F8 * (at_once * own.n_cis_guides) ** 2)
    phases += [curves | {"workspace": learning}, curves | of_step]
    return [phase | steps.cells(own) for phase in phases]


def _pairs(own: Sizes, n: int) -> Phase:
    """Each context against the reference: results of all pairs are kept until they are written."""
    from dream_sc._core.response.contexts.decision import TAUS
    from dream_sc._core.response.contexts.evidence import N_EQUAL

    t, pairs, lattice = own.n_sticks, n - 1, curves_of_lattice() * F8
    levels = F8 * t * LEVELS * 2 * own.n_guides + F8 * t * 2 * own.n_rows
    tables = TABLES * min(BLOCK, t) * 2 * lattice
    drawing = min(BLOCK, t) * 2 * lattice + _weighing(t, N_EQUAL, 2, own.n_cis_guides)
    return {
        "posterior": pairs * (levels + F8 * t * HYPOTHESES * len(TAUS)),
        "draws": pairs * steps.RESPOND * t * drawn(),
        "tables": pairs * t * (ROW + 2 * POINTS * F4 * 2),
        "workspace": own.n_threads * max(tables, drawing),
    }


def _along_order(own: Sizes, n: int) -> Phase:
    """All contexts at once: lines through the lattice, and draws of the curves of all contexts."""
    from dream_sc._core.response.contexts.decision import TAUS
    from dream_sc._core.response.contexts.free_curves import IN_CACHE

    t, lattice = own.n_sticks, curves_of_lattice() * F8
    block, few = min(BLOCK, t), min(IN_CACHE, t)
    tables = block * lattice * (LATTICES * n + BESIDE)
    drawing = block * lattice * n + max(few * LINES * lattice, _weighing(t, _most_draws(), n, own.n_cis_guides))
    return {
        "posterior": F8 * t * (n * (LEVELS * own.n_guides + own.n_rows) + HYPOTHESES * len(TAUS)),
        "draws": steps.RESPOND * t * drawn_along(n),
        "tables": t * (ROW + 2 * POINTS * F4 * n),
        "workspace": own.n_threads * max(tables, drawing),
    }


def _weighing(t: int, n_draws: int, n: int, n_cis_guides: int) -> int:
    """Bytes while the draws of some features are weighed: their curves at all guides of `n` contexts, and the like."""
    from dream_sc._core.response.contexts.free_curves import IN_CACHE

    return ARRAYS * F8 * min(IN_CACHE, t) * n_draws * n * n_cis_guides


def _picked() -> int:
    """Draws of a feature that errors of dosages are learned from."""
    from dream_sc._core.response.contexts.dosage_errors import N_PICKED

    return N_PICKED


def _most_draws() -> int:
    """Draws of one hypothesis at once: of both trends, twice."""
    from dream_sc._core.response.ordered.evidence import N_DRAWS, N_EQUAL

    return max(N_EQUAL, 2 * N_DRAWS)


def drawn_along(n: int) -> int:
    """Bytes of the draws that are kept of a feature that may respond, of `n` ordered contexts."""
    from dream_sc._core.response.contexts.decision import TAUS
    from dream_sc._core.response.ordered.evidence import N_DRAWS, N_EQUAL

    return (N_EQUAL + 5 * N_DRAWS) * F4 * (3 * n + len(TAUS))
