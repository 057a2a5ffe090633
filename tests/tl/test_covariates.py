"""`covariates=` of the technical step, and what cis and trans make of it."""

from __future__ import annotations

import logging
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

NAMES = ["score", "donor[T.b]", "donor[T.c]"]


@pytest.fixture(scope="module")
def base() -> ad.AnnData:
    """Cells of targeting guides have a higher score, which moves every other gene and the cis gene."""
    adata = ds.datasets.titration(
        1200, 16, rng=4, mean_range=(1.0, 4.0), dosage_range=(-3.0, -0.5), single_fraction=0.0, additive_fraction=0.0
    )
    rng = np.random.default_rng(4)
    targeting = (adata.obs["target"] == "GFI1B").to_numpy()
    adata.obs["score"] = 2.0 + 3.0 * (rng.normal(size=adata.n_obs) + targeting)
    adata.obs["donor"] = pd.Categorical(rng.choice(list("abc"), adata.n_obs))
    adata.obs["percent mt"] = rng.uniform(0, 20, adata.n_obs)
    adata.var["true_b"] = np.where(np.arange(16) % 2 == 0, 0.15, 0.0)
    mean = adata.X.toarray() * 2.0 ** (adata.var["true_b"].to_numpy() * adata.obs["score"].to_numpy()[:, None])
    adata.X = rng.poisson(mean).astype(np.float32)
    return adata


@pytest.fixture(scope="module")
def technical(base: ad.AnnData) -> ad.AnnData:
    adata = base.copy()
    ds.tl.fit_technical(adata, batch_key="batch", covariates="score + donor")
    return adata


def _keys(adata: ad.AnnData) -> dict[str, set[str]]:
    return {slot: set(getattr(adata, slot)) for slot in ("obs", "var", "uns", "obsm", "varm", "layers")}


def _refused(adata: ad.AnnData, covariates: Any, error: Any, match: str, **keywords: Any) -> None:
    before = _keys(adata)
    with pytest.raises(error, match=match):
        ds.tl.fit_technical(adata, covariates=covariates, **keywords)
    assert _keys(adata) == before


# ---- what is written -------------------------------------------------------------------------------------------------


def test_coefficients_are_stored_in_units_of_the_columns(technical: ad.AnnData) -> None:
    b, sd = technical.varm["technical_covariates"], technical.varm["technical_covariates_sd"]
    assert b.shape == sd.shape == (16, 3)
    entry = technical.uns["technical"]["covariates"]
    assert list(entry["names"]) == NAMES
    control = (technical.obs["target"] == "NTC").to_numpy()
    score = technical.obs["score"].to_numpy()[control]
    np.testing.assert_allclose([entry["centre"][0], entry["scale"][0]], [score.mean(), score.std()], rtol=1e-9)
    z = (b[:, 0] - technical.var["true_b"].to_numpy()) / sd[:, 0]
    assert np.abs(z).max() < 4
    assert b[::2, 0].min() > 0.08
    table = ds.get.technical(technical)
    np.testing.assert_array_equal(table["covariate_score"], b[:, 0])
    np.testing.assert_array_equal(table["covariate_sd_donor[T.c]"], sd[:, 2])


def test_columns_are_the_sum_of_their_formula(technical: ad.AnnData, base: ad.AnnData) -> None:
    for covariates in (["score", "donor"], "~ score + donor", ("score", "donor")):
        other = ds.tl.fit_technical(base.copy(), batch_key="batch", covariates=covariates, copy=True)
        np.testing.assert_array_equal(other.varm["technical_covariates"], technical.varm["technical_covariates"])
    one = ds.tl.fit_technical(base.copy(), covariates="percent mt", copy=True)
    assert list(one.uns["technical"]["covariates"]["names"]) == ["percent mt"]
    two = ds.tl.fit_technical(base.copy(), covariates=["percent mt", "score"], copy=True)
    assert list(two.uns["technical"]["covariates"]["names"]) == ["percent mt", "score"]


