"""The site of the documentation, made by `make docs` from the Markdown pages as they are and from the docstrings.

The pages stay plain Markdown: what only the site needs is added here, while Sphinx reads them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import fastattn

ROOT = Path(__file__).parents[1]
REFRESH = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=docs/README.html">\n'

project = author = "fastattn"
version = release = fastattn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
root_doc = "docs/README"
include_patterns = ["CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "docs/**"]
exclude_patterns = [".*", "build", "fastattn", "csrc", "tests", "docs/images"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"[\s\S]*")]  # types of other libraries; names in backticks that are no links

html_theme = "furo"
html_title = "fastattn"
html_copy_source = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
myst_heading_anchors = 3
myst_links_external_new_tab = False

default_role = "py:obj"
highlight_language = "none"  # outputs and consoles; Python is marked
autodoc_typehints = "none"  # the docstrings give shapes and dtypes
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
python_maximum_signature_line_length = 88
napoleon_custom_sections = [("Source", "notes")]
napoleon_use_rtype = False


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """The first page's tables of pages are the order of the site; the gallery's links to scripts show them."""
    if page == root_doc:
        for heading, table in re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", source[0], re.M | re.S):
            cells = " ".join(re.findall(r"^\| (\[.*?) \|", table, re.M))
            pages = re.findall(r"\(([^)#]+)\.(?:md|rst)\)", cells)
            if pages:
                source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n" + "\n".join(pages) + "\n```\n"
    source[0] = re.sub(r"^\[`\w+\.py`\]\((\S+\.py)\)$", r"```{literalinclude} \1\n```", source[0], flags=re.M)


def add_index(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        Path(app.outdir, "index.html").write_text(REFRESH, encoding="utf-8")


def skip_fields(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a named tuple has for its fields; the docstring of the class describes them."""
    return True if type(member).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("source-read", add_navigation)
    app.connect("build-finished", add_index)
