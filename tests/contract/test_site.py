"""The documentation site: built with warnings as errors, whole in both languages, from one host."""

import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

import grpo
from grpo_platform.cli import app
from grpo_platform.client import GRPOClient
from scripts.build_docs import LANGUAGES, broken_links, foreign

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

pytestmark = [pytest.mark.slow, pytest.mark.rotated(12)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, in a folder that has an earlier version; building it checks links and hosts."""
    folder = tmp_path_factory.mktemp("site")
    for language in LANGUAGES:
        earlier = folder / "0.0.9" / language / "docs"
        earlier.mkdir(parents=True)
        (earlier / "index.html").write_text("<!DOCTYPE html><title>an earlier version</title>")
    done = subprocess.run(
        [sys.executable, "scripts/build_docs.py", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def pages(site: Path, language: str) -> dict[str, str]:
    folder = site / VERSION / language
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.html")}


def test_every_page_is_in_both_languages(site: Path) -> None:
    english, japanese = (pages(site, language) for language in LANGUAGES)
    assert english.keys() == japanese.keys()
    for path in ROOT.glob("docs/**/*.md"):
        if not path.name.endswith(".ja.md"):
            name = str(path.relative_to(ROOT).with_suffix(".html"))
            translated = path.with_name(f"{path.stem}.ja.md").exists()
            assert translated != ("まだ英語だけ" in japanese[name]), name
            assert f'href="{"../" * (name.count("/") + 1)}ja/{name}"' in english[name]
    assert all(
        '<html lang="ja"' in text.replace('class="no-js" ', "") for text in japanese.values()
    )


def test_lines_of_japanese_are_joined_without_a_space(site: Path) -> None:
    index = (site / VERSION / "ja/docs/index.html").read_text()
    assert "から始めてください。チュートリアルと" in index  # two lines in the source
    assert re.search(r"[ぁ-ん]\n[ぁ-ん]", index) is None


def test_every_public_name_and_every_command_is_in_the_reference(site: Path) -> None:
    reference = (site / VERSION / "en/docs/python.html").read_text()
    documented = set(re.findall(r'<dt class="sig [^"]*" id="([\w.]+)"', reference))
    last = {name.rpartition(".")[2] for name in documented}
    assert [name for name in grpo.__all__ if name not in last] == []
    assert "_SupportsArray" not in reference  # what numpy's ArrayLike stands for
    methods = {name for name in vars(GRPOClient) if not name.startswith("_")}
    methods |= {name for kind in GRPOClient.__mro__[1:-1] for name in vars(kind) if name[0] != "_"}
    assert {
        name for name in methods if f"grpo_platform.client.GRPOClient.{name}" not in documented
    } == set()
    commands = typer.main.get_command(app).commands
    told = (site / VERSION / "en/docs/cli.html").read_text()
    for name, command in commands.items():
        assert f"<h2>{name}<" in told
        for child in getattr(command, "commands", {}):
            assert f"<h3>{name} {child}<" in told


def test_versions_are_listed_newest_first_and_the_entrance_leads_to_the_newest(site: Path) -> None:
    name, _, listed = (site / "versions.js").read_text().partition(" = ")
    assert name == "window.GRPO_DOCS_VERSIONS"
    found = json.loads(listed.rstrip(";\n"))
    assert list(found) == [VERSION, "0.0.9"]
    assert found["0.0.9"] == ["en/docs/index.html", "ja/docs/index.html"]
    assert f'url={VERSION}/en/docs/index.html"' in (site / "index.html").read_text()


@pytest.mark.parametrize(
    ("html", "told"),
    [
        ('<a href="gone.html">', "links to gone.html"),
        ('<a href="#gone">', "links to #gone"),
        ('<a href="b.html#gone">', "links to b.html#gone"),
        ('<img src="gone.png">', "links to gone.png"),
        ('<script src="https://cdn.example.org/x.js"></script>', "loads https://cdn.example.org"),
        ('<link href="//fonts.example.org/x.css">', "loads //fonts.example.org"),
        ('<a href="https://example.org/">', ""),
        ('<p id="here"><a href="#here"></a><a href="b.html#there">', ""),
    ],
)
def test_broken_links_and_other_hosts_are_found(tmp_path: Path, html: str, told: str) -> None:
    (tmp_path / "a.html").write_text(html)
    (tmp_path / "b.html").write_text('<p id="there">')
    found = broken_links(tmp_path)
    assert (told in found[0]) if told else (found == [])


@pytest.mark.parametrize("text", ["@import '//a.example'", "url(https://a.example/f.woff2)"])
def test_what_a_style_loads_from_another_host_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.css").write_text(text)
    assert foreign(tmp_path)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for option in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{option}")
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


@pytest.mark.browser
@pytest.mark.parametrize(
    ("language", "words", "page"),
    [
        ("en", "interquartile", "experiments.html"),
        ("ja", "四分位平均", "ten-seeds.html"),
        ("ja", "移行", "stable-baselines3.html"),  # a part of its title
    ],
)
def test_search_works_from_files(
    site: Path, browser: webdriver.Chrome, language: str, words: str, page: str
) -> None:
    browser.get(f"{(site / VERSION / language / 'search.html').as_uri()}?q={words}")
    deadline = time.monotonic() + 30
    found: list[str] = []
    while not any(page in address for address in found):
        assert time.monotonic() < deadline, found
        links = browser.find_elements(By.CSS_SELECTOR, "#search-results li a")
        found = [link.get_attribute("href") or "" for link in links]
        time.sleep(0.1)


@pytest.mark.browser
def test_a_page_leads_to_its_other_versions_and_its_other_language(
    site: Path, browser: webdriver.Chrome
) -> None:
    browser.get((site / VERSION / "en/docs/cli.html").as_uri())  # which the earlier one has not
    offered = browser.find_elements(By.CSS_SELECTOR, ".site-version option")
    assert [each.get_attribute("value") for each in offered] == [VERSION, "0.0.9"]
    other = browser.find_element(By.CSS_SELECTOR, ".site-switch a").get_attribute("href")
    assert other == (site / VERSION / "ja/docs/cli.html").as_uri()
    offered[1].click()
    assert browser.title == "an earlier version"
