"""Bytes of tensors that a step of the optimiser keeps, counted on the CPU, against the formulas of VRAM."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import dream_sc as ds
from dream_sc._memory import svi as svi


class LiveBytes(TorchDispatchMode):
    """Counts the storages that are alive, and the most at once."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor):
                storage = x.untyped_storage()
                key = storage._cdata
                if key not in self.seen:
                    self.seen.add(key)
                    size = storage.nbytes()
                    self.now += size
                    weakref.finalize(storage, self._gone, key, size)
        self.most = max(self.most, self.now)
        return out

    def _gone(self, key, size):
        self.seen.discard(key)
        self.now -= size


def stats_of(n_features, n_groups, n_bins=32, n_edges=50):
    from dream_sc._core.types import TechnicalStats

    gen = np.random.default_rng(0)
    b = n_groups * n_bins
    counts = gen.poisson(20.0, (n_features, b)).astype(float)
    tail = gen.poisson(30.0 / (1 + np.arange(n_edges)), (n_features, n_edges)).astype(float)
    groups = np.repeat(np.arange(n_groups), n_bins)
    return TechnicalStats(counts, np.full(b, 20.0), np.ones(b), groups, n_groups, tail, np.arange(n_edges) * 1.0)


def sizes_of(n_features, n_groups, **more):
    e = ds.memory.estimate(
        n_features, 20_000, n_groups=n_groups, inference="svi", device="cuda", autoguide="AutoNormal", **more
    )
    return e.sizes


@pytest.mark.parametrize(("n_features", "n_groups"), [(1500, 2), (1500, 1), (800, 4)])
@pytest.mark.parametrize("minibatch_size", [None, 8])
def test_tensors_of_the_technical_step(n_features, n_groups, minibatch_size):
    from dream_sc._core.priors import TechnicalPriors
    from dream_sc._core.pyro.svi import technical

    stats = stats_of(n_features, n_groups)
    with LiveBytes() as live:
        technical(stats, TechnicalPriors(), nsamples=3, niters=3, device="cpu", minibatch_size=minibatch_size)
    step = svi.technical(sizes_of(n_features, n_groups, minibatch_size=minibatch_size), "AutoNormal")[0]
    assert live.most == pytest.approx(sum(step.values()), rel=0.2)


def test_tensors_of_the_flow():
    from dream_sc._core.priors import TechnicalPriors
    from dream_sc._core.pyro.svi import technical

    sizes = replace(sizes_of(300, 2), autoguide="AutoIAFNormal")
    with LiveBytes() as live:
        technical(stats_of(300, 2), TechnicalPriors(), nsamples=3, niters=3, device="cpu", autoguide="AutoIAFNormal")
    step = svi.technical(sizes, "AutoIAFNormal")[0]
    assert live.most == pytest.approx(sum(step.values()), rel=0.2)


def step_on_cells(n_features, n_cells, minibatch_size):
    from dream_sc._core.curves import curve
    from dream_sc._core.priors import TransPriors
    from dream_sc._core.pyro import tensors
    from dream_sc._core.pyro.models.trans import cell_level
    from dream_sc._core.pyro.optimise import optimise, some_cells
    from dream_sc._core.types import Axis, GuideStats, RowDosage

    gen, cpu = np.random.default_rng(0), torch.device("cpu")
    guide, dose = gen.integers(0, 20, n_cells), np.append(np.linspace(-3, 0.5, 14), np.zeros(6))
    s, group = gen.uniform(0.5, 2, n_cells), gen.integers(0, 2, n_cells)
    stats = GuideStats(gen.poisson(3, (n_features, n_cells)).astype(float), s, s**2, guide, group, 20, 2)
    dosage = RowDosage(dose[guide], np.where(dose[guide] == 0, 0, 0.2), np.full(20, 0.05))
    data = tensors.trans_data(
        stats,
        dosage,
        overdispersion=np.full(n_features, 0.5),
        axis=Axis.of(dose[:14]),
        priors=TransPriors(),
        hyper={"group_effect_sd": 0.3, "tau_log_mean": -2.8, "tau_log_sd": 0.5},
        consts=np.zeros((n_features, 2)),
        device=cpu,
    )
    rows = some_cells(n_cells, minibatch_size, 0, cpu)
    with tensors.isolated(0, cpu), LiveBytes() as live:
        optimise(lambda: cell_level(data, curve("single_hill"), 6, rows()), {}, 3, 0)
    return live.most


def test_tensors_of_single_cells():
    more = step_on_cells(16, 4000, 2000) - step_on_cells(16, 4000, 1000)
    assert more / (8 * 16 * 1000) == pytest.approx(svi.CELL_TENSORS, rel=0.05)
    every = step_on_cells(16, 4000, 4000) - step_on_cells(16, 2000, 2000)  # all cells: no copy of some
    assert every / (8 * 16 * 2000) == pytest.approx(8, rel=0.05)
