"""Figures of the trans table: values of their tables against what was stored, and what is on the axes against both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import dream_sc as ds
from dream_sc.pl._labels import label_points
from dream_sc.pl._style import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from mudata import MuData

pytestmark = pytest.mark.usefixtures("few_null_features")

SINGLE = ("volcano", "heatmap", "classes", "forest", "guides", "technical", "cis")
SEVERAL = ("convergence", "priors")
FDR = 0.05


@pytest.fixture(scope="module")
def fitted() -> AnnData:
    adata = ds.datasets.titration(1500, 40, rng=3, single_fraction=0.5, additive_fraction=0.0, mean_range=(1.0, 4.0))
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, nsamples=100)
    return adata


@pytest.fixture(scope="module")
def table(fitted: AnnData) -> pd.DataFrame:
    return ds.get.trans(fitted, sort=True)


def _drawn(ax: Any) -> np.ndarray:
    """All points on the axes that are drawn as circles."""
    return np.concatenate([line.get_xydata() for line in ax.get_lines() if line.get_marker() == "o"])


@pytest.mark.parametrize("name", SINGLE + SEVERAL)
def test_every_plot_takes_axes_a_size_and_a_title(fitted: AnnData, name: str) -> None:
    draw: Callable[..., Any] = getattr(ds.pl, name)
    drawn = np.ravel(draw(fitted, figsize=(5, 4), title="mine"))
    assert tuple(drawn[0].figure.get_size_inches()) == (5, 4)
    titles = [ax.get_title() for ax in drawn]
    assert titles == ["mine"] if name in SINGLE else drawn[0].figure.get_suptitle() == "mine"
    _, ax = plt.subplots()
    assert draw(fitted, ax=ax, title="on it") is ax
    assert ax.get_title() == "on it"
    with pytest.raises(ValueError, match="figsize="):
        draw(fitted, ax=ax, figsize=(5, 4))
    if name in SEVERAL:
        column = draw(fitted, ncols=1)
        assert len({round(panel.get_subplotspec().colspan.start) for panel in column}) == 1
        with pytest.raises(ValueError, match="ncols=1"):
            draw(fitted, ax=ax, ncols=1)


def test_the_dose_response_takes_them_too(fitted: AnnData, table: pd.DataFrame) -> None:
    names = list(table.index[:3])
    drawn = ds.pl.dose_response(fitted, names, ncols=1, figsize=(4, 8), title="all")
    assert drawn[0].figure.get_suptitle() == "all"
    assert {panel.get_subplotspec().colspan.start for panel in drawn} == {0}
    assert ds.pl.dose_response(fitted, names[0], title="one").get_title() == "one"
    for wrong in ({"ncols": 2}, {"scale": "derivative"}):
        with pytest.raises(ValueError, match=r"ncols=2|scale"):
            ds.pl.dose_response(fitted, names[0], **wrong)
    with pytest.raises(ValueError, match=r"features=\[\]"):
        ds.pl.dose_response(fitted, [])


def test_the_dose_response_as_fold_changes(fitted: AnnData, table: pd.DataFrame) -> None:
    name = table.index[0]
    points = ds.pl.dose_response_data(fitted, name).sort_values("is_control", kind="stable")
    ax = ds.pl.dose_response(fitted, name, scale="log2fc")
    drawn = np.concatenate([c.lines[0].get_xydata() for c in ax.containers])
    wanted = np.log2(points["mean"] / table.loc[name, "baseline"])
    np.testing.assert_allclose(drawn, np.column_stack([points["log2_dosage"], wanted]))
    median = next(line for line in ax.get_lines() if line.get_label() == "fit, 95 % band")
    curve = ds.get.dose_response(fitted, name, scale="log2fc")
    np.testing.assert_allclose(median.get_ydata(), curve["median"])
    assert "fold change" in ax.get_ylabel()
    ax = ds.pl.dose_response(fitted, name, scale="delta")
    level = next(line for line in ax.get_lines() if line.get_label() == "NTC level")
    assert level.get_ydata()[0] == 0


def test_escaping_cells_are_taken_off(fitted: AnnData, table: pd.DataFrame) -> None:
    adata, name = fitted.copy(), table.index[0]
    guides = adata.uns["trans"]["guides"].copy()
    guides.loc[0, ["escaper_fraction", "log2_dosage_acting"]] = 0.05, -4.0
    adata.uns["trans"]["guides"] = guides
    points = ds.pl.dose_response_data(adata, name).set_index("guide")
    first, level = points.loc[guides["guide"][0]], table.loc[name, "baseline"]
    assert first["log2_dosage_acting"] == -4.0
    assert 0.05 * level + 0.95 * first["mean_acting"] == pytest.approx(first["mean"])
    assert first["upper_acting"] - first["lower_acting"] == pytest.approx((first["upper"] - first["lower"]) / 0.95)
    others = points.drop(index=guides["guide"][0])
    np.testing.assert_array_equal(others["mean_acting"], others["mean"])
    ax = ds.pl.dose_response(adata, name)
    filled = np.concatenate([c.lines[0].get_xydata() for c in ax.containers])
    np.testing.assert_allclose(filled[0], [-4.0, first["mean_acting"]])
    hollow = next(line for line in ax.get_lines() if line.get_label() == "with escaping cells")
    np.testing.assert_allclose(hollow.get_xydata(), [[first["log2_dosage"], first["mean"]]])


def test_many_ntc_guides_are_one_point_with_their_spread(
    fitted: AnnData, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dream_sc.pl._curve.MOST_CONTROLS", 3)
    ax = ds.pl.dose_response(fitted, table.index[0])
    points = ds.pl.dose_response_data(fitted, table.index[0])
    control = points[points["is_control"].astype(bool)]
    summary = ax.containers[-1].lines[0].get_xydata()
    mean = np.average(control[["log2_dosage", "mean"]], axis=0, weights=control["n_cells"])
    np.testing.assert_allclose(summary, [mean])


def test_an_ec50_is_marked_only_where_it_may_be_reported(fitted: AnnData, table: pd.DataFrame) -> None:
    def marks(adata: AnnData) -> int:
        ax = ds.pl.dose_response(adata, name)
        return sum("EC50" in str(line.get_label()) for line in ax.get_lines())

    sure = table[(table["p_ec50_inside"] > 0.95) & (table["qvalue"] < FDR) & (table["model"] != "null")]
    name, adata = sure.index[0], fitted.copy()
    assert marks(adata)
    for value in (0.95, np.nan):
        adata.varm["trans"].loc[name, "p_ec50_inside"] = value
        assert not marks(adata)


def test_volcano_values(fitted: AnnData, table: pd.DataFrame) -> None:
    data = ds.pl.volcano_data(fitted)
    tested = table[table["qvalue"].notna()]
    assert set(data.index) == set(tested.index)
    np.testing.assert_array_equal(data["x"], tested.loc[data.index, "log2fc_full"])
    np.testing.assert_allclose(data["y"], -np.log10(tested.loc[data.index, "qvalue"]))
    called = tested.index[tested["qvalue"] < FDR]
    assert set(data.index[data["called"]]) == set(called)
    assert (data.loc[called, "direction"] == table.loc[called, "on_knockdown"].astype(str)).all()
    score = ds.pl.volcano_data(fitted, y="score")
    np.testing.assert_array_equal(score["y"], table.loc[score.index, "score"].abs())
    ec50 = ds.pl.volcano_data(fitted, x="log2_ec50")
    wanted = table[(table["qvalue"] < FDR) & (table["p_ec50_inside"] > 0.95)]
    assert set(ec50.index) == set(wanted.index)
    np.testing.assert_array_equal(ec50["x"], wanted.loc[ec50.index, "log2_ec50"])


def test_volcano_draws_every_point_and_names_the_surest(fitted: AnnData, table: pd.DataFrame) -> None:
    data = ds.pl.volcano_data(fitted)
    ax = ds.pl.volcano(fitted, label=5)
    points = _drawn(ax)
    assert len(points) == len(data)
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(data["x"]))
    shown = [text.get_text() for text in ax.texts]
    assert 1 <= len(shown) <= 5
    assert set(shown) <= set(data.index[:5])
    assert ax.get_xlim()[0] == -ax.get_xlim()[1]
    assert f"not called ({(~data['called']).sum()})" in [t.get_text() for t in ax.get_legend().get_texts()]
    null = table.index[-2]
    assert [t.get_text() for t in ds.pl.volcano(fitted, label=[null]).texts] in ([null], [])
    assert not ds.pl.volcano(fitted, label=0).texts
    with pytest.raises(ValueError, match="use x='log2fc'"):
        ds.pl.volcano(fitted, x="delta_p")
    with pytest.raises(ValueError, match="fdr=0"):
        ds.pl.volcano(fitted, fdr=0.0)


def test_labels_do_not_overlap() -> None:
    _, ax = plt.subplots(layout="constrained")
    x = np.random.default_rng(0).normal(size=(80, 2))
    ax.set_xlim(-3, 3)
    ax.set_ylim(-3, 3)
    labels = label_points(ax, x[:, 0], x[:, 1], [f"name {i}" for i in range(80)])
    assert labels[0].get_text() == "name 0"
    assert 10 < len(labels) < 80
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(label) for label in labels]  # without their lines
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    inside = ax.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)


@pytest.mark.parametrize("order", ["ec50", "cluster", "given"])
def test_heatmap_rows_are_curves(fitted: AnnData, table: pd.DataFrame, order: Any) -> None:
    data = ds.pl.heatmap_data(fitted, order=order)
    called = table.index[table["qvalue"] < FDR]
    assert set(data.index) == set(called)
    doses = data.columns.to_numpy()
    curve = ds.get.dose_response(fitted, list(called), doses=doses, scale="log2fc")
    wanted = curve.pivot(index="feature", columns="log2_dosage", values="median").loc[data.index]
    # medians of all stored draws, and of some of them drawn again
    np.testing.assert_allclose(data, wanted, atol=0.1)
    assert np.abs(data.to_numpy() - wanted.to_numpy()).mean() < 0.01
    if order == "given":
        assert list(ds.pl.heatmap_data(fitted, list(called[[3, 0]]), order="given").index) == list(called[[3, 0]])
    if order == "ec50":
        falls = data.iloc[:, 0] < data.iloc[:, -1]
        assert (np.diff(falls.astype(int)) <= 0).all()


def test_of_many_rows_every_other_draw_says_as_much(fitted: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    every = ds.pl.heatmap_data(fitted)
    monkeypatch.setattr("dream_sc.pl._curve.MANY", 1)
    half = ds.pl.heatmap_data(fitted).loc[every.index]
    assert not np.array_equal(half, every)
    np.testing.assert_allclose(half, every, atol=0.1)
    assert np.abs(half - every).to_numpy().mean() < 0.01


def test_heatmap_draws_the_table(fitted: AnnData, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    data = ds.pl.heatmap_data(fitted)
    ax = ds.pl.heatmap(fitted, limit=1.5)
    image = ax.images[0]
    np.testing.assert_array_equal(image.get_array(), data)
    assert image.get_clim() == (-1.5, 1.5)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(data.index)
    sure = (table.loc[data.index, "p_ec50_inside"] > 0.95).to_numpy()
    marks = next(line for line in ax.get_lines() if line.get_marker() == "|").get_xdata()
    np.testing.assert_array_equal(marks[sure], table.loc[data.index[sure], "log2_ec50"])
    assert np.isnan(np.asarray(marks, float)[~sure]).all()
    monkeypatch.setattr("dream_sc.pl._heatmap.MOST_NAMED", 3)
    assert not ds.pl.heatmap(fitted).get_yticklabels()
    monkeypatch.setattr("dream_sc.pl._heatmap.MOST_CLUSTERED", 3)
    with pytest.raises(ValueError, match="takes up to 3 features"):
        ds.pl.heatmap(fitted, order="cluster")
    with pytest.raises(ValueError, match="no feature"):
        ds.pl.heatmap(fitted, fdr=1e-300)


def test_classes(fitted: AnnData, table: pd.DataFrame) -> None:
    data = ds.pl.classes_data(fitted)
    called = table[table["qvalue"] < FDR]
    count = called["class"].astype(str).value_counts()
    assert data["n"].drop("not called").to_dict() == count.to_dict()
    assert data["n"].sum() == table["qvalue"].notna().sum()
    assert data["share"].sum() == pytest.approx(1)
    for name, row in data.drop(index="not called").iterrows():
        assert row["example"] == called.index[called["class"] == name][0]
    ax = ds.pl.classes(fitted)
    assert [bar.get_width() for bar in ax.patches] == list(data["n"])[:-1]
    assert len(ax.child_axes) == len(data) - 1
    assert ax.get_title().startswith(f"{len(called)} of ")


def test_forest(fitted: AnnData, table: pd.DataFrame) -> None:
    sure = table[(table["qvalue"] < FDR) & (table["p_ec50_inside"] > 0.95)]
    data = ds.pl.forest_data(fitted, n=5)
    assert set(data.index) == set(sure.index[:5])
    assert data["estimate"].is_monotonic_increasing
    np.testing.assert_array_equal(data["q025"], table.loc[data.index, "log2_ec50_q025"])
    ax = ds.pl.forest(fitted, n=5)
    assert [t.get_text() for t in ax.get_yticklabels()] == list(data.index)
    np.testing.assert_allclose(np.sort(_drawn(ax)[:, 0]), data["estimate"])
    effects = ds.pl.forest_data(fitted, list(table.index[:4]), value="effect")
    np.testing.assert_array_equal(effects["q975"], table.loc[effects.index, "log2fc_full_q975"])
    adata = fitted.copy()
    adata.varm["trans"].loc[table.index[0], ["log2_ec50", "log2_ec50_q025", "log2_ec50_q975"]] = np.nan
    assert table.index[0] not in ds.pl.forest_data(adata, list(table.index[:4])).index
    with pytest.raises(ValueError, match="no feature has a log2_ec50"):
        ds.pl.forest(adata, table.index[0])


def test_guides_that_depart(fitted: AnnData) -> None:
    quiet = ds.pl.guides_data(fitted)
    assert quiet["n_features"].between(20, 40).all()
    assert quiet["share_beyond"].mean() < 0.1
    # more counts in all features of one guide, in a third of its features
    adata = fitted.copy()
    guide = quiet.index[~quiet["is_control"].astype(bool)][-1]
    cells = np.flatnonzero(adata.obs["guide"] == guide)
    dense = adata.X.toarray()
    moved = np.arange(0, adata.n_vars, 3)
    dense[np.ix_(cells, moved)] *= 3
    adata.X = type(fitted.X)(dense)
    loud = ds.pl.guides_data(adata)
    assert loud.index[0] == guide
    assert loud["share_beyond"].iloc[0] == pytest.approx(1 / 3, abs=0.1)
    ax = ds.pl.guides(adata)
    assert guide in [text.get_text() for text in ax.texts]
    assert len(_drawn(ax)) == len(loud)
    # what the fit itself learned comes first
    adata.uns["trans"]["guides"]["departs"] = np.arange(len(loud)) / len(loud)
    learned = ds.pl.guides_data(adata)
    assert learned["departs"].is_monotonic_decreasing
    np.testing.assert_allclose(np.sort(_drawn(ds.pl.guides(adata))[:, 1]), np.sort(learned["departs"]))


def test_priors_are_densities(fitted: AnnData, table: pd.DataFrame) -> None:
    names = list(table.index[table["model"] == "single_hill"][:2])
    data = ds.pl.priors_data(fitted, names)
    for (parameter, _), part in data.groupby(["parameter", "feature"]):
        if part["density"].notna().all():
            x = part["x"] if parameter == "log2_ec50" else np.log2(part["x"])
            assert np.trapezoid(part["density"], x) == pytest.approx(1, abs=0.01)
    prior = data[(data["parameter"] == "log2_ec50") & (data["feature"] == "prior")]
    assert prior["x"].iloc[prior["density"].argmax()] == pytest.approx(0, abs=0.05)
    draws = ds.get.posterior(fitted, names[0])["log2_ec50"].to_numpy()
    own = data[(data["parameter"] == "log2_ec50") & (data["feature"] == names[0])]
    mean = np.trapezoid(own["density"] * own["x"], own["x"])
    assert mean == pytest.approx(draws.mean(), abs=0.1)
    tau = data[(data["parameter"] == "guide_sd") & (data["feature"] == names[1])]
    assert tau["x"].iloc[0] == pytest.approx(table.loc[names[1], "guide_sd"])
    panels = ds.pl.priors(fitted, names)
    assert len(panels) == 3
    assert [t.get_text() for t in panels[2].get_legend().get_texts()] == ["prior", *names]
    with pytest.raises(ValueError, match="name up to 7"):
        ds.pl.priors(fitted, list(table.index[table["qvalue"].notna()][:8]))


def test_convergence(fitted: AnnData, table: pd.DataFrame) -> None:
    adata = fitted.copy()
    adata.varm["trans"].loc[table.index[0], "pareto_k"] = 0.9
    data = ds.pl.convergence_data(adata)
    assert data.index[0] == table.index[0]
    assert list(data.index[~data["trusted"]]) == list(adata.var_names[adata.varm["trans"]["pareto_k"] > 0.7])
    left, right = ds.pl.convergence(adata)
    assert len(_drawn(left)) == data["pareto_k"].notna().sum()
    assert table.index[0] in [text.get_text() for text in left.texts]
    assert sum(bar.get_width() for bar in right.patches) == adata.n_vars


def _tables(names: pd.Index, lfc: np.ndarray, q: np.ndarray) -> dict[str, pd.DataFrame]:
    one = np.ones(len(names))
    return {
        "scanpy": pd.DataFrame({"names": names, "scores": lfc, "logfoldchanges": lfc, "pvals": q, "pvals_adj": q}),
        "edgeR": pd.DataFrame({"logFC": lfc, "logCPM": one, "F": one, "PValue": q, "FDR": q}, names),
        "DESeq2": pd.DataFrame({"baseMean": one, "log2FoldChange": lfc, "pvalue": q, "padj": q}, names),
        "sceptre": pd.DataFrame({"response_id": names, "grna_target": "G", "p_value": q, "log_2_fold_change": lfc}),
        "pertpy": pd.DataFrame({"variable": names, "p_value": q, "log_fc": lfc, "adj_p_value": q, "contrast": "a"}),
        "limma": pd.DataFrame({"logFC": lfc, "AveExpr": one, "P.Value": q, "adj.P.Val": q}, names),
    }


@pytest.mark.parametrize("tool", ["scanpy", "edgeR", "DESeq2", "sceptre", "pertpy", "limma"])
def test_tables_of_other_tools_are_recognised(fitted: AnnData, table: pd.DataFrame, tool: str) -> None:
    tested = table[table["qvalue"].notna()]
    other = _tables(tested.index, tested["log2fc_full"].to_numpy(), np.linspace(1e-9, 0.9, len(tested)))[tool]
    data = ds.pl.de_comparison_data(fitted, other, at="full")
    assert data.attrs["tool"] == tool
    np.testing.assert_array_equal(data["log2fc"], data["log2fc_table"])
    assert data["called"].sum() == (tested["qvalue"] < FDR).sum()
    assert 1 <= data["called_table"].sum() < 5
    ax = ds.pl.de_comparison(fitted, other, at="full")
    assert ax.get_title().startswith("r = 1.000")
    assert tool in ax.get_xlabel()
    assert len(_drawn(ax)) == len(data)


def test_one_feature_has_no_correlation(fitted: AnnData, table: pd.DataFrame) -> None:
    best = table["qvalue"].idxmin()
    other = pd.DataFrame({"log2FoldChange": [1.0], "padj": 0.01}, [best])
    ax = ds.pl.de_comparison(fitted, other, at="full")  # warnings are errors here
    assert ax.get_title() == "1 feature"
    assert len(_drawn(ax)) == 1


def test_the_mean_over_targeting_cells_is_what_a_comparison_estimates(fitted: AnnData, table: pd.DataFrame) -> None:
    target, scaled = fitted.obs["target"] == "GFI1B", fitted.X.toarray() / fitted.obs[["size_factor"]].to_numpy()
    lfc = np.log2(scaled[target].mean(0) / scaled[~target].mean(0))
    other = pd.DataFrame({"log2FoldChange": lfc, "padj": 0.5}, fitted.var_names)
    data = ds.pl.de_comparison_data(fitted, other)
    called = data[data["called"]]
    assert called["log2fc"].corr(called["log2fc_table"]) > 0.97
    slope = (called["log2fc"] @ called["log2fc_table"]) / (called["log2fc_table"] @ called["log2fc_table"])
    assert slope == pytest.approx(1, abs=0.15)
    doubled = pd.concat([other.assign(group="a"), other.assign(group="b")])
    with pytest.raises(ValueError, match="several rows of"):
        ds.pl.de_comparison_data(fitted, doubled)
    with pytest.raises(ValueError, match="no known tool"):
        ds.pl.de_comparison_data(fitted, other[["padj"]])
    with pytest.raises(ValueError, match="gene_symbols="):
        ds.pl.de_comparison_data(fitted, other.add_prefix("x", axis=0))


def test_names_are_no_math_text(fitted: AnnData, table: pd.DataFrame) -> None:
    adata = fitted.copy()
    name = r"$\alpha$ a_rather_long_name_of_a_feature_$x_{1"
    adata.var_names = [name if n == table.index[0] else n for n in adata.var_names]
    adata.varm["trans"].index = adata.var_names
    adata.varm["technical"].index = adata.var_names
    for draw in (ds.pl.volcano, ds.pl.heatmap, ds.pl.forest, ds.pl.classes, ds.pl.priors, ds.pl.guides):
        np.ravel(draw(adata))[0].figure.canvas.draw()
    for features in (name, [name, table.index[1]]):
        ax = np.ravel(ds.pl.dose_response(adata, features))[0]
        ax.figure.canvas.draw()
        assert r"\$\alpha\$" in ax.get_title()
    assert plain("a$b") == r"a\$b"
    assert len(plain(40 * "x")) == 32
    assert plain(40 * "x").count("…") == 1


def test_a_dark_style_keeps_fit_and_marks_visible(fitted: AnnData, table: pd.DataFrame) -> None:
    with plt.style.context("dark_background"):
        ax = ds.pl.dose_response(fitted, table.index[0])
        median = next(line for line in ax.get_lines() if line.get_label() == "fit, 95 % band")
        assert median.get_color() == "white"
        assert ax.containers[0].lines[0].get_markeredgecolor() == (0.0, 0.0, 0.0, 1.0)
        bars = ds.pl.classes(fitted).patches
        assert bars[0].get_facecolor()[2] > 0.9
    ax = ds.pl.dose_response(fitted, table.index[0])
    median = next(line for line in ax.get_lines() if line.get_label() == "fit, 95 % band")
    assert median.get_color() == "black"


@pytest.mark.parametrize("mod", ["psi", "score", "usage", "layers"])
def test_other_modalities(modalities: MuData, mod: str) -> None:
    table = ds.get.trans(modalities, mod=mod, sort=True)
    effect = "delta_full" if mod == "score" else "delta_p_full"
    data = ds.pl.volcano_data(modalities, mod=mod)
    np.testing.assert_array_equal(data["x"], table.loc[data.index, effect])
    assert "change of the" in ds.pl.volcano(modalities, mod=mod).get_xlabel()
    heat = ds.pl.heatmap_data(modalities, list(table.index[:3]), mod=mod)
    np.testing.assert_allclose(heat.iloc[:, 0], table.loc[heat.index, effect], atol=0.15 if mod != "score" else 0.5)
    for draw in (ds.pl.heatmap, ds.pl.classes, ds.pl.convergence, ds.pl.priors):
        draw(modalities, mod=mod)
    ds.pl.forest(modalities, mod=mod, value="effect")
    shares = ds.pl.guides_data(modalities, mod=mod)["share_beyond"]
    assert shares.dropna().between(0, 1).all()
    ds.pl.guides(modalities, mod=mod)
    with pytest.raises(ValueError, match="of counts"):
        ds.pl.de_comparison_data(modalities, pd.DataFrame(), mod=mod)


def test_a_fit_without_dosages(fitted: AnnData) -> None:
    adata = fitted.copy()
    ds.tl.fit_trans(adata, dosage="none", cis_targets="GFI1B", nsamples=100, key_added="none")
    name = ds.get.trans(adata, key="none", sort=True).index[0]
    ax = ds.pl.dose_response(adata, name, key="none", scale="log2fc")
    # GFI1B_g09 leaves the gene as it is
    assert [t.get_text() for t in ax.get_xticklabels()] == ["NTC guides", "acting guides", "inert guides"]
    data = ds.pl.volcano_data(adata, key="none")
    np.testing.assert_array_equal(data["x"], ds.get.trans(adata, key="none").loc[data.index, "log2fc_full"])
    for draw in (ds.pl.volcano, ds.pl.classes, ds.pl.convergence):
        draw(adata, key="none")
    with pytest.raises(ValueError, match="without dosages"):
        ds.pl.guides(adata, key="none")
    guides = adata.uns["none"]["guides"].set_index("guide")["p_acts"]
    assert guides.index[guides < 0.05].tolist() == ["GFI1B_g09"]
    places = [line.get_xdata() for line in ax.get_lines() if line.get_linestyle() == "None"]
    assert sum(np.sum(np.asarray(x) == 1.5) + np.sum(np.abs(np.asarray(x) - 2.0) < 0.5) for x in places) >= 1
