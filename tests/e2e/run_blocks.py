"""Runs the Python blocks of a Markdown file in order, in one namespace, as a reader would.

    python run_blocks.py guide.md [API_URL]

API_URL takes the place of http://localhost:8000 in the code. Nothing else is changed.
"""

import sys
from pathlib import Path

from markdown_it import MarkdownIt


def main(path: Path, url: str | None) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for token in MarkdownIt("commonmark").parse(path.read_text()):
        if token.type != "fence" or token.info != "python" or token.map is None:
            continue
        source = "\n" * (token.map[0] + 1) + token.content
        if url is not None:
            source = source.replace("http://localhost:8000", url)
        exec(compile(source, str(path), "exec"), namespace)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
