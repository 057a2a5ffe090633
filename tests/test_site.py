"""The built site loads nothing from another host; links that a reader clicks may lead anywhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import dream_sc

SITE = Path(dream_sc.__file__).parents[2] / "docs" / "_build" / "html"
PAGES = sorted(SITE.rglob("*.html"))
STYLES = sorted(SITE.rglob("*.css"))
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "embed": "src", "link": "href"}
NO_LOAD = {"canonical", "next", "prev", "search", "index", "author", "license"}  # links that load nothing
ELSEWHERE = re.compile(r"^\s*(https?:)?//")

pytestmark = pytest.mark.skipif(not PAGES, reason="the site is not built: make docs")


class _Loads(HTMLParser):
    """Addresses that a browser asks for by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and set((given.get("rel") or "").split()) & NO_LOAD:
            return
        address = given.get(LOADS.get(tag, ""))
        if address:
            self.found.append(address)


def test_pages_load_from_their_own_folder() -> None:
    loaded = {page: _Loads(page).found for page in PAGES}
    assert sum(map(len, loaded.values())) > len(PAGES)
    assert not {str(page): bad for page, of in loaded.items() if (bad := [a for a in of if ELSEWHERE.match(a)])}


def test_styles_load_from_their_own_folder() -> None:
    asked = re.compile(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")]+)")
    found = {str(style): asked.findall(style.read_text(encoding="utf-8", errors="replace")) for style in STYLES}
    assert not {name: of for name, of in found.items() if of}
