"""Every way in which input can be wrong: the error says what was seen and what to do, and nothing is half-written."""

from __future__ import annotations

import logging
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc import _validate
from dream_sc._data import results

pytestmark = pytest.mark.usefixtures("few_null_features")


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


@pytest.fixture(scope="module")
def trans(cis: ad.AnnData) -> ad.AnnData:
    """One whole fit; the others take its learned numbers and are quick."""
    adata = cis.copy()
    ds.tl.fit_trans(adata, function_type="single_hill", rng=3)
    return adata


@pytest.fixture(scope="module")
def hyper(trans: ad.AnnData) -> dict[str, Any]:
    return trans.uns["trans"]["hyper"]


def _keys(adata: ad.AnnData) -> dict[str, set[str]]:
    return {slot: set(getattr(adata, slot)) for slot in ("obs", "var", "uns", "obsm", "varm", "layers")}


# the cis gene


def test_unknown_cis_gene_offers_close_names(technical: ad.AnnData) -> None:
    with pytest.raises(KeyError, match=r"'GFI1' is not in var_names; did you mean \['GFI1B'\]"):
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


def test_cis_gene_silent_in_controls(base: ad.AnnData) -> None:
    adata = base.copy()
    x = adata.X.tolil()
    x[np.flatnonzero(adata.obs["target"] == "NTC"), 0] = 0
    adata.X = x.tocsr()
    ds.tl.fit_technical(adata)
    with pytest.raises(ValueError, match=r"no baseline.*fewer than 3 counts in control cells"):
        ds.tl.fit_cis(adata, "GFI1B", min_count=0)


def test_too_few_cells_per_guide(technical: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="min_cells_per_guide"):
        ds.tl.fit_cis(technical.copy(), "GFI1B", min_cells_per_guide=1000)


def test_cis_gene_below_min_count(technical: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="min_count"):
        ds.tl.fit_cis(technical.copy(), "GFI1B", min_count=100)


def test_a_guide_with_two_targets_is_named(technical: ad.AnnData) -> None:
    adata = technical.copy()
    adata.obs["guide"] = adata.obs["guide"].astype(str).replace({"GFI1B_g01": "NTC_01"})
    with pytest.raises(ValueError, match=r"NTC_01.*one target"):
        ds.tl.fit_cis(adata, "GFI1B")


# controls and groups


def test_a_name_of_guides_under_two_targets_is_refused(base: ad.AnnData) -> None:
    """Guides numbered anew for each target are different guides."""
    adata = base.copy()
    acting = adata.obs["target"] == "GFI1B"
    number = adata.obs["guide"].astype(str).str.extract(r"(\d+)$")[0].astype(int)
    adata.obs["target"] = np.where(acting, np.where(number <= 6, "promoter", "enhancer"), "NTC")
    adata.obs["guide"] = np.where(acting, "g" + (number % 6).astype(str), adata.obs["guide"].astype(str))
    ds.tl.fit_technical(adata)
    with pytest.raises(ValueError, match=r"\['g0', .* occur under more than one target of \['promoter', 'enhancer'\]"):
        ds.tl.fit_cis(adata, "GFI1B", cis_targets=["promoter", "enhancer"])
    ds.tl.fit_cis(adata, "GFI1B", cis_targets="promoter")
    assert (~ds.get.guides(adata)["is_control"]).sum() == 6


@pytest.mark.parametrize(("acts", "rests"), [(1, 0), (False, True), ("GFI1B", 3)])
def test_labels_may_be_numbers_or_flags(technical: ad.AnnData, acts: Any, rests: Any) -> None:
    adata = technical.copy()
    values = [acts if t == "GFI1B" else rests for t in adata.obs["target"]]
    adata.obs["target"] = pd.Series(values, adata.obs_names)
    ds.tl.fit_technical(adata, batch_key="batch", control=rests)
    pd.testing.assert_frame_equal(adata.varm["technical"], technical.varm["technical"])
    ds.tl.fit_cis(adata, "GFI1B", cis_targets=acts)
    assert (~ds.get.guides(adata)["is_control"]).sum() > 0
    assert adata.uns["cis"]["params"]["cis_targets"] == [str(acts)]


