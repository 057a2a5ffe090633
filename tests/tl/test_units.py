"""Units within guides (clones, animals, wells) as the replicates of the trans step."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc._logging import logger

if TYPE_CHECKING:
    import anndata as ad

pytestmark = pytest.mark.usefixtures("few_null_features")

N_UNITS, SD = 5, 0.8
OPTIONS = {"function_type": "single_hill", "nsamples": 50, "progress": False}


def _screen(seed: int = 3) -> ad.AnnData:
    """A screen whose clones shift every gene but the cis gene, sd 0.8 log2; their labels are numbers."""
    adata = ds.datasets.titration(1500, 80, rng=seed, mean_range=(0.0, 4.0))
    rng, y = np.random.default_rng(seed), adata.X.toarray()
    guide = adata.obs["guide"].cat.codes.to_numpy()
    unit = rng.choice(N_UNITS, adata.n_obs, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    shift = rng.normal(0, SD, (guide.max() + 1, N_UNITS, adata.n_vars))
    shift[:, :, 0] = 0.0
    adata.X = sparse.csr_matrix(rng.poisson(y * 2.0 ** shift[guide, unit]).astype(np.float32))
    adata.obs["clone"] = unit
    return adata


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    adata = _screen()
    for key, unit_key in (("technical", None), ("technical_units", "clone")):
        ds.tl.fit_technical(adata, batch_key="batch", unit_key=unit_key, key_added=key)
        ds.tl.fit_cis(adata, "GFI1B", technical_key=key, key_added=f"cis_{key}")
        ds.tl.fit_trans(adata, technical_key=key, cis_key=f"cis_{key}", key_added=f"trans_{key}", **OPTIONS)
    return adata


def test_the_column_is_stored_and_nothing_before_the_trans_step_changes(screen: ad.AnnData) -> None:
    assert screen.uns["technical_units"]["params"]["unit_key"] == "clone"
    pd.testing.assert_frame_equal(screen.varm["technical"], screen.varm["technical_units"])
    pd.testing.assert_frame_equal(screen.uns["cis_technical"]["guides"], screen.uns["cis_technical_units"]["guides"])


def test_what_units_do_is_not_taken_for_what_guides_do(screen: ad.AnnData) -> None:
    without, with_units = (screen.uns[f"trans_{key}"]["hyper"] for key in ("technical", "technical_units"))
    assert with_units["tau_log_mean"] < without["tau_log_mean"] - 0.4
    null = (screen.var["true_model"] == "null").to_numpy()
    table = ds.get.trans(screen, key="trans_technical_units")
    called = (table["qvalue"] < 0.05).to_numpy()
    assert (called & null).sum() <= 0.1 * called.sum() + 1
    assert called.sum() >= (ds.get.trans(screen, key="trans_technical")["qvalue"] < 0.05).sum()


def test_names_of_units_and_order_of_cells_change_nothing(screen: ad.AnnData) -> None:
    other = _screen()
    other.obs["clone"] = pd.Categorical([f"clone {9 - c}" for c in other.obs["clone"]])
    other = other[np.random.default_rng(0).permutation(other.n_obs)].copy()
    ds.tl.fit_technical(other, batch_key="batch", unit_key="clone")
    ds.tl.fit_cis(other, "GFI1B")
    ds.tl.fit_trans(other, **OPTIONS)
    found, kept = (
        ds.get.trans(a, key=k)[["log_bf", "log2fc_full"]].to_numpy(float)
        for a, k in ((other, "trans"), (screen, "trans_technical_units"))
    )
    np.testing.assert_allclose(found, kept, rtol=1e-6, atol=1e-6)


def test_calibration_sees_the_same_units(screen: ad.AnnData) -> None:
    ds.tl.calibrate(screen, null="permutation", n=2, key="trans_technical_units", key_added="calibration_units")
    assert np.isfinite(ds.get.calibration(screen, key="calibration_units").select_dtypes("number").to_numpy()).any()


def test_ntc_guides_that_pose_are_counted_by_their_counts(screen: ad.AnnData) -> None:
    tests = {}
    for key in ("technical", "technical_units"):
        ds.tl.calibrate(screen, n=2, key=f"trans_{key}", key_added=f"posing_{key}")
        tests[key] = int(ds.get.calibration(screen, key=f"posing_{key}")["n_tests"].iloc[0])
    assert tests["technical_units"] == tests["technical"] > 100


def test_steps_that_know_no_units_say_so(screen: ad.AnnData) -> None:
    adata = screen.copy()
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    with pytest.raises(ValueError, match=r"with unit_key=, which tl\.compare does not know"):
        ds.tl.compare(adata, "line", key="trans_technical_units", n_null=0, progress=False)
    with pytest.raises(ValueError, match="fit the pilot without unit_key="):
        ds.design.power(adata, {"n_cells_per_guide": 50}, key="trans_technical_units")
    assert "replicates within guides by clone" in ds.get.summary(adata, key="trans_technical_units")


def test_the_log_says_how_much_units_differ(screen: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger=logger.name):
        ds.tl.fit_trans(
            screen, technical_key="technical_units", cis_key="cis_technical_units", key_added="again", **OPTIONS
        )
    said = [r.getMessage() for r in caplog.records if "units within guides" in r.getMessage()]
    assert len(said) == 1
    variation = np.sqrt(np.expm1((SD * np.log(2)) ** 2))  # of a log-normal
    assert float(said[0].split("variation of ")[1].split(" ")[0]) == pytest.approx(variation, abs=0.12)


def test_units_that_changed_since_are_refused(screen: ad.AnnData) -> None:
    other = screen.copy()
    other.obs["clone"] = other.obs["clone"].to_numpy()[::-1]
    with pytest.raises(ValueError, match="clone"):
        ds.tl.fit_trans(other, technical_key="technical_units", cis_key="cis_technical_units", key_added="new")


def test_what_has_no_units_is_refused(screen: ad.AnnData) -> None:
    adata = screen.copy()
    adata.obs["one"], adata.obs["each"] = "a", np.arange(adata.n_obs)
    adata.obs["gaps"] = adata.obs["clone"].astype(str).where(adata.obs["clone"] > 0)
    adata.obs["by_guide"] = adata.obs["guide"].astype(str)
    adata.obsm["guides"] = pd.get_dummies(adata.obs["guide"])
    for key, text in (("one", "1 unit"), ("each", f"{adata.n_obs} unit"), ("gaps", "no unit for")):
        with pytest.raises(ValueError, match=text):
            ds.tl.fit_technical(adata, unit_key=key, key_added="new")
    with pytest.raises(KeyError, match="lacking"):
        ds.tl.fit_technical(adata, unit_key="lacking", key_added="new")
    with pytest.raises(ValueError, match="of counts"):
        ds.tl.fit_technical(adata, distribution="normal", unit_key="clone", key_added="new")
    with pytest.raises(ValueError, match="assign_guides"):
        ds.tl.fit_technical(adata, guides="guides", unit_key="clone", key_added="new")
    with pytest.raises(ValueError, match='dosage="guide"'):
        ds.tl.fit_trans(adata, technical_key="technical_units", cis_key="cis_technical_units", dosage="cell")
    ds.tl.fit_technical(adata, unit_key="by_guide", key_added="new")
    ds.tl.fit_cis(adata, "GFI1B", technical_key="new", key_added="new_cis")
    with pytest.raises(ValueError, match="no guide has cells of two units"):
        ds.tl.fit_trans(adata, technical_key="new", cis_key="new_cis", key_added="new_trans")
