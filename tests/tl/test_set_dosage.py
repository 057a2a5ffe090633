"""Known dosages in place of fitted ones: same storage, same calls, every kind of data, and clear refusals."""

from __future__ import annotations

import logging
import re
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

GENE = "GFI1B"


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    """A titration with the dosages of `fit_cis`, and the same numbers set by hand as "known"."""
    adata = ds.datasets.titration(1500, 40, rng=3)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, GENE)
    ds.tl.set_dosage(adata, ds.get.guides(adata), scale="log2", cis_gene=GENE, key_added="known")
    for key, cis_key in (("trans", "cis"), ("of_known", "known")):
        ds.tl.fit_trans(adata, cis_key=cis_key, key_added=key, function_type="single_hill", nsamples=400)
    return adata


def _wells(n_wells: int = 6, n_cells: int = 60, seed: int = 0) -> ad.AnnData:
    """Counts of 30 genes in wells of a degron: the first ten fall with what is left of the protein."""
    rng = np.random.default_rng(seed)
    left = np.r_[1.0, 1.0, 1.0, np.geomspace(0.7, 0.05, n_wells)]
    names = np.array([f"ctrl_{i}" for i in range(3)] + [f"well_{i}" for i in range(n_wells)])
    well = np.repeat(np.arange(len(left)), n_cells)
    x = left[well]
    falls = x**2 / (x**2 + 0.3**2) * (1 + 0.3**2)
    mean = np.where(np.arange(30) < 10, falls[:, None], 1.0) * 3.0
    obs = pd.DataFrame({"well": names[well], "target": np.where(well < 3, "NTC", "degron"), "left": x})
    obs["size_factor"] = rng.uniform(0.7, 1.4, len(x))
    obs.index = [f"c{i}" for i in range(len(x))]
    counts = rng.poisson(mean * obs["size_factor"].to_numpy()[:, None]).astype(float)
    return ad.AnnData(counts, obs, pd.DataFrame(index=[f"g{i}" for i in range(30)]))


@pytest.fixture(scope="module")
def wells() -> ad.AnnData:
    adata = _wells()
    ds.tl.fit_technical(adata)
    return adata


def test_a_gene_that_was_not_named_is_not_missed(wells: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = wells.copy()
    ds.tl.set_dosage(adata, "left", label_key="well")
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.tl.fit_trans(adata, function_type="single_hill")
    assert "cis gene" not in caplog.text


def test_the_dosages_of_fit_cis_set_by_hand_give_the_same_calls(fitted: ad.AnnData) -> None:
    one, other = ds.get.trans(fitted), ds.get.trans(fitted, key="of_known")
    assert ((one["qvalue"] < 0.05) == (other["qvalue"] < 0.05)).all()
    assert (one["qvalue"] < 0.05).sum() >= 4
    both = one["qvalue"] < 0.05
    np.testing.assert_allclose(one["log2fc_full"][both], other["log2fc_full"][both], atol=0.1)
    assert one.loc[GENE, "status"] == other.loc[GENE, "status"]
    assert np.isnan(other.loc[GENE, "qvalue"])


def test_storage_is_that_of_fit_cis(fitted: ad.AnnData) -> None:
    cis, known = fitted.uns["cis"], fitted.uns["known"]
    assert set(cis) - {"memory", "step", "cis_position"} <= set(known)
    assert known["step"] == "tl.set_dosage"
    assert list(cis["guides"]) == list(known["guides"])
    assert list(fitted.obsm["cis"]) == list(fitted.obsm["known"])
    table = known["guides"].set_index("guide")
    before = ds.get.guides(fitted)
    np.testing.assert_allclose(table["log2_dosage"], before["log2_dosage"].reindex(table.index))
    np.testing.assert_allclose(table["sd"], before["sd"].reindex(table.index))
    assert (table["is_control"] == before["is_control"].reindex(table.index)).all()
    assert ds.get.guides(fitted, key="known").attrs["cis_gene"] == GENE
    used = fitted.obs["cis_guide"].notna()
    assert (fitted.obs["known_guide"].astype(object)[used] == fitted.obs["cis_guide"].astype(object)[used]).all()


def test_results_survive_h5ad(wells: ad.AnnData, tmp_path: Any) -> None:
    adata = wells.copy()
    ds.tl.set_dosage(adata, "left", label_key="well")
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(ds.get.cis(again), ds.get.cis(adata))
    ds.tl.fit_trans(again, function_type="single_hill", nsamples=100)
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=100)
    np.testing.assert_allclose(ds.get.trans(again)["log_bf"], ds.get.trans(adata)["log_bf"])
    again.write_h5ad(tmp_path / "b.h5ad")
    names = list(adata.var_names[:2])
    curves = ds.get.dose_response(ad.read_h5ad(tmp_path / "b.h5ad"), names)
    pd.testing.assert_frame_equal(curves, ds.get.dose_response(adata, names))