def test_misspelt_control_offers_close_names(base: ad.AnnData) -> None:
    with pytest.raises(ValueError, match=r"'NTCs'.*NTC.*control="):
        ds.tl.fit_technical(base.copy(), control="NTCs")


def test_no_control_cells(base: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="no cell has the control label"):
        ds.tl.fit_technical(base[base.obs["target"] != "NTC"].copy())


def test_empty_control(base: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="control is empty"):
        ds.tl.fit_technical(base.copy(), control=[])
    with pytest.raises(ValueError, match=r"'safe'.*control="):
        ds.tl.fit_technical(base.copy(), control=["NTC", "safe"])


def test_control_cells_without_counts(base: ad.AnnData) -> None:
    adata = base.copy()
    adata.X = adata.X.multiply((adata.obs["target"] != "NTC").to_numpy()[:, None]).tocsr()
    with pytest.raises(ValueError, match=r"no feature has 3 counts.*control=.*layer="):
        ds.tl.fit_technical(adata)


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
    with pytest.raises(ValueError, match="without batch_key"):
        ds.tl.fit_technical(base.copy(), reference="batch_1")


def test_group_with_missing_or_new_labels(technical: ad.AnnData) -> None:
    adata = technical.copy()
    adata.obs["batch"] = adata.obs["batch"].astype(object)
    adata.obs.iloc[0, adata.obs.columns.get_loc("batch")] = "batch_3"
    with pytest.raises(ValueError, match=r"\['batch_3'\].*fit_technical again"):
        ds.tl.fit_cis(adata, "GFI1B")
    adata.obs.iloc[0, adata.obs.columns.get_loc("batch")] = np.nan
    with pytest.raises(ValueError, match="missing labels"):
        ds.tl.fit_technical(adata, batch_key="batch")


def test_groups_may_be_numbers(base: ad.AnnData, technical: ad.AnnData) -> None:
    adata = base.copy()
    adata.obs["lane"] = adata.obs["batch"].cat.codes
    ds.tl.fit_technical(adata, batch_key="lane", reference=1)
    assert adata.uns["technical"]["groups"] == ["1", "0"]
    np.testing.assert_allclose(adata.varm["technical"]["overdispersion"], technical.varm["technical"]["overdispersion"])


# counts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: -x, "negative"),
        (lambda x: -x.astype(int), "negative"),
        (np.log1p, "fractions"),
        (lambda x: x * np.where(x > 3, np.nan, 1.0), "NaN"),
        (lambda x: x + np.where(x > 3, np.inf, 0.0), "infinite"),
    ],
    ids=["negative", "negative-int", "log", "nan", "inf"],
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
    adata.X = adata.layers["bad"]
    with pytest.raises(ValueError, match=message):
        ds.tl.fit_cis(adata, "GFI1B", key_added="other")
    assert _keys(adata) == before


def test_unknown_layer(base: ad.AnnData) -> None:
    adata = base.copy()
    adata.layers["counts"] = adata.X
    with pytest.raises(KeyError, match=r"'count' is not there.*did you mean \['counts'\]"):
        ds.tl.fit_technical(adata, layer="count")
    adata.X = None
    with pytest.raises(ValueError, match=r"\.X is empty.*counts"):
        ds.tl.fit_technical(adata)
    ds.tl.fit_technical(adata, layer="counts")
    assert adata.uns["technical"]["params"]["layer"] == "counts"


def test_genes_without_counts_stay_as_rows(base: ad.AnnData, hyper: dict[str, Any]) -> None:
    adata = base.copy()
    x = adata.X.tolil()
    x[:, 5] = 0
    adata.X = x.tocsr()
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type="single_hill", hyper=hyper)
    assert ds.get.technical(adata)["status"].iloc[5].startswith("filtered")
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
    assert "computed from totals" in caplog.text
    total = np.asarray(adata.X.sum(1)).ravel()
    np.testing.assert_allclose(adata.obs["size_factor"], total / total.mean())


