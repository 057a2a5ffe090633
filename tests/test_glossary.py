"""Every module is named by words that a newcomer can look up, and the words of the glossary mean one thing each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dream_sc

PACKAGE = Path(dream_sc.__file__).parent
PAGE = PACKAGE.parents[1] / "docs" / "glossary.md"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in {"__init__.py", "__main__.py"})
FOLDERS = sorted({path.parent for path in MODULES} - {PACKAGE})

# what anybody who reads Python and works with single cells knows; all other words belong into the glossary
FIELD_WORDS = """
adjust all allowed base check choose column compare comparison compile config content count data demo density design
device direction exon factor file fit folder from function group input key lazy leave logging main math matrix memory
name one optimise option out parallel parser point progress read report result setting simulated storage store stored
style symbol table task tensor thread token transform tree type validate
""".split()
# on their way out
LEAVING = ["chains", "problem"]
NAMESPACES = ["pp", "tl", "get", "pl", "io", "cli", "core", "data", "datasets", "stats", "pyro", "models"]

MUST_EXPLAIN = (
    """
dosage, guide, NTC, EC50, Hill coefficient, exposure, trials, precision, row, guide effect, guide_sd, group effect,
group_effect_sd, learned, guide offset, linear_offset, wide effects, histogram tail, tail area, categories, links,
first pass, screen, variational family, draws, lattice, laplace, null scale
""".replace("\n", " ")
    .strip(", ")
    .split(", ")
)

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not beside the package")


def _terms() -> list[str]:
    """The heads of the entries, and what stands *emphasised* or as `code` in their definitions."""
    lists = re.findall(r":::\{glossary\}\n(.*?)\n:::", PAGE.read_text(), re.DOTALL)
    heads = [line.strip() for text in lists for line in text.splitlines() if line and not line.startswith(" ")]
    marked = [word for text in lists for pair in re.findall(r"\*([^*]+)\*|`([^`]+)`", text) for word in pair if word]
    return heads + marked


def _singular(word: str) -> str:
    word = word.lower()
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word.removesuffix("s") if len(word) > 3 and not word.endswith("ss") else word


def _known() -> set[str]:
    parts = [
        part for term in _terms() for part in re.findall(r"[A-Za-z0-9]+", term.replace("é", "e").replace("'s", "s"))
    ]
    return {_singular(word) for word in [*parts, *FIELD_WORDS, *LEAVING, *NAMESPACES]}


@pytest.mark.parametrize("path", [*MODULES, *FOLDERS], ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_has_a_name_that_can_be_looked_up(path: Path) -> None:
    words = [word for word in path.stem.split("_") if word]
    unknown = [word for word in words if _singular(word) not in _known()]
    assert not unknown, f"neither docs/glossary.md nor the words of the field know {unknown}"


@pytest.mark.parametrize("word", MUST_EXPLAIN)
def test_a_word_of_the_house_is_explained(word: str) -> None:
    known = {_singular(term) for term in _terms()}
    assert _singular(word) in known


def test_a_term_has_one_entry() -> None:
    lists = re.findall(r":::\{glossary\}\n(.*?)\n:::", PAGE.read_text(), re.DOTALL)
    heads = [line for text in lists for line in text.splitlines() if line and not line.startswith(" ")]
    assert len(heads) > 70
    assert len(heads) == len({head.lower() for head in heads})


# words that once stood for something else, or for nothing that a reader knows -> what to write
AVOIDED = {
    "chain of binomials": "links",
    "fast engine": '`inference="laplace"` (default)',
    "first look": "first pass",
    "four cases of five": "80 % power",
    "go no further": "are not refined",
    "independent witness": "independent replicates",
    "pose as": "are relabelled as",
    "size factors leak": "the normalisation is biased",
    "sticks": "links",
    "tail probability": "p-value, or tail area",
}


@pytest.mark.parametrize(
    "page", [PACKAGE.parents[1] / "README.md", *sorted(PAGE.parent.glob("*.md"))], ids=lambda p: p.name
)
def test_a_page_uses_the_words_of_the_glossary(page: Path) -> None:
    text = " ".join(page.read_text().split())
    found = {word: say for word, say in AVOIDED.items() if word in text}
    assert not found, f"write instead: {found}"
