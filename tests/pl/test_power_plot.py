"""The figure of forecast power."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

import dream_sc as ds

PLAN = {"n_cells_per_guide": [25, 100], "log2_dosages": [-3, -2, -1]}


@pytest.fixture(scope="module")
def table():
    return ds.design.power(None, PLAN, log2fc=[0.5, 1], means=[0.1, 1])


def test_lines_are_levels_in_the_style_of_fold_changes(table):
    frame = ds.pl.power_data(table)
    assert list(frame.columns) == ["n_cells_per_guide", "mean", "log2fc", "power"]
    assert len(frame) == len(table)
    ax = ds.pl.power(table, title="a plan")
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 2 and line.get_marker() == "o"]
    assert len(lines) == 4
    assert [text.get_text() for text in ax.get_legend().get_texts()][:2] == ["mean 0.1", "mean 1"]
    assert ax.get_ylabel() == "power"
    plt.close(ax.figure)


def test_over_fold_changes_and_of_widths(table):
    some = table[table["n_cells_per_guide"] == 25]
    ax = ds.pl.power(some, x="log2fc", y="ec50_width")
    assert "fold change" in ax.get_xlabel()
    highest = max(line.get_ydata().max() for line in ax.get_lines() if len(line.get_ydata()) > 1)
    assert highest == pytest.approx(some["ec50_width"].max())
    plt.close(ax.figure)


def test_what_cannot_be_drawn_is_refused(table):
    with pytest.raises(TypeError, match="table="):
        ds.pl.power([1, 2])
    with pytest.raises(KeyError, match="lacks"):
        ds.pl.power_data(table.drop(columns="power"))
    with pytest.raises(KeyError, match="no column"):
        ds.pl.power_data(table, x="cells")
    with pytest.raises(ValueError, match="besides"):
        ds.pl.power_data(table.assign(depth=[1.0, 2.0] * 4))
