"""What the site adds to the pages: navigation, the other language, commands, Japanese search."""

import posixpath
import re
from collections.abc import Iterator
from typing import Any

import typer
from sphinx.search import SearchLanguage

__all__ = ["JAPANESE", "SearchPairs", "commands", "navigation", "with_links_to_the_other_language"]

# --- pages --------------------------------------------------------------------------------


def navigation(index: str) -> str:
    """The lists of an index page as hidden toctrees: a caption for each heading.

    Args:
        index: Markdown; links to a part of a page are left out, as no page stands for them.
    """
    trees = []
    for caption, body in re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", index, re.MULTILINE):
        entries = re.findall(r"^- \[([^\]]+)\]\(([^)#]+)\)", body, re.MULTILINE)
        names = [(title, re.sub(r"(\.ja)?\.(md|ipynb)$", "", path)) for title, path in entries]
        listed = "\n".join(f"{title} <{name}>" for title, name in names)
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n")
    return "\n".join(trees)


def with_links_to_the_other_language(text: str, docname: str, language: str) -> str:
    """A page's Markdown, whose links to its own other language lead into that build.

    `guide.ja.md` links `guide.md` as the English, and the English links `guide.ja.md`; both are the
    page `guide` of their build. Japanese pages link other Japanese ones by the same name.
    """
    own = posixpath.basename(docname)
    name = f"{own}.md" if language == "ja" else f"{own}.ja.md"
    other = "en" if language == "ja" else "ja"
    up = "../" * (docname.count("/") + 1)
    return re.sub(
        rf"\[([^\]]+)\]\({re.escape(name)}\)",
        rf'<a href="{up}{other}/{docname}.html" hreflang="{other}">\1</a>',
        text,
    )


# --- the command line ---------------------------------------------------------------------


def commands() -> str:
    """Every command of `grpo-platform` with what it takes, as Markdown."""
    from grpo_platform.cli import app

    return "\n".join(_command(typer.main.get_command(app), []))


def _command(command: Any, words: list[str]) -> Iterator[str]:  # noqa: ANN401 - Click's, or Typer's
    children = getattr(command, "commands", {})
    yield f"{'#' * max(2, len(words) + 1)} {' '.join(words) or 'Before any command'}\n"
    yield (command.help or "").partition("\f")[0].strip() + "\n"
    taken = [each for each in command.params if each.name != "help"]
    arguments = [_name(each) for each in taken if each.param_type_name == "argument"]
    rest = ["[OPTIONS]", *arguments, *(["COMMAND"] if children else [])]
    yield f"```text\n{' '.join(['grpo-platform', *words, *rest])}\n```\n"
    if taken:
        yield "| | |\n|---|---|\n" + "\n".join(map(_parameter, taken)) + "\n"
    if command.epilog:
        yield f"{command.epilog}\n"
    for word in sorted(children):
        yield from _command(children[word], [*words, word])


def _name(argument: Any) -> str:  # noqa: ANN401 - as above
    word = (argument.metavar or argument.name).upper()
    return f"{word if argument.required else f'[{word}]'}{'...' if argument.nargs == -1 else ''}"


def _parameter(parameter: Any) -> str:  # noqa: ANN401 - as above
    if parameter.param_type_name == "argument":
        names = f"`{_name(parameter)}`"
    else:
        names = ", ".join(f"`{each}`" for each in [*parameter.opts, *parameter.secondary_opts])
    told = (parameter.help or "").replace("|", "\\|").replace("\n", " ")
    return f"| {names} | {told} |"


# --- search in Japanese -------------------------------------------------------------------

JAPANESE = "\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
"""Characters of kana, kanji and their punctuation, as in a regular expression's brackets."""

_WORDS = r"[a-z0-9_]+|[\u3005\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"


class SearchPairs(SearchLanguage):
    """Finds Japanese by pairs of characters, so that any part of a compound is found.

    Sphinx's own splits pages into words, but not what is typed; so a compound that it split is
    not found. Here both are split by one rule; English words stay whole.
    """

    lang = "ja"
    language_name = "Japanese"
    js_splitter_code = f"""
var splitQuery = (query) => [...query.toLowerCase().matchAll(/{_WORDS}/g)].flatMap(([word]) =>
  /^[a-z0-9_]/.test(word) || word.length < 3 ? [word]
  : [...word.slice(1)].map((_, i) => word.slice(i, i + 2)));
"""
    js_stemmer_rawcode = None

    def split(self, input: str) -> list[str]:
        """Words, and pairs of Japanese characters."""
        found = []
        for word in re.findall(_WORDS, input.lower()):
            if word[0].isascii() or len(word) < 3:
                found.append(word)
            else:
                found += [word[i : i + 2] for i in range(len(word) - 1)]
        return found

    def word_filter(self, word: str) -> bool:
        """Whether a word is worth an entry."""
        return len(word) > 1 or not word.isascii()

    def stem(self, word: str) -> str:
        """The word as it is."""
        return word
