"""The technical step on all cells, and designs in which that is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats.contingency import association

import dream_sc as ds
from dream_sc._core.stats.cramers_v import cramers_v

pytestmark = pytest.mark.usefixtures("few_null_features")


def test_cramers_v() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, 20_000)
    b = np.where(rng.random(20_000) < 0.4, a, rng.integers(0, 4, 20_000))
    plain = association(np.array([[((a == i) & (b == j)).sum() for j in range(4)] for i in range(4)]), method="cramer")
    assert cramers_v(a, b) == pytest.approx(plain, rel=1e-2)
    assert cramers_v(a, a) == pytest.approx(1.0)
    # of independent labels with many values the plain one is far above 0
    few, many = rng.integers(0, 2, 200), rng.integers(0, 50, 200)
    found = [cramers_v(rng.permutation(few), many) for _ in range(50)]
    assert np.mean(found) < 0.15
    assert cramers_v(a, np.zeros(20_000, dtype=int)) == 0.0


def test_all_cells_give_what_controls_give() -> None:
    adata = ds.datasets.titration(3000, 60, rng=3)
    reference = sorted(adata.obs["batch"].unique())[0]
    controls = ds.tl.fit_technical(adata, batch_key="batch", reference=reference, copy=True)
    ds.tl.fit_technical(adata, batch_key="batch", reference=reference, use_all_cells=True)
    same = (adata.var["true_model"] == "null") & (adata.varm["technical"]["mu"] > 1)
    ratio = adata.varm["technical"].loc[same, "mu"] / controls.varm["technical"].loc[same, "mu"]
    np.testing.assert_allclose(ratio, 1.0, atol=0.25)
    off = adata.varm["technical_effects"][same, 1] - adata.varm["true_technical_effects"][same, 1]
    assert np.sqrt((off**2).mean()) < np.sqrt(
        ((controls.varm["technical_effects"][same, 1] - adata.varm["true_technical_effects"][same, 1]) ** 2).mean()
    )
    for each in (adata, controls):
        ds.tl.fit_cis(each, "GFI1B")
    np.testing.assert_allclose(ds.get.guides(adata)["log2_dosage"], ds.get.guides(controls)["log2_dosage"], atol=0.15)
    o = [each.uns["cis"]["diagnostics"]["overdispersion"] for each in (adata, controls)]
    assert o[0] == pytest.approx(o[1], abs=0.05)
    assert adata.varm["technical"].loc["GFI1B", "overdispersion"] > o[0] + 0.1  # that of all cells holds the dosage
    ds.tl.fit_trans(adata)
    called = adata.varm["trans"]["qvalue"] < 0.05
    assert (called & (adata.var["true_model"] == "null")).sum() <= 2
    assert called.sum() >= 10


def test_groups_without_controls() -> None:
    adata = ds.datasets.titration(1500, 10, rng=0)
    adata.obs["lane"] = np.where(np.random.default_rng(0).random(1500) < 0.5, "a", "b")
    adata.obs.loc[adata.obs["target"] == "NTC", "lane"] = "a"
    with pytest.raises(ValueError, match=r"\['b'\].*have no control cells"):
        ds.tl.fit_technical(adata, batch_key="lane")
    with pytest.raises(ValueError, match=r"\.obs\['lane'\] follows .*Cramér's V is 0\.\d\d, at most 0.3"):
        ds.tl.fit_technical(adata, batch_key="lane", use_all_cells=True)
    assert "technical" not in adata.uns


def test_groups_that_follow_guides_are_refused_in_the_cis_step() -> None:
    adata = ds.datasets.titration(1500, 10, rng=0)
    guide = adata.obs["guide"].astype(str)
    targeting = adata.obs["target"] != "NTC"
    # as many cells of the target as of the controls in each lane, but each guide in one lane only
    code = guide.astype("category").cat.codes.to_numpy()
    adata.obs["lane"] = np.where(code % 2 == 0, "a", "b")
    share = [targeting[adata.obs["lane"] == lane].mean() for lane in "ab"]
    assert abs(share[0] - share[1]) < 0.2
    ds.tl.fit_technical(adata, batch_key="lane", use_all_cells=True)
    with pytest.raises(ValueError, match=r"follows \.obs\['guide'\]"):
        ds.tl.fit_cis(adata, "GFI1B")
    assert "cis" not in adata.uns


def test_a_cis_gene_without_counts_in_controls_is_refused() -> None:
    adata = ds.datasets.titration(800, 10, rng=0)
    x = adata.X.tolil()
    x[np.flatnonzero(adata.obs["target"] == "NTC"), adata.var_names.get_loc("GFI1B")] = 0
    adata.X = x.tocsr()
    ds.tl.fit_technical(adata, batch_key="batch", use_all_cells=True)
    with pytest.raises(ValueError, match="has a mean of 0 counts in control cells"):
        ds.tl.fit_cis(adata, "GFI1B")
