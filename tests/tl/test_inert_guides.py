"""Knock-outs without dosages, some guides of which do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc._core.response import inert_guides

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("few_null_features")

CELLS, N_NTC, N_MOVING = 60, 6, 15


def knockout(n_inert: int, *, n_genes: int = 60, n_guides: int = 5, targets: int = 1, n_ntc: int = N_NTC) -> ad.AnnData:
    """Genes move by 1 log2 where a guide acts; the last guides of the last target do nothing."""
    rng, n = np.random.default_rng(0), n_guides * targets
    guide = np.repeat(np.arange(n + n_ntc), CELLS)
    change = np.where(np.arange(n_genes) < N_MOVING, np.where(np.arange(n_genes) % 2, -1.0, 1.0), 0.0)
    acts = np.arange(n + n_ntc) < n - n_inert
    log2 = acts[:, None] * change + rng.normal(0, 0.05, (len(acts), n_genes))
    rate = rng.uniform(1, 6, n_genes) * 2.0 ** log2[guide]
    x = rng.poisson(rng.gamma(8.0, rate / 8.0)).astype(np.float32)
    names = [f"ko_{g}" if g < n else f"ntc_{g}" for g in range(n + n_ntc)]
    obs = pd.DataFrame({"guide": np.array(names)[guide]}, index=[f"c{i}" for i in range(len(guide))])
    obs["target"] = np.where(guide < n, np.char.add("KO_", (guide // n_guides).astype(str)), "NTC")
    obs["size_factor"] = 1.0
    return ad.AnnData(sparse.csr_matrix(x), obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))


def fit(adata: ad.AnnData, **given: object) -> pd.DataFrame:
    ds.tl.fit_trans(adata, dosage="none", cis_targets="KO_0", progress=False, **given)
    return ds.get.trans(adata, key=str(given.get("key_added", "trans")))


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    adata = knockout(2)
    ds.tl.fit_technical(adata)
    fit(adata)
    return adata


def test_guides_that_do_nothing_are_named_and_left_out(fitted: ad.AnnData) -> None:
    guides = ds.get.guides(fitted, key="trans")
    own = guides[~guides["is_control"]]
    np.testing.assert_array_equal(own["p_acts"] < 0.05, [False, False, False, True, True])
    assert guides.loc[guides["is_control"], "p_acts"].isna().all()
    assert own["departs"].isna().tolist() == [False, False, False, True, True]
    table = ds.get.trans(fitted)
    called = (table["qvalue"] < 0.05).to_numpy()
    assert called[:N_MOVING].all()
    assert called[N_MOVING:].sum() <= 1
    assert table["n_guides_support"].max() == 3
    assert table["log2fc_full"].iloc[:N_MOVING].abs().between(0.7, 1.3).all()
    assert not fitted.uns["trans"]["flags"].set_index("flag").loc["guides_disagree", "raised"]


def test_the_summary_names_them(fitted: ad.AnnData) -> None:
    text = " ".join(str(ds.get.summary(fitted)).split())
    assert "guides that do nothing, left out of the fit: ko_3, ko_4" in text
    n_cells = (3 + N_NTC) * CELLS
    assert f"over {n_cells} cells with 3 guides" in text
    assert f"in {n_cells} cells with 3 targeting guides (2 more did nothing and were left out)" in text


def test_their_cells_are_not_counted_and_no_effect_is_expected_of_them(fitted: ad.AnnData) -> None:
    assert (ds.get.trans(fitted)["n_cells"] == (3 + N_NTC) * CELLS).all()
    effects = ds.get.guide_effects(fitted, ["g0"]).set_index("guide")
    inert = effects.loc[["ko_3", "ko_4"]]
    assert (inert["fitted"] == 0).all()
    assert (inert["p_fitted"] > 1e-3).all()
    assert (effects.loc[["ko_0", "ko_1", "ko_2"], "fitted"].abs() > 0.7).all()


def test_the_log_names_them(caplog: pytest.LogCaptureFixture) -> None:
    adata = knockout(1)
    ds.tl.fit_technical(adata)
    fit(adata)
    assert "ko_4 does nothing that the other guides of KO_0 do" in caplog.text


def test_a_fit_that_is_given_the_numbers_leaves_the_same_guides_out(fitted: ad.AnnData, tmp_path: Path) -> None:
    fitted.write_h5ad(tmp_path / "fit.h5ad")
    adata = ad.read_h5ad(tmp_path / "fit.h5ad")
    again = fit(adata, hyper=adata.uns["trans"]["hyper"], key_added="again")
    np.testing.assert_array_equal(again["log_bf"], ds.get.trans(fitted)["log_bf"])
    pd.testing.assert_series_equal(
        ds.get.guides(adata, key="again")["p_acts"], ds.get.guides(fitted, key="trans")["p_acts"]
    )


def test_calibration_is_of_the_guides_that_act(fitted: ad.AnnData) -> None:
    adata = fitted.copy()
    ds.tl.calibrate(adata, null="permutation", n=2, progress=False)  # refuses a fit that it cannot repeat
    assert np.isfinite(ds.get.calibration(adata)["fpr"]).all()


def test_where_all_act_the_numbers_are_those_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    adata = knockout(0)
    ds.tl.fit_technical(adata)
    fit(adata)
    guides = ds.get.guides(adata, key="trans")
    assert (guides.loc[~guides["is_control"], "p_acts"] == 1.0).all()
    monkeypatch.setattr(inert_guides, "LEAST_FEATURES", 10_000)  # nothing is learned
    fit(adata, key_added="before")
    pd.testing.assert_frame_equal(ds.get.trans(adata), ds.get.trans(adata, key="before"))
    assert "guide_acts" not in adata.uns["before"]["hyper"]


def test_where_most_do_nothing_all_act_and_the_flag_says_so() -> None:
    adata = knockout(3, n_guides=6)
    ds.tl.fit_technical(adata)
    fit(adata)
    guides = ds.get.guides(adata, key="trans")
    assert (guides.loc[~guides["is_control"], "p_acts"] == 1.0).all()
    flags = adata.uns["trans"]["flags"].set_index("flag")
    assert flags.loc["guides_disagree", "raised"]
    assert "off-target" in flags.loc["guides_disagree", "advice"]


def test_shares_have_inert_guides_too() -> None:
    counts = knockout(1, n_genes=40)
    rng = np.random.default_rng(1)
    share = np.where(counts.obs["guide"].isin(["ko_0", "ko_1", "ko_2", "ko_3"]).to_numpy()[:, None], 0.7, 0.4)
    moves = np.arange(40) < 10
    total = np.full(counts.shape, 5)
    counts.X = sparse.csr_matrix(rng.binomial(total, np.where(moves, share, 0.4)).astype(np.float32))
    counts.layers["total"] = sparse.csr_matrix(total.astype(np.float32))
    ds.tl.fit_technical(counts, distribution="binomial", denominator_layer="total")
    table = fit(counts)
    np.testing.assert_array_equal(ds.get.guides(counts, key="trans")["p_acts"].iloc[:5] < 0.05, [0, 0, 0, 0, 1])
    assert ((table["qvalue"] < 0.05) == moves).mean() > 0.9


@pytest.mark.parametrize("effort", ["first_pass", "full"])
def test_screens_leave_them_out(effort: str) -> None:
    adata = knockout(1, n_genes=220, targets=2, n_ntc=8)
    table = ds.tl.screen(adata, effort=effort, min_cells=10, progress=False)
    targets = ds.get.screen(table, "targets").set_index("target")
    assert targets["inert_guides"].to_dict() == {"KO_0": "", "KO_1": "ko_9"}
    assert (targets["n_guides"] == 5).all()
    called = table[table["qvalue"] < 0.05].groupby("target", observed=True)["feature"].agg(set)
    assert {f"g{i}" for i in range(N_MOVING)} <= called["KO_1"]
    assert len(called["KO_1"]) <= N_MOVING + 2
