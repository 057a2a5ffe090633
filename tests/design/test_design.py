"""Forecasts of plans: what raises power, what is taken from a pilot, what is refused."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

import dream_sc as ds
from dream_sc._keys import POWER_COLUMNS

DOSAGES = [-3.0, -2.5, -2.0, -1.5, -1.0, -0.5]
PLAN = {"n_cells_per_guide": 50, "log2_dosages": DOSAGES}
ONE = {"log2fc": 1.0, "means": 0.5}


def test_a_row_per_plan_level_and_fold_change():
    plans = {**PLAN, "n_cells_per_guide": [50, 100], "depth": [0.5, 1.0]}
    table = ds.design.power(None, plans, log2fc=[0.5, -1], means=[0.1, 1, 5])
    assert list(table.columns) == list(POWER_COLUMNS)
    assert len(table) == 4 * 3 * 2
    assert table["power"].between(0, 1).all()
    assert (table["ec50_width"] > 0).all()
    assert set(table["log2fc"].round(9)) == {0.5, -1.0}
    assert (table["n_cells"] == 6 * table["n_cells_per_guide"] + table["n_ntc_cells"]).all()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n_cells_per_guide", [20, 80, 320]),
        ("n_guides", [4, 8, 24]),
        ("depth", [0.25, 1.0, 4.0]),
        ("n_ntc_cells", [20, 100, 1000]),
    ],
)
def test_more_of_anything_helps(name, values):
    table = ds.design.power({"guide_sd": 0.15}, {**PLAN, "n_ntc_cells": 100, name: values}, log2fc=0.8, means=0.5)
    assert (np.diff(table["power"]) > 0.02).all()
    assert table["ec50_width"].iloc[-1] < table["ec50_width"].iloc[0]


def test_larger_changes_of_more_counts_are_called_more_often():
    table = ds.design.power(None, PLAN, log2fc=[0.5, 1, 2], means=[0.1, 0.5, 2])
    wide = table.pivot(index="mean", columns="log2fc", values="power").to_numpy()
    assert (np.diff(wide, axis=0) >= 0).all()
    assert (np.diff(wide, axis=1) >= 0).all()


def test_guide_effects_set_a_limit_to_power():
    plan = {**PLAN, "n_cells_per_guide": 20000}
    small, large = (ds.design.power({"guide_sd": sd}, plan, **ONE)["power"].iloc[0] for sd in (0.05, 0.8))
    assert small > 0.95
    assert large < 0.6


def test_genes_without_a_response_are_hardly_called():
    table = ds.design.power(None, PLAN, log2fc=0.0, means=[0.1, 1.0])
    assert (table["power"] < 0.03).all()
    assert table["ec50_width"].isna().all()


def test_weaker_guides_see_less_of_the_same_gene():
    plans = pd.DataFrame({"n_cells_per_guide": [50, 50], "log2_dosages": [DOSAGES, [x / 4 for x in DOSAGES]]})
    table = ds.design.power(None, plans.set_index(pd.Index(["strong", "weak"])), **ONE)
    assert table["plan"].tolist() == ["strong", "weak"]
    assert table["power"].iloc[0] > table["power"].iloc[1] + 0.1
    apart = ds.design.power(None, {**PLAN, "log2_dosages": [x / 4 for x in DOSAGES]}, dosage_range=(-3, 0.05), **ONE)
    assert apart["power"].iloc[0] == pytest.approx(table["power"].iloc[1], abs=0.08)


def test_guides_of_one_dosage_tell_no_ec50():
    same, two = (ds.design.power(None, {**PLAN, "log2_dosages": x}, **ONE) for x in ([-2.0] * 6, [-3.0, -1.0]))
    assert same["ec50_width"].isna().all()
    assert two["ec50_width"].isna().all()
    assert same["power"].iloc[0] > 0.3


def test_moi_spares_cells():
    table = ds.design.power(None, {**PLAN, "moi": [1, 5]}, **ONE)
    assert table["n_cells"].iloc[0] == pytest.approx(5 * table["n_cells"].iloc[1], abs=5)
    assert table["power"].nunique() == 1


def test_the_same_seed_gives_the_same_table():
    first, again, other = (ds.design.power(None, PLAN, rng=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not np.allclose(first["power"], other["power"], atol=1e-6)
    assert np.allclose(first["power"], other["power"], atol=0.12)


def test_a_pilot_gives_levels_noise_and_plan(titration_fit):
    table = ds.design.power(titration_fit, None)
    guides = ds.get.guides(titration_fit)
    own = guides[guides["target"] == "GFI1B"]
    assert table["n_guides"].iloc[0] == len(own)
    assert table["n_cells_per_guide"].iloc[0] == round(own["n_cells"].mean())
    assert table["n_cells"].iloc[0] == pytest.approx(titration_fit.n_obs, rel=0.02)
    mean = titration_fit.varm["trans"]["mean"].dropna()
    assert table["mean"].min() == pytest.approx(mean.quantile(0.1), rel=0.1)
    assert (table.groupby("mean")["power"].max() > 0.5).any()
    more = ds.design.power(titration_fit, {"n_guides": 4})
    assert more["n_guides"].unique().tolist() == [4]


def test_what_helps_names_the_largest_gain():
    table = ds.design.what_helps({"guide_sd": 0.05}, {**PLAN, "n_cells_per_guide": 20}, log2fc=[1.0, 3.0], means=[0.3])
    gains = table.filter(like="power_more_")
    assert gains.shape == (2, 4)
    assert table["helps_most"].iloc[0] == gains.iloc[0].idxmax().removeprefix("power_more_")
    assert gains.iloc[0].max() > table["power"].iloc[0] + 0.05


def test_the_cheapest_plan_reaches_its_goal():
    goal = {"mean": 0.5, "log2fc": 1.0, "power": 0.8}
    fixed = {"log2_dosages": DOSAGES, "n_ntc_cells": 300}
    common = {"plan": fixed, "n_guides": [6, 12], "depths": [1.0]}
    table = ds.design.cheapest(None, goal, cost_per_cell=0.2, **common)
    assert table["reached"].all()
    assert table["cost"].is_monotonic_increasing
    best = table.iloc[0]
    assert best["cost"] == pytest.approx(0.2 * best["n_cells"])
    plan = {**fixed, "n_guides": int(best["n_guides"]), "n_cells_per_guide": int(best["n_cells_per_guide"])}
    assert ds.design.power(None, plan, **ONE)["power"].iloc[0] == pytest.approx(best["power"])
    fewer = ds.design.power(None, {**plan, "n_cells_per_guide": int(plan["n_cells_per_guide"] * 0.6)}, **ONE)
    assert fewer["power"].iloc[0] < 0.8
    dear = ds.design.cheapest(None, goal, cost_per_cell=0.0, cost_per_guide=10, **common)
    assert dear["n_guides"].iloc[0] == 6
    none = ds.design.cheapest(None, {**goal, "log2fc": 0.1}, cost_per_cell=1, cells_range=(10, 20), **common)
    assert not none["reached"].any()


def test_thirty_plans_take_seconds():
    plans = {**PLAN, "n_cells_per_guide": list(range(10, 160, 5))}
    start = time.process_time()
    table = ds.design.power(None, plans, means=[0.1, 1.0], log2fc=[0.5, 1.0])
    assert len(table) == 30 * 4
    assert time.process_time() - start < 15


@pytest.mark.parametrize(
    ("pilot", "plan", "more", "error", "text"),
    [
        (None, {"n_cells_per_guide": 50}, {}, ValueError, "log2_dosages"),
        (None, {"log2_dosages": DOSAGES}, {}, ValueError, "n_cells_per_guide"),
        (None, {**PLAN, "n_cell": 3}, {}, KeyError, "n_cells_per_guide"),
        (None, {**PLAN, "n_guides": 2.5}, {}, ValueError, "whole number"),
        (None, {**PLAN, "depth": 0}, {}, ValueError, "above 0"),
        (None, {**PLAN, "n_ntc_cells": 3, "n_ntc_guides": 5}, {}, ValueError, "n_ntc_guides"),
        (None, [50], {}, TypeError, "a mapping or a DataFrame"),
        (None, pd.DataFrame(), {}, ValueError, "without rows"),
        ({"levels": 1}, PLAN, {}, KeyError, "'level'"),
        ({"level": -1}, PLAN, {}, ValueError, "above 0"),
        ({"responders": 1.5}, PLAN, {}, ValueError, "share"),
        ("pilot.h5ad", PLAN, {}, TypeError, "of type AnnData"),
        (None, PLAN, {"fdr": 0}, ValueError, "fdr=0"),
        (None, PLAN, {"means": 0}, ValueError, "means"),
        (None, PLAN, {"hill_n": -1}, ValueError, "hill_n"),
        (None, PLAN, {"dosage_range": (1, -1)}, ValueError, "lower first"),
    ],
)
def test_bad_input_is_refused(pilot, plan, more, error, text):
    with pytest.raises(error, match=text):
        ds.design.power(pilot, plan, **more)


def test_a_pilot_without_fit_says_what_to_call():
    with pytest.raises(KeyError, match="fit_trans"):
        ds.design.power(ds.datasets.titration(60, 5), PLAN)


@pytest.mark.parametrize(
    ("goal", "error"),
    [({"mean": 1}, ValueError), ({"mean": 1, "log2fc": 1, "power": 2}, ValueError), ({"means": 1}, KeyError)],
)
def test_a_goal_that_is_none_is_refused(goal, error):
    with pytest.raises(error, match="goal="):
        ds.design.cheapest(None, goal, cost_per_cell=1, plan={"log2_dosages": DOSAGES})
