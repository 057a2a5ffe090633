"""Dosages of a part of the movement, and of a fold change."""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds
from dream_sc.get._doses import _first
from dream_sc.get._names import TransFit


def test_a_line_is_crossed_where_it_should_be() -> None:
    x = np.linspace(0.0, -2.0, 21)
    curves = np.stack([-x / 2, -x, np.zeros(21), np.ones(21)])
    place = _first(x, curves, np.array([0.25, 0.5]))
    np.testing.assert_allclose(place[0], [-0.5, -1.0])
    np.testing.assert_allclose(place[1], [-0.25, -0.5])
    assert (place[2] == -np.inf).all()  # beyond the end
    assert (place[3] == np.inf).all()  # before the first


def test_doses_are_those_of_the_curve(titration_fit: ad.AnnData) -> None:
    table = ds.get.doses(titration_fit)
    assert list(table) == ["feature", "level", "log2_dosage", "q025", "q975", "p_reached"]
    assert list(dict.fromkeys(table["feature"])) == list(ds.get.responders(titration_fit).index)
    assert (table["q025"] <= table["log2_dosage"]).all()
    assert (table["log2_dosage"] <= table["q975"]).all()
    low = titration_fit.uns["trans"]["axis"]["low"]
    for name in list(dict.fromkeys(table["feature"]))[:5]:
        own = table[table["feature"] == name].set_index("level")["log2_dosage"]
        curve = ds.get.dose_response(titration_fit, name, doses=[0.0, own[0.5], low])["median"].to_numpy()
        assert abs((curve[1] - curve[0]) / (curve[2] - curve[0]) - 0.5) < 0.08
        assert own[0.1] > own[0.5] > own[0.9]


def test_doses_hold_the_truth(titration_fit: ad.AnnData) -> None:
    table = ds.get.doses(titration_fit)
    x = np.linspace(0.0, titration_fit.uns["trans"]["axis"]["low"], 2001)
    inside = []
    for name, own in table.groupby("feature"):
        curve = ds.datasets.true_curve(titration_fit, str(name), x)[0]
        share = (curve - curve[0]) / (curve[-1] - curve[0])
        truth = [x[(share >= level).argmax()] for level in own["level"]]
        inside += list((own["q025"] <= truth) & (truth <= own["q975"]))
    assert np.mean(inside) > 0.8


def test_a_fold_change_has_a_dosage_on_one_side_of_ntc(titration_fit: ad.AnnData) -> None:
    best = ds.get.responders(titration_fit).iloc[0]
    name, way = str(best.name), np.sign(best["log2fc_full"])
    table = ds.get.doses(titration_fit, name, level=[], fold_change=[0.5 * way, 20.0])
    assert table["fold_change"].tolist() == [0.5 * way, 20.0]
    reached, never = table.iloc[0], table.iloc[1]
    assert reached["p_reached"] > 0.95
    at = ds.get.dose_response(titration_fit, name, doses=[reached["log2_dosage"]], scale="log2fc")["median"].iloc[0]
    assert abs(at - 0.5 * way) < 0.1
    assert never["p_reached"] == 0
    assert never[["log2_dosage", "q025", "q975"]].isna().all()


@pytest.mark.parametrize(("name", "value"), [("level", 1.0), ("level", [0.5, 0.0]), ("fold_change", 0.0)])
def test_levels_out_of_range_are_refused(titration_fit: ad.AnnData, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        ds.get.doses(titration_fit, **{name: value})


def test_doses_in_the_unit_of_the_user() -> None:
    rng, dose = np.random.default_rng(0), np.repeat([0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0], 12)
    response = 10.0 + 5.0 * dose / (dose + 1.0)
    obs = pd.DataFrame({"dose": dose, "well": [f"w{d:g}" for d in dose]}, [f"c{i}" for i in range(len(dose))])
    adata = ad.AnnData(response[:, None] + rng.normal(0, 0.2, (len(dose), 3)), obs, pd.DataFrame(index=["a", "b", "c"]))
    adata.obs["target"] = np.where(dose > 0, "drug", "NTC")
    ds.tl.fit_technical(adata, distribution="normal")
    ds.tl.set_dosage(adata, "dose", label_key="well", scale="dose")
    ds.tl.fit_trans(adata)
    table = ds.get.doses(adata, "a", level=[0.1, 0.5], fold_change=2.5).set_index("level")
    # half of what the top dose does: 5 * 30 / 31 / 2
    half = 5 * 30 / 31 / 2
    assert abs(table["log2_dosage"].iloc[1] - np.log2(half / (5 - half))) < 0.4
    assert abs(table["log2_dosage"].iloc[2] - 0.0) < 0.4
    assert table["q025"].iloc[1] < table["q975"].iloc[1]
    effects = ds.get.guide_effects(adata, "a").set_index("guide")
    assert abs(effects.loc["w1", "delta"] - 2.5) < 0.3
    curve = ds.get.dose_response(adata, "a", doses=[0.0], scale="delta")["median"].iloc[0]
    assert abs(effects.loc["w1", "fitted"] - curve) < 1e-9
    assert "the dosage was given" in " ".join(ds.get.summary(adata).lower().split())
    assert set(ds.get.columns("guide_effects", distribution="normal")) == {*effects.columns, "guide"}
    full = ds.get.trans(adata)["log2_dosage_full"]
    np.testing.assert_allclose(full, np.log2(30.0))


@pytest.mark.parametrize(
    ("axis", "ends"),
    [
        ({"low": -3.0, "high": 1.0}, [-3.0, 1.0]),
        ({"low": -3.0, "high": 0.05}, [-3.0]),
        ({"low": -0.05, "high": 2.0}, [2.0]),
        ({"low": -0.05, "high": 0.05}, [-0.05]),
        ({"low": 1.0, "high": 5.0, "zero": -23.0}, [28.0]),
    ],
)
def test_the_ends_of_what_was_perturbed(axis: dict[str, float], ends: list[float]) -> None:
    fit = TransFit(ad.AnnData(), "trans", pd.DataFrame(), {"axis": axis}, pd.Index([]))
    assert fit.ends == ends
    assert fit.end == ends[0]
