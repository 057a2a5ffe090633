"""Formulas as MathML, which browsers draw by themselves: no script, and no request to another host."""

from __future__ import annotations

from typing import Any

from math_core import LatexToMathML

NAME = "mathml"
converter = LatexToMathML()


def _inline(self: Any, node: Any) -> None:
    from docutils.nodes import SkipNode

    self.body.append(converter.convert_with_local_state(node.astext(), displaystyle=False))
    raise SkipNode


def _block(self: Any, node: Any) -> None:
    from docutils.nodes import SkipNode

    self.body.append(self.starttag(node, "div", CLASS="formula"))
    self.body.append(converter.convert_with_local_state(node.astext().strip(), displaystyle=True))
    self.body.append("</div>\n")
    raise SkipNode


def setup(app: Any) -> dict[str, Any]:
    app.add_html_math_renderer(NAME, (_inline, None), (_block, None))
    return {"parallel_read_safe": True}