def test_wells_respond_at_the_true_dosage(wells: ad.AnnData) -> None:
    adata = wells.copy()
    ds.tl.set_dosage(adata, "left", label_key="well")
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=400)
    table = ds.get.trans(adata)
    assert (table["qvalue"][:10] < 0.05).all()
    assert (table["qvalue"][10:] < 0.05).sum() <= 1
    truth = np.log2(0.3)
    assert ((table["log2_ec50_q025"] < truth) & (truth < table["log2_ec50_q975"]))[:10].mean() >= 0.8
    assert abs(table["log2_ec50"][:10].median() - truth) < 0.25
    points = ds.pl.dose_response_data(adata, "g0")
    assert len(points) == 9
    assert "dosage relative to NTC" in ds.pl.dose_response(adata, "g0").get_xlabel()
    assert len(ds.pl.cis(adata).get_yticks()) == 9


def test_mapping_series_table_and_column_say_the_same(wells: ad.AnnData) -> None:
    left = wells.obs.groupby("well")["left"].first()
    ways: dict[str, Any] = {
        "mapping": left.to_dict(),
        "series": left,
        "table": pd.DataFrame({"dosage": left, "sd": 0.05}),
        "with labels in a column": pd.DataFrame({"guide": left.index, "dosage": left.to_numpy()}),
        "column": "left",
    }
    for name, way in ways.items():
        adata = ds.tl.set_dosage(wells, way, label_key="well", copy=True)
        table = ds.get.guides(adata)
        np.testing.assert_allclose(table["log2_dosage"], np.log2(left.reindex(table.index)), err_msg=name)
        assert (table["within_sd"] == 0).all()
        expected = np.sqrt(np.log1p((0.05 / left.reindex(table.index)) ** 2)) / np.log(2) if name == "table" else 0.0
        np.testing.assert_allclose(table["sd"], expected, err_msg=name)
        np.testing.assert_allclose(ds.get.cis(adata)["x_true"], wells.obs["left"])
    assert "cis" not in wells.uns


def test_labels_that_are_numbers_are_not_those_of_rows(wells: ad.AnnData) -> None:
    adata = wells.copy()
    adata.obs["number"] = pd.factorize(adata.obs["well"])[0] + 1
    left = adata.obs[["number", "left"]].drop_duplicates().rename(columns={"left": "dosage"})
    for table in (left, left.reset_index(drop=True), left.set_index("number")):
        ds.tl.set_dosage(adata, table, label_key="number")
        at = ds.get.guides(adata)["log2_dosage"]
        np.testing.assert_allclose(at[left["number"].astype(str)], np.log2(left["dosage"]))


