"""What stochastic variational inference adds: tensors, variational guide, gradients, draws; and what a GPU holds.

All tensors are float64. What a step of the optimiser keeps for the gradient was counted from the models: see
`TENSORS`; `tests/test_memory_tensors.py` counts the bytes of real runs against it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dream_sc._core.parallel import BLOCK
from dream_sc._core.pyro import choose_family

from .lattices import lattices
from .sizes import Sizes
from .steps import EDGES, F8, SHARE_EDGES, control_bins

if TYPE_CHECKING:
    from .steps import Phase

CONTEXT = 500_000_000  # of a GPU, that its driver takes
# of a technical step, over features and bins, and over features and bins of counts: while the gradient of the sums is
# taken, and while the tails are computed; and over latent numbers
TENSORS, LATENT_TENSORS = ((7.7, 1.0), (5.0, 4.5)), 8
SHARE_TENSORS = 9  # over sticks, groups and bins of counts
ROW_TENSORS = 45  # of a trans step: over features and rows, at seven dosages each where the curve is
CELL_TENSORS = 9.2  # over features and single cells of a step, where the curve is one of the guide


def n_latent(s: Sizes) -> int:
    """Latent numbers of the technical step."""
    return choose_family.n_latent(s.n_sticks, s.n_groups)


def guide_of(s: Sizes, total: float, free: float) -> str:
    """The variational family of the technical step; shares have independent normals."""
    if s.likelihood.statistics != "counts":
        return "AutoNormal"
    return choose_family.guide_of(s.autoguide, n_latent(s), total, free)[0]


def on_gpu(s: Sizes) -> bool:
    """Whether the Pyro engines' tensors are on a GPU."""
    return s.device.startswith("cuda")


def technical(s: Sizes, guide: str) -> list[Phase]:
    """Phases of the tensors of the technical step."""
    if s.likelihood.statistics == "scores":
        return []
    n = n_latent(s)
    if s.likelihood.statistics == "shares":
        at = s.n_sticks * s.n_groups * SHARE_EDGES
        data = F8 * (2 * at + s.n_sticks * (2 * s.n_groups + SHARE_EDGES))
        work: float = F8 * SHARE_TENSORS * at
    else:
        bins = control_bins(s)
        data = F8 * s.n_features * (bins + EDGES)
        used = bins if s.minibatch_size is None else min(bins, s.minibatch_size)
        work = F8 * s.n_features * max(a * used + b * EDGES for a, b in TENSORS)
    flow = choose_family.IAF_HELD * n**2 if guide == "AutoIAFNormal" else 0  # a third of it weights and masks
    family = 2 * F8 * n + flow // 3
    steps: Phase = {
        "sufficient statistics": data,
        "parameters": F8 * LATENT_TENSORS * n,
        "variational guide": family,
        "gradients and optimiser state": 6 * F8 * n + flow - flow // 3,
        "workspace": work,
    }
    drawing: Phase = {"sufficient statistics": data, "variational guide": family, "draws": 0.0}
    return [steps, drawing]


def draws(s: Sizes) -> float:
    """Bytes of the draws of the technical step, in RAM, and of what their summaries take beside them."""
    if s.likelihood.statistics == "scores":
        return 0.0
    if s.likelihood.statistics == "shares":  # effects of all groups, and their products with the level
        return F8 * s.nsamples * (n_latent(s) + (2 * s.n_groups + 1) * s.n_sticks)
    at_once = s.nsamples if s.minibatch_size is None else min(s.minibatch_size, s.nsamples)
    return F8 * at_once * (n_latent(s) + s.n_sticks)


def trans(s: Sizes) -> list[Phase]:
    """Phases of the tensors of a block of features of the trans step."""
    t, n_parameters = min(BLOCK, s.n_sticks), lattices(s.function_type).parameters + 1  # and the sd of guide effects
    n = t * (n_parameters + s.n_guides + s.n_groups)
    family = 2 * F8 * n
    rows = F8 * t * s.n_rows
    held, work = 2 * rows, float(ROW_TENSORS * rows)
    if s.minibatch_size is not None and s.likelihood.statistics == "counts":  # single cells, some of them in a step
        held += 2 * F8 * t * s.n_cells
        work = CELL_TENSORS * F8 * t * min(s.minibatch_size, s.n_cells)
    return [
        {
            "sufficient statistics": held,
            "parameters": F8 * LATENT_TENSORS * n,
            "variational guide": family,
            "gradients and optimiser state": 3 * family,
            "workspace": work,
            "draws": F8 * s.nsamples * t * n_parameters * 2,
        }
    ]


def cis(s: Sizes) -> list[Phase]:
    """Phases of the tensors of the cis step: a latent dosage for every targeted cell."""
    n = (1 - s.n_ntc_cells / s.n_cells) * s.n_cells + 2 * s.n_guides
    work = {
        "parameters": F8 * LATENT_TENSORS * n,
        "variational guide": 2 * F8 * n,
        "gradients and optimiser state": 6 * F8 * n,
        "workspace": F8 * 15 * s.n_cells,
    }
    # draws, then the dosage of every cell in every draw, and its quantiles
    return [work, {"draws": F8 * s.nsamples * (2 * n + 3 * s.n_cells)}]
