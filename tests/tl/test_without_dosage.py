"""A knock-out: the mRNA says nothing, the effects are there all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc._core.response import calibration

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("few_null_features")

GENE, CELLS, N_GUIDES, N_NTC, N_GENES, N_MOVING = "TARGET", 80, 5, 8, 60, 12


def knockout(seed: int = 0) -> ad.AnnData:
    """A tenth of the genes move by 1.5 log2 in each guide but the last, and the target's own mRNA stays."""
    rng, guide = np.random.default_rng(seed), np.repeat(np.arange(N_GUIDES + N_NTC), CELLS)
    change = np.where(np.arange(N_GENES) < N_MOVING, 1.5 * np.where(np.arange(N_GENES) % 2, -1, 1), 0.0)
    mean = rng.uniform(1, 6, N_GENES)
    mean[-1] = 5.0
    acts = (np.arange(N_GUIDES + N_NTC) < N_GUIDES - 1)[guide]
    rate = mean * 2.0 ** (acts[:, None] * change)
    x = rng.poisson(rng.gamma(8.0, rate / 8.0)).astype(np.float32)
    names = [f"ko_{g}" if g < N_GUIDES else f"ntc_{g}" for g in range(N_GUIDES + N_NTC)]
    obs = pd.DataFrame({"guide": np.array(names)[guide]}, index=[f"c{i}" for i in range(len(guide))])
    obs["target"], obs["size_factor"] = np.where(guide < N_GUIDES, GENE, "NTC"), 1.0
    var = pd.DataFrame(index=[f"g{i}" for i in range(N_GENES - 1)] + [GENE])
    return ad.AnnData(sparse.csr_matrix(x), obs=obs, var=var)


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    adata = knockout()
    ds.tl.fit_technical(adata)
    ds.tl.fit_trans(adata, dosage="none", cis_targets=GENE, progress=False)
    return adata


def test_what_guides_change_together_is_found(fitted: ad.AnnData) -> None:
    table = ds.get.trans(fitted)
    called = (table["qvalue"] < 0.05).to_numpy()
    assert called[:N_MOVING].all()
    assert called[N_MOVING:].sum() <= 1
    moved = table.iloc[:N_MOVING]
    assert (moved["class"] == "switch").all()
    assert (moved["model"] == "switch").all()
    falls = np.arange(N_MOVING) % 2 == 1
    np.testing.assert_array_equal(moved["on_knockdown"] == "down", falls)
    np.testing.assert_array_equal(moved["score"] < 0, falls)
    # of the four guides of five that act
    assert moved["log2fc_full"].abs().between(0.7, 1.8).all()
    np.testing.assert_array_equal(moved["log2fc_full"], moved["log2fc_half"])
    assert moved[["log2_ec50", "hill_n", "log2fc_max", "slope_within"]].isna().all(axis=None)
    assert table[["lfdr_graded", "qvalue_graded", "log_bf_graded"]].isna().all(axis=None)
    assert table["status"].astype(str).str.startswith("converged").all()


def test_the_target_is_a_direct_target(fitted: ad.AnnData) -> None:
    row = ds.get.trans(fitted).loc[GENE]
    assert row["direct_target"]
    assert np.isnan(row["qvalue"])
    assert np.isfinite(row["lfdr"])


def test_what_was_used_is_stored(fitted: ad.AnnData, tmp_path: Path) -> None:
    info = fitted.uns["trans"]
    assert (info["params"]["dosage"], info["params"]["cis_key"]) == ("none", "trans_acting")
    assert info["params"]["function_type"] == "auto"
    own = fitted.uns["trans_acting"]
    assert list(own["params"]["cis_targets"]) == [GENE]
    assert own["n_cells"] == {"targeting": 400, "several_guides": 0, "control": 640, "excluded": 0}
    assert own["guides"]["log2_dosage"].isna().all()
    assert info["hyper"]["curves"] == ["null", "switch"]
    path = tmp_path / "x.h5ad"
    fitted.write_h5ad(path)
    again = ad.read_h5ad(path)
    pd.testing.assert_frame_equal(ds.get.trans(again), ds.get.trans(fitted))
    draws = ds.get.posterior(again, "g0")
    assert draws["model"].item() == "switch"
    change = np.median(draws["b"]) / np.log(2)
    assert change == pytest.approx(ds.get.trans(again).loc["g0", "log2fc_full"], abs=0.02)