def test_without_covariates_nothing_of_them_is_written(base: ad.AnnData) -> None:
    adata = ds.tl.fit_technical(base.copy(), copy=True)
    assert "technical_covariates" not in adata.varm
    assert "covariates" not in adata.uns["technical"]
    assert not [c for c in ds.get.technical(adata).columns if c.startswith("covariate")]


def test_the_unit_of_a_column_does_not_matter(technical: ad.AnnData, base: ad.AnnData) -> None:
    other = base.copy()
    other.obs["score"] = 1000.0 * other.obs["score"] - 7.0
    ds.tl.fit_technical(other, batch_key="batch", covariates="score + donor")
    got, want = other.varm["technical_covariates"], technical.varm["technical_covariates"]
    np.testing.assert_allclose(1000.0 * got[:, 0], want[:, 0], rtol=1e-6)
    np.testing.assert_allclose(other.varm["technical"]["mu"], technical.varm["technical"]["mu"], rtol=1e-6)


def test_formulas_keep_their_transforms(base: ad.AnnData) -> None:
    """What a spline or a scaled column has learned on the control cells is what later steps use."""
    adata = base.copy()
    formula = "bs(score, df=4, extrapolation='clip') + scale(np.log1p(`percent mt`)) + C(donor)"
    ds.tl.fit_technical(adata, covariates=formula)
    from dream_sc._data.covariates import design_again

    entry = adata.uns["technical"]
    again = design_again(adata, entry, np.ones(adata.n_obs, dtype=bool))
    control = (adata.obs["target"] == "NTC").to_numpy()
    np.testing.assert_allclose(again.values[control].mean(0), entry["covariates"]["centre"], atol=1e-9)
    some = adata[:600].copy()
    part = design_again(some, entry, np.ones(600, dtype=bool))
    np.testing.assert_allclose(part.values, again.values[:600], rtol=1e-12)