def test_a_table_with_both_units_is_read_in_the_one_that_was_named(wells: ad.AnnData) -> None:
    adata = wells.copy()
    table = pd.DataFrame({"dosage": [0.5, 0.25], "log2_dosage": [-1.0, -2.0]}, ["well_0", "well_1"])
    for scale in ("relative", "log2"):
        ds.tl.set_dosage(adata, table, label_key="well", scale=scale)
        at = ds.get.guides(adata)["log2_dosage"]
        np.testing.assert_allclose(at[["well_0", "well_1"]], [-1.0, -2.0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda left: left.rename({"well_0": "well-0"}), "no cell has the labels ['well-0']"),
        (lambda left: left.rename({"well_0": "well-0"}), "without a dosage take no part: ['well_0']"),
        (lambda left: left[["well_0", "well_1"]], "sd lacks the labels ['well_1']"),
        (lambda left: 1.9 * left, "mean log2 dosage of 0.93"),
        (lambda left: 100 * left.drop(["ctrl_0", "ctrl_1", "ctrl_2"]), "are they per cent?"),
        (lambda left: left.where(left == 1, 0.2), "all labels have the same dosage"),
    ],
)
def test_doubtful_dosages_are_told_of(
    wells: ad.AnnData, caplog: pytest.LogCaptureFixture, change: Any, said: str
) -> None:
    adata = wells.copy()
    left = adata.obs.drop_duplicates("well").set_index("well")["left"]
    ds.tl.set_dosage(adata, left, label_key="well")
    assert "set_dosage" not in caplog.text
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.tl.set_dosage(adata, change(left), label_key="well", sd={"well_0": 0.1} if "sd" in said else None)
    assert said in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda left: left**0, "all labels have the dosage of control cells"),
        (lambda left: left**0 * 1.001, "all labels have the dosage of control cells"),
        (lambda left: left.where(left == 1, 1e300 * left), "range over 996 log2, which is more than a factor of 10^12"),
    ],
)
def test_dosages_that_are_none_are_refused(wells: ad.AnnData, change: Any, said: str) -> None:
    adata = wells.copy()
    left = adata.obs.drop_duplicates("well").set_index("well")["left"]
    with pytest.raises(ValueError, match=re.escape(said)):
        ds.tl.set_dosage(adata, change(left), label_key="well")
    assert "cis" not in adata.uns


@pytest.mark.parametrize("sd", [0.1, dict.fromkeys(["well_0", "well_1"], 0.1), "error"])
def test_errors_of_labels(wells: ad.AnnData, sd: Any) -> None:
    adata = wells.copy()
    adata.obs["error"] = np.where(adata.obs["well"].isin(["well_0", "well_1"]), 0.1, np.nan)
    adata.obs["log2_left"] = np.log2(adata.obs["left"])
    ds.tl.set_dosage(adata, "log2_left", label_key="well", scale="log2", sd=sd)
    table = ds.get.guides(adata)
    assert table.loc["well_0", "sd"] == pytest.approx(0.1)
    assert table.loc["well_5", "sd"] == pytest.approx(0.1 if sd == 0.1 else 0.0)
    assert table.loc["well_1", "log2fc_q975"] == pytest.approx(table.loc["well_1", "log2_dosage"] + 0.196, abs=1e-3)


def test_cells_of_a_label_may_differ(wells: ad.AnnData) -> None:
    adata, rng = wells.copy(), np.random.default_rng(0)
    acting = adata.obs["target"] == "degron"
    true = np.log2(adata.obs["left"]) + np.where(acting, rng.normal(0, 0.3, adata.n_obs), 0.0)
    adata.obs["measured"] = true + np.where(acting, rng.normal(0, 0.2, adata.n_obs), 0.0)
    ds.tl.set_dosage(adata, "measured", label_key="well", scale="log2", sd=0.2)
    table = ds.get.guides(adata)[lambda t: ~t["is_control"]]
    mean = adata.obs.groupby("well")["measured"].mean().reindex(table.index)
    np.testing.assert_allclose(table["log2_dosage"], mean)
    np.testing.assert_allclose(table["sd"], 0.2 / np.sqrt(60))
    assert abs(table["within_sd"].mean() - 0.3) < 0.05
    np.testing.assert_allclose(ds.get.cis(adata)["log2_x_true"], adata.obs["measured"])
    for dosage in ("guide", "cell"):
        ds.tl.fit_trans(adata, dosage=dosage, function_type="single_hill", nsamples=100)
        assert (ds.get.trans(adata)["qvalue"][:10] < 0.05).all()


def test_labels_without_a_dosage_take_no_part(wells: ad.AnnData) -> None:
    adata = wells.copy()
    ds.tl.set_dosage(adata, {"well_3": 0.2, "well_4": 0.1, "other": 0.3}, label_key="well")
    assert set(ds.get.guides(adata).index) == {"well_3", "well_4", "ctrl_0", "ctrl_1", "ctrl_2"}
    assert (ds.get.guides(adata)["log2_dosage"][lambda x: x.index.str.startswith("ctrl")] == 0).all()
    assert adata.uns["cis"]["n_cells"] == {"targeting": 120, "control": 180, "excluded": 240}
    out = ~adata.obs["well"].isin(ds.get.guides(adata).index)
    assert ds.get.cis(adata)[out].isna().all(axis=None)
    assert adata.obs["cis_guide"].isna().equals(out)