def test_there_is_no_curve_but_two_levels(fitted: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="without dosages"):
        ds.get.dose_response(fitted, "g0")
    ax = ds.pl.dose_response(fitted, "g0")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["NTC guides", "acting guides", "inert guides"]
    assert "rises on knock-down" in ax.get_title()
    line = next(each for each in ax.lines if each.get_label() == "fit, 95 % band")
    row = ds.get.trans(fitted).loc["g0"]
    assert np.log2(line.get_ydata()[0] / row["baseline"]) == pytest.approx(row["log2fc_full"], abs=0.05)


def test_tables_and_texts_know_it(fitted: ad.AnnData) -> None:
    table = ds.get.trans(fitted)
    assert table["log2_dosage_full"].isna().all()
    for asked in ({}, {"features": ["g0"], "fold_change": 1.0}):
        with pytest.raises(ValueError, match=r"a fit without dosages.*log2fc_full of dream_sc\.get\.trans"):
            ds.get.doses(fitted, **asked)
    effects = ds.get.guide_effects(fitted, ["g0"])
    targeting = effects[~effects["is_control"]]
    inert = ds.get.guides(fitted, key="trans").loc[targeting["guide"], "p_acts"].to_numpy() < 0.05
    assert inert.tolist() == [False] * 4 + [True]
    np.testing.assert_allclose(targeting["fitted"][~inert], table.loc["g0", "log2fc_full"], atol=0.02)
    assert (targeting["fitted"][inert] == 0).all()
    text = " ".join(ds.get.summary(fitted).split())
    assert "no dosages: guides act or do not" in text
    assert "marginal likelihoods of no response and one level for all acting guides were compared" in text
    assert "nan" not in text


def test_what_is_about_dosages_says_that_there_are_none(fitted: ad.AnnData) -> None:
    with pytest.raises(ValueError, match="without dosages"):
        ds.tl.check_confounding(fitted, cis_key="trans_acting")


def test_calibration_knows_it(fitted: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "N_NULL", 2000)  # p-values count here
    adata = fitted.copy()
    ds.tl.calibrate(adata, n=4)
    rates = ds.get.calibration(adata)
    assert rates["fpr"].iloc[0] < 0.15


def test_other_arguments_are_refused(fitted: ad.AnnData) -> None:
    with pytest.raises(ValueError, match='only with "none"'):
        ds.tl.fit_trans(fitted, cis_targets=GENE)
    with pytest.raises(ValueError, match="compares null and switch"):
        ds.tl.fit_trans(fitted, dosage="none", cis_targets=GENE, function_type="single_hill")
    with pytest.raises(ValueError, match="without cis_targets="):
        ds.tl.fit_trans(fitted, dosage="none", guide_key="guide")
    with pytest.raises(ValueError, match="fit_cis"):
        ds.tl.fit_trans(fitted, dosage="none")
    with pytest.raises(ValueError, match="no cell's target is"):
        ds.tl.fit_trans(fitted, dosage="none", cis_targets="other")


def test_a_cis_fit_of_a_knock_out_says_so_and_the_switch_is_found(caplog: pytest.LogCaptureFixture) -> None:
    adata = knockout(1)
    ds.tl.fit_technical(adata)
    with caplog.at_level("WARNING", logger="dream_sc"):
        ds.tl.fit_cis(adata, GENE)
    assert "knock-out" in caplog.text
    for name in ("dosage='none'", "guide_prior=", "set_dosage"):
        assert name in caplog.text
    said = adata.uns["cis"]["diagnostics"]
    assert 0 <= said["dosage_resolution"] <= 1
    assert said["share_of_clear_guides"] == 0
    ds.tl.fit_trans(adata, progress=False)
    ds.tl.fit_trans(adata, dosage="none", key_added="acting", progress=False)
    table, other = ds.get.trans(adata), ds.get.trans(adata, key="acting")
    for each in (table, other):
        assert (each["qvalue"][:N_MOVING] < 0.05).all()
        assert (each["class"][:N_MOVING] == "switch").all()
    assert "acting_acting" not in adata.uns
    assert adata.uns["acting"]["params"]["cis_key"] == "cis"
    both = ds.get.dose_response(adata, "g0", doses=[-1.0, 0.0, 0.5])
    assert both["median"][0] == both["median"][2]
    assert np.log2(both["median"][0] / both["median"][1]) == pytest.approx(table.loc["g0", "log2fc_full"], abs=0.02)


def test_a_titration_gives_no_warning_and_its_responses_follow(caplog: pytest.LogCaptureFixture) -> None:
    adata = ds.datasets.titration(2500, 40, rng=3)
    ds.tl.fit_technical(adata, batch_key="batch")
    with caplog.at_level("WARNING", logger="dream_sc"):
        ds.tl.fit_cis(adata, "GFI1B")
    assert "told apart" not in caplog.text
    ds.tl.fit_trans(adata, progress=False)
    table = ds.get.trans(adata)
    called = table[table["qvalue"] < 0.05]
    assert len(called) > 5
    assert (called["qvalue_graded"] < 0.05).mean() > 0.9
    assert (called.loc[called["qvalue_graded"] < 0.05, "class"] != "switch").all()
    assert (called.loc[~(called["qvalue_graded"] < 0.05), "class"] == "switch").all()


