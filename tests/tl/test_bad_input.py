"""Every way in which input can be wrong: the error says what was seen and what to do, and nothing is half-written."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import dream_sc as ds

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def base() -> ad.AnnData:
    return ds.datasets.titration(500, 12, rng=1, mean_range=(0.0, 4.0))


@pytest.fixture(scope="module")
def technical(base: ad.AnnData) -> ad.AnnData:
    adata = base.copy()
    ds.tl.fit_technical(adata, batch_key="batch")
    return adata


@pytest.fixture(scope="module")
def cis(technical: ad.AnnData) -> ad.AnnData:
    adata = technical.copy()
    ds.tl.fit_cis(adata, "GFI1B")
    return adata


def _keys(adata: ad.AnnData) -> dict[str, set[str]]:
    return {slot: set(getattr(adata, slot)) for slot in ("obs", "var", "uns", "obsm", "varm", "layers")}


# the cis gene


def test_unknown_cis_gene_offers_close_names(technical: ad.AnnData) -> None:
    with pytest.raises(KeyError, match="GFI1B"):
        ds.tl.fit_cis(technical.copy(), "GFI1")


def test_cis_gene_without_guides_lists_the_targets(technical: ad.AnnData) -> None:
    with pytest.raises(ValueError, match=r"gene_0003.*GFI1B.*cis_targets="):
        ds.tl.fit_cis(technical.copy(), "gene_0003")


def test_cis_gene_with_zero_counts(base: ad.AnnData) -> None:
    adata = base.copy()
    x = adata.X.tolil()
    x[:, 0] = 0
    adata.X = x.tocsr()
    ds.tl.fit_technical(adata)
    with pytest.raises(ValueError, match="no count"):
        ds.tl.fit_cis(adata, "GFI1B")


def test_cis_gene_below_min_count(technical: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="min_count"):
        ds.tl.fit_cis(technical.copy(), "GFI1B", min_count=100)


def test_a_guide_with_two_targets_is_named(technical: ad.AnnData) -> None:
    adata = technical.copy()
    adata.obs["guide"] = adata.obs["guide"].astype(str).replace({"GFI1B_g01": "NTC_01"})
    with pytest.raises(ValueError, match=r"NTC_01.*one target"):
        ds.tl.fit_cis(adata, "GFI1B")


# controls and groups


def test_misspelt_control_offers_close_names(base: ad.AnnData) -> None:
    with pytest.raises(ValueError, match=r"'NTCs'.*NTC.*control="):
        ds.tl.fit_technical(base.copy(), control="NTCs")


def test_no_control_cells(base: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="no cell has the control label"):
        ds.tl.fit_technical(base[base.obs["target"] != "NTC"].copy())


def test_group_without_control_cells_is_named(base: ad.AnnData) -> None:
    adata = base[(base.obs["target"] != "NTC") | (base.obs["batch"] == "batch_1")].copy()
    with pytest.raises(ValueError, match=r"batch_2.*no control cells"):
        ds.tl.fit_technical(adata, batch_key="batch")


def test_one_group_works(base: ad.AnnData) -> None:
    adata = base[base.obs["batch"] == "batch_1"].copy()
    ds.tl.fit_technical(adata, batch_key="batch")
    assert adata.varm["technical_effects"].shape == (12, 1)
    np.testing.assert_array_equal(adata.varm["technical_effects"], 0.0)


def test_missing_column_and_unknown_reference(base: ad.AnnData) -> None:
    with pytest.raises(KeyError, match="batch"):
        ds.tl.fit_technical(base.copy(), batch_key="batches")
    with pytest.raises(ValueError, match="batch_1"):
        ds.tl.fit_technical(base.copy(), batch_key="batch", reference="batch_9")
    with pytest.raises(KeyError, match="target"):
        ds.tl.fit_technical(base.copy(), target_key="targets")


# counts


@pytest.mark.parametrize(
    ("change", "message"),
    [(lambda x: -x, "negative"), (np.log1p, "fractions"), (lambda x: x * np.where(x > 3, np.nan, 1.0), "NaN")],
    ids=["negative", "log", "nan"],
)
@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
def test_values_that_are_not_counts(cis: ad.AnnData, change: Any, message: str, dense: bool) -> None:
    adata = cis.copy()
    x = adata.X.toarray()
    bad = change(x)
    adata.layers["bad"] = bad if dense else sparse.csr_matrix(bad)
    before = _keys(adata)
    for call in (
        lambda: ds.tl.fit_technical(adata, layer="bad", key_added="other"),
        lambda: ds.tl.fit_trans(adata, layer="bad"),
        lambda: ds.pp.size_factors(adata, layer="bad", key_added="new"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "layer=" in str(error.value)
    assert _keys(adata) == before


@pytest.mark.parametrize(
    "form",
    [lambda x: x.toarray(), sparse.csc_matrix, lambda x: x.astype(np.int32), lambda x: x.astype(np.float64)],
    ids=["dense", "csc", "int", "float64"],
)
def test_every_form_of_counts_gives_the_same_result(technical: ad.AnnData, form: Any) -> None:
    adata = technical.copy()
    adata.X = form(adata.X)
    adata.layers["counts"] = form(technical.X)
    ds.tl.fit_technical(adata, batch_key="batch", key_added="again")
    ds.tl.fit_technical(adata, batch_key="batch", key_added="layered", layer="counts")
    for key in ("again", "layered"):
        np.testing.assert_allclose(adata.varm[key]["mu"], technical.varm["technical"]["mu"], rtol=1e-9)


def test_unknown_layer(base: ad.AnnData) -> None:
    with pytest.raises(KeyError, match="count"):
        ds.tl.fit_technical(base.copy(), layer="count")


def test_genes_without_counts_stay_as_rows(base: ad.AnnData) -> None:
    adata = base.copy()
    x = adata.X.tolil()
    x[:, 5] = 0
    adata.X = x.tocsr()
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type="single_hill")
    table = ds.get.trans(adata)
    assert list(table.index) == list(adata.var_names)
    assert table["status"].iloc[5].startswith("filtered")
    assert np.isnan(table["lfdr"].iloc[5])
    with pytest.raises(ValueError, match="no posterior"):
        ds.get.dose_response(adata, adata.var_names[5])


# size factors


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_wrong_size_factors(base: ad.AnnData, value: float) -> None:
    adata = base.copy()
    adata.obs.iloc[3, adata.obs.columns.get_loc("size_factor")] = value
    with pytest.raises(ValueError, match=r"size_factor.*1 values"):
        ds.tl.fit_technical(adata)


def test_missing_size_factors(base: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = base.copy()
    del adata.obs["size_factor"]
    with pytest.raises(KeyError, match=r"pp\.size_factors"):
        ds.tl.fit_technical(adata, size_factor_key="depth")
    with caplog.at_level(logging.INFO, "dream_sc"):
        ds.tl.fit_technical(adata)
    assert "size_factor" in adata.obs


# the object


def test_duplicated_names(base: ad.AnnData) -> None:
    adata = base.copy()
    adata.var_names = ["GFI1B", *adata.var_names[1:-1], "GFI1B"]
    with pytest.raises(ValueError, match="var_names_make_unique"):
        ds.tl.fit_technical(adata)
    adata = base.copy()
    adata.obs_names = ["cell_0", *adata.obs_names[1:-1], "cell_0"]
    with pytest.raises(ValueError, match="obs_names_make_unique"):
        ds.tl.fit_technical(adata)


def test_a_view_asks_for_a_copy(cis: ad.AnnData) -> None:
    view = cis[:400]
    for call in (
        lambda: ds.tl.fit_technical(view), lambda: ds.tl.fit_cis(view, "GFI1B"), lambda: ds.tl.fit_trans(view),
        lambda: ds.pp.size_factors(view),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"\.copy\(\)"):
            call()


def test_backed_objects_give_the_same_result(technical: ad.AnnData, base: ad.AnnData, tmp_path: Path) -> None:
    base.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    ds.tl.fit_technical(backed, batch_key="batch")
    np.testing.assert_allclose(backed.varm["technical"]["mu"], technical.varm["technical"]["mu"], rtol=1e-9)
    backed.file.close()


def test_something_else_than_anndata(base: ad.AnnData) -> None:
    with pytest.raises(TypeError, match="AnnData"):
        ds.tl.fit_technical(base.X)
    with pytest.raises(ValueError, match="no MuData"):
        ds.tl.fit_technical(base.copy(), mod="rna")


def test_steps_out_of_order_name_the_missing_call(base: ad.AnnData, technical: ad.AnnData) -> None:
    with pytest.raises(KeyError, match="fit_technical"):
        ds.tl.fit_cis(base.copy(), "GFI1B")
    with pytest.raises(KeyError, match="fit_cis"):
        ds.tl.fit_trans(technical.copy())
    for read in (ds.get.trans, ds.get.cis, ds.get.guides, ds.pl.cis):
        with pytest.raises(KeyError, match="fit_"):
            read(technical)


def test_overwriting_is_logged(technical: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = technical.copy()
    with caplog.at_level(logging.INFO, "dream_sc"):
        ds.tl.fit_technical(adata)
    assert "overwritten" in caplog.text


def test_copy_leaves_the_input_alone(base: ad.AnnData) -> None:
    adata = base.copy()
    before = _keys(adata)
    out = ds.tl.fit_technical(adata, copy=True)
    assert _keys(adata) == before
    assert "technical" in out.varm
    assert ds.tl.fit_technical(adata) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_half_written(cis: ad.AnnData, error: type, monkeypatch: pytest.MonkeyPatch) -> None:
    from dream_sc._core import summary

    adata = cis.copy()
    adata.uns["trans"] = {"mine": 1}
    before = _keys(adata)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(summary, "summarise", fail)
    with pytest.raises(error):
        ds.tl.fit_trans(adata, function_type="single_hill")
    assert _keys(adata) == before
    assert adata.uns["trans"] == {"mine": 1}


def test_the_same_seed_gives_the_same_table(cis: ad.AnnData) -> None:
    tables = []
    for rng in (3, 3, np.random.default_rng(3), np.random.default_rng(3)):
        adata = cis.copy()
        ds.tl.fit_trans(adata, rng=rng, function_type="single_hill")
        tables.append(ds.get.trans(adata).select_dtypes("number"))
    np.testing.assert_array_equal(tables[0], tables[1])
    np.testing.assert_array_equal(tables[2], tables[3])