def test_size_factors_spoilt_between_steps(technical: ad.AnnData) -> None:
    adata = technical.copy()
    adata.obs["size_factor"] = 0.0
    with pytest.raises(ValueError, match=r"500 values.*pp\.size_factors"):
        ds.tl.fit_cis(adata, "GFI1B")


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
        lambda: ds.tl.fit_technical(view),
        lambda: ds.tl.fit_cis(view, "GFI1B"),
        lambda: ds.tl.fit_trans(view),
        lambda: ds.pp.size_factors(view),
    ):
        with pytest.raises(ValueError, match=r"\.copy\(\)"):
            call()


def test_something_else_than_anndata(base: ad.AnnData) -> None:
    with pytest.raises(TypeError, match="AnnData"):
        ds.tl.fit_technical(base.X)
    with pytest.raises(ValueError, match="no MuData"):
        ds.tl.fit_technical(base.copy(), mod="rna")
    with pytest.raises(ValueError, match="no MuData"):
        ds.get.technical(base, mod="rna")


def test_steps_out_of_order_name_the_missing_call(base: ad.AnnData, technical: ad.AnnData) -> None:
    with pytest.raises(KeyError, match="fit_technical"):
        ds.tl.fit_cis(base.copy(), "GFI1B")
    with pytest.raises(KeyError, match="fit_cis"):
        ds.tl.fit_trans(technical.copy())
    for read in (ds.get.trans, ds.get.posterior, ds.get.cis, ds.get.guides, ds.pl.cis):
        with pytest.raises(KeyError, match="fit_"):
            read(technical)
    for read in (ds.get.technical, ds.pl.technical):
        with pytest.raises(KeyError, match="fit_technical"):
            read(base)
    for curve in (ds.get.dose_response, ds.pl.dose_response):
        with pytest.raises(KeyError, match="fit_trans"):
            curve(technical, "gene_0001")


def test_half_of_an_earlier_step(cis: ad.AnnData, trans: ad.AnnData) -> None:
    """As after a concatenation, or where another tool uses the name."""
    adata = cis.copy()
    del adata.varm["technical"]
    with pytest.raises(KeyError, match=r"\.varm\['technical'\] is not.*fit_technical\(data\) again"):
        ds.tl.fit_cis(adata, "GFI1B")
    adata = cis.copy()
    del adata.obsm["cis"]
    with pytest.raises(KeyError, match=r"\.obsm\['cis'\] is not.*fit_cis"):
        ds.tl.fit_trans(adata)
    adata.uns["technical"] = {"method": "of another tool"}
    with pytest.raises(ValueError, match=r"not a result of tl\.fit_technical"):
        ds.tl.fit_cis(adata, "GFI1B")
    adata = trans.copy()
    del adata.uns["trans"]
    with pytest.raises(KeyError, match=r"\.uns\['trans'\]"):
        ds.get.dose_response(adata, "gene_0001")