def test_a_dose_that_switches_everything() -> None:
    rng, doses = np.random.default_rng(2), np.repeat([0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 1.0, 1.0, 10.0, 10.0], 80)
    well = np.repeat([f"w{i}" for i in range(10)], 80)
    change = np.where(np.arange(40) < 6, 1.5, 0.0)
    rate = 4.0 * 2.0 ** ((doses > 0)[:, None] * change)
    obs = pd.DataFrame({"well": well, "dose": doses, "size_factor": 1.0}, index=[f"c{i}" for i in range(800)])
    obs["target"] = np.where(doses == 0, "NTC", "drug")
    x = sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
    adata = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(40)]))
    ds.tl.fit_technical(adata)
    ds.tl.set_dosage(adata, "dose", label_key="well", scale="dose")
    ds.tl.fit_trans(adata, progress=False)
    table = ds.get.trans(adata).iloc[:6]
    assert (table["qvalue"] < 0.05).all()
    np.testing.assert_allclose(table["log2fc_full"], 1.5, atol=0.3)
    assert (table["class"] == "switch").mean() > 0.5  # a Hill far below the lowest dose is the same
    switch = table[table["class"] == "switch"]
    assert switch[["log2_ec50", "log2fc_max"]].isna().all(axis=None)


def test_guides_of_such_a_fit_have_no_dosages(fitted: ad.AnnData) -> None:
    with pytest.raises(ValueError, match=r"'trans_acting' names the guides of a fit without dosages"):
        ds.tl.fit_trans(fitted.copy(), cis_key="trans_acting", key_added="other")


def test_which_guides_act_has_to_be_said(fitted: ad.AnnData) -> None:
    adata = knockout()
    adata.uns["technical"] = fitted.uns["technical"]
    for name in ("technical", "technical_effects", "technical_effects_sd"):
        adata.varm[name] = fitted.varm[name]
    with pytest.raises(ValueError, match=r"which guides act: name their target label\(s\) as cis_targets="):
        ds.tl.fit_trans(adata, dosage="none")
    with pytest.raises(ValueError, match=r"cis_targets= names \['TARGTE'\], which no guide targets.*did you mean"):
        ds.tl.fit_trans(adata, dosage="none", cis_targets=[GENE, "TARGTE"])


def test_guides_that_disagree_are_flagged(fitted: ad.AnnData) -> None:
    flags = fitted.uns["trans"]["flags"].set_index("flag")
    # the guide that does nothing is left out, so that the others agree
    assert ds.get.guides(fitted, key="trans").query("p_acts < 0.05").index.tolist() == [f"ko_{N_GUIDES - 1}"]
    assert flags.loc["guides_disagree", "value"] == pytest.approx(0.0, abs=0.05)
    same = ds.datasets.titration(1500, 60, rng=0, n_guides=5, dosage_range=(-3.2, -2.8), guide_shift_sd=0.05)
    ds.tl.fit_technical(same, batch_key="batch")
    ds.tl.fit_trans(same, dosage="none", cis_targets="GFI1B", progress=False)
    assert not same.uns["trans"]["flags"].set_index("flag").loc["guides_disagree", "raised"]
    graded = ds.datasets.titration(1500, 60, rng=0)
    ds.tl.fit_technical(graded, batch_key="batch")
    ds.tl.fit_trans(graded, dosage="none", cis_targets="GFI1B", progress=False)
    flags = graded.uns["trans"]["flags"].set_index("flag")
    assert flags.loc["guides_disagree", "raised"]
    assert "fit_cis" in flags.loc["guides_disagree", "advice"]
    ds.tl.fit_cis(graded, "GFI1B")
    ds.tl.fit_trans(graded, features="gene_0002", key_added="graded", progress=False)
    assert "guides_disagree" not in set(graded.uns["graded"]["flags"]["flag"])


def test_what_changes_with_the_dosage_is_not_looked_for_without_one() -> None:
    adata = ds.datasets.titration(400, 8, rng=0, n_guides=4)
    ds.tl.fit_technical(adata)
    ds.tl.fit_trans(adata, dosage="none", cis_targets="GFI1B")
    for key in ("cis", "trans_acting"):
        with pytest.raises(ValueError, match=r"fit without dosages .*not offered for such a fit.*fit_cis first"):
            ds.tl.check_confounding(adata, cis_key=key)
    assert "confounding" not in adata.uns


