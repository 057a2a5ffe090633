"""The text that says what was done and found."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds


def _part(text: str, head: str) -> str:
    parts = text.split("\n\n")
    return " ".join(next(p for p in parts if p.startswith(head)).split())


def test_it_counts_what_the_table_holds(titration_fit: ad.AnnData) -> None:
    text, called = ds.get.summary(titration_fit), ds.get.responders(titration_fit)
    found = _part(text, "WHAT WAS FOUND")
    assert f"{len(called)} of 39 features respond" in found
    for level, n in called["confidence"].astype(str).value_counts().items():
        assert f"{n} {level}" in found
    for way, n in called["on_knockdown"].astype(str).value_counts().items():
        assert f"{n} {way}" in found
    assert str(called.index[0]) in found
    done = _part(text, "WHAT WAS DONE")
    assert "1200 cells with 12 guides of GFI1B and 6 NTC guides" in done
    assert "tl.fit_technical (technical) -> tl.fit_cis (cis) -> tl.fit_trans (trans)" in done
    assert titration_fit.uns["trans"]["versions"]["numpy"] in done
    assert "bayesDREAM" in _part(text, "HOW TO CITE")
    assert f"({len(called)})" in _part(text, "METHODS PARAGRAPH")
    assert max(map(len, text.splitlines())) <= 100


def test_it_says_which_checks_have_not_run(titration_fit: ad.AnnData) -> None:
    careful = _part(ds.get.summary(titration_fit), "WHAT TO BE CAREFUL ABOUT")
    assert "dream_sc.tl.check_confounding(data)" in careful
    assert "dream_sc.tl.calibrate(data)" in careful


def test_it_says_what_the_checks_found(titration_fit: ad.AnnData) -> None:
    adata = titration_fit.copy()
    rates = pd.DataFrame({"level": [0.05, 1e-3], "fpr": [0.2, 2e-3], "se": 0.0, "n_tests": 100})
    adata.uns["calibration"] = {"fpr": rates, "params": {"key": "trans"}}
    checks = pd.DataFrame({"what": ["depth", "batch"], "flag": [True, False]})
    adata.uns["confounding"] = {"checks": checks, "params": {"cis_key": "cis"}}
    careful = _part(ds.get.summary(adata), "WHAT TO BE CAREFUL ABOUT")
    assert "0.2 at p < 0.05, 0.002 at p < 0.001; above nominal" in careful
    assert "1 of 2 checks are flagged (depth)" in careful
    adata.uns["calibration"]["params"]["key"] = "other"
    assert "calibration: not run" in _part(ds.get.summary(adata), "WHAT TO BE CAREFUL ABOUT")


def test_it_warns_of_what_calls_rest_on(titration_fit: ad.AnnData) -> None:
    adata = titration_fit.copy()
    called = ds.get.responders(adata).index
    table = adata.varm["trans"]
    for name, value in (("status", "low_accuracy"), ("confidence", "low"), ("note", "a single gap of dosages holds")):
        table[name] = table[name].astype(object)
        table.loc[called[0], name] = value
    table.loc["GFI1B", "direct_target"] = True
    adata.uns["trans"] = adata.uns["trans"] | {
        "flags": pd.DataFrame({"flag": ["many", "other"], "raised": [True, False], "advice": ["look twice", ""]})
    }
    careful = _part(ds.get.summary(adata), "WHAT TO BE CAREFUL ABOUT")
    assert "1 calls have rough intervals" in careful
    assert "many: look twice" in careful
    assert "other" not in careful
    assert f"calls of low confidence: {called[0]}" in careful
    assert "1 calls move in a single gap" in careful
    assert "direct targets of the guides, without a q-value: GFI1B" in careful


def test_it_survives_a_file_and_no_calls(titration_fit: ad.AnnData, tmp_path: Any) -> None:
    titration_fit.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert ds.get.summary(again) == ds.get.summary(titration_fit)
    again.varm["trans"]["qvalue"] = np.nan
    assert "0 of 39 features respond" in ds.get.summary(again)


@pytest.mark.slow
def test_it_speaks_of_other_distributions(modalities: Any) -> None:
    for mod in ("psi", "score", "usage", "layers"):
        text = ds.get.summary(modalities, mod=mod)
        assert "guides of GFI1B" in text
        assert "size factors" not in text


def test_it_says_how_size_factors_were_made(titration_fit: ad.AnnData, tmp_path: Any) -> None:
    adata = titration_fit.copy()
    assert "pp." not in _part(ds.get.summary(adata), "WHAT WAS DONE")
    ds.pp.size_factors(adata, method="median_ratio", exclude=["GFI1B"])
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata = ad.read_h5ad(tmp_path / "a.h5ad")
    text = "size factors in .obs['size_factor'] by pp.size_factors(exclude='GFI1B', method='median_ratio')"
    assert text in _part(ds.get.summary(adata), "WHAT WAS DONE")
    assert "method='median_ratio'" in _part(ds.get.summary(adata), "METHODS PARAGRAPH")
    assert f"{text}, over 1200 cells" in _part(ds.get.summary(adata[:900].copy()), "WHAT WAS DONE")
    ds.pp.adjust_size_factors(adata, by="batch")
    assert "by pp.adjust_size_factors(by='batch')" in _part(ds.get.summary(adata), "WHAT WAS DONE")
    adata.obs["size_factor"] **= 1.1  # changed by hand: who made it is not known any more
    assert "pp." not in _part(ds.get.summary(adata), "WHAT WAS DONE")
    adata.uns["size_factors"] = [1, 2]  # the user's own
    ds.pp.size_factors(adata)
    assert adata.uns["size_factors"] == [1, 2]
