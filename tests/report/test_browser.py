"""The page in a browser: what is clicked is what is drawn, with the numbers of the tables."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import dream_sc as ds

if TYPE_CHECKING:
    from anndata import AnnData

DRIVER = Path(ds.__file__).parents[2] / "benchmarks" / "_browser.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DRIVER.exists(), reason="the benchmarks are not beside the package"),
]
CLICK = """(() => {
  const row = [...document.querySelectorAll("%s tbody tr")][%d];
  row.querySelector("button").click();
  return [row.querySelector("button").textContent, document.getElementById("%s").textContent,
          [...document.querySelectorAll("%s g > title")].map((title) => title.textContent)];
})()"""


@pytest.fixture(scope="module")
def driver() -> Any:
    pytest.importorskip("tornado")
    spec = importlib.util.spec_from_file_location("_browser", DRIVER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_browser"] = module
    spec.loader.exec_module(module)
    if module.CHROMIUM is None:
        pytest.skip("no browser is here")
    return module


def _shown(titles: list[str]) -> dict[str, float]:
    """Guides with their values, as the marks of a figure say them."""
    found = [re.match(r"(\S+)[^:]*: ([−\d.e]+)", title) for title in titles]
    return {m[1]: float(m[2].replace("−", "-")) for m in found if m and not m[0].startswith("EC50")}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_click_draws_that_feature(titration_fit: AnnData, driver: Any, tmp_path: Path) -> None:
    adata = titration_fit.copy()
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2 == 0, "A", "B")
    ds.tl.compare(adata, "line", n_null=0)
    path = ds.report(adata, tmp_path / "a.html")

    async def clicked() -> tuple[Any, ...]:
        async with driver.browser() as page:
            await page.opened(path.as_uri(), mark="drawn")
            found = [await page.value(CLICK % ("#table", i, "curve-title", "#curve svg")) for i in (1, 4)]
            pair = await page.value(CLICK % ("#contexts-table", 2, "contexts-title", "#contexts-curves svg"))
            return found, pair, page.messages(), page.requests()

    found, pair, messages, requests = asyncio.run(clicked())
    assert messages == []
    assert requests == []
    assert found[0][0] != found[1][0]
    for name, title, marks in found:
        assert title == name
        points = ds.pl.dose_response_data(adata, name).set_index("guide")["mean_acting"]
        shown = _shown(marks)
        assert set(shown) == set(points.index)
        np.testing.assert_allclose([shown[g] for g in points.index], points, rtol=5e-3, atol=1e-3)
    name, title, marks = pair
    assert title == name == ds.get.compare(adata, sort=True).index[2]
    points = ds.pl.compare_data(adata, name).query("kind == 'guide'")
    points = points[points["context"] != ds.get.compare(adata).attrs["reference"]].set_index("guide")
    shown = _shown(marks)  # of a guide the later mark, that of the other context
    np.testing.assert_allclose([shown[g] for g in points.index], points["change"], rtol=5e-3, atol=1e-3)
