"""Configuration of the documentation; builds without network."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import metadata
from pathlib import Path

# the notebooks live beside the documentation, and sphinx reads only what is inside its own folder
_here = Path(__file__).parent
shutil.rmtree(_here / "tutorials", ignore_errors=True)
(_here / "tutorials").mkdir()
for _notebook in sorted((_here.parent / "tutorials").glob("*.ipynb")):
    shutil.copy(_notebook, _here / "tutorials")

sys.path.insert(0, str(_here))
import _api_types  # noqa: E402
import _memory_page  # noqa: E402

_memory_page.write(_here / "computed")

_info = metadata("dream-sc")

project = "dream_sc"
author = "dream_sc developers"
copyright = f"2026, {author}"
version = release = _info["Version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
    "_api_types",
    "_mathml",
    "_see_also",
]

source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
exclude_patterns = ["_build", "_extra", "_site", "computed", "jupyter_execute", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

# Notebooks are committed with their outputs; a test runs them.
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
nitpicky = True
intersphinx_mapping = _api_types.mapping(_here / "computed" / "links")
intersphinx_timeout = 5

autodoc_typehints = (
    "description"  # types beside the meaning of each parameter, which signatures then name with defaults only
)
autodoc_typehints_description_target = "documented_params"
python_maximum_signature_line_length = 88
autodoc_preserve_defaults = False
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = True
napoleon_use_param = True
default_role = "code"

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"
bibtex_default_style = "plain"

html_theme = "sphinx_book_theme"
html_extra_path = ["_extra"]  # the example of a report
html_static_path = ["_site"]
html_css_files = ["site.css"]
html_favicon = "_site/icon.svg"
html_math_renderer = "mathml"
html_context = {"default_mode": "auto"}
html_title = "dream_sc"
html_show_sourcelink = False
html_theme_options = {
    "navbar_persistent": [],  # one search box is enough: that of the side bar
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}

copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
