"""Runs the code of a Markdown file in order, as a reader would.

    python run_blocks.py guide.md [API_URL ...]

Python blocks share one namespace; one that begins with `# name.py` is saved as that file instead.
Of shell blocks, the lines that call `grpo-platform` are run. The API_URLs take the places of
http://localhost:8000, http://localhost:8001 and so on. Nothing else is changed.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from markdown_it import MarkdownIt

FIRST_PORT = 8000


def main(path: Path, urls: list[str]) -> None:
    if urls:
        os.environ["GRPO_URL"] = urls[0]
    sys.path.insert(0, os.getcwd())
    namespace: dict[str, object] = {"__name__": "__main__"}
    for token in MarkdownIt("commonmark").parse(path.read_text()):
        if token.type != "fence" or token.map is None:
            continue
        if token.info == "python":
            if file := re.match(r"# (\w+\.py)\n", token.content):
                Path(file[1]).write_text(token.content)
                continue
            source = "\n" * (token.map[0] + 1) + token.content
            for number, url in enumerate(urls):
                source = source.replace(f"http://localhost:{FIRST_PORT + number}", url)
            exec(compile(source, str(path), "exec"), namespace)
        elif token.info == "bash":
            for line in token.content.splitlines():
                if line.startswith("grpo-platform "):
                    sys.stdout.flush()
                    subprocess.run(line, shell=True, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