def test_one_level_is_left_out_with_a_message(base: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = base.copy()
    adata.obs["plate"] = "p1"
    with caplog.at_level(logging.INFO, logger="dream_sc"):
        ds.tl.fit_technical(adata, covariates=["score", "plate"])
    assert "'plate' has one level" in caplog.text
    assert list(adata.uns["technical"]["covariates"]["names"]) == ["score"]
    with caplog.at_level(logging.INFO, logger="dream_sc"):
        ds.tl.fit_technical(adata, covariates="plate")
    assert "nothing is left" in caplog.text
    assert "covariates" not in adata.uns["technical"]
    ds.tl.fit_cis(adata, "GFI1B")


def test_whole_numbers_are_numbers_and_said_so(base: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = base.copy()
    adata.obs["patient"] = adata.obs["donor"].cat.codes.to_numpy()
    with caplog.at_level(logging.INFO, logger="dream_sc"):
        ds.tl.fit_technical(adata, covariates="patient")
    assert "C(patient)" in caplog.text
    ds.tl.fit_technical(adata, covariates="C(patient)")
    assert list(adata.uns["technical"]["covariates"]["names"]) == ["C(patient)[T.1]", "C(patient)[T.2]"]


# ---- the steps after it ----------------------------------------------------------------------------------------------


def test_cis_takes_the_covariate_off(technical: ad.AnnData, base: ad.AnnData) -> None:
    """The score moves the cis gene of targeted cells up by 0.15 x 3 log2; the dosages must not."""
    truth = base.uns["titration"]["guides"].set_index("guide")
    errors = []
    for adata in (technical.copy(), ds.tl.fit_technical(base.copy(), batch_key="batch", copy=True)):
        ds.tl.fit_cis(adata, "GFI1B")
        guides = ds.get.guides(adata)
        guides = guides[guides["target"] == "GFI1B"]
        errors.append((guides["log2_dosage"] - truth.loc[guides.index, "log2_dosage"]).mean())
    assert abs(errors[0]) < 0.15
    assert errors[1] > 0.3


@pytest.fixture(scope="module")
def trans(technical: ad.AnnData) -> ad.AnnData:
    adata = technical.copy()
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type="single_hill", rng=3)
    return adata


def test_trans_calls_nothing_that_the_covariate_did(trans: ad.AnnData, base: ad.AnnData) -> None:
    table = ds.get.trans(trans)
    assert (table["qvalue"].dropna() < 0.05).sum() == 0
    without = ds.tl.fit_technical(base.copy(), batch_key="batch", copy=True)
    ds.tl.fit_cis(without, "GFI1B")
    ds.tl.fit_trans(without, function_type="single_hill", rng=3)
    assert (ds.get.trans(without)["qvalue"].dropna() < 0.05).sum() >= 4


def test_baselines_and_points_are_of_a_cell_with_mean_covariates(trans: ad.AnnData) -> None:
    table = ds.get.trans(trans)
    np.testing.assert_allclose(table["baseline"].iloc[1:], trans.varm["technical"]["mu"].iloc[1:], rtol=0.12)
    feature = trans.var_names[2]
    from dream_sc.get._names import trans_fit
    from dream_sc.get._points import cells, counts

    points = counts(cells(trans, trans_fit(trans, "trans", None)), 2)
    ratio = points.loc[~points["is_control"].astype(bool), "mean"] / trans.varm["technical"].loc[feature, "mu"]
    assert abs(np.log2(ratio.mean())) < 0.25


def test_calibrate_knows_covariates(trans: ad.AnnData) -> None:
    adata = trans.copy()
    for keywords in ({"null": "ntc_guides"}, {"null": "permutation", "within": "cell"}, {"null": "simulation"}):
        ds.tl.calibrate(adata, n=2, progress=False, **keywords)
        assert np.isfinite(ds.get.calibration(adata)["fpr"]).all()


def test_results_survive_a_file(trans: ad.AnnData, tmp_path: Any) -> None:
    trans.write_h5ad(tmp_path / "fit.h5ad")
    again = ad.read_h5ad(tmp_path / "fit.h5ad")
    ds.tl.fit_cis(again, "GFI1B")
    np.testing.assert_allclose(again.obsm["cis"].to_numpy(), trans.obsm["cis"].to_numpy(), rtol=1e-9)
    ds.tl.fit_trans(again, function_type="single_hill", hyper=trans.uns["trans"]["hyper"], rng=3)
    np.testing.assert_allclose(again.varm["trans"]["log_bf"], trans.varm["trans"]["log_bf"], rtol=1e-6)


def test_all_cells_may_tell_the_coefficients(base: ad.AnnData) -> None:
    adata = base.copy()
    ds.tl.fit_technical(adata, batch_key="batch", covariates=["donor", "percent mt"], use_all_cells=True)
    ds.tl.fit_cis(adata, "GFI1B")
    assert np.isfinite(adata.uns["cis"]["guides"]["log2_dosage"]).all()
    entry = adata.uns["technical"]["covariates"]
    np.testing.assert_allclose(entry["centre"][2], adata.obs["percent mt"].mean())


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_unknown_columns_and_bad_formulas(base: ad.AnnData) -> None:
    _refused(base, "scor", KeyError, r"covariates='scor' is not a column of .obs.*did you mean \['score'")
    _refused(base, ["score", "doner"], KeyError, "'doner' is not a column")
    _refused(base, "score + bs(percent_mt, df=4)", KeyError, "'percent_mt' is not a column")
    _refused(base, "score ~ donor", ValueError, "left-hand side")
    _refused(base, "score +* donor", ValueError, "no formula")
    _refused(base, "", ValueError, "empty")
    _refused(base, [], ValueError, "empty")
    _refused(base, "bs(score, df=1)", ValueError, "cannot be computed")


@pytest.mark.parametrize(
    "formula",
    [
        "__import__('os').getcwd()",
        "open('x') + score",
        "score.__class__",
        "{score.__class__}",
        "np.load('x')",
        "{[c for c in 'ab']}",
        "lag(score)",
    ],
)
def test_formulas_hold_no_other_code(base: ad.AnnData, formula: str) -> None:
    _refused(base, formula, (ValueError, KeyError), "is not allowed|cannot be read|no formula|not a column")


def test_missing_values_are_counted(base: ad.AnnData) -> None:
    adata = base.copy()
    control = np.flatnonzero(adata.obs["target"] == "NTC")
    adata.obs.iloc[control[:3], adata.obs.columns.get_loc("score")] = np.nan
    adata.obs.iloc[control[:2], adata.obs.columns.get_loc("donor")] = np.nan
    _refused(adata, "score + donor", ValueError, r"missing \(NaN\) in some of the \d+ cells.*'score': 3, 'donor': 2")
    adata.obs["depth"] = np.r_[-1.0, np.ones(adata.n_obs - 1)]
    adata.obs.iloc[control[:4], adata.obs.columns.get_loc("depth")] = -2.0
    _refused(adata, "np.log(depth)", ValueError, r"NaN or infinite in some of the \d+ cells used, by column: .*4")


def test_missing_values_of_other_cells_are_refused_later(base: ad.AnnData) -> None:
    adata = base.copy()
    targeted = np.flatnonzero(adata.obs["target"] == "GFI1B")
    adata.obs.iloc[targeted[:5], adata.obs.columns.get_loc("score")] = np.nan
    ds.tl.fit_technical(adata, covariates="score")
    before = _keys(adata)
    with pytest.raises(ValueError, match=r"missing \(NaN\).*'score': 5"):
        ds.tl.fit_cis(adata, "GFI1B")
    assert _keys(adata) == before


def test_collinear_columns_are_named(base: ad.AnnData) -> None:
    adata = base.copy()
    adata.obs["double"], adata.obs["line"] = 2 * adata.obs["score"] + 1, adata.obs["batch"].astype(str)
    adata.obs["constant"] = 3.0
    _refused(adata, "score + double", ValueError, "'double' is a combination of the intercept, 'score'")
    _refused(
        adata, "score + line", ValueError, "'line.*' is a combination of .*technical group 'batch_", batch_key="batch"
    )
    _refused(adata, "score + constant", ValueError, "'constant' has one value")


def test_text_that_should_be_numbers(base: ad.AnnData) -> None:
    adata = base.copy()
    adata.obs["share"] = [f"{x:.3f}" for x in np.linspace(0.001, 0.999, adata.n_obs)]
    _refused(adata, "share", ValueError, r"'share' is text, but \d+ of \d+ cells have a fraction")
    adata.obs["mixed"] = ["high"] * (adata.n_obs - 900) + ["0.25"] * 900
    _refused(adata, "mixed", ValueError, r"'mixed' is text, but \d+ of \d+")
    adata.obs["barcode"] = adata.obs_names
    _refused(adata, "barcode", ValueError, r"'barcode' has \d+ levels in \d+ cells")
    adata.obs["day"] = pd.Timestamp("2020-01-01")
    _refused(adata, "day", TypeError, "'day' is of type datetime64")


def test_other_distributions_are_refused(base: ad.AnnData) -> None:
    _refused(base, "score", ValueError, "has no effect on scores, only on counts", distribution="normal")


def test_columns_that_went_are_named(technical: ad.AnnData) -> None:
    adata = technical.copy()
    ds.tl.fit_cis(adata, "GFI1B")
    del adata.obs["score"]
    for call in (lambda: ds.tl.fit_cis(adata, "GFI1B"), lambda: ds.tl.fit_trans(adata)):
        with pytest.raises(KeyError, match=r"\.obs lacks \['score'\]"):
            call()


def test_levels_without_control_cells_are_counted(base: ad.AnnData) -> None:
    adata = base.copy()
    donor = adata.obs["donor"].astype(str).to_numpy(dtype=object)
    donor[np.flatnonzero(adata.obs["target"] == "GFI1B")[:7]] = "new"
    adata.obs["donor"] = pd.Categorical(donor)
    ds.tl.fit_technical(adata, covariates="donor")
    with pytest.raises(ValueError, match=r"7 cells have levels of the covariate 'donor'.*\['new'\]"):
        ds.tl.fit_cis(adata, "GFI1B")


def test_several_guides_per_cell() -> None:
    """With a matrix of guides, all cells used and controls by complement."""
    adata = ds.datasets.high_moi(1500, 12, rng=2)
    rng = np.random.default_rng(2)
    adata.obs["score"] = rng.normal(size=adata.n_obs)
    factor = 2.0 ** np.outer(adata.obs["score"], np.r_[0.0, np.full(adata.n_vars - 1, 0.4)])
    adata.X = rng.poisson(adata.X.toarray() * factor).astype(np.float32)
    ds.tl.fit_technical(adata, guides="guides", use_all_cells=True, covariates="score")
    b, sd = (adata.varm[f"technical_covariates{s}"][1:, 0] for s in ("", "_sd"))
    known = np.isfinite(b)
    assert (np.abs(b - 0.4)[known] < 4 * sd[known]).all()
    ds.tl.fit_cis(adata, adata.uns["titration"]["cis_gene"], control_group="complement")
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=50)
    assert np.isfinite(adata.varm["trans"]["log_bf"].iloc[1:]).any()