def test_every_kind_of_data_takes_known_dosages(modalities: Any) -> None:
    data, rna = modalities.copy(), modalities["rna"]
    ds.tl.set_dosage(data, ds.get.guides(rna), mod="rna", scale="log2", cis_gene=GENE, key_added="known")
    for mod in ("psi", "score", "robust", "usage", "layers"):
        ds.tl.fit_trans(
            data, mod=mod, cis_mod="rna", cis_key="known", key_added="again", function_type="single_hill", nsamples=50
        )
        one, other = (ds.get.trans(data, mod=mod, key=key)["qvalue"] < 0.05 for key in ("trans", "again"))
        assert (one == other).all(), mod


def test_either_way_of_a_dosage_may_replace_the_other(wells: ad.AnnData) -> None:
    adata = wells.copy()
    adata.obs["guide"] = adata.obs["well"]
    ds.tl.fit_cis(adata, "g0", cis_targets="degron")
    ds.tl.set_dosage(adata, "left", label_key="well")
    assert adata.uns["cis"]["step"] == "tl.set_dosage"
    ds.tl.fit_cis(adata, "g0", cis_targets="degron")
    assert adata.uns["cis"]["step"] == "tl.fit_cis"
    with pytest.raises(ValueError, match=r"names a result of tl\.fit_technical"):
        ds.tl.set_dosage(adata, "left", label_key="well", key_added="technical")


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "percent": ("percent", {}, "mean dosage of 100.*Check the unit"),
    "zero": ("zero", {}, "limit of detection"),
    "negative": ({"well_0": -0.1}, {}, "holds -0.1 with scale='relative'"),
    "no label": ({"else": 0.5}, {}, "names none of the labels"),
    "no number": ({"well_0": "much"}, {}, "is no number"),
    "text column": ("target", {}, "is no number"),
    "no column": ("nowhere", {}, "not a column of .obs"),
    "no dosages": (pd.DataFrame({"strength": [1.0]}, ["well_0"]), {}, "without a column 'dosage'"),
    "twice": (pd.Series([0.1, 0.2], ["well_0", "well_0"]), {}, "twice"),
    "a list": ([0.1, 0.2], {}, "a list, is not allowed"),
    "scale": ("left", {"scale": "ln"}, "scale='ln' is not known"),
    "control": ("left", {"control": "DMSO"}, "no cell has the control label"),
    "no control": ("left", {"control": None}, "control=None is for scale='dose'"),
    "both": ("left", {"label_key": "same"}, "occur in control cells and in others"),
    "sd": ("left", {"sd": -0.1}, "below 0"),
    "numbered rows": (pd.DataFrame({"dosage": [1.0, 0.5]}), {}, "rows are numbered.*column 'well'"),
    "sd of nothing": ("left", {"sd": [0.1]}, "a list, is not allowed"),
    "only controls": ({"ctrl_0": 1.0}, {}, "no cell has a label with a dosage"),
    "gene": ("left", {"cis_gene": "nowhere"}, "cis gene"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(wells: ad.AnnData, name: str) -> None:
    adata = wells.copy()
    adata.obs["percent"], adata.obs["same"] = 100 * adata.obs["left"], "one"
    adata.obs["zero"] = np.where(adata.obs["well"] == "well_5", 0.0, adata.obs["left"])
    dosage, how, message = BAD[name]
    with pytest.raises((ValueError, KeyError, TypeError), match=message):
        ds.tl.set_dosage(adata, dosage, **{"label_key": "well"} | how)
    assert "cis" not in adata.uns


def test_groups_that_follow_the_labels_are_refused(wells: ad.AnnData) -> None:
    adata = wells.copy()
    adata.obs["plate"] = np.where(adata.obs["left"] < 0.3, "b", "a")
    adata.uns["technical"]["params"] |= {"use_all_cells": True, "batch_key": "plate"}
    adata.uns["technical"]["groups"] = ["a", "b"]
    with pytest.raises(ValueError, match=r"follows \.obs"):
        ds.tl.set_dosage(adata, "left", label_key="well")
