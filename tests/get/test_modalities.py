"""Tables, curves and draws of shares, usage and scores against computations of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

import dream_sc as ds

if TYPE_CHECKING:
    from mudata import MuData

pytestmark = pytest.mark.usefixtures("few_null_features")

DOSES = np.array([-2.0, -0.5, 0.0, 0.4])
MODS = ("psi", "score", "robust", "usage", "layers")
NAMES = {"psi": "e1", "score": "s1", "robust": "t1", "usage": "d1", "layers": "l1"}


def _hill(x: np.ndarray, draws: dict[str, np.ndarray]) -> np.ndarray:
    """Log of one Hill at dosages relative to 0, from its formula: draws x dosages."""
    k, n = draws["log2_ec50"][:, None], np.exp(draws["log_n"])[:, None]
    curve = 1 + np.expm1(draws["b"][:, None]) / (1 + 2.0 ** (-n * (x - k)))
    at_ntc = 1 + np.expm1(draws["b"][:, None]) / (1 + 2.0 ** (n * k))
    return np.log(curve) - np.log(at_ntc)


def _draws(both: MuData, mod: str, name: str) -> dict[str, np.ndarray]:
    found = ds.get.posterior(both, name, mod=mod, nsamples=400)
    return {parameter: found[parameter].to_numpy()[0] for parameter in found}


@pytest.mark.parametrize(("mod", "name"), [("psi", "e1"), ("usage", "j1_q"), ("layers", "l1:q")])
def test_curves_of_shares_are_those_of_the_draws(modalities: MuData, mod: str, name: str) -> None:
    draws = _draws(modalities, mod, name)

    def share(x: np.ndarray) -> np.ndarray:
        return expit(draws["a"][:, None] + _hill(x, draws))

    wanted = {
        "expected": share(DOSES),
        "delta": share(DOSES) - share(np.zeros(1)),
        "derivative": (share(DOSES + 1e-4) - share(DOSES - 1e-4)) / 2e-4,
    }
    for scale, values in wanted.items():
        table = ds.get.dose_response(modalities, name, mod=mod, doses=DOSES, scale=scale, ci=0.9)
        found = table[["median", "lower", "upper"]].to_numpy().T
        np.testing.assert_allclose(found, np.quantile(values, [0.5, 0.05, 0.95], axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mod", ["score", "robust"])
def test_parameters_of_scores_are_in_their_unit(modalities: MuData, mod: str) -> None:
    draws = _draws(modalities, mod, NAMES[mod])
    far = ds.get.dose_response(modalities, NAMES[mod], mod=mod, doses=[-60.0, 0.0, 60.0])["median"].to_numpy()
    np.testing.assert_allclose(np.median(draws["a"]), far[1])
    # a Hill between two levels, but for half a per cent of the movement
    wide = draws | {"b": np.full(400, 1e-9)}
    share = _hill(DOSES, wide) / 1e-9
    values = draws["a"][:, None] + draws["b"][:, None] * share
    table = ds.get.dose_response(modalities, NAMES[mod], mod=mod, doses=DOSES)
    np.testing.assert_allclose(table["median"], np.median(values, 0), atol=0.02 * np.abs(far[2] - far[0]))
    baseline = ds.get.trans(modalities, NAMES[mod], mod=mod)["baseline"].iloc[0]
    assert abs(baseline - far[1]) < 0.05
    slope = ds.get.dose_response(modalities, NAMES[mod], mod=mod, doses=[0.0], scale="derivative")["median"].iloc[0]
    assert slope == pytest.approx(ds.get.trans(modalities, NAMES[mod], mod=mod)["slope_ntc"].iloc[0], rel=0.1)


def test_other_curves_of_scores(modalities: MuData) -> None:
    both = modalities.copy()
    ds.tl.fit_trans(both, mod="score", cis_mod="rna", function_type="polynomial", nsamples=100, key_added="power")
    axis = both.mod["score"].uns["power"]["axis"]
    t, t0 = ((2 * x - axis["low"] - axis["high"]) / (axis["high"] - axis["low"]) for x in (DOSES, np.zeros(1)))
    draws = ds.get.posterior(both, "s1", mod="score", key="power", nsamples=400).isel(feature=0)
    value = sum(draws[f"c{k}"].to_numpy()[:, None] * (t**k - t0**k) for k in range(1, 7))
    wanted = np.median(draws["a"].to_numpy()[:, None] + value, 0)
    found = ds.get.dose_response(both, "s1", mod="score", key="power", doses=DOSES)["median"]
    np.testing.assert_allclose(found, wanted, atol=0.02)
    ds.tl.fit_trans(both, mod="score", cis_mod="rna", function_type="additive_hill", nsamples=400, key_added="two")
    draws = ds.get.posterior(both, mod="score", key="two", nsamples=72)
    table = ds.get.trans(both, mod="score", key="two").loc[draws["feature"].to_numpy()]
    for parameter, amplitude in (("b1", "amplitude"), ("b2", "amplitude_b")):
        np.testing.assert_allclose(draws[parameter].median("draw"), table[amplitude], rtol=0.2, atol=0.1)
    assert (np.sign(draws["b1"]) == -np.sign(draws["b2"])).all()


def test_differences_of_counts_are_of_the_expected_count(modalities: MuData) -> None:
    rna = modalities.mod["rna"].copy()
    ds.tl.fit_trans(rna, function_type="single_hill", nsamples=100)
    name = rna.var_names[1]
    draws = {k: v.to_numpy()[0] for k, v in ds.get.posterior(rna, name, nsamples=400).items()}
    level = np.exp(draws["a"])[:, None]
    wanted = level * np.expm1(_hill(DOSES, draws))
    found = ds.get.dose_response(rna, name, doses=DOSES, scale="delta")["median"]
    np.testing.assert_allclose(found, np.median(wanted, 0), rtol=1e-6, atol=1e-9)
    fold = ds.get.dose_response(rna, name, doses=DOSES, scale="log2fc")["median"]
    np.testing.assert_allclose(fold, np.median(_hill(DOSES, draws), 0) / np.log(2), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("mod", MODS)
def test_fold_changes_are_of_counts(modalities: MuData, mod: str) -> None:
    with pytest.raises(ValueError, match='scale="delta"'):
        ds.get.dose_response(modalities, NAMES[mod], mod=mod, scale="log2fc")


def test_a_row_for_each_feature_or_category(modalities: MuData) -> None:
    stored = modalities.mod["usage"].varm["trans"]
    features = ds.get.trans(modalities, mod="usage")
    assert list(features.index) == [f"d{i}" for i in range(8)]
    for name, row in features.iterrows():
        own = stored.loc[row["category"]]
        assert str(row["category"]).startswith(str(name).replace("d", "j"))
        for column in ("lfdr", "baseline", "mean", "delta_p_full", "delta_p_range_q975", "log2_ec50"):
            assert row[column] == own[column] or (np.isnan(row[column]) and np.isnan(own[column]))
    every = ds.get.trans(modalities, mod="usage", by="category")
    assert list(every.index) == list(stored.index) == list(every["category"])
    pd.testing.assert_series_equal(every["delta_p_full"], stored["delta_p_full"])
    pd.testing.assert_series_equal(every["leading"], stored["category"], check_names=False)
    largest = every.groupby("feature")["delta_p_range"].idxmax()
    assert list(largest.loc[features.index]) == list(features["category"].astype(str))


def test_layers_give_what_a_key_gives(modalities: MuData) -> None:
    layers, usage = (ds.get.trans(modalities, mod=m, by="category") for m in ("layers", "usage"))
    assert list(layers.index[:4]) == ["l0:p", "l0:q", "l0:r", "l1:p"]
    assert list(layers["category"][:4]) == ["p", "q", "r", "p"]
    for column in ("lfdr", "baseline", "delta_p_full", "log2_ec50"):
        np.testing.assert_allclose(layers[column], usage[column], rtol=1e-6)
    stored = modalities.mod["layers"].uns["trans"]["categories"]
    np.testing.assert_array_equal(layers["delta_p_range"], stored["delta_p_range"])
    np.testing.assert_allclose(ds.get.trans(modalities, mod="layers")["lfdr"], layers["lfdr"][::3])


def test_a_later_technical_fit_does_not_change_how_a_table_is_read(modalities: MuData) -> None:
    both = modalities.copy()
    before = {mod: ds.get.trans(both, mod=mod, by="category") for mod in ("usage", "layers")}
    usage = both.mod["usage"]
    usage.var["other"] = np.repeat(["x", "y"], 12)
    ds.tl.fit_technical(both, mod="usage", batch_key="batch", distribution="multinomial", category_key="other")
    other = {"distribution": "multinomial", "category_layers": ["r", "q"]}
    ds.tl.fit_technical(both, mod="layers", batch_key="batch", **other)
    for mod, table in before.items():
        pd.testing.assert_frame_equal(ds.get.trans(both, mod=mod, by="category"), table)
        with pytest.raises(ValueError, match="was replaced by one of other categories"):
            ds.pl.dose_response(both, NAMES[mod], mod=mod)


def test_names_are_features_or_categories(modalities: MuData) -> None:
    table = ds.get.trans(modalities, ["d3", "j1_q", "d1"], mod="usage")
    assert list(table.index) == ["d3", "d1"]
    table = ds.get.trans(modalities, ["d3", "j1_q"], mod="usage", by="category")
    assert list(table.index) == ["j3_p", "j3_q", "j3_r", "j1_q"]
    assert list(ds.get.trans(modalities, ["l2:r", "l1"], mod="layers", by="category").index) == [
        "l2:r",
        "l1:p",
        "l1:q",
        "l1:r",
    ]
    ordered = ds.get.trans(modalities, mod="usage", sort=True)
    assert ordered["lfdr"].is_monotonic_increasing
    curves = ds.get.dose_response(modalities, ["d1", "j0_p"], mod="usage", doses=DOSES)
    assert list(curves.columns) == ["feature", "category", "log2_dosage", "median", "lower", "upper"]
    assert list(dict.fromkeys(zip(curves["feature"], curves["category"], strict=True))) == [
        ("d1", "j1_p"),
        ("d1", "j1_q"),
        ("d1", "j1_r"),
        ("d0", "j0_p"),
    ]
    total = curves[curves["feature"] == "d1"].groupby("log2_dosage")["median"].sum()
    np.testing.assert_allclose(total, 1, atol=0.03)
    draws = ds.get.posterior(modalities, mod="layers", nsamples=5)
    assert draws.sizes == {"category": 24, "draw": 5}
    assert set(draws["feature"].to_numpy()) == set(modalities.mod["layers"].var_names)
    none = ds.get.dose_response(modalities, [], mod="usage")
    assert list(none.columns) == list(curves.columns)
    assert len(none) == 0


def test_wrong_names(modalities: MuData) -> None:
    with pytest.raises(KeyError, match="j1_q"):
        ds.get.dose_response(modalities, "j1_x", mod="usage")
    with pytest.raises(KeyError, match="feature:layer"):
        ds.get.trans(modalities, "q", mod="layers")
    with pytest.raises(KeyError, match="var_names"):
        ds.get.posterior(modalities, "j1_q", mod="psi")
    with pytest.raises(ValueError, match="'binomial'"):
        ds.get.trans(modalities, mod="psi", by="category")
    with pytest.raises(ValueError, match="junction"):
        ds.get.trans(modalities, mod="usage", by="junction")


def test_a_subset_is_read_by_name(modalities: MuData) -> None:
    usage = modalities.mod["usage"]
    features = ds.get.trans(modalities, mod="usage")
    part = usage[:, [n for n in usage.var_names if n not in (features.loc["d1", "category"], "j2_p", "j2_q", "j2_r")]]
    table = ds.get.trans(part)
    assert list(table.index) == [f"d{i}" for i in (0, 1, 3, 4, 5, 6, 7)]
    assert np.isnan(table.loc["d1", "delta_p_full"])
    assert table.loc["d1", "lfdr"] == features.loc["d1", "lfdr"]
    layers = modalities.mod["layers"]
    pd.testing.assert_frame_equal(
        ds.get.trans(layers[:, ["l3", "l1"]], by="category").select_dtypes("number"),
        ds.get.trans(layers, ["l3", "l1"], by="category").select_dtypes("number"),
    )


def test_levels_are_what_was_simulated(modalities: MuData) -> None:
    """A share and its log odds, a score and its centre."""
    table = ds.get.trans(modalities, mod="psi")
    draws = ds.get.posterior(modalities, mod="psi", nsamples=127)
    np.testing.assert_allclose(draws["a"].median("draw"), logit(table["baseline"]), atol=0.05)
    score = ds.get.trans(modalities, mod="score")
    draws = ds.get.posterior(modalities, mod="score", nsamples=127)
    np.testing.assert_allclose(draws["a"].median("draw"), score["baseline"], atol=0.05)
    np.testing.assert_allclose(draws["b"].median("draw")[:4], score["amplitude"][:4], rtol=0.05)
