"""Options of the trans step beside its defaults: engines, curves, cell dosage, few guides, some features only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("few_null_features")


TEXTS = dict.fromkeys(("model", "on_knockdown", "confidence", "class", "status", "note"), str)


@pytest.fixture(scope="module")
def ready() -> ad.AnnData:
    adata = ds.datasets.titration(1000, 16, rng=5, single_fraction=0.5, mean_range=(0.0, 4.0))
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    return adata


def _clear(adata: ad.AnnData) -> list[str]:
    table = ds.get.trans(adata)
    return list(table.index[(table["qvalue"] < 0.01) & (table["log2fc_full"].abs() > 1)])


@pytest.mark.parametrize("name", ["single_hill", "additive_hill", "polynomial"])
def test_each_curve_finds_the_clear_responders(ready: ad.AnnData, name: str) -> None:
    adata, clear = ready.copy(), _clear(ready)
    assert len(clear) >= 3
    ds.tl.fit_trans(adata, function_type=name, degree=3 if name == "polynomial" else None, key_added="other")
    table = ds.get.trans(adata, key="other")
    assert set(table["model"].dropna()) <= {"null", name}
    assert (table.loc[clear, "lfdr"] < 0.05).all()
    shift = (table["log2fc_full"] - ds.get.trans(adata)["log2fc_full"])[clear]
    assert shift.abs().median() < 0.3
    curves = ds.get.dose_response(adata, clear[0], key="other", scale="log2fc")
    at_end = curves.loc[curves["log2_dosage"].idxmin(), "median"]
    assert abs(at_end - table.loc[clear[0], "log2fc_full"]) < 0.3
    assert table["log2_ec50"].isna().all() == (name == "polynomial")


def test_a_part_of_the_features_has_the_rows_of_the_whole(ready: ad.AnnData) -> None:
    adata, wanted = ready.copy(), ["gene_0003", "gene_0007"]
    ds.tl.fit_trans(adata, features=wanted)
    whole, part = ds.get.trans(ready), ds.get.trans(adata)
    pd.testing.assert_frame_equal(
        part.loc[wanted].astype(TEXTS),
        whole.loc[wanted].astype(TEXTS),
    )
    others = part.drop(index=[*wanted, "GFI1B"])
    assert (others["status"] == "not_asked").all()
    assert others["lfdr"].isna().all()
    with pytest.raises(KeyError, match="gene_0003"):
        ds.tl.fit_trans(adata, features="gene_03")


def test_cell_dosage_follows_the_guides(ready: ad.AnnData) -> None:
    adata, clear = ready.copy(), _clear(ready)
    ds.tl.fit_trans(adata, dosage="cell")
    cell, guide = ds.get.trans(adata).loc[clear], ds.get.trans(ready).loc[clear]
    assert (cell["lfdr"] < 0.05).all()
    assert (cell["log2fc_full"] - guide["log2fc_full"]).abs().median() < 0.4


def test_svi_keeps_the_calls_and_says_when_it_is_too_short(ready: ad.AnnData) -> None:
    adata, clear = ready.copy(), _clear(ready)[:2]
    ds.tl.fit_trans(adata, features=clear, inference="svi", niters=300, nsamples=100, device="cpu")
    whole, svi = ds.get.trans(ready).loc[clear], ds.get.trans(adata).loc[clear]
    np.testing.assert_allclose(svi["lfdr"], whole["lfdr"], rtol=1e-9)
    assert (svi["log2fc_full"] - whole["log2fc_full"]).abs().max() < 0.5
    assert adata.uns["trans"]["params"]["inference"] == "svi"
    ds.tl.fit_trans(adata, features=clear[0], inference="nuts", niters=2, nsamples=10, device="cpu")
    assert ds.get.trans(adata).loc[clear[0], "status"] == "not_converged"


@pytest.mark.parametrize("n_guides", [1, 2])
def test_few_guides_give_calls_but_no_ec50(n_guides: int) -> None:
    adata = ds.datasets.titration(
        800, 12, rng=2, n_guides=n_guides, dosage_range=(-2.0, -1.5), single_fraction=0.5, mean_range=(1.0, 4.0)
    )
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    table = ds.get.trans(adata).drop(index="GFI1B")
    assert (table["status"] == "few_guides").all()
    assert table["log2_ec50"].isna().all()
    assert table["log2fc_full"].notna().all()
    assert table["lfdr"].between(0, 1).all()
    null = (adata.var["true_model"] == "null").reindex(table.index)
    assert table.loc[null, "lfdr"].mean() > table.loc[~null, "lfdr"].mean()


def test_unknown_options_name_the_known_ones(ready: ad.AnnData) -> None:
    for keyword, value, known in (
        ("function_type", "hill", "single_hill"),
        ("dosage", "cells", "guide"),
        ("inference", "vi", "laplace"),
        ("distribution", "poisson", "negbinom"),
        ("autoguide", "Iaf", "AutoNormal"),
        ("degree", 9, "6"),
    ):
        with pytest.raises(ValueError, match=known):
            ds.tl.fit_trans(ready, **{keyword: value})


def test_nothing_to_fit_is_said(ready: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="asks for nothing"):
        ds.tl.fit_trans(ready.copy(), features=[])
    with pytest.raises(ValueError, match="nsamples=0"):
        ds.tl.fit_trans(ready, nsamples=0)
    with pytest.raises(ValueError, match="no feature can be fitted"):
        ds.tl.fit_trans(ready[:, ["GFI1B"]].copy())
    strangers = ready.copy()
    strangers.obsm["cis"] = strangers.obsm["cis"] * np.nan
    with pytest.raises(ValueError, match="no cell takes part"):
        ds.tl.fit_trans(strangers)
    with pytest.raises(ValueError, match="fit_cis"):
        ds.tl.fit_trans(ready, key_added="cis")


def test_without_guide_effects(ready: ad.AnnData) -> None:
    adata = ds.tl.fit_trans(ready, guide_effects=False, function_type="single_hill", nsamples=50, copy=True)
    with_them, without = ready.varm["trans"], adata.varm["trans"]
    ok = without["lfdr"].notna()
    assert ok.sum() > 10
    assert without.loc[ok, "guide_sd"].max() < 1e-4
    assert (without["qvalue"] < 0.05).sum() >= (with_them["qvalue"] < 0.05).sum()


@pytest.mark.parametrize("niters", [0, -3, 2.5])
def test_numbers_of_steps_are_checked(ready: ad.AnnData, niters: float) -> None:
    for fit in (ds.tl.fit_technical, lambda a, **k: ds.tl.fit_cis(a, "GFI1B", **k), ds.tl.fit_trans):
        with pytest.raises(ValueError, match="niters="):
            fit(ready, inference="svi", niters=niters, key_added="wrong")
    assert "wrong" not in ready.uns


@pytest.mark.parametrize("given", [{"nsamples": 500}, {"niters": 100}])
def test_the_fast_engine_refuses_what_it_does_not_use(ready: ad.AnnData, given: dict[str, Any]) -> None:
    name = next(iter(given))
    for fit in (ds.tl.fit_technical, lambda a, **k: ds.tl.fit_cis(a, "GFI1B", **k), ds.tl.fit_trans):
        if fit is ds.tl.fit_trans and name == "nsamples":  # draws behind the intervals
            continue
        with pytest.raises(ValueError, match=rf'{name}=.* has no effect with inference="laplace".*leave it out'):
            fit(ready, key_added="wrong", **given)
    assert "wrong" not in ready.uns


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"autoguide": "auto"}, 'autoguide=.*only with "svi" on counts'),
        ({"autoguide": "AutoNormal", "inference": "nuts"}, 'autoguide=.*only with "svi" on counts'),
        ({"minibatch_size": 8}, 'minibatch_size=8 .*only with "svi" on counts'),
        ({"overdispersed": False}, "overdispersed=False has no effect on counts, only on shares"),
        ({"distribution": "normal", "min_cells": 3}, "min_cells=3 has no effect on scores, only on counts"),
        ({"distribution": "normal", "size_factor_key": "depth"}, "size_factor_key=.*only on counts"),
        ({"distribution": "normal", "covariates": "depth"}, "covariates=.*only on counts"),
        ({"distribution": "normal", "inference": "svi", "autoguide": "AutoNormal"}, "autoguide=.*on scores"),
    ],
)
def test_the_technical_step_refuses_what_has_no_effect(ready: ad.AnnData, given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ds.tl.fit_technical(ready, key_added="wrong", **given)
    assert "wrong" not in ready.uns


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"autoguide": "auto"}, 'autoguide=.*only with "svi"'),
        ({"autoguide": "AutoNormal", "inference": "nuts"}, 'autoguide=.*only with "svi"'),
        ({"minibatch_size": 100}, 'minibatch_size=100 .*only with "svi"'),
        ({"degree": 3}, 'degree=3 has no effect with function_type="auto", only with "polynomial"'),
        ({"distribution": "normal"}, "is a technical fit with 'negbinom'"),
    ],
)
def test_the_trans_step_refuses_what_has_no_effect(ready: ad.AnnData, given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ds.tl.fit_trans(ready, key_added="wrong", **given)
    assert "wrong" not in ready.uns


def test_what_was_not_given_is_not_stored(ready: ad.AnnData) -> None:
    for key in ("technical", "cis"):
        assert not {"nsamples", "niters", "device", "autoguide"} & set(ready.uns[key]["params"])
    assert ready.uns["trans"]["params"]["degree"] == 6


def test_few_steps_have_not_converged(ready: ad.AnnData) -> None:
    adata = ready[:, :8].copy()
    ds.tl.fit_technical(adata, inference="svi", niters=5, nsamples=20, key_added="few")
    assert adata.varm["few"]["status"].str.startswith("not converged").all()


def test_a_backed_object_is_not_copied(ready: ad.AnnData, tmp_path: Path) -> None:
    ready.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match="copy=True of a backed object"):
        ds.tl.fit_technical(backed, copy=True)
    backed.file.close()
