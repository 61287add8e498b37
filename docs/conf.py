"""Settings of Sphinx: what `make docs` builds, and how strictly."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]

import generated

project = "vitpipe"
author = "the authors of vitpipe"
copyright = f"2026, {author}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["pictures"]
html_theme = "furo"
html_title = "vitpipe"
html_static_path = ["_static"]
html_css_files = ["wide-tables.css"]
html_copy_source = False
html_show_sphinx = False
highlight_language = "none"

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Types of Python and of other libraries have no page here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!vitpipe\.).*")]

# Pages with a link of their own among the files that GitHub shows.
FRONT_PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"")


def fill_in(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace each `<!-- generated: NAME -->` of a page by the text that `generated.py` makes for it."""
    source[0] = re.sub(r"<!-- generated: (.+?) -->", lambda marker: generated.text(marker[1]), source[0])


def check_front_pages(app: Sphinx) -> None:
    """Warn of links in the files beside `docs/` that lead to no file."""
    for name in FRONT_PAGES:
        path = ROOT / name
        if not path.is_file():
            logging.getLogger(__name__).warning("%s is missing", name)
            continue
        for link in [found[0] or found[1] for found in _LINK.findall(path.read_text())]:
            if "://" not in link and not link.startswith("mailto:") and not (ROOT / link).exists():
                logging.getLogger(__name__).warning("%s links to %s, which is missing", name, link)


def setup(app: Sphinx) -> None:
    """Connect what is generated and checked to the build."""
    app.connect("source-read", fill_in)
    app.connect("builder-inited", check_front_pages)