def test_overwriting_is_logged(technical: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = technical.copy()
    with caplog.at_level(logging.INFO, "dream_sc"):
        ds.tl.fit_technical(adata)
    for slot in (".varm['technical']", ".varm['technical_effects']", ".uns['technical']"):
        assert f"{slot} is overwritten" in caplog.text
    assert adata.uns["technical"]["groups"] == ["all"]


def test_columns_of_the_user_are_not_lost(technical: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = technical.copy()
    adata.obs["cis_guide"] = adata.obs["guide"]
    with pytest.raises(ValueError, match=r"\.obs\['cis_guide'\] would be overwritten, .* another key_added than 'cis'"):
        ds.tl.fit_cis(adata, "GFI1B", guide_key="cis_guide")
    with pytest.raises(ValueError, match="would be overwritten"):
        ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_cis(adata, "GFI1B", guide_key="cis_guide", key_added="dosage")
    ds.tl.fit_cis(adata, "GFI1B", guide_key="cis_guide", key_added="dosage")
    assert adata.obs["cis_guide"].equals(adata.obs["guide"])
    with pytest.raises(ValueError, match="would be overwritten"):
        ds.tl.fit_cis(adata, "GFI1B", guide_key="dosage_guide", key_added="dosage")
    adata.obs["depth"] = 1.0
    with caplog.at_level(logging.WARNING):
        ds.pp.size_factors(adata)  # its own slot
        assert not caplog.records
        ds.pp.size_factors(adata, key_added="depth")
        assert ".obs['depth'] is overwritten" in caplog.text
        caplog.clear()
        ds.pp.size_factors(adata, key_added="depth")  # by the same values
        assert not caplog.records


def test_guides_among_the_genes_are_named(base: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = base.copy()
    adata.var["feature_types"] = ["Gene Expression"] * 10 + ["CRISPR Guide Capture"] * 2
    with caplog.at_level(logging.WARNING):
        ds.pp.size_factors(adata)
        ds.tl.fit_technical(adata)
    said = [r.getMessage() for r in caplog.records if "feature_types" in r.getMessage()]
    assert len(said) == 2
    assert all("2 of 12 features are no genes but CRISPR Guide Capture" in text for text in said)
    assert all("they are left out" in text for text in said)
    caplog.clear()
    genes = adata[:, adata.var["feature_types"] == "Gene Expression"].copy()
    ds.pp.size_factors(genes)
    np.testing.assert_array_equal(genes.obs["size_factor"], adata.obs["size_factor"])
    ds.tl.fit_technical(genes)
    assert "feature_types" not in caplog.text
    status = adata.varm["technical"]["status"].astype(str)
    assert (status == "converged").tolist() == [True] * 10 + [False] * 2
    assert status.iloc[-1] == "filtered: no gene but CRISPR Guide Capture"


def test_guides_among_the_genes_are_not_fitted(cis: ad.AnnData, hyper: dict[str, Any]) -> None:
    adata = cis.copy()  # whose technical fit is of all
    adata.var["feature_types"] = ["Gene Expression"] * 10 + ["CRISPR Guide Capture", "Antibody Capture"]
    ds.tl.fit_trans(adata, function_type="single_hill", hyper=hyper)
    table = ds.get.trans(adata).iloc[-2:]
    assert table["status"].tolist() == ["filtered"] * 2
    assert table["note"].tolist() == ["no gene but CRISPR Guide Capture", "no gene but Antibody Capture"]
    assert table["qvalue"].isna().all()


def test_the_result_of_another_step_is_not_overwritten(cis: ad.AnnData) -> None:
    adata = cis.copy()
    for call, name in (
        (lambda: ds.tl.fit_cis(adata, "GFI1B", key_added="technical"), "fit_technical"),
        (lambda: ds.tl.fit_technical(adata, key_added="cis"), "fit_cis"),
    ):
        with pytest.raises(ValueError, match=f"result of tl.{name}: choose another name"):
            call()


def test_keys_that_a_file_cannot_hold(technical: ad.AnnData) -> None:
    for call in (
        lambda: ds.tl.fit_technical(technical, key_added="a/b"),
        lambda: ds.tl.fit_cis(technical, "GFI1B", key_added=""),
        lambda: ds.pp.size_factors(technical, key_added="a/b"),
    ):
        with pytest.raises(ValueError, match="cannot be stored"):
            call()


def test_fits_side_by_side(cis: ad.AnnData, hyper: dict[str, Any]) -> None:
    adata = cis.copy()
    ds.tl.fit_technical(adata, key_added="flat")
    ds.tl.fit_cis(adata, "GFI1B", technical_key="flat", key_added="cis_flat")
    for key, technical_key, cis_key in (("a", "technical", "cis"), ("b", "flat", "cis_flat")):
        ds.tl.fit_trans(
            adata, technical_key=technical_key, cis_key=cis_key, key_added=key, function_type="single_hill", hyper=hyper
        )
    assert list(ds.get.technical(adata, key="flat").filter(like="effect_")) == ["effect_all", "effect_sd_all"]
    pd.testing.assert_frame_equal(ds.get.cis(adata), ds.get.cis(cis))
    pd.testing.assert_frame_equal(ds.get.technical(adata), ds.get.technical(cis))
    assert not ds.get.cis(adata, key="cis_flat").equals(ds.get.cis(cis))
    assert adata.uns["b"]["params"]["cis_key"] == "cis_flat"
    curves = [ds.get.dose_response(adata, "gene_0001", key=k)["median"].to_numpy() for k in ("a", "b")]
    assert not np.array_equal(*curves)
    np.testing.assert_allclose(*curves, rtol=0.5)
    assert "trans" not in adata.varm


def test_copy_leaves_the_input_alone(base: ad.AnnData, hyper: dict[str, Any]) -> None:
    data = base.copy()
    for slot, key, call in (
        ("obs", "depth", lambda a: ds.pp.size_factors(a, key_added="depth", copy=True)),
        ("varm", "technical", lambda a: ds.tl.fit_technical(a, batch_key="batch", copy=True)),
        ("obsm", "cis", lambda a: ds.tl.fit_cis(a, "GFI1B", copy=True)),
        ("varm", "trans", lambda a: ds.tl.fit_trans(a, function_type="single_hill", hyper=hyper, copy=True)),
    ):
        before = _keys(data)
        out = call(data)
        assert _keys(data) == before
        assert key in getattr(out, slot)
        data = out
    assert ds.tl.fit_technical(data) is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("step", ["technical", "cis", "trans"])
def test_nothing_is_half_written(
    trans: ad.AnnData, hyper: dict[str, Any], error: type, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dream_sc._core import engines
    from dream_sc._core.response import summary

    adata = trans.copy()
    if step == "technical":  # its size factors come from within
        del adata.obs["size_factor"]
    before, table = _keys(adata), adata.varm["trans"].copy()

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(engines, "run", fail)
    monkeypatch.setattr(summary, "summarise", fail)
    call = {
        "technical": lambda: ds.tl.fit_technical(adata, key_added="new"),
        "cis": lambda: ds.tl.fit_cis(adata, "GFI1B", key_added="new"),
        "trans": lambda: ds.tl.fit_trans(adata, function_type="single_hill", hyper=hyper, rng=9),
    }[step]
    with pytest.raises(error):
        call()
    assert _keys(adata) == before
    pd.testing.assert_frame_equal(adata.varm["trans"], table)


def test_an_error_while_writing_restores_what_was_there(technical: ad.AnnData) -> None:
    adata = technical.copy()
    adata.uns["mine"] = None
    before, table = _keys(adata), adata.varm["technical"].copy()
    slots = {
        ("varm", "technical"): table.assign(mu=0.0),
        ("uns", "mine"): {"a": 1},
        ("varm", "new"): np.zeros((12, 2)),
        ("varm", "wrong"): np.zeros((5, 2)),
    }
    with pytest.raises(ValueError, match="shape"):
        results.write(adata, "tl.step", slots, results.now())
    assert _keys(adata) == before
    pd.testing.assert_frame_equal(adata.varm["technical"], table)
    assert adata.uns["mine"] is None


# random numbers and options


def _numbers(cis: ad.AnnData, **keywords: Any) -> pd.DataFrame:
    adata = cis.copy()
    ds.tl.fit_trans(adata, function_type="single_hill", **keywords)
    return ds.get.trans(adata).select_dtypes("number")


def test_the_same_seed_gives_the_same_table(cis: ad.AnnData, trans: ad.AnnData, hyper: dict[str, Any]) -> None:
    first = ds.get.trans(trans).select_dtypes("number")
    pd.testing.assert_frame_equal(_numbers(cis, rng=3), first, check_exact=True)
    pd.testing.assert_frame_equal(_numbers(cis, rng=3, hyper=hyper), first, rtol=1e-9)
    assert not _numbers(cis, rng=4, hyper=hyper).equals(first)
    drawn = [_numbers(cis, rng=np.random.default_rng(3), hyper=hyper) for _ in range(2)]
    pd.testing.assert_frame_equal(*drawn, check_exact=True)


def test_a_generator_moves_on_and_its_seed_is_stored(base: ad.AnnData) -> None:
    adata, rng, same = base.copy(), np.random.default_rng(8), np.random.default_rng(8)
    ds.tl.fit_technical(adata, rng=rng)
    ds.tl.fit_cis(adata, "GFI1B", rng=rng)
    assert [adata.uns[k]["seed"] for k in ("technical", "cis")] == [int(same.integers(2**31)) for _ in range(2)]


def test_draws_take_a_seed_or_a_generator(trans: ad.AnnData) -> None:
    def draw(rng: Any) -> Any:
        return ds.get.posterior(trans, "gene_0001", nsamples=5, rng=rng)

    assert draw(1).equals(draw(np.int64(1)))
    assert draw(np.random.default_rng(1)).equals(draw(np.random.default_rng(1)))
    assert not draw(1).equals(draw(2))


@pytest.mark.parametrize("rng", ["a", None, 1.5, -1, True])
def test_wrong_seeds(technical: ad.AnnData, rng: Any) -> None:
    for call in (
        lambda: ds.tl.fit_technical(technical, rng=rng),
        lambda: ds.tl.fit_cis(technical, "GFI1B", rng=rng),
    ):
        with pytest.raises((TypeError, ValueError), match=r"rng=.*seed"):
            call()


def test_unknown_options(technical: ad.AnnData) -> None:
    with pytest.raises(ValueError, match=r"'poisson'.*negbinom"):
        ds.tl.fit_technical(technical, distribution="poisson")
    for keyword, value, message in (("inference", "vi", "laplace"), ("nsamples", 0, "1 or more")):
        with pytest.raises(ValueError, match=message):
            ds.tl.fit_technical(technical, **{keyword: value})
        with pytest.raises(ValueError, match=message):
            ds.tl.fit_cis(technical, "GFI1B", **{keyword: value})


def test_curves_of_few_doses_or_features(trans: ad.AnnData) -> None:
    assert len(ds.get.dose_response(trans, "gene_0001", doses=0.5)) == 1
    none, one = ds.get.dose_response(trans, []), ds.get.dose_response(trans, ["gene_0001"])
    assert len(none) == 0
    assert list(none.columns) == list(one.columns)
    with pytest.raises(KeyError, match=r"gene_0010"):
        ds.get.dose_response(trans, "gene_010")
    with pytest.raises(ValueError, match="cis gene"):
        ds.get.dose_response(trans, "GFI1B")
    with pytest.raises(ValueError, match="ci=95"):
        ds.get.dose_response(trans, "gene_0001", ci=95)
    with pytest.raises(ValueError, match="log2fc"):
        ds.get.dose_response(trans, "gene_0001", scale="log")


def test_names_that_are_listed_are_not_offered_again() -> None:
    with pytest.raises(ValueError, match=r"use one of \['L2', 'L1'\]$"):
        _validate.one_of("context", "L3", ["L2", "L1"])
    with pytest.raises(ValueError, match=r"did you mean \['L2', 'L1'\]\?$"):
        _validate.one_of("context", "L3", ["L2", "L1", "another"])


def test_a_target_is_not_offered_as_a_control() -> None:
    """One letter in common is no likeness: whoever followed the advice would make targeted cells controls."""
    adata = ds.datasets.titration(300, 5, rng=0)
    adata.obs["target"] = "T"
    with pytest.raises(ValueError, match=r"no cell has the control label 'NTC'") as error:
        ds.tl.fit_technical(adata)
    assert "did you mean" not in str(error.value)


def test_results_of_others_are_not_overwritten(technical: ad.AnnData) -> None:
    adata = technical.copy()
    adata.obsm["X_pca"], adata.uns["pca"] = np.zeros((adata.n_obs, 2)), {"variance": np.ones(2)}
    adata.varm["PCs"] = np.zeros((adata.n_vars, 2))
    before = _keys(adata)
    calls = {
        "X_pca": lambda key: ds.tl.fit_cis(adata, "GFI1B", key_added=key),
        "pca": lambda key: ds.tl.fit_technical(adata, key_added=key),
        "PCs": lambda key: ds.tl.fit_technical(adata, key_added=key),
        "guide": lambda key: ds.pp.size_factors(adata, key_added=key),
        "batch": lambda key: ds.pp.adjust_size_factors(adata, by=None, key_added=key),
        "technical": lambda key: ds.tl.fit_cis(adata, "GFI1B", key_added=key),
    }
    for key, call in calls.items():
        with pytest.raises(ValueError, match=rf"{key}.*choose another"):
            call(key)
    assert _keys(adata) == before
    assert adata.uns["pca"].keys() == {"variance"}
    assert adata.obs["guide"].astype(str).str.startswith(("GFI1B", "NTC")).all()
