"""Names of genes and guides with signs that matplotlib takes for mathematics are drawn as they stand."""

from __future__ import annotations

import itertools
from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import dream_sc as ds
from dream_sc.pl._style import name_panel

pytestmark = pytest.mark.usefixtures("few_null_features")

ODD = ("$", "$x_{", r"$\frac{1}$", "a$b$c", "50%_^x", r"\alpha", "$$")
ONE = {"dose_response", "compare"}  # which take a feature
SKIPPED = {"memory", "power", "de_comparison"}  # of sizes and plans, and of another tool's table
PLOTS = [name for name in ds.pl.__all__ if not name.endswith("_data") and name not in SKIPPED]


@pytest.fixture(scope="module")
def odd() -> ad.AnnData:
    adata = ds.datasets.titration(500, 12, rng=0, n_guides=5)
    names = list(adata.var_names)
    for i, name in enumerate(ODD, 1):
        names[i] = name
    names[0] = "GFI$1_{B"
    adata.var_names = names
    adata.obs["target"] = adata.obs["target"].astype(str).replace({"GFI1B": names[0]})
    adata.obs["guide"] = adata.obs["guide"].astype(str).str.replace("GFI1B_g", "g$_{")
    adata.obs["batch"] = adata.obs["batch"].astype(str).str.replace("batch_", "$b_{")
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, names[0])
    ds.tl.fit_trans(adata, function_type="single_hill")
    ds.tl.calibrate(adata, n=2)
    ds.tl.check_confounding(adata)
    adata.obs["line"] = ["$l_{" if i % 2 else "k$" for i in range(adata.n_obs)]
    ds.tl.compare(adata, "line", n_null=0, progress=False)
    return adata


def screen_of(adata: ad.AnnData) -> pd.DataFrame:
    """A table of targets and features with odd names, as of `tl.screen`."""
    table = ds.get.trans(adata).rename_axis("feature").reset_index()
    return pd.concat([table.assign(target=name, qvalue_union=0.01, log2fc_full=1.0) for name in ODD], ignore_index=True)


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_draws_them(odd: ad.AnnData, name: str) -> None:
    options: dict[str, Any] = {"features": list(ODD)} if name in ONE else {}
    if name == "forest":
        options = {"features": list(ODD), "value": "effect"}
    elif name in ("technical", "heatmap"):
        options = {"features": list(ODD)}
    elif name == "volcano":
        options = {"label": list(ODD)}
    getattr(ds.pl, name)(odd if name != "screen" else screen_of(odd), **options)
    figure = plt.gcf()
    figure.canvas.draw()  # math text that is none fails here
    texts = [t.get_text() for t in figure.findobj(Text) if "$" in t.get_text()]
    # what is left of mathematics is our own
    for text in texts:
        rest = text.replace(r"\$", "")
        assert rest.count("$") % 2 == 0, text


@pytest.mark.parametrize("feature", ODD)
def test_a_title_has_the_name_as_it_stands(odd: ad.AnnData, feature: str) -> None:
    ax = ds.pl.dose_response(odd, feature)
    ax.figure.canvas.draw()
    assert feature.replace("$", r"\$") in ax.get_title(loc="left") + ax.get_title() + ax.get_title(loc="right")


@pytest.mark.parametrize("name", ["TP53", "gene_0215", "lncRNA_" * 3 + "$a$_b", "ENSG00000012048.23_" * 9, "W" * 200])
@pytest.mark.parametrize(("ncols", "width"), [(n, w) for n in (1, 3) for w in (2.2, 3.6, 4.4)] + [(6, 2.2)])
def test_a_title_stays_within_its_panel(name: str, ncols: int, width: float) -> None:
    figure = Figure(figsize=(width * ncols, 3.0), layout="constrained")
    panels = figure.subplots(1, ncols, squeeze=False).ravel()
    for ax in panels:
        ax.set_ylabel("count at size factor 1")
        ax.plot([-3, 0], [0.0, 2000.5])
        name_panel(ax, name, r"rises on knock-down, q = $2.9\times10^{-10}$")
    figure.draw_without_rendering()
    extents = [ax.title.get_window_extent() for ax in panels]
    assert extents[0].x0 >= 0
    assert extents[-1].x1 <= figure.bbox.x1
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(extents))
    text = panels[0].get_title()
    assert "rises on knock-down, q" in text.replace("\n", " ")
    if len(name) <= 36:
        assert name.replace("$", r"\$") in text


@pytest.mark.parametrize("own", ["wide", "bare", "tiny"])
def test_a_title_stays_within_axes_of_the_user(own: str) -> None:
    figure = Figure(figsize=(1.2, 1.0) if own == "tiny" else (5.0, 3.0))
    ax = figure.add_axes((0.3, 0.2, 0.4, 0.5)) if own == "bare" else figure.subplots()
    name_panel(ax, "gene_0215", "rises on knock-down, q = 0.01")
    figure.draw_without_rendering()
    extent = ax.title.get_window_extent()
    assert extent.x0 >= 0
    assert extent.x1 <= figure.bbox.x1
