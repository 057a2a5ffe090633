"""Options of the cis step about guides: two lines, what is known before, populations by target."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")


def _two_lines(n: int = 2500) -> tuple[ad.AnnData, dict[str, float]]:
    """The same guides in a CRISPRi and a CRISPRa line, which knock down and activate; NTC guides in both."""
    parts = [
        ds.datasets.titration(n, 40, rng=3, dosage_range=span, group_effect_sd=0.0, n_guides=6, single_fraction=0.4)
        for span in ((-2.5, -0.3), (0.2, 1.5))
    ]
    for part, line in zip(parts, ("CRISPRi", "CRISPRa"), strict=True):
        part.obs["line"] = line
        part.obs_names = line + part.obs_names
    truth = {
        f"{g}|{line}": x
        for part, line in zip(parts, ("CRISPRi", "CRISPRa"), strict=True)
        for g, x in part.uns["titration"]["guides"].set_index("guide")["log2_dosage"].items()
        if not g.startswith("NTC")
    }
    both = ad.concat(parts, merge="first")
    return both, truth


def test_a_guide_has_a_dosage_in_each_line() -> None:
    adata, truth = _two_lines()
    ds.tl.fit_technical(adata, batch_key="line")
    ds.tl.fit_cis(adata, "GFI1B", guide_covariate_key="line")
    table = ds.get.guides(adata)
    mine = table[~table["is_control"]]
    assert sorted(mine.index) == sorted(truth)
    error = mine["log2_dosage"] - pd.Series(truth).reindex(mine.index)
    assert (abs(error) < 4 * mine["sd"] + 0.05).all()
    assert mine["log2_dosage"].min() < -1.8
    assert mine["log2_dosage"].max() > 1.0
    assert table["is_control"].sum() == 6  # NTC guides are the same in both lines
    ds.tl.fit_trans(adata)
    low, high = (adata.uns["trans"]["axis"][k] for k in ("low", "high"))
    assert low < -1.8
    assert high > 1.0


def test_lines_that_follow_the_guides_need_ntc_in_both() -> None:
    adata, _ = _two_lines(1200)
    adata.obs["guide"] = adata.obs["guide"].astype(str) + np.where(adata.obs["target"] == "NTC", "", adata.obs["line"])
    ds.tl.fit_technical(adata, batch_key="line", use_all_cells=True)  # the classes are in both lines alike
    with pytest.raises(ValueError, match=r"\.obs\['line'\] follows \.obs\['guide'\]"):
        ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_technical(adata, batch_key="line")
    ds.tl.fit_cis(adata, "GFI1B")
    assert ds.get.guides(adata)["log2_dosage"].min() < -1.5


def test_cells_without_a_level_take_no_part() -> None:
    adata = ds.datasets.titration(1000, 8, rng=0)
    adata.obs["line"] = pd.Categorical(np.where(np.arange(1000) % 2 == 0, "a", "b")).set_categories(["a"])
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B", guide_covariate_key="line")
    targeted = (adata.obs["target"] != "NTC").to_numpy()
    used = ds.get.cis(adata)["log2_x_true"].notna().to_numpy()
    assert not used[targeted & (np.arange(1000) % 2 == 1)].any()
    assert used[~targeted].all()


def test_a_matrix_of_guides_by_line() -> None:
    adata = ds.datasets.high_moi(2000, 10, moi=4, rng=0, n_ntc_guides=10, n_other_guides=10)
    ds.tl.fit_technical(adata, guides="guides", use_all_cells=True)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement", guide_covariate_key="batch")
    table = ds.get.guides(adata)
    mine = table[~table["is_control"]]
    assert len(mine) == 24
    one = mine[mine.index.str.endswith("|batch_1")]
    carried = adata.obsm["guides"][:, :12].toarray()[(adata.obs["batch"] == "batch_1").to_numpy()]
    assert one["n_cells"].tolist() == carried.sum(0).tolist()


def test_what_is_known_before_takes_the_place_of_the_population() -> None:
    adata = ds.datasets.titration(600, 8, rng=0, cis_mean=1.0)
    ds.tl.fit_technical(adata)
    plain = ds.tl.fit_cis(adata, "GFI1B", copy=True)
    before = ds.get.guides(plain)[["log2_dosage", "sd"]].iloc[:2].assign(log2_dosage=[-5.0, -1.0], sd=[0.01, 10.0])
    ds.tl.fit_cis(adata, "GFI1B", guide_prior=before)
    got, was = ds.get.guides(adata), ds.get.guides(plain)
    assert got["log2_dosage"].iloc[0] == pytest.approx(-5.0, abs=0.05)
    assert got["sd_acting"].iloc[0] < 0.011
    assert got["sd"].iloc[1] > was["sd"].iloc[1]  # next to nothing is known of it, and no other guide helps
    pd.testing.assert_frame_equal(got.iloc[2:], was.iloc[2:], atol=0.02)  # they are integrated at other points
    ds.tl.fit_cis(adata, "GFI1B", guide_prior={"GFI1B_g01": (-5.0, 0.01), "GFI1B_g02": (-1.0, 10.0)}, key_added="b")
    pd.testing.assert_frame_equal(ds.get.guides(adata, key="b"), got)
    whole = ds.get.guides(plain).rename(index={"NTC_01": "NTC_of_another_screen"})
    ds.tl.fit_cis(adata, "GFI1B", guide_prior=whole, key_added="c")  # controls are known by definition
    assert (ds.get.guides(adata, key="c")["sd"] < was["sd"] + 1e-12).all()
    for wrong, message in (
        (before.assign(sd=0.0), "an sd that is not above 0"),
        (before.drop(columns="sd"), r"no column \['sd'\]"),
        ({"nobody": (0.0, 1.0)}, "guides that take no part: .*nobody"),
    ):
        with pytest.raises(ValueError, match=message):
            ds.tl.fit_cis(adata, "GFI1B", guide_prior=wrong)
    with pytest.raises(ValueError, match="of inference='laplace'"):
        ds.tl.fit_cis(adata, "GFI1B", guide_prior=before, inference="svi")


def test_guides_are_drawn_to_those_of_their_target() -> None:
    adata = ds.datasets.titration(700, 8, rng=2, cis_mean=0.4, n_guides=16, dosage_range=(-3.0, 0.0))
    weak = adata.obs["guide"].astype(str).str[-2:].astype(int).between(9, 16) & (adata.obs["target"] != "NTC")
    adata.obs["target"] = np.where(weak, "enhancer", adata.obs["target"].astype(str))
    ds.tl.fit_technical(adata)
    for pooling in ("all", "target"):
        ds.tl.fit_cis(adata, "GFI1B", cis_targets=["GFI1B", "enhancer"], pooling=pooling, key_added=pooling)
    tables = {p: ds.get.guides(adata, key=p) for p in ("all", "target")}
    spread = {}
    for p, t in tables.items():
        means = t[~t["is_control"]].groupby("target")["log2_dosage"].mean()
        spread[p] = means["enhancer"] - means["GFI1B"]
    assert spread["target"] > spread["all"] > 0  # each target by itself is drawn less to the other


def test_another_layer_and_other_labels_than_in_the_technical_step() -> None:
    adata = ds.datasets.titration(800, 8, rng=0)
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    adata.layers["counts"], adata.X = adata.X.copy(), adata.X * 3.0
    adata.obs["what"] = adata.obs["target"].astype(str).replace("NTC", "control")
    ds.tl.fit_cis(adata, "GFI1B", layer="counts", target_key="what", control="control", key_added="other")
    pd.testing.assert_frame_equal(ds.get.guides(adata), ds.get.guides(adata, key="other").replace("control", "NTC"))


def test_a_cell_without_a_level_is_no_control() -> None:
    adata = ds.datasets.high_moi(1500, 8, moi=4, rng=0, n_ntc_guides=10, n_other_guides=10)
    adata.obs["line"] = pd.Categorical(np.where(np.arange(1500) % 3 == 0, None, "a"))
    ds.tl.fit_technical(adata, guides="guides", use_all_cells=True)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement", guide_covariate_key="line")
    acting = np.asarray(adata.obsm["guides"][:, :12].sum(1)).ravel() > 0
    used = ds.get.cis(adata)["log2_x_true"].notna().to_numpy()
    assert not used[acting & (np.arange(1500) % 3 == 0)].any()
    assert used[acting & (np.arange(1500) % 3 > 0)].all()
    assert used[~acting].all()


def test_only_ntc_guides_pose_in_a_calibration() -> None:
    adata = ds.datasets.high_moi(3000, 12, moi=3, rng=0, n_ntc_guides=8, n_other_guides=20)
    ds.tl.fit_technical(adata, guides="guides", use_all_cells=True)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    table = ds.get.guides(adata)
    assert (table["is_control"] & (table["target"] != "NTC")).sum() > 5  # guides of other targets help out
    quick = {"function_type": "single_hill", "nsamples": 50}
    ds.tl.fit_trans(adata, **quick)
    with pytest.raises(ValueError, match=r"cannot be regrouped.*take 'guide_sets' out of \.uns\['cis'\]"):
        ds.tl.calibrate(adata, n=3)
    del adata.uns["cis"]["guide_sets"]
    ds.tl.fit_trans(adata, **quick)
    ds.tl.calibrate(adata, n=3)
    posing = ds.get.calibration(adata, "regroupings")["targeting"]
    assert all(name.startswith("NTC") for row in posing for name in row.split("; "))
