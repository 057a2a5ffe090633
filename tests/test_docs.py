"""Code of the documentation that says it runs as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dream_sc as ds

PAGE = Path(ds.__file__).parents[2] / "docs" / "splicing.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the package")
def test_a_splice_modality_is_fitted_as_the_page_says() -> None:
    text = PAGE.read_text()
    space: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text[text.index("## Fit it") :], re.DOTALL):
        exec(block, space)
    table = ds.get.trans(space["data"], mod="donor")
    called = table["qvalue"] < 0.05
    assert called.iloc[:10].sum() >= 8
    assert called.iloc[10:].sum() <= 2
    assert called["chr1:90000:+"]
    assert table.loc["chr1:90000:+", "category"] == "chr1:90000-90500"