def test_covariates_that_follow_the_perturbation_are_refused_in_fits_on_all_cells() -> None:
    adata = ds.datasets.titration(1200, 12, rng=1)
    guides = sorted(adata.obs["guide"].unique())
    with pytest.raises(ValueError, match=r"\.obs\['target'\] follows"):
        ds.tl.fit_technical(adata, covariates="target", use_all_cells=True)
    half = np.random.default_rng(0).random(adata.n_obs) < 0.5
    order = {g: i % 2 for i, g in enumerate(guides)}
    odd = adata.obs["guide"].astype(str).map(order).to_numpy() == 1
    target = (adata.obs["target"] == "GFI1B").to_numpy()
    adata.obs["lane"] = np.where(np.where(target, odd, half), "a", "b")  # follows the guides, not the target
    ds.tl.fit_technical(adata, covariates="lane", use_all_cells=True)
    with pytest.raises(ValueError, match=r"\.obs\['lane'\] follows \.obs\['guide'\]"):
        ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_technical(adata, covariates="lane")  # from control cells it may
    ds.tl.fit_cis(adata, "GFI1B")


def test_a_numeric_covariate_that_follows_is_said(caplog: pytest.LogCaptureFixture) -> None:
    adata = ds.datasets.titration(900, 12, rng=1)
    rng = np.random.default_rng(0)
    adata.obs["score"] = rng.normal(size=900) + 2.0 * (adata.obs["target"] == "GFI1B")
    adata.obs["free"] = rng.normal(size=900)
    ds.tl.fit_technical(adata, covariates=["score", "free"], use_all_cells=True)
    assert "the covariates ['score'] follow the perturbation" in caplog.text


def test_nothing_is_left_of_earlier_covariates() -> None:
    adata = ds.datasets.titration(600, 12, rng=1)
    ds.tl.fit_technical(adata, covariates="true_size_factor")
    assert "technical_covariates" in adata.varm
    ds.tl.fit_technical(adata)
    assert not [k for k in adata.varm if "covariates" in k]


def test_formulas_that_cannot_be_read_are_explained() -> None:
    adata = ds.datasets.titration(600, 12, rng=1)
    adata.obs["m"] = pd.Series([1, "x"] * 300, index=adata.obs_names, dtype=object)
    adata.obs["we`ird"] = 1.0
    for formula, match in (
        ("true_size_factor | batch", r"'\|' at character 18 is not allowed; allowed are"),
        ("C(batch, contr.sum)", "contr.sum without brackets"),
        (["we`ird"], "rename the column"),
    ):
        with pytest.raises(ValueError, match=match):
            ds.tl.fit_technical(adata, covariates=formula)
    ds.tl.fit_technical(adata, covariates="m")  # labels of two types
    assert ds.get.technical(adata).filter(like="m").shape[1] > 0
