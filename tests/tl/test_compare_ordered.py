"""Contexts in an order, on objects: a trend is found, kept, drawn and written; senseless orders are refused."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from scipy import sparse

import dream_sc as ds
from dream_sc._keys import ORDERED_COLUMNS
from dream_sc.pl._ordered_contexts import trend_in_words

FADING = "gene_0001"
ORDER = {"6h": 6.0, "12h": 12.0, "24h": 24.0}


@pytest.fixture(scope="module")
def ordered() -> ad.AnnData:
    """Three time points; the counts of the gene that responds most are shuffled in ever more cells."""
    adata, rng = ds.datasets.titration(2000, 40, rng=0), np.random.default_rng(0)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    hours = np.array(list(ORDER))[rng.integers(0, 3, adata.n_obs)]
    adata.obs["hours"] = pd.Categorical(hours, categories=list(ORDER), ordered=True)
    name = str(ds.get.responders(adata)["log_bf"].astype(float).idxmax())
    adata.var_names = [FADING if n == name else name if n == FADING else n for n in adata.var_names]
    dense = sparse.lil_matrix(adata.X)
    column = dense[:, adata.var_names.get_loc(FADING)].toarray().ravel()
    for label, share in zip(ORDER, (0.0, 0.45, 0.9), strict=True):
        cells = np.flatnonzero(hours == label)
        some = cells[rng.random(len(cells)) < share]
        column[some] = column[rng.permutation(some)]
    dense[:, adata.var_names.get_loc(FADING)] = column[:, None]
    adata.X = dense.tocsr()
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    ds.tl.compare(adata, "hours", order=ORDER, n_null=40)
    return adata


def test_a_response_that_fades_is_found_and_others_have_no_trend(ordered: ad.AnnData) -> None:
    table = ds.get.compare(ordered, sort=True)
    assert tuple(table.columns) == ORDERED_COLUMNS
    assert table.attrs["order"] == ORDER
    row = table.loc[FADING]
    assert row["lfdr_differs"] < 0.05
    assert table["lfdr_differs"].astype(float).idxmin() == FADING
    assert row["log2_amplitude_slope_q975"] < 0.0
    others = table.drop(index=FADING)
    assert (others["qvalue_trend"].dropna() > 0.05).all()
    equal = others[others["hypothesis"] == "equal"]
    assert len(equal) > 5
    for name in ("log2_ec50", "log2_amplitude"):
        low, high = equal[f"{name}_slope_q025"], equal[f"{name}_slope_q975"]
        assert ((low < 0) & (high > 0)).mean() > 0.8
    assert table.loc["GFI1B", "status"] == "cis_gene"
    assert table.loc[table["status"] == "filtered", "note"].notna().all()
    entry = ordered.uns["compare"]
    assert list(entry["contexts"]) == list(ORDER)
    assert list(entry["numbers"]) == list(ORDER.values())
    assert entry["n_cells"].sum() == ordered.obs["cis_guide"].notna().sum()


def test_results_survive_a_file_and_a_subset(ordered: ad.AnnData, tmp_path: Any) -> None:
    ordered.write_h5ad(tmp_path / "ordered.h5ad")
    again = ad.read_h5ad(tmp_path / "ordered.h5ad")
    pd.testing.assert_frame_equal(ds.get.compare(again), ds.get.compare(ordered))
    assert ds.get.compare(again).attrs["order"] == ORDER
    some = again[:, ["gene_0003", FADING]].copy()
    pd.testing.assert_frame_equal(ds.pl.compare_data(some, FADING), ds.pl.compare_data(ordered, FADING))


def test_all_contexts_are_drawn_from_light_to_dark(ordered: ad.AnnData) -> None:
    table = ds.pl.compare_data(ordered, FADING)
    assert table.groupby(["context", "kind"], sort=False).size().to_dict() == {
        (name, kind): n for name in ORDER for kind, n in (("curve", 25), ("guide", 12))
    }
    curves = table[table["kind"] == "curve"]
    assert (curves["lower"] <= curves["upper"]).all()
    size = curves.groupby("context")["change"].apply(lambda x: np.abs(x).max())
    assert size["24h"] < size["6h"]
    assert ds.pl.compare_data(ordered, FADING, context="12h")["context"].unique().tolist() == ["12h"]
    ax = ds.pl.compare(ordered, FADING)
    lines = {line.get_label(): line for line in ax.lines if line.get_label() in ORDER}
    assert list(lines) == list(ORDER)
    bright = [sum(to_rgb(lines[name].get_color())) for name in ORDER]
    assert bright[0] > bright[1] > bright[2]
    assert ax.get_legend().get_title().get_text() == "hours"
    row = ds.get.compare(ordered).loc[FADING]
    assert ax.get_title().replace("\n", " ").startswith(f"{FADING}: ")
    assert trend_in_words(row).split(",")[-1].strip() in ax.get_title().replace("\n", " ")


@pytest.mark.parametrize(
    ("hypothesis", "says"),
    [
        ("null", "no response, q = 0.5"),
        ("dosage_trend", "EC50 \N{MINUS SIGN}0.05 log2 per unit, q = 0.5"),
        ("amplitude_trend", "amplitude +0.1 log2 per unit, q = 0.5"),
        ("free", "differs, not in a line, q = 0.5"),
    ],
)
def test_a_trend_in_words(hypothesis: str, says: str) -> None:
    row = {"lfdr_trend": 0.5, "qvalue_trend": 0.5, "hypothesis": hypothesis, "status": "compared"}
    row |= {"log2_ec50_slope": -0.05, "log2_amplitude_slope": 0.1}
    assert trend_in_words(row) == says
    assert trend_in_words(row | {"lfdr_trend": np.nan, "status": "filtered"}) == "filtered"


def test_rows_of_one_context_and_the_omnibus_are_refused(ordered: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="trends over all contexts"):
        ds.get.compare(ordered, context="6h")
    with pytest.raises(ValueError, match="trends over all contexts"):
        ds.get.compare(ordered, omnibus=True)
    with pytest.raises(ValueError, match="context"):
        ds.pl.compare_data(ordered, FADING, context="3h")


def test_labels_may_be_the_numbers(ordered: ad.AnnData) -> None:
    from dream_sc.tl._contexts import read_fit
    from dream_sc.tl._ordered_contexts import numbers_of

    adata = ordered.copy()
    fit, names = read_fit(adata, None, "trans"), ["24h", "6h", "12h"]
    assert numbers_of(fit, "hours", names, None, "6h") is None
    assert numbers_of(fit, "hours", names, True, None) == {"6h": 0.0, "12h": 1.0, "24h": 2.0}
    assert list(numbers_of(fit, "hours", names, {"6h": 3, "24h": 1, "12h": 2}, None) or {}) == ["24h", "12h", "6h"]
    adata.obs["log_dose"] = 1.0
    fit, names = read_fit(adata, None, "trans"), ["10", "-1.5", "2"]
    for yes in (True, np.True_):
        assert numbers_of(fit, "log_dose", names, yes, None) == {"-1.5": -1.5, "2": 2.0, "10": 10.0}
    assert numbers_of(fit, "log_dose", names, np.False_, None) is None  # type: ignore[arg-type]


def test_numbers_are_found_however_they_are_written(ordered: ad.AnnData) -> None:
    """A column of whole numbers with missing ones holds 6.0, and a shell gives texts."""
    from dream_sc.tl._contexts import contexts_of, read_fit
    from dream_sc.tl._ordered_contexts import numbers_of

    adata = ordered.copy()
    adata.obs["t"] = adata.obs["hours"].map(ORDER).astype(float)
    adata.obs.loc[adata.obs_names[::7], "t"] = np.nan
    fit = read_fit(adata, None, "trans")
    names, _ = contexts_of(fit, "t", None)
    assert sorted(names) == ["12.0", "24.0", "6.0"]
    given: list[dict[Any, float]] = [{6: 0, 12: 1, 24: 2}, {"6": 0, "12": 1, "24": 2}, {"6.0": 0, 12.0: 1, "24": 2}]
    for order in given:
        assert numbers_of(fit, "t", names, order, None) == {"6.0": 0.0, "12.0": 1.0, "24.0": 2.0}
    with pytest.raises(ValueError, match=r"two numbers for '6.0'"):
        numbers_of(fit, "t", names, {6: 0, "6": 1, 12: 2, 24: 3}, None)  # type: ignore[dict-item]
    # where two labels are the same number, a key is the label that is written in the same way
    assert numbers_of(fit, "t", ["1", "1.0", "2"], {"1": 3, "1.0": 4, "2": 5}, None) == {"1": 3, "1.0": 4, "2": 5}


def test_a_context_that_lacks_guides_or_counts_keeps_what_is_left(ordered: ad.AnnData) -> None:
    adata = ordered[:, ["GFI1B", FADING, "gene_0003", "gene_0004", "gene_0005", "gene_0007"]].copy()
    adata.obs["size_factor"] = ordered.obs["size_factor"]
    late = (adata.obs["hours"] == "24h").to_numpy()
    counts = sparse.lil_matrix(adata.X)
    counts[np.flatnonzero(late), adata.var_names.get_loc("gene_0007")] = 0
    adata.X = counts.tocsr()
    guides = adata.obs["guide"].astype(str)
    targeting = sorted(guides[adata.obs["target"] != "NTC"].unique())
    adata.obs.loc[late & guides.isin(targeting[:3]).to_numpy(), "hours"] = "6h"
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    ds.tl.compare(adata, "hours", order=ORDER, n_null=0)
    table = ds.get.compare(adata)
    assert table.loc["gene_0007", "status"] == "filtered"
    assert str(table.loc["gene_0007", "note"]).startswith("24h: ")
    assert table.loc[FADING, "lfdr_differs"] < 0.5
    points = ds.pl.compare_data(adata, FADING)
    points = points[points["kind"] == "guide"].groupby("context", sort=False).size().to_dict()
    assert points == {"6h": 12, "12h": 12, "24h": 9}


@pytest.mark.slow
def test_ordered_shares_and_scores_of_a_mudata(modalities: Any) -> None:
    data = modalities.copy()
    names = data.mod["rna"].obs_names
    day = pd.Series(np.random.default_rng(0).integers(1, 4, len(names)), index=names)
    for mod in data.mod.values():
        mod.obs["day"] = day.reindex(mod.obs_names).to_numpy()
    for mod in ("psi", "score"):
        ds.tl.compare(data, "day", order=True, mod=mod, n_null=0)
        table = ds.get.compare(data, mod=mod)
        assert table.attrs["order"] == {"1": 1.0, "2": 2.0, "3": 3.0}
        assert (table["hypothesis"].iloc[:4] == "equal").sum() >= 3, mod
        assert (table["hypothesis"].iloc[4:] == "null").sum() >= 3, mod
        assert (table["lfdr_trend"] > 0.5).all()
        assert len(ds.pl.compare(data, str(table.index[0]), mod=mod).lines) > 3


def test_orders_that_make_no_sense_are_refused(ordered: ad.AnnData) -> None:
    adata = ordered.copy()
    del adata.uns["compare"], adata.varm["compare"]
    adata.obs["two"] = np.where(np.arange(adata.n_obs) % 2 == 0, "a", "b")
    adata.obs["text"] = adata.obs["hours"].astype(str)
    refused: list[tuple[str, Any, type[Exception], str]] = [
        ("two", {"a": 1, "b": 2}, ValueError, r"three|3 contexts at least.*without order="),
        ("text", True, ValueError, "ordered categorical"),
        ("hours", {"6h": 6, "12h": 12}, ValueError, "no number for .'24h'."),
        ("hours", ORDER | {"48h": 48}, ValueError, "names .'48h'."),
        ("hours", dict.fromkeys(ORDER, 1.0), ValueError, "the same number"),
        ("hours", ORDER | {"24h": np.nan}, ValueError, "finite"),
        ("hours", {"6h": -1e308, "12h": 0.0, "24h": 1e308}, ValueError, "range over inf.*another unit"),
        ("hours", {"6h": 0.0, "12h": 5e-324, "24h": 1e-323}, ValueError, "range over .*another unit"),
        ("hours", ORDER | {"24h": "late"}, TypeError, "order"),
        ("hours", [1, 2, 3], TypeError, "order"),
    ]
    for by, order, kind, message in refused:
        with pytest.raises(kind, match=message):
            ds.tl.compare(adata, by, order=order)
    with pytest.raises(ValueError, match="reference='6h' has no effect with order="):
        ds.tl.compare(adata, "hours", order=ORDER, reference="6h")
    assert "compare" not in adata.uns
    assert "compare" not in adata.varm
