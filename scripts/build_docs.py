"""Build the documentation site, in both languages, with warnings as errors: `make docs`.

    python scripts/build_docs.py [SITE]

SITE/VERSION/en and SITE/VERSION/ja hold this checkout's version; other versions in SITE stay.
SITE/versions.js names all of them with their pages, for the choice on each page, and
SITE/index.html leads to the newest. Build each release into the same SITE, and serve or copy it:
nothing in it is absolute.
"""

import json
import re
import shutil
import sys
import tempfile
import tomllib
from concurrent.futures import ProcessPoolExecutor
from html.parser import HTMLParser
from multiprocessing import get_context
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = ("en", "ja")
SITE = ROOT / "build" / "docs"

INDEX = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>grpo-platform</title>
<meta http-equiv="refresh" content="0; url={version}/en/docs/index.html">
<script>
  const language = navigator.language.startsWith("ja") ? "ja" : "en";
  location.replace(`{version}/${{language}}/docs/index.html`);
</script>
<a href="{version}/en/docs/index.html">English</a>
<a href="{version}/ja/docs/index.html" lang="ja">日本語</a>
</html>
"""


def build(language: str, folder: Path) -> int:
    """One language into a folder; the exit status of Sphinx, 1 where there was a warning."""
    from sphinx.cmd.build import main

    with tempfile.TemporaryDirectory() as doctrees:
        options = ["-q", "-W", "--keep-going", "-t", language, "-d", doctrees, "-c", f"{ROOT}/docs"]
        return main([*options, str(ROOT), str(folder)])


class Page(HTMLParser):
    """What a page refers to, and what may be referred to in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note ids, links (`a`), and all else that a browser fetches by itself."""
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")
            elif name in ("href", "src", "srcset", "poster", "data", "action") and value:
                (self.links if tag == "a" else self.loaded).append(value)


def broken_links(site: Path) -> list[str]:
    """Links to files or parts of pages that are not there, and what comes from another host."""
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site)
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    found.append(f"{where} loads {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = pages.get(target)
            if not target.exists() or (there and unquote(parts.fragment) not in there.anchors):
                found.append(f"{where} links to {link}")
    return found


_FETCHED = re.compile(r"(?:@import|url\(|import\(|fetch\(|src\s*=)[\s\"'(]*(?:https?:)?//[\w.-]+")


def foreign(site: Path) -> list[str]:
    """What styles and scripts would load from another host."""
    return [
        f"{path.relative_to(site)} loads {found}"
        for path in sorted([*site.rglob("*.css"), *site.rglob("*.js")])
        for found in _FETCHED.findall(path.read_text())
    ]


def _pages(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*.html")]


def main(site: Path) -> int:
    """Build, list the versions, check; exit status 0 only where nothing is to be mended."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    folders = [site / version / language for language in LANGUAGES]
    shutil.rmtree(site / version, ignore_errors=True)
    from grpo_platform import cli, client  # noqa: F401 - once for both, since it takes seconds

    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        status = max(pool.map(build, LANGUAGES, folders))
    shutil.rmtree(site / version / "jupyter_execute")  # the notebooks again, which MyST-NB leaves
    versions = [path.name for path in site.iterdir() if (path / LANGUAGES[0]).is_dir()]
    versions.sort(key=Version, reverse=True)
    listed = {name: sorted(_pages(site / name)) for name in versions}
    (site / "versions.js").write_text(f"window.GRPO_DOCS_VERSIONS = {json.dumps(listed)};\n")
    (site / "index.html").write_text(INDEX.format(version=versions[0]))
    problems = [*broken_links(site), *foreign(site)]
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    if status or problems:
        return 1
    print(site / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else SITE))
