"""Dose-response plots of shares, usage and scores: what guides show, areas, labels, files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mudata as md
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy import sparse, stats
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit
from statsmodels.stats.proportion import proportion_confint

import dream_sc as ds
from dream_sc.get._names import trans_fit
from dream_sc.pl._dose_response import EC50, LEVEL
from dream_sc.pl._usage import areas, levels

if TYPE_CHECKING:
    from pathlib import Path

    from mudata import MuData

pytestmark = pytest.mark.usefixtures("few_null_features")

ONE = {"psi": "e1", "score": "s1", "robust": "t1", "usage": "j1_q", "layers": "l1:q"}
FEATURE = {"usage": "d1", "layers": "l1"}


def _cells(both: MuData, mod: str, guide: str) -> tuple[AnnData, np.ndarray]:
    """Cells of a guide in a modality, and which are of the second technical group."""
    rna = both.mod["rna"]
    used = rna.obs_names[(rna.obs["guide"] == guide) & rna.obsm["cis"]["log2_x_true"].notna()]
    part = both.mod[mod][[n for n in both.mod[mod].obs_names if n in set(used)]]
    groups = list(both.mod[mod].uns["technical"]["groups"])
    return part, part.obs["batch"].astype(str).map({g: i for i, g in enumerate(groups)}).to_numpy()


def _shown(legend: Any) -> list[str]:
    return [text.get_text() for text in legend.get_texts()]


def test_points_of_shares(modalities: MuData) -> None:
    table = ds.pl.dose_response_data(modalities, "e1", mod="psi")
    assert len(table) == len(modalities.mod["rna"].uns["cis"]["guides"])
    adata = modalities.mod["psi"]
    effects = adata.varm["technical_effects"][1]
    rho = adata.varm["technical"]["overdispersion"].iloc[1]
    assert np.ptp(effects) > 0.2
    for _, row in table.iloc[[0, 3, -1]].iterrows():
        cells, group = _cells(modalities, "psi", row["guide"])
        y, n = cells.X[:, 1].toarray().ravel(), cells.layers["denominator"][:, 1].toarray().ravel()
        eta = brentq(lambda e, n=n, y=y, group=group: (n * expit(e + effects[group]) - y).sum(), -20, 20)
        assert row["mean"] == pytest.approx(expit(eta))
        worth = n.sum() / (1 + rho * (n * (n - 1)).sum() / n.sum())
        assert row["n_effective"] == pytest.approx(worth)
        low, high = proportion_confint(worth * expit(eta), worth, method="wilson")
        assert (row["lower"], row["upper"]) == pytest.approx((low, high))
        assert (row["n_reads"], row["n_cells"]) == (n.sum(), len(n))


@pytest.mark.parametrize("mod", ["score", "robust"])
def test_points_of_scores(modalities: MuData, mod: str) -> None:
    name = ONE[mod]
    table = ds.pl.dose_response_data(modalities, name, mod=mod)
    adata = modalities.mod[mod]
    effects, sigma = adata.varm["technical_effects"][1], adata.varm["technical"]["sigma"].iloc[1]
    for _, row in table.iloc[[0, 3, -1]].iterrows():
        cells, group = _cells(modalities, mod, row["guide"])
        x = cells.X[:, 1] - effects[group]
        x = x[np.isfinite(x)]
        assert row["n_scores"] == len(x) < row["n_cells"]
        if mod == "score":
            assert row["mean"] == pytest.approx(x.mean())
            assert row["se"] == pytest.approx(sigma / np.sqrt(len(x)))
        else:

            def loss(at: float, x: np.ndarray = x) -> float:
                return -stats.t.logpdf(x, 3, at, sigma).sum()

            best = minimize_scalar(loss, (x.min(), np.median(x), x.max()))
            assert row["mean"] == pytest.approx(best.x, abs=1e-3)
            assert row["se"] == pytest.approx(sigma * np.sqrt(1.5 / len(x)))


def test_points_of_usage(modalities: MuData) -> None:
    table = ds.pl.dose_response_data(modalities, "d1", mod="usage")
    np.testing.assert_allclose(table.groupby("guide")["mean"].sum(), 1)
    same = ds.pl.dose_response_data(modalities, "l1", mod="layers")
    np.testing.assert_allclose(same["mean"], table["mean"])
    assert list(dict.fromkeys(same["category"])) == ["p", "q", "r"]
    one = ds.pl.dose_response_data(modalities, "j1_q", mod="usage")
    pd.testing.assert_frame_equal(one, table[table["category"] == "j1_q"].reset_index(drop=True))
    # of the category that moves, the guides follow the fit better than a level
    curve = ds.get.dose_response(modalities, "j1_p", mod="usage", doses=one["log2_dosage"].to_numpy())
    points = ds.pl.dose_response_data(modalities, "j1_p", mod="usage")
    weight = points["n_reads"]
    near = (weight * (points["mean"] - curve["median"]) ** 2).sum()
    assert near < 0.3 * (weight * (points["mean"] - np.average(points["mean"], weights=weight)) ** 2).sum()
    assert (curve["median"].between(points["lower"], points["upper"])).mean() > 0.75


def test_without_groups_usage_is_the_share_of_reads(modalities: MuData) -> None:
    both = md.MuData({"rna": modalities.mod["rna"], "usage": modalities.mod["usage"][:, :9].copy()})
    ds.tl.fit_technical(both, mod="usage", distribution="multinomial", category_key="donor")
    ds.tl.fit_trans(both, mod="usage", cis_mod="rna", nsamples=100)
    table = ds.pl.dose_response_data(both, "d1", mod="usage")
    for guide in table["guide"].unique()[:3]:
        y = np.asarray(_cells(both, "usage", guide)[0].X.sum(0)).ravel()[3:6]
        np.testing.assert_allclose(table.loc[table["guide"] == guide, "mean"], y / y.sum())


@pytest.mark.parametrize("mod", list(ONE))
def test_a_curve_of_its_own(modalities: MuData, mod: str) -> None:
    name = ONE[mod]
    ax = ds.pl.dose_response(modalities, name, mod=mod)
    points = ds.pl.dose_response_data(modalities, name, mod=mod).sort_values("is_control", kind="stable")
    drawn = np.concatenate([c.lines[0].get_xydata() for c in ax.containers])
    np.testing.assert_allclose(drawn, points[["log2_dosage", "mean"]])
    level = next(line for line in ax.get_lines() if line.get_label() == LEVEL)
    fit = trans_fit(modalities, "trans", mod)
    assert level.get_ydata()[0] == fit.row(int(fit.find(name)[0]))["baseline"]
    if mod in ("psi", "usage", "layers"):
        assert ax.get_ylim() == pytest.approx((-0.03, 1.03))
        assert "share of reads" in ax.get_ylabel()
    else:
        assert "score" in ax.get_ylabel()
        assert ("robust" in ax.get_ylabel()) == (mod == "robust")
    assert "NTC guides" in _shown(ax.get_legend())
    assert ax.get_title().startswith(f"{name}: ")


def test_the_ec50_is_that_of_the_leading_category(modalities: MuData) -> None:
    table = ds.get.trans(modalities, mod="usage")
    leading = str(table.loc["d1", "category"])
    for name, marked in ((leading, True), ("d1", True), ("j1_q", False)):
        ax = ds.pl.dose_response(modalities, name, mod="usage")
        marks = [line for line in ax.get_lines() if line.get_label() == EC50 and len(line.get_xdata()) == 1]
        assert bool(marks) == marked
        if marked:
            assert marks[0].get_xdata()[0] == table.loc["d1", "log2_ec50"]
    assert leading != "j1_q"
    assert "part of d1" in ax.get_title()


@pytest.mark.parametrize("mod", list(FEATURE))
def test_usage_is_drawn_as_areas(modalities: MuData, mod: str) -> None:
    name = FEATURE[mod]
    ax = ds.pl.dose_response(modalities, name, mod=mod)
    fit = trans_fit(modalities, "trans", mod)
    usage = areas(fit, name)
    np.testing.assert_allclose(usage.sum(axis=1), 1)
    curves = ds.get.dose_response(modalities, name, mod=mod).pivot(
        index="log2_dosage", columns="category", values="median"
    )
    np.testing.assert_allclose(usage, curves.div(curves.sum(axis=1), axis=0)[usage.columns])
    leading = ds.get.trans(modalities, name, mod=mod)["category"].iloc[0]
    assert usage.columns[0] == leading
    assert _shown(ax.get_legend())[:3] == list(usage.columns[::-1])
    assert f"{leading} " in ax.get_title()
    # guides at the border of the first area
    points = ds.pl.dose_response_data(modalities, name, mod=mod)
    first = points[(points["category"] == leading) & points["is_control"].astype(bool)]
    np.testing.assert_allclose(ax.containers[0].lines[0].get_xydata(), first[["log2_dosage", "mean"]])
    assert ds.pl.dose_response(modalities, name, mod=mod, legend=False).get_legend() is None


def test_many_categories(modalities: MuData) -> None:
    rng = np.random.default_rng(0)
    rna = modalities.mod["rna"]
    counts = rng.poisson(np.linspace(0.05, 0.6, 11), (rna.n_obs, 11)).astype(float)
    counts[:, 4] = 0
    many = AnnData(sparse.csr_matrix(counts), rna.obs[["guide", "target"]].copy())
    many.var_names = [f"t{k}" for k in range(11)]
    many.var["gene"] = "g"
    both = md.MuData({"rna": rna, "many": many})
    ds.tl.fit_technical(both, mod="many", distribution="multinomial", category_key="gene")
    ds.tl.fit_trans(both, mod="many", cis_mod="rna", nsamples=100)
    ax = ds.pl.dose_response(both, "g", mod="many")
    shown = _shown(ax.get_legend())
    assert shown[0] == "other (3)"
    assert len([text for text in shown if text.startswith("t")]) == 1 + 7  # "targeting guides" among them
    assert "t4" not in shown
    with pytest.raises(ValueError, match="no count in any cell"):
        ds.pl.dose_response(both, "t4", mod="many")


def test_grids_and_axes_given(modalities: MuData) -> None:
    panels = ds.pl.dose_response(modalities, ["d1", "d6", "j1_p"], mod="usage")
    assert [bool(ax.get_legend()) for ax in panels] == [True, True, False]
    assert "targeting guides" in _shown(panels[0].figure.legends[0])
    ax = ds.pl.dose_response(modalities, "e1", mod="psi")
    ax.clear()
    assert ds.pl.dose_response(modalities, "d1", mod="usage", ax=ax) is ax


def test_wrong_names(modalities: MuData) -> None:
    for draw in (ds.pl.dose_response, ds.pl.dose_response_data):
        with pytest.raises(KeyError, match="d7"):
            draw(modalities, "d9", mod="usage")
        with pytest.raises(KeyError, match="feature:layer"):
            draw(modalities, "q", mod="layers")
    part = md.MuData({"rna": modalities.mod["rna"], "usage": modalities.mod["usage"][:, ["j1_p", "j1_q"]].copy()})
    with pytest.raises(ValueError, match="before taking a subset"):
        ds.pl.dose_response(part, "d1", mod="usage")


def test_files(modalities: MuData, tmp_path: Path) -> None:
    modalities.write(tmp_path / "a.h5mu")
    again = md.read_h5mu(tmp_path / "a.h5mu")
    for mod, name in (ONE | {"usage": "d1"}).items():
        pd.testing.assert_frame_equal(
            ds.pl.dose_response_data(again, name, mod=mod), ds.pl.dose_response_data(modalities, name, mod=mod)
        )
        assert ds.pl.dose_response(again, name, mod=mod).get_title()
        assert ds.get.posterior(again, name, mod=mod, nsamples=3).equals(
            ds.get.posterior(modalities, name, mod=mod, nsamples=3)
        )
    for by in ("feature", "category"):
        pd.testing.assert_frame_equal(
            ds.get.trans(again, mod="layers", by=by), ds.get.trans(modalities, mod="layers", by=by)
        )


def test_a_backed_file(modalities: MuData, tmp_path: Path) -> None:
    psi = modalities.mod["psi"].copy()
    rna = modalities.mod["rna"]
    # the fit in the same object, so that it can be read by itself
    psi.obsm["cis"] = rna.obsm["cis"].reindex(psi.obs_names)
    psi.uns["cis"] = rna.uns["cis"]
    psi.uns["trans"]["cis_mod"] = None
    psi.write_h5ad(tmp_path / "a.h5ad")
    backed = read_h5ad(tmp_path / "a.h5ad", backed="r")
    pd.testing.assert_frame_equal(ds.pl.dose_response_data(backed, "e1"), ds.pl.dose_response_data(psi, "e1"))
    backed.file.close()


@pytest.mark.parametrize("by", ["category_key", "category_layers"])
def test_categories_without_dosages_are_drawn_by_feature_and_by_category(by: str) -> None:
    adata, rng = ds.datasets.titration(500, 6, rng=3, n_guides=5), np.random.default_rng(1)
    total = rng.poisson(6.0, (adata.n_obs, 3))
    first = rng.binomial(total, np.where(adata.obs["target"] == "GFI1B", 0.75, 0.3)[:, None])
    parts = [first.astype(float), (total - first).astype(float)]
    if by == "category_key":
        var = pd.DataFrame({"donor": [f"d{i // 2}" for i in range(6)]}, [f"j{i}" for i in range(6)])
        usage = AnnData(sparse.csr_matrix(np.stack(parts, 2).reshape(adata.n_obs, -1)), adata.obs.copy(), var)
        how, feature, category = {by: "donor"}, "d1", "j2"
    else:
        usage = AnnData(sparse.csr_matrix(total.astype(float)), adata.obs.copy())
        usage.var_names = [f"d{i}" for i in range(3)]
        usage.layers["inc"], usage.layers["exc"] = (sparse.csr_matrix(x) for x in parts)
        how, feature, category = {by: ["inc", "exc"]}, "d1", "d1:inc"
    ds.tl.fit_technical(usage, distribution="multinomial", **how)
    ds.tl.fit_trans(usage, dosage="none", cis_targets="GFI1B")
    for name in (feature, category):
        ax = ds.pl.dose_response(usage, name)
        assert ax.get_title().startswith(f"{name}: ")
        assert [t.get_text() for t in ax.get_xticklabels()] == ["NTC guides", "acting guides"]
    found = levels(trans_fit(usage, "trans", None, None), feature)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    leading = found[category.removeprefix("d1:")]
    np.testing.assert_allclose([leading.iloc[0], leading.iloc[-1]], [0.3, 0.75], atol=0.05)
    panels = ds.pl.dose_response(usage, [feature, category])
    assert len(panels) == 2