def test_scores_are_called_scores(caplog: pytest.LogCaptureFixture) -> None:
    adata = ds.datasets.titration(400, 8, rng=0, n_guides=4)
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (400, 6)) + 2.0 * (adata.obs["target"] == "GFI1B").to_numpy()[:, None] * (
        np.arange(6) < 2
    )
    names = pd.DataFrame(index=[f"s{i}" for i in range(6)])
    scores = ad.AnnData(values, adata.obs[["guide", "target", "batch"]].copy(), names)
    ds.tl.fit_technical(scores, distribution="normal")
    ds.tl.fit_trans(scores, dosage="none", cis_targets="GFI1B")
    text = " ".join(ds.get.summary(scores).split())
    assert "2 of 6 features respond where guides of GFI1B act" in text
    assert "Responses to guides of GFI1B were fitted" in text
    assert "curves: no response, or one level for all acting guides" in text
    assert ds.get.trans(scores, columns="main")["ec50"].tolist()[:2] == ["none: one level for all guides that act"] * 2
    scores.X = scores.X + rng.normal(0, 1, scores.shape)
    with pytest.raises(ValueError, match=r"the scores or technical fit are not those .*\(values of \.X changed\)"):
        ds.tl.calibrate(scores, n=2)


def test_usage_of_a_knock_out_is_a_switch(tmp_path: Path) -> None:
    """Features of three categories whose usage changes wherever a guide acts: every category is one of two levels."""
    adata = knockout()
    acts = adata.obs["guide"].str.startswith("ko").to_numpy() & (adata.obs["guide"] != f"ko_{N_GUIDES - 1}").to_numpy()
    rng, n_features = np.random.default_rng(3), 24
    before, after = np.array([0.5, 0.3, 0.2]), np.array([0.25, 0.3, 0.45])
    moves = np.arange(n_features) % 4 == 0
    share = np.where((acts[:, None] & moves)[..., None], after, before)
    counts = rng.multinomial(rng.poisson(2.0, share.shape[:2]), share)
    usage = ad.AnnData(sparse.csr_matrix(share.shape[:2]), obs=adata.obs.copy())
    usage.var_names = [f"e{i}" for i in range(n_features)]
    for k, name in enumerate("abc"):
        usage.layers[name] = sparse.csr_matrix(counts[..., k].astype(np.float32))
    ds.tl.fit_technical(usage, distribution="multinomial", category_layers=["a", "b", "c"])
    ds.tl.fit_trans(usage, dosage="none", cis_targets=GENE, progress=False)
    table = ds.get.trans(usage)
    np.testing.assert_array_equal(table["qvalue"] < 0.05, moves)
    assert (table["class"][moves] == "switch").all()
    assert table[["log2_ec50", "qvalue_graded"]].isna().all(axis=None)
    by_category = ds.get.trans(usage, by="category")
    mine = by_category[by_category["feature"].isin(usage.var_names[moves])] if "feature" in by_category else None
    assert mine is not None
    change = mine["delta_p_full"].to_numpy().reshape(-1, 3)
    # of the four guides of five that act
    assert (change[:, 0] < -0.12).all()
    assert (change[:, 2] > 0.12).all()
    np.testing.assert_allclose(change.sum(1), 0.0, atol=0.02)
    with pytest.raises(ValueError, match="needs dosages"):
        ds.tl.fit_trans(usage, dosage="none", cis_targets=GENE, inference="svi", progress=False)
    # the same by dosages that say nothing of the usage, of the guides that act
    usage = usage[usage.obs["guide"] != f"ko_{N_GUIDES - 1}"].copy()
    ds.tl.fit_technical(usage, distribution="multinomial", category_layers=["a", "b", "c"])
    ds.tl.set_dosage(usage, {f"ko_{g}": 2.0 ** -(0.5 + 0.6 * g) for g in range(N_GUIDES - 1)})
    ds.tl.fit_trans(usage, progress=False)
    usage.write_h5ad(tmp_path / "usage.h5ad")
    again = ad.read_h5ad(tmp_path / "usage.h5ad")
    table = ds.get.trans(again)
    np.testing.assert_array_equal(table["qvalue"] < 0.05, moves)
    assert (table["class"][moves] == "switch").mean() > 0.8
    name = table.index[(table["class"] == "switch").to_numpy()][0]
    curve = ds.get.dose_response(again, [name])
    levels = curve[curve["log2_dosage"] != 0.0].groupby("category", observed=True)["median"].nunique()
    assert (levels == 1).all()
    (panel,) = np.ravel(ds.pl.dose_response(again, [name]))
    assert name in panel.get_title()
