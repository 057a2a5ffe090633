"""Results of earlier versions are read: what they lack is made from the rest, or empty, and said; newer are refused."""

from __future__ import annotations

import logging
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

LATER = [
    "on_knockdown",
    "confidence",
    "note",
    "score",
    "lfdr_graded",
    "qvalue_graded",
    "log_bf_graded",
    "log2_dosage_full",
    "log2_dosage_max",
    "n_capped_cells",
    "direct_target",
]
OLD_CLASSES = {"increasing": "up", "decreasing": "down", "threshold_increasing": "threshold"}
OLD_CLASSES |= {"threshold_decreasing": "threshold", "switch": "up"}


@pytest.fixture
def earlier(titration_fit: ad.AnnData) -> ad.AnnData:
    """The fit as a version without directions wrote it."""
    adata = titration_fit.copy()
    frame = adata.varm["trans"].drop(columns=LATER)
    frame["class"] = pd.Categorical(frame["class"].astype(object).replace(OLD_CLASSES))
    frame["status"] = pd.Categorical(frame["status"].astype(object).replace({"cis_gene": "cis gene"}))
    adata.varm["trans"] = frame
    for name in ("flags", "columns", "made_from"):
        del adata.uns["trans"][name]
    return adata


def test_what_is_lacking_is_made_or_empty_and_said(
    earlier: ad.AnnData, titration_fit: ad.AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    want = ds.get.trans(titration_fit)
    with caplog.at_level(logging.WARNING, "dream_sc"):
        table = ds.get.trans(earlier)
    assert ".varm['trans'] is of an earlier version" in caplog.text
    assert "call dream_sc.tl.fit_trans(data) again" in caplog.text
    assert set(want) - {"n_capped_cells"} <= set(table)
    moves = want["on_knockdown"].isin(["down", "up"]).to_numpy()
    assert (table["on_knockdown"][moves].astype(str) == want["on_knockdown"][moves].astype(str)).all()
    np.testing.assert_allclose(table["score"], want["score"], rtol=1e-6)
    called = (want["qvalue"] < 0.05).to_numpy() & (want["class"] != "switch").to_numpy()
    assert called.sum() > 5
    assert (table["confidence"][called].astype(str) == want["confidence"][called].astype(str)).all()
    one_hill = called & (want["model"] == "single_hill").to_numpy()
    assert (table["class"][one_hill].astype(str) == want["class"][one_hill].astype(str)).all()
    assert table["lfdr_graded"].isna().all()
    assert (table["note"] == "").all()
    assert not table["direct_target"].any()
    assert table.loc["GFI1B", "status"] == "cis_gene"


def test_every_reader_takes_them(earlier: ad.AnnData) -> None:
    name = str(ds.get.responders(earlier).index[0])
    assert len(ds.get.responders(earlier, confidence="high")) > 0
    assert len(ds.get.trans(earlier, columns="main").columns) >= 11
    assert "WHAT WAS FOUND" in ds.get.summary(earlier)
    for read in (ds.get.doses, ds.get.guide_effects, ds.get.rank_genes_groups, ds.get.posterior):
        assert len(read(earlier)) > 0
    for draw in (ds.pl.volcano, ds.pl.classes, ds.pl.heatmap, ds.pl.guides, ds.pl.convergence, ds.pl.priors):
        draw(earlier)
    ds.pl.dose_response(earlier, name)


@pytest.mark.parametrize(("name", "value"), [("schema_version", 99), ("posterior_layout", 99), ("schema_version", "2")])
def test_newer_ones_are_refused(titration_fit: ad.AnnData, name: str, value: Any) -> None:
    adata = titration_fit.copy()
    adata.uns["trans"][name] = value
    with pytest.raises(ValueError, match=rf"\.uns\['trans'\]\['{name}'\] is .*, and this version of dream_sc reads up"):
        ds.get.trans(adata)


def test_half_of_a_result_is_refused(titration_fit: ad.AnnData) -> None:
    adata = titration_fit.copy()
    adata.varm["trans"] = adata.varm["trans"].drop(columns=["lfdr", "class"])
    with pytest.raises(ValueError, match=r"no columns \['lfdr', 'class'\].*call dream_sc\.tl\.fit_trans\(data\) again"):
        ds.get.trans(adata)
    adata = titration_fit.copy()
    del adata.uns["trans"]["axis"]
    with pytest.raises(ValueError, match=r"\.uns\['trans'\] has no \['axis'\].*call dream_sc\.tl\.fit_trans\(data\)"):
        ds.pl.volcano(adata)
