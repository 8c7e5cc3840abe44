"""Runs the code of a Markdown file in order, as a reader would.

    python run_blocks.py guide.md [API_URL]

Python blocks share one namespace; of shell blocks, the lines that call `grpo-platform` are run.
API_URL takes the place of http://localhost:8000. Nothing else is changed.
"""

import os
import subprocess
import sys
from pathlib import Path

from markdown_it import MarkdownIt

DEFAULT_URL = "http://localhost:8000"


def main(path: Path, url: str) -> None:
    os.environ["GRPO_URL"] = url
    namespace: dict[str, object] = {"__name__": "__main__"}
    for token in MarkdownIt("commonmark").parse(path.read_text()):
        if token.type != "fence" or token.map is None:
            continue
        if token.info == "python":
            source = "\n" * (token.map[0] + 1) + token.content.replace(DEFAULT_URL, url)
            exec(compile(source, str(path), "exec"), namespace)
        elif token.info == "bash":
            for line in token.content.splitlines():
                if line.startswith("grpo-platform "):
                    sys.stdout.flush()
                    subprocess.run(line, shell=True, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else DEFAULT_URL)
