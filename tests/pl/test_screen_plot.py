"""Pictures of a whole library: their tables against the pairs, what is drawn against the tables."""

from __future__ import annotations

import logging

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

TARGETS = ("A", "B", "C", "D")
FEATURES = tuple(f"f{i}" for i in range(8))
# log2 fold changes of called pairs: B responds as A, C the other way round in two of three, D calls nothing
CALLS = {
    "A": {"f0": -1.0, "f1": 2.0, "f2": -0.5, "f3": 1.0},
    "B": {"f0": -2.0, "f1": 1.0, "f2": -1.0, "f3": 0.5},
    "C": {"f0": 1.0, "f1": -1.0, "f4": -3.0},
    "D": {},
}


@pytest.fixture
def table() -> pd.DataFrame:
    """What `tl.screen` returns of four targets and eight features."""
    rows = []
    for t, target in enumerate(TARGETS):
        for i, feature in enumerate(FEATURES):
            change = CALLS[target].get(feature)
            rows.append(
                {
                    "target": target,
                    "feature": feature,
                    "on_knockdown": None if change is None else "down" if change < 0 else "up",
                    "qvalue": 0.5 if change is None else 0.01,
                    "qvalue_union": np.nan if (target, feature) == ("D", "f7") else 0.6 if change is None else 0.02,
                    "lfdr": 0.9 if change is None else 0.01,
                    "log2fc_full": np.nan if (target, feature) == ("D", "f7") else change or 0.01 * (i + 1),
                    "log2_ec50": np.nan if change is None else -1.0 - t - 0.1 * i,
                    "p_ec50_inside": 0.0 if change is None or feature == "f2" else 0.99,
                }
            )
    return pd.DataFrame(rows)


def test_fold_changes_of_what_is_called_for_most_targets(table):
    frame = ds.pl.screen_data(table, n_features=2, order="given")
    assert list(frame.index) == ["A", "B", "C"]  # D calls nothing
    assert list(frame.columns) == ["f0", "f1"]
    np.testing.assert_array_equal(frame.to_numpy(), [[-1.0, 2.0], [-2.0, 1.0], [1.0, -1.0]])
    assert frame.attrs["called"] == [[True, True]] * 3
    every = ds.pl.screen_data(table)
    assert set(every.columns) == {"f0", "f1", "f2", "f3", "f4"}
    assert every.loc["C", "f2"] == pytest.approx(0.03)  # not called, and shown
    calls = pd.DataFrame(every.attrs["called"], every.index, every.columns)
    assert {t: set(calls.columns[calls.loc[t]]) for t in calls.index} == {t: set(CALLS[t]) for t in "ABC"}
    assert abs(list(every.index).index("A") - list(every.index).index("B")) == 1  # neighbours respond alike


def test_what_is_named_is_shown_as_named(table):
    frame = ds.pl.screen_data(table, targets=["D", "A"], features=["f7", "f0"], order="given")
    assert list(frame.index) == ["D", "A"]
    assert list(frame.columns) == ["f7", "f0"]
    assert np.isnan(frame.loc["D", "f7"])
    assert frame.attrs["called"] == [[False, False], [False, True]]
    by_calls = ds.pl.screen_data(table, targets=["D", "C", "A"], features=["f4", "f0"], order="calls")
    assert list(by_calls.index) == ["C", "A", "D"]
    assert list(by_calls.columns) == ["f0", "f4"]


def test_activation_stands_where_nothing_was_knocked_down(table):
    other = table.assign(log2fc_full=table["log2fc_full"].where(table["target"] != "A"), log2fc_max=0.7)
    frame = ds.pl.screen_data(other, order="given")
    assert (frame.loc["A"] == 0.7).all()
    assert frame.loc["B", "f0"] == -2.0


def test_responders_are_counted_by_direction(table):
    frame = ds.pl.screen_data(table, "responders", targets=list(TARGETS))
    assert list(frame.index) == ["A", "B", "C", "D"]
    assert frame.loc["A"].to_dict() == {"down": 2, "up": 2, "mixed": 0, "all": 4}
    assert frame.loc["C"].to_dict() == {"down": 2, "up": 1, "mixed": 0, "all": 3}
    assert frame.loc["D", "all"] == 0
    only = ds.pl.screen_data(table, "responders", features=["f4"])
    assert only["all"].to_dict() == {"C": 1}


def test_shared_responders_have_a_sign(table):
    frame = ds.pl.screen_data(table, "shared", order="given")
    assert frame.loc["A", "B"] == 1.0
    assert frame.loc["A", "C"] == pytest.approx(-2 / 5)  # two in opposite directions, of five that respond to either
    np.testing.assert_array_equal(frame.to_numpy(), frame.to_numpy().T)
    assert (np.diag(frame) == 1).all()


def test_ec50s_are_those_that_may_be_reported(table):
    frame = ds.pl.screen_data(table, "ec50")
    assert list(frame.columns) == ["target", "feature", "log2_ec50", "on_knockdown"]
    assert "f2" not in set(frame["feature"])
    assert len(frame) == 3 + 3 + 3
    middle = frame.groupby("target", sort=False)["log2_ec50"].median()
    assert list(middle.index) == ["C", "B", "A"]
    assert middle.is_monotonic_increasing


