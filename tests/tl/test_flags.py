"""A trans fit says what makes the whole of it doubtful, in `.uns` and in the log."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")


def _fitted(adata: ad.AnnData, batch: str | None = "batch") -> ad.AnnData:
    ds.tl.fit_technical(adata, batch_key=batch)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    return adata


def test_a_sound_screen_has_no_flag(caplog: pytest.LogCaptureFixture, tmp_path) -> None:
    adata = ds.datasets.titration(2000, 60, rng=1, mean_range=(-1.0, 4.0))
    with caplog.at_level(logging.WARNING, "dream_sc"):
        _fitted(adata)
    assert not caplog.records
    table = adata.uns["trans"]["flags"]
    assert list(table.columns) == ["flag", "value", "limit", "raised", "advice"]
    assert set(table["flag"]) == {
        "many_responders",
        "few_ntc_guides",
        "lone_guide_at_end",
        "batches_follow_dosage",
        "size_factors_follow_dosage",
        "knock_down_by_batch",
        "dosages_by_group",
    }
    assert not table["raised"].any()
    assert (table["advice"] == "").all()
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad").uns["trans"]["flags"]
    np.testing.assert_allclose(again["value"], table["value"])


def test_flags_are_said_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    adata = ds.datasets.titration(2000, 60, rng=1, mean_range=(-1.0, 4.0))
    x = adata.obs["true_log2_dosage"].to_numpy()
    guides = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"]
    strong = adata.obs["guide"].astype(str).map(guides).to_numpy() < -1.5
    adata.obs["batch"] = np.where(np.random.default_rng(0).random(2000) < np.where(strong, 0.85, 0.3), "a", "b")
    adata.obs["size_factor"] = adata.obs["true_size_factor"] * 2.0 ** (0.3 * x)
    with caplog.at_level(logging.WARNING, "dream_sc"):
        _fitted(adata)
    table = adata.uns["trans"]["flags"].set_index("flag")
    assert list(table.index[table["raised"]]) == ["batches_follow_dosage", "size_factors_follow_dosage"]
    assert "fit groups apart" in table.loc["batches_follow_dosage", "advice"]
    assert "batches_follow_dosage: " in caplog.text
    assert "pp.size_factors(data, method='stable')" in caplog.text


def test_without_batches_there_is_nothing_to_say_of_them() -> None:
    adata = _fitted(ds.datasets.titration(1200, 60, rng=2), batch=None)
    assert set(adata.uns["trans"]["flags"]["flag"]) == {
        "many_responders",
        "few_ntc_guides",
        "lone_guide_at_end",
        "size_factors_follow_dosage",
    }


def test_guides_that_act_differently_in_batches_are_said_by_the_cis_step(caplog: pytest.LogCaptureFixture) -> None:
    adata = ds.datasets.titration(3000, 40, rng=3, mean_range=(0.0, 4.0))
    batch = (adata.obs["batch"] == adata.obs["batch"].cat.categories[1]).to_numpy()
    gene, rng = adata.var_names.get_loc("GFI1B"), np.random.default_rng(0)
    x = adata.X.toarray()
    acts = batch & (adata.obs["target"] != "NTC").to_numpy()
    lost = x[acts, gene] + rng.poisson(2.0, acts.sum())  # in one batch guides knock down by less
    x[acts, gene] = lost
    adata.X = sparse.csr_matrix(x)
    ds.tl.fit_technical(adata, batch_key="batch")
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.tl.fit_cis(adata, "GFI1B")
    assert "guide_covariate_key='batch' gives each guide a dosage in each level" in caplog.text
    said = adata.uns["cis"]["diagnostics"]
    assert said["dosage_sd_between_groups"] > 0.2
    assert said["dosage_sd_between_groups_p"] < 1e-3
    ds.tl.fit_trans(adata)
    flag = adata.uns["trans"]["flags"].set_index("flag").loc["dosages_by_group"]
    assert flag["raised"]
    assert "guide_covariate_key" in flag["advice"]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.tl.fit_cis(adata, "GFI1B", guide_covariate_key="batch")
    assert "gives each guide" not in caplog.text
    assert "dosage_sd_between_groups" not in adata.uns["cis"]["diagnostics"]


def test_a_guide_without_a_count_is_told_of_where_it_makes_the_axis(caplog: pytest.LogCaptureFixture) -> None:
    adata = ds.datasets.titration(2000, 40, rng=1, mean_range=(0.0, 4.0))
    guides = adata.obs["guide"].astype(str)
    targeting = adata.obs["target"].astype(str) == "GFI1B"
    strongest = adata.obs["true_log2_dosage"].where(targeting).groupby(guides).mean().idxmin()
    x = adata.X.tolil()
    x[np.flatnonzero(guides == strongest), adata.var_names.get_loc("GFI1B")] = 0
    adata.X = sparse.csr_matrix(x)
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.tl.fit_technical(adata)
        ds.tl.fit_cis(adata, "GFI1B")
        ds.tl.fit_trans(adata, progress=False)
    flag = adata.uns["trans"]["flags"].set_index("flag").loc["lone_guide_at_end"]
    lowest = ds.get.guides(adata)["log2_dosage"].nsmallest(2).to_numpy()
    assert flag["raised"]
    assert flag["value"] == pytest.approx(lowest[1] - lowest[0], abs=0.05)
    assert "lone_guide_at_end: one guide is alone at an end of the dosage axis" in caplog.text
