"""Code of the documentation that says it runs as written."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import dream_sc as ds

if TYPE_CHECKING:
    import anndata as ad

ROOT = Path(ds.__file__).parents[2]
PAGE = ROOT / "docs" / "splicing.md"
START = {"README.md": "## Quick start", "docs/quickstart.md": "## Three steps"}
END = {"README.md": "## The table", "docs/quickstart.md": "## From a shell"}


def blocks(text: str) -> list[str]:
    """The blocks of Python of a page."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def small(make: Any) -> ad.AnnData:
    """A titration that has what the pages name: two cis genes, a column of `.obs`, one of `.var`."""
    adata = make(900, 24, rng=0)
    second = [g for g in adata.obs["guide"].unique() if g.startswith("GFI1B")][::2]
    adata.obs["target"] = adata.obs["target"].astype(str).where(~adata.obs["guide"].isin(second), "NFE2")
    adata.obs["pct_counts_mt"] = np.random.default_rng(0).gamma(2.0, 2.0, adata.n_obs)
    adata.var["gene_name"] = adata.var_names.str.replace("gene_", "SYM")
    adata.var.loc["gene_0003", "gene_name"] = "MYB"
    adata.var_names = adata.var_names.str.replace("gene_0001", "NFE2").str.replace("gene_0002", "gene name")
    return adata


@pytest.mark.slow
@pytest.mark.parametrize("page", START)
def test_the_quick_start_runs_as_written(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / page
    if not path.exists():
        pytest.skip("the documentation is not beside the package")
    monkeypatch.setattr(ds.datasets, "titration", partial(small, ds.datasets.titration))
    text, space = path.read_text(), dict[str, Any]()
    found = blocks(text[text.index(START[page]) : text.index(END[page])])
    assert len(found) >= 3
    for block in found:
        exec(block, space)
    adata = space["adata"]
    assert {"technical", "cis", "trans", "calibration", "confounding"} <= set(adata.uns)
    assert (ds.get.trans(adata)["status"] == "converged").sum() > 10


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the package")
def test_a_splice_modality_is_fitted_as_the_page_says() -> None:
    text = PAGE.read_text()
    space: dict[str, object] = {}
    for block in blocks(text[text.index("## Fit it") :]):
        exec(block, space)
    table = ds.get.trans(space["data"], mod="donor")
    called = table["qvalue"] < 0.05
    assert called.iloc[:10].sum() >= 8
    assert called.iloc[10:].sum() <= 2
    assert called["chr1:90000:+"]
    assert table.loc["chr1:90000:+", "category"] == "chr1:90000-90500"
