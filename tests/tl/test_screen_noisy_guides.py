"""`tl.screen` where targeting guides shift every feature, each differently, and NTC guides do not."""

from __future__ import annotations

import logging
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc._core.response.joint_departures import Pair
from dream_sc._core.screen import fit

N_GENES, N_CELLS, N_NTC = 240, 30, 12
DOSAGES = (-3.0, -1.8, -0.8)
SAID = "3 of 3 targeting guides shift nearly every feature by more than NTC guides do"


def _library(noise: float) -> tuple[ad.AnnData, np.ndarray]:
    """Three guides of one target, sd `noise` log2 of what each does to every gene; the genes that respond."""
    rng = np.random.default_rng(1)
    level = 2.0 ** rng.uniform(0, 4, N_GENES)
    level[0] = 6.0
    responds = rng.random(N_GENES) < 0.08
    responds[0] = False
    slope = rng.uniform(0.4, 1, N_GENES) * rng.choice([-1, 1], N_GENES) * responds
    shift = np.zeros((len(DOSAGES) + N_NTC, N_GENES))
    for k, dosage in enumerate(DOSAGES):
        shift[k] = slope * dosage + rng.normal(size=N_GENES) * noise
        shift[k, 0] = dosage
    names = [f"g0_{k}" for k in range(len(DOSAGES))] + [f"ntc_{k}" for k in range(N_NTC)]
    guide = np.repeat(np.arange(len(names)), N_CELLS)
    size = np.exp(rng.normal(0, 0.25, len(guide)))
    mean = level * 2.0 ** shift[guide] * size[:, None]
    counts = rng.poisson(mean * rng.gamma(1 / 0.09, 0.09, mean.shape)).astype(np.float32)
    obs = {"guide": np.array(names)[guide], "size_factor": size}
    obs["target"] = np.where(guide < len(DOSAGES), "gene_0", "NTC")
    cells = pd.DataFrame(obs, [f"cell_{i}" for i in range(len(guide))])
    genes = pd.DataFrame(index=[f"gene_{i}" for i in range(N_GENES)])
    return ad.AnnData(sparse.csr_matrix(counts), cells, genes), responds


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_calls_stand_out_from_what_targeting_guides_do(noise: float, caplog: pytest.LogCaptureFixture) -> None:
    adata, responds = _library(noise)
    with caplog.at_level(logging.WARNING, logger="dream_sc"):
        table = ds.tl.screen(adata, effort="first_pass", progress=False).set_index("feature").loc[adata.var_names]
    fitted = table["qvalue"].notna().to_numpy()
    called = (table["qvalue"] < 0.05).to_numpy()
    assert (called & responds).sum() > 0.5 * responds.sum()
    assert (called & ~responds).sum() <= 0.2 * called.sum()
    assert (table["pvalue"] < 0.05).to_numpy()[fitted & ~responds].mean() < 0.12
    assert (SAID in caplog.text) == (noise > 0)


@pytest.mark.parametrize(("noise", "asked"), [(0.0, 0), (0.15, 1)])
def test_departures_are_learned_only_where_guides_leave_the_curves(
    noise: float, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata, _ = _library(noise)
    seen = []

    def learned(*given: Any) -> None:
        seen.append(given)

    monkeypatch.setattr(fit, "learn_departures", learned)
    ds.tl.screen(adata, effort="first_pass", progress=False)
    assert len(seen) == asked


def test_two_guides_that_depart_together_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target with these two only: nothing is left without them, so that no call stands without either."""
    adata, _ = _library(0.0)
    mine = adata[(adata.obs["guide"] != "g0_2").to_numpy()].copy()
    pair = (Pair(0, 1, 0.1, 0.3),)
    monkeypatch.setattr(fit, "pairs_of", lambda *_: pair)
    table = ds.tl.screen(mine, effort="first_pass", progress=False)
    assert ds.get.screen(table, "targets")["status"].tolist() == ["fitted"]
    called = table["qvalue"] < 0.05
    assert called.sum() > 0
    assert (table.loc[called, "log_bf_loo"] < 3.0).all()
