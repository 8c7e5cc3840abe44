"""How Sphinx reads the pages: one tree of Markdown, for both languages. `make docs` calls it.

`NAME.ja.md` is the Japanese of `NAME.md`. Both are the page `NAME` of a build of their own, so that
every page has the same address in both languages; what has no Japanese is shown in English there.
The lists of `docs/index.md` are the navigation: GitHub and the site read the same ones.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from numpy.typing import ArrayLike
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

from site_pages import (  # noqa: E402 - beside this file
    JAPANESE,
    SearchPairs,
    commands,
    navigation,
    with_links_to_the_other_language,
)

# --- what is built ------------------------------------------------------------------------

project = "grpo-platform"
author = "The grpo-platform authors"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
language = "ja" if tags.has("ja") else "en"  # noqa: F821 - Sphinx puts it here

TRANSLATED = [path.relative_to(ROOT) for path in ROOT.glob("*.ja.md")]
TRANSLATED += [path.relative_to(ROOT) for path in HERE.rglob("*.ja.md")]

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "docs/**.ipynb", "examples/*/README.md"]
exclude_patterns = ["docs/_*"]  # and folders that need not be walked
exclude_patterns += [
    path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("docs", "examples")
]
if language == "ja":
    exclude_patterns += [str(path).replace(".ja.md", ".md") for path in TRANSLATED]
else:
    exclude_patterns += map(str, TRANSLATED)
source_suffix = {".ja.md": "myst-nb", ".md": "myst-nb", ".ipynb": "myst-nb"}

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 6
nb_execution_mode = "off"  # tests/e2e/test_tutorials.py executes them
smartquotes_action = "D"  # dashes

# docstrings are Google's style, with names in single backquotes
default_role = "code"
autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# --- how it looks -------------------------------------------------------------------------

html_theme = "furo"
html_title = project
pygments_dark_style = "github-dark"
html_favicon = "../platform/grpo_platform/web/static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
templates_path = ["_templates"]
locale_dirs = ["docs/_locale"]
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_show_copyright = False
html_show_sphinx = False
html_sidebars = {
    "**": [
        "sidebar/brand.html", "sidebar/search.html", "sidebar/switch.html",
        "sidebar/scroll-start.html", "sidebar/navigation.html", "sidebar/scroll-end.html",
    ]
}  # fmt: skip

OTHER = "en" if language == "ja" else "ja"
WORDS = {
    "en": {"other_name": "日本語", "version_label": "Version"},
    "ja": {"other_name": "English", "version_label": "バージョン"},
}
PYTHON_IS_ENGLISH = '\n\n<a href="../../en/docs/python.html">Python API (English)</a>\n'
UNTRANSLATED = '<p class="site-untranslated" lang="ja">このページはまだ英語だけです。</p>'


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add to a page what only the site has."""
    text = with_links_to_the_other_language(source[0], docname, language)
    if docname == root_doc:
        text += "\n" + navigation(text)
    if docname == "docs/cli":
        text = text.replace("```{commands}\n```\n", commands())
    if docname == "docs/python" and language == "ja":  # docstrings are English: once is enough
        text = text.partition("\n## ")[0] + PYTHON_IS_ENGLISH
    source[0] = text


def plain(
    app: Sphinx, kind: str, name: str, documented: object, options: object, lines: list[str]
) -> None:
    """Docstrings are text with names in backquotes: what else marks something up means itself."""
    for i, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [re.sub(r"[*|]|(?<=\w)_(?!\w)", r"\\\g<0>", part) for part in parts[::2]]
        lines[i] = "`".join(parts)


ARRAY_LIKE = stringify_annotation(ArrayLike, "smart")
ARRAY_OF = re.compile(r"~numpy\.ndarray\[tuple\[~typing\.Any, \.{3}\], ~numpy\.dtype\[([^][]+)\]\]")


def shorter(app: Sphinx, domain: str, kind: str, content: object) -> None:
    """Write types of arrays as the source does, not as what numpy's names stand for."""
    for types in app.env.current_document.autodoc_annotations.values():
        for name, text in types.items():
            types[name] = ARRAY_OF.sub(r"NDArray[\1]", text.replace(ARRAY_LIKE, "ArrayLike"))


def without_spaces_in_japanese(app: Sphinx, document: nodes.document) -> None:
    """Where a line of Japanese is broken in the source, no space is meant."""
    for text in list(document.findall(nodes.Text)):
        siblings = text.parent.children
        place = next(i for i, child in enumerate(siblings) if child is text)
        if text == "\n" and 0 < place < len(siblings) - 1:
            before, after = siblings[place - 1].astext(), siblings[place + 1].astext()
            if re.search(f"[{JAPANESE}]$", before) and re.match(f"[{JAPANESE}]", after):
                del text.parent[place]


def show(app: Sphinx, pagename: str, template: str, context: dict[str, Any], _: object) -> None:
    """Tell the templates of the other language."""
    context |= WORDS[language]
    context["other_language"] = OTHER
    context["other_page"] = f"{context['content_root']}../{OTHER}/{pagename}.html"
    translated = pagename not in app.env.found_docs or app.env.doc2path(pagename).match("*.ja.md")
    if language == "ja" and not translated:
        context["body"] = UNTRANSLATED + context["body"]


def setup(app: Sphinx) -> None:
    """Connect the above."""
    app.connect("autodoc-process-docstring", plain, priority=100)  # before Google's style is read
    app.connect("object-description-transform", shorter, priority=100)
    app.add_search_language(SearchPairs)
    app.connect("source-read", read)
    app.connect("doctree-read", without_spaces_in_japanese)
    app.connect("html-page-context", show)
