"""Names of genes and guides with signs that matplotlib takes for mathematics are drawn as they stand."""

from __future__ import annotations

from typing import Any

import anndata as ad
import matplotlib.pyplot as plt
import pytest
from matplotlib.text import Text

import dream_sc as ds

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


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_draws_them(odd: ad.AnnData, name: str) -> None:
    options: dict[str, Any] = {"features": list(ODD)} if name in ONE else {}
    if name == "forest":
        options = {"features": list(ODD), "value": "effect"}
    elif name in ("technical", "heatmap"):
        options = {"features": list(ODD)}
    elif name == "volcano":
        options = {"label": list(ODD)}
    getattr(ds.pl, name)(odd, **options)
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
