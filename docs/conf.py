"""Settings of Sphinx, which `make docs` uses."""

import re
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import generated

DOCS = Path(__file__).parent
ROOT = DOCS.parent

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
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Every other missing target is an error; the types of signatures have no pages here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]

# Files beside `docs/`, which Sphinx does not read.
FRONT_PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_LOADED = re.compile(
    r"<(?:script|link|img|source|iframe)\b[^>]*=\"https?://[^>]*|(?:url\(|@import )[\"']?https?://[^)]*"
)
_PICTURE = re.compile(r"\b(?:src|srcset)=\"([^\"]+)\"")


def fill_in(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace each `<!-- generated: NAME -->` of a page by the text that `generated.py` makes for it."""
    source[0] = re.sub(r"<!-- generated: (.+?) -->", lambda marker: generated.text(marker[1]), source[0])


def check_files(app: Sphinx) -> None:
    """Warn of links in the front pages, and of pictures in HTML, that lead to no file: Sphinx does not check them."""
    logger = logging.getLogger(__name__)
    for path in [*(ROOT / name for name in FRONT_PAGES), *DOCS.glob("*.md")]:
        if not path.is_file():
            logger.warning("%s is missing", path.name)
            continue
        text = path.read_text()
        links = _PICTURE.findall(text) + (_LINK.findall(text) if path.parent == ROOT else [])
        for link in links:
            if "://" not in link and not link.startswith("mailto:") and not (path.parent / link).exists():
                logger.warning("%s: %s is missing", path.name, link)


def copy_pictures(app: Sphinx, error: Exception | None) -> None:
    """Copy the pictures that pages show in HTML, for light and dark screens, because Sphinx does not find them."""
    if not error and (DOCS / "pictures").is_dir():
        shutil.copytree(DOCS / "pictures", Path(app.outdir) / "pictures", dirs_exist_ok=True)


def check_offline(app: Sphinx, error: Exception | None) -> None:
    """Warn of built pages that load something from another server: the site works without a network."""
    for path in Path(app.outdir).rglob("*"):
        if path.suffix in (".html", ".css") and (found := _LOADED.search(path.read_text())):
            logging.getLogger(__name__).warning("%s loads %s", path.name, found[0])


def setup(app: Sphinx) -> None:
    """Connect what is generated and checked to the build."""
    app.connect("source-read", fill_in)
    app.connect("builder-inited", check_files)
    app.connect("build-finished", copy_pictures)
    app.connect("build-finished", check_offline)
