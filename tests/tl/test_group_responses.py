"""Groups of responders: stored, read back, drawn, refused."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import dream_sc as ds
from dream_sc._keys import GROUP_COLUMNS

pytestmark = pytest.mark.usefixtures("few_null_features")

P = ["p_early", "p_proportional", "p_threshold", "p_buffered"]


@pytest.fixture(scope="module")
def grouped(titration_fit):
    return ds.tl.group_responses(titration_fit, copy=True)


def test_features_that_follow_the_dosage_have_a_group(grouped, titration_fit):
    table, fit = grouped.varm["groups"], ds.get.trans(titration_fit)
    assert list(table.columns) == list(GROUP_COLUMNS)
    called = (fit["qvalue_graded"] < 0.05) & (fit["qvalue"] < 0.05)
    assert called.sum() > 3
    assert (table["group"].notna() == called.reindex(table.index)).all()
    assert "groups" not in titration_fit.uns
    found = ds.get.groups(grouped)
    total = found[P].sum(axis=1)
    assert ((total > 0) & (total <= 1 + 1e-9)).all()
    sure = found[found["group"] != "unclear"]
    named = sure[P].to_numpy()[np.arange(len(sure)), sure["group"].cat.codes]
    assert (named >= 0.5).all()
    assert (found["half_at"].dropna() <= 0).all()


def test_what_is_done_early_is_nearer_to_controls(grouped):
    found = ds.get.groups(grouped)
    low = grouped.uns["groups"]["params"]["end"]
    early = found[found["p_early"] > 0.9]
    late = found[(found["p_buffered"] > 0.9) & found["half_at"].notna()]
    assert len(early) + len(late) > 0
    assert (early["half_at"] > low / 3 - 0.05).all()
    assert (late["half_at"] < low * 2 / 3 + 0.05).all()


def test_one_group_is_read_and_others_are_refused(grouped):
    every = ds.get.groups(grouped)
    name = every["group"].iloc[0]
    assert (ds.get.groups(grouped, name)["group"] == name).all()
    with pytest.raises(ValueError, match="buffered"):
        ds.get.groups(grouped, "late")
    with pytest.raises(KeyError, match="group_responses"):
        ds.get.groups(ds.datasets.titration(60, 5))


def test_the_result_survives_a_file(grouped, tmp_path):
    import anndata as ad

    grouped.write_h5ad(tmp_path / "a.h5ad")
    again = ds.get.groups(ad.read_h5ad(tmp_path / "a.h5ad"))
    expected = ds.get.groups(grouped)
    assert again.index.tolist() == expected.index.tolist()
    assert again["group"].tolist() == expected["group"].tolist()
    assert np.allclose(again[P], expected[P])


def test_a_heatmap_by_group(grouped):
    frame = ds.pl.heatmap_data(grouped, groups="groups")
    found = ds.get.groups(grouped)
    assert frame.attrs["groups"] == found.loc[frame.index, "group"].astype(str).tolist()
    codes = found.loc[frame.index, "group"].cat.codes
    assert codes.is_monotonic_increasing
    ax = ds.pl.heatmap(grouped, groups="groups")
    texts = [text.get_text() for text in ax.texts]
    assert {text.split(" (")[0] for text in texts} == set(frame.attrs["groups"])
    plt.close(ax.figure)
    with pytest.raises(KeyError, match="group_responses"):
        ds.pl.heatmap(grouped, groups="other")


def test_a_higher_probability_leaves_more_unclear(titration_fit):
    strict = ds.get.groups(ds.tl.group_responses(titration_fit, probability=0.99, copy=True))
    mild = ds.get.groups(ds.tl.group_responses(titration_fit, probability=0.3, copy=True))
    assert (strict["group"] == "unclear").sum() > (mild["group"] == "unclear").sum()


def test_the_side_of_activation(titration_fit):
    found = ds.tl.group_responses(titration_fit, side="activation", key_added="up", copy=True)
    assert found.uns["up"]["params"]["end"] > 0
    assert (ds.get.groups(found, key="up")["half_at"].dropna() >= 0).all()


@pytest.mark.parametrize(
    ("more", "error", "text"),
    [
        ({"probability": 1.0}, ValueError, "probability"),
        ({"fdr": 0}, ValueError, "fdr"),
        ({"side": "up"}, ValueError, "side"),
        ({"key": "other"}, KeyError, "fit_trans"),
        ({"key_added": "trans"}, ValueError, "another name"),
    ],
)
def test_bad_input_is_refused(titration_fit, more, error, text):
    with pytest.raises(error, match=text):
        ds.tl.group_responses(titration_fit, copy=True, **more)