def test_the_map_has_the_values_and_pale_pairs(table):
    frame = ds.pl.screen_data(table)
    ax = ds.pl.screen(table, limit=2.5, title="all")
    image = ax.get_images()[0]
    np.testing.assert_allclose(image.get_array(), frame)
    assert image.get_clim() == (-2.5, 2.5)
    np.testing.assert_array_equal(np.asarray(image.get_alpha()) == 1, frame.attrs["called"])
    assert [label.get_text() for label in ax.get_yticklabels()] == list(frame.index)
    assert [label.get_text() for label in ax.get_xticklabels()] == list(frame.columns)
    assert ax.get_title() == "all"
    ax = ds.pl.screen(table, "shared", limit=0.5)
    assert ax.get_images()[0].get_clim() == (-0.5, 0.5)
    np.testing.assert_allclose(ax.get_images()[0].get_array(), ds.pl.screen_data(table, "shared"))


def test_bars_and_points_are_those_of_the_tables(table):
    ax = ds.pl.screen(table, "responders")
    assert all(float(x).is_integer() for x in ax.get_xticks())
    assert sum(bar.get_width() for bar in ax.patches) == sum(map(len, CALLS.values()))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["down on knock-down", "up on knock-down"]
    frame, ax = ds.pl.screen_data(table, "ec50"), ds.pl.screen(table, "ec50")
    points = np.concatenate([line.get_xydata() for line in ax.get_lines() if line.get_marker() == "o"])
    assert sorted(points[:, 0]) == sorted(frame["log2_ec50"])
    medians = next(line for line in ax.get_lines() if line.get_marker() == "|")
    np.testing.assert_allclose(medians.get_xdata(), frame.groupby("target", sort=False)["log2_ec50"].median())


def test_many_targets_are_not_named(table):
    copies = [table.assign(target=table["target"] + str(i)) for i in range(30)]
    many = pd.concat(copies, ignore_index=True)
    for show, words in {"fold_changes": "90 targets", "shared": "90 targets", "ec50": "90 targets"}.items():
        ax = ds.pl.screen(many, show)
        assert words in ax.get_ylabel()
        assert not any(label.get_text() for label in ax.get_yticklabels())
    ax = ds.pl.screen(many, "responders")
    assert sum(bar.get_height() for bar in ax.patches) == 30 * sum(map(len, CALLS.values()))
    assert "90 targets" in ax.get_xlabel()


@pytest.mark.parametrize("show", ["fold_changes", "responders", "shared", "ec50"])
def test_a_plot_takes_axes_or_a_size(table, show):
    ax = ds.pl.screen(table, show, figsize=(5, 4), title="mine")
    assert tuple(ax.figure.get_size_inches()) == (5, 4)
    assert ax.get_title() == "mine"
    _, mine = plt.subplots()
    assert ds.pl.screen(table, show, ax=mine) is mine
    with pytest.raises(ValueError, match="figsize="):
        ds.pl.screen(table, show, ax=mine, figsize=(5, 4))


def test_what_cannot_be_drawn_is_refused(table, tmp_path):
    with pytest.raises(ValueError, match="no pair is called"):
        ds.pl.screen(table, fdr=0.001)
    with pytest.raises(ValueError, match="nothing is called for these targets"):
        ds.pl.screen(table, targets="D")
    with pytest.raises(ValueError, match="has an EC50 that may be drawn"):
        ds.pl.screen(table, "ec50", features="f2")
    with pytest.raises(KeyError, match="no target"):
        ds.pl.screen(table, targets="E")
    with pytest.raises(KeyError, match="lacks"):
        ds.pl.screen(table.drop(columns="lfdr"))
    with pytest.raises(FileNotFoundError):
        ds.pl.screen(tmp_path / "none")
    for show, wrong in (
        ("responders", {"order": "calls"}),
        ("shared", {"n_features": 3}),
        ("ec50", {"limit": 2.0}),
        ("fold_changes", {"n_features": 3, "features": ["f1"]}),
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ds.pl.screen(table, show, **wrong)
    with pytest.raises(ValueError, match="limit="):
        ds.pl.screen(table, limit=-1.0)


def test_a_pair_that_is_there_twice_is_refused(table):
    for show in ("fold_changes", "responders", "shared", "ec50"):
        with pytest.raises(ValueError, match=r"32 pairs of a target and a feature are there more than once.*A with f0"):
            ds.pl.screen_data(pd.concat([table, table]), show)


def test_the_log_names_targets_without_a_call(table, caplog):
    with caplog.at_level(logging.INFO, logger="dream_sc"):
        ds.pl.screen(table, "responders")
    assert "left out, since nothing is called at fdr=0.05: D;" in caplog.text


def test_clusters_do_not_depend_on_the_order_of_rows(table):
    for show in ("fold_changes", "shared"):
        one = ds.pl.screen_data(table, show)
        other = ds.pl.screen_data(table.sample(frac=1.0, random_state=3), show)
        pd.testing.assert_frame_equal(one, other)


def test_the_scale_of_shared_responders_is_of_an_index_between_targets(table):
    ax = ds.pl.screen(table, "shared")
    image = ax.get_images()[0]
    np.testing.assert_array_equal(np.ma.getmaskarray(image.get_array()), np.eye(3, dtype=bool))
    assert image.get_clim() == (-1.0, 1.0)  # A and B share all
    assert "index of shared responders" in ax.figure.axes[1].get_ylabel()
    apart = ds.pl.screen(table, "shared", targets=["A", "C"])
    assert apart.get_images()[0].get_clim() == (-0.4, 0.4)
