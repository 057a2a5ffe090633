"""What the plots show: marks, labels and their values against the tables."""

from __future__ import annotations

import numpy as np
import pytest

import dream_sc as ds
from dream_sc.pl._dose_response import EC50

pytestmark = pytest.mark.usefixtures("few_null_features")


@pytest.fixture(scope="module")
def fitted():
    adata = ds.datasets.titration(1500, 20, rng=3, single_fraction=0.5, additive_fraction=0.0, mean_range=(1.0, 4.0))
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=100)
    return adata


@pytest.fixture(autouse=True)
def closed():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def _texts(legend) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


def test_dose_response_marks_the_ec50_of_responders_only(fitted) -> None:
    table = ds.get.trans(fitted, sort=True)
    inside = table[(table["model"] != "null") & table["log2_ec50"].between(-2.5, 0.8)].index[0]
    ax = ds.pl.dose_response(fitted, inside)
    marks = [line for line in ax.get_lines() if line.get_label() == EC50 and len(line.get_xdata()) == 1]
    np.testing.assert_allclose(marks[0].get_xdata()[0], table.loc[inside, "log2_ec50"])
    null = table[table["model"] == "null"].index[-1]
    ax = ds.pl.dose_response(fitted, null)
    assert not [line for line in ax.get_lines() if line.get_label() == EC50]
    assert "no response" in ax.get_title()


def test_dose_response_points_are_the_guides(fitted) -> None:
    name = fitted.var_names[3]
    points = ds.pl.dose_response_data(fitted, name)
    ax = ds.pl.dose_response(fitted, name, legend=False)
    drawn = np.concatenate([c.lines[0].get_xydata() for c in ax.containers])
    wanted = points.sort_values("is_control", kind="stable")[["log2_dosage", "mean"]].to_numpy()
    np.testing.assert_allclose(drawn, wanted)


def test_legend_can_be_left_out(fitted) -> None:
    name = fitted.var_names[3]
    assert "NTC guides" in _texts(ds.pl.dose_response(fitted, name).get_legend())
    assert ds.pl.dose_response(fitted, name, legend=False).get_legend() is None
    panels = ds.pl.dose_response(fitted, list(fitted.var_names[1:3]))
    assert "truth" in _texts(panels[0].figure.legends[0])


def test_one_axes_takes_one_feature(fitted) -> None:
    ax = ds.pl.dose_response(fitted, fitted.var_names[1])
    with pytest.raises(ValueError, match="one feature"):
        ds.pl.dose_response(fitted, list(fitted.var_names[1:3]), ax=ax)


def test_means_are_plain_numbers_within_a_power_of_ten(fitted) -> None:
    order = ds.get.technical(fitted)["mu"].sort_values().index
    ax = ds.pl.technical(fitted[:, [order[-2], order[-1]]].copy())
    ax.figure.canvas.draw()
    low, high = ax.get_xlim()
    assert high < 10 * low
    texts = [t.get_text() for which in ("major", "minor") for t in ax.xaxis.get_ticklabels(which=which)]
    shown = [float(text) for text in texts if text]  # no "5 x 10^0"
    assert sum(low <= x <= high for x in shown) >= 2


def test_technical_draws_a_group(fitted) -> None:
    table = ds.get.technical(fitted)
    ax = ds.pl.technical(fitted, group="batch_2")
    drawn = np.asarray(ax.containers[0].lines[0].get_ydata(), dtype=float)
    np.testing.assert_allclose(drawn, table.loc[table["mu"].notna(), "effect_batch_2"].to_numpy(float))
    assert "batch_2" in ax.get_ylabel()
    reference, other = fitted.uns["technical"]["groups"][:2]
    assert ds.pl.technical(fitted, group=other).get_title() == ""
    title = ds.pl.technical(fitted, group=reference).get_title().replace("\n", " ")
    assert title == f"{reference}: the reference, 0 by definition"
    assert ds.pl.technical(fitted, group=reference, title="mine").get_title() == "mine"
    with pytest.raises(ValueError, match="batch_7"):
        ds.pl.technical(fitted, group="batch_7")


def test_cis_shows_the_truth_of_simulated_data(fitted) -> None:
    ax = ds.pl.cis(fitted)
    truth = next(line for line in ax.get_lines() if line.get_label() == "truth")
    guides = ds.pl.cis_data(fitted)
    known = fitted.uns["titration"]["guides"].set_index("guide")["log2_dosage"]
    np.testing.assert_allclose(truth.get_xdata(), known[guides.index])
    assert [t.get_text() for t in ax.get_yticklabels()] == list(guides.index)


def test_labels_of_all_features_are_thinned(fitted) -> None:
    every = [text.get_text() for text in ds.pl.technical(fitted, features="all").texts]
    assert 1 <= len(every) == len(set(every)) <= fitted.n_vars
    assert set(every) <= set(fitted.var_names)
    two = list(fitted.var_names[2:4])
    assert {text.get_text() for text in ds.pl.technical(fitted, features=two).texts} <= set(two)


def test_confounding_says_where_p_values_are_cut(fitted) -> None:
    adata = fitted.copy()
    ds.tl.check_confounding(adata, batch_key="batch")
    assert "above 6" not in ds.pl.confounding(adata).get_xlabel()
    checks = adata.uns["confounding"]["checks"]
    checks.loc[checks["pvalue_adjusted"].first_valid_index(), "pvalue_adjusted"] = 1e-20
    ax = ds.pl.confounding(adata, title="checks", figsize=(7, 4))
    assert "triangles: above 6" in ax.get_xlabel()
    cut = np.concatenate([line.get_xydata() for line in ax.get_lines() if line.get_marker() == ">"])
    np.testing.assert_allclose(cut[:, 0], [6.0])
    assert ax.get_title() == "checks"
    assert tuple(ax.figure.get_size_inches()) == (7, 4)
