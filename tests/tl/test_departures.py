"""Guides with programmes of their own are named, make no calls, and go with the learned numbers; nor does one cell."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc._logging import logger
from dream_sc.tl._departures import in_order, tell

if TYPE_CHECKING:
    import anndata as ad

pytestmark = pytest.mark.usefixtures("few_null_features")

STRONGEST, OTHER = "GFI1B_g01", "GFI1B_g03"
OPTIONS = {"function_type": "single_hill", "nsamples": 50}


def _screen(*who: str) -> ad.AnnData:
    """A screen in which these guides share a programme on a quarter of the genes, sd 1.2 log2."""
    adata = ds.datasets.titration(2500, 160, rng=11, single_fraction=0.2, additive_fraction=0.0, mean_range=(0.0, 5.0))
    rng, y = np.random.default_rng(1), adata.X.toarray()
    programme = rng.normal(0, 1.2, adata.n_vars) * (rng.random(adata.n_vars) < 0.25)
    programme[0] = 0.0
    mine = adata.obs["guide"].isin(who).to_numpy()
    y[mine] = rng.poisson(y[mine] * 2.0**programme)
    adata.X = sparse.csr_matrix(y)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    return adata


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    adata = _screen(STRONGEST, OTHER)
    ds.tl.fit_trans(adata, **OPTIONS)
    return adata


def _false_calls(adata: ad.AnnData, key: str = "trans") -> int:
    called = ds.get.trans(adata, key=key)["qvalue"] < 0.05
    return int((called & (adata.var["true_model"] == "null")).sum())


def test_guides_that_depart_are_named_and_make_no_calls(fitted: ad.AnnData) -> None:
    guides = ds.get.guides(fitted, key="trans")
    assert guides.loc[STRONGEST, "departs"] > 0.1
    assert guides.loc[OTHER, "departs"] > 0.1
    assert guides["departs"].drop([STRONGEST, OTHER]).max() < 0.06
    assert guides["departs_with"].to_dict() == dict.fromkeys(guides.index, "") | {STRONGEST: OTHER, OTHER: STRONGEST}
    assert _false_calls(fitted) <= 2
    responds = (fitted.var["true_model"] != "null").to_numpy()
    assert (ds.get.trans(fitted)["qvalue"] < 0.05).to_numpy()[responds].mean() > 0.85


def test_the_table_behind_a_plot_has_the_guides_that_depart_first(fitted: ad.AnnData) -> None:
    table = ds.pl.guides_data(fitted)
    assert set(table.index[:2]) == {STRONGEST, OTHER}
    assert (np.diff(table["departs"]) <= 0).all()
    assert list(table.columns[-2:]) == ["departs", "departs_with"]
    with pytest.raises(KeyError, match=r"call dream_sc\.tl\.fit_trans"):
        ds.pl.guides_data(fitted, key="cis")


def test_without_what_was_learned_of_each_guide_there_are_false_calls(fitted: ad.AnnData) -> None:
    adata = fitted.copy()
    hyper = {k: v for k, v in adata.uns["trans"]["hyper"].items() if not k.startswith("guide_") or k == "guide_offsets"}
    ds.tl.fit_trans(adata, **OPTIONS, hyper=hyper, key_added="plain")
    assert _false_calls(adata, "plain") >= 10
    assert ds.get.guides(adata, key="plain")["departs"].isna().all()


def test_learned_numbers_carry_the_departures(fitted: ad.AnnData, tmp_path) -> None:
    """Also through a file, and for some of the features."""
    fitted.write_h5ad(tmp_path / "fitted.h5ad")
    adata = anndata.read_h5ad(tmp_path / "fitted.h5ad")
    some = list(adata.var_names[5:9])
    ds.tl.fit_trans(adata, **OPTIONS, hyper=adata.uns["trans"]["hyper"], features=some, key_added="again")
    one, other = (ds.get.trans(a, key=k).loc[some] for a, k in ((fitted, "trans"), (adata, "again")))
    for name in ("log_bf", "lfdr", "pvalue", "log_bf_loo"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-9)
    guides = ds.get.guides(adata, key="again")
    np.testing.assert_allclose(guides["departs"], ds.get.guides(fitted, key="trans")["departs"])


def test_the_calibration_knows_of_departures(fitted: ad.AnnData) -> None:
    """Its evidence of the fit itself is compared with what was stored."""
    adata = fitted.copy()
    ds.tl.calibrate(adata, null="permutation", n=1, progress=False)
    assert ds.get.calibration(adata) is not None


def test_learned_numbers_follow_the_names_of_guides(fitted: ad.AnnData) -> None:
    hyper = fitted.uns["trans"]["hyper"]
    names = pd.Series(["new", *hyper["guides"][::-1]])
    moved = in_order(hyper, names)
    for name in ("guide_wide_weight", "guide_wide_sd", "guide_departs", "guide_together"):
        np.testing.assert_array_equal(moved[name][1:], hyper[name][::-1])
    assert moved["guide_wide_weight"][0] == hyper["wide_weight"]
    at = names.tolist().index(STRONGEST)
    assert names[moved["guide_partner"][at]] == OTHER
    alone = in_order(hyper, pd.Series([STRONGEST]))
    assert alone["guide_partner"] == [-1]
    assert alone["guide_together"] == [0.0]


def test_one_line_of_the_log_names_guides_that_depart(fitted: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger=logger.name):
        tell(fitted.uns["trans"]["guides"], 0.01, 1000)
        tell(fitted.uns["trans"]["guides"].assign(departs=0.04), 0.01, 1000)
        tell(fitted.uns["trans"]["guides"].assign(departs=0.1, departs_with=""), 0.01, 1000)
    named, every = (r.getMessage() for r in caplog.records)
    assert f"{STRONGEST} in " in named
    assert f"% of the features (with {OTHER})" in named
    assert "GFI1B_g02" not in named
    assert every.endswith("and 6 more")  # of twelve; NTC guides bear no call
    assert "NTC" not in every


def test_one_cell_makes_no_call() -> None:
    """300 counts of a gene in one cell of the strongest guide, where other cells have two."""
    adata = ds.datasets.titration(1200, 120, rng=3, single_fraction=0.2, additive_fraction=0.0, mean_range=(0.0, 4.0))
    null = np.flatnonzero(adata.var["true_model"] == "null")[1:]
    mean = np.asarray(adata.X.mean(0)).ravel()
    gene = null[np.abs(mean[null] - 2).argmin()]
    cell = np.flatnonzero(adata.obs["guide"] == STRONGEST)[0]
    y = adata.X.toarray()
    y[cell, gene] = 300
    adata.X = sparse.csr_matrix(y)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, **OPTIONS)
    table = ds.get.trans(adata)
    assert table["n_capped_cells"].iloc[gene] == 1
    assert table["n_capped_cells"].sum() == 1
    assert table["qvalue"].iloc[gene] > 0.05


def test_the_log_says_where_targeting_guides_are_noisier(fitted: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger=logger.name):
        tell(fitted.uns["trans"]["guides"].assign(departs=1.0), 0.01, 1000)
    (message,) = (r.getMessage() for r in caplog.records)
    assert "12 of 12 targeting guides shift nearly every feature by more than NTC guides do" in message
