"""Install requirements files for the Python that runs this: by uv, or pip where no uv can be had.

    python scripts/install.py requirements.txt

uv takes seconds where pip takes minutes. It is the one on the PATH, or is installed first, as
requirements-dev.txt pins it. Where pip is configured to look for packages, uv looks, too. On Linux
without an NVIDIA GPU, torch is its CPU build wherever that can be had: it is gigabytes smaller.
"""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check")

AS_UV: Final = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
}
"""Options that pip may be configured with, and the variables that tell uv the same."""


def main(files: Sequence[str]) -> None:
    """Install everything that the files name."""
    start = time.monotonic()
    wanted = list(requirements(files))
    uv = find_uv()
    by = "pip, which takes minutes" if uv is None else "uv"
    print(f"Installing {len(wanted)} packages with {by} ...", flush=True)
    os.environ |= {**pip_told_uv(), **os.environ}
    install = installer(uv)
    if wants_cpu_build() and importlib.util.find_spec("torch") is None:
        install_cpu_build(uv, next(line for line in wanted if line.startswith("torch==")))
    words = [word for file in files for word in ("-r", file)]
    if subprocess.run([*install, *words], cwd=ROOT).returncode != 0:
        if uv is None:
            sys.exit("pip could not install them.")
        print("uv could not install them; pip tries it, which takes minutes.", flush=True)
        subprocess.run([*PIP, "install", "-q", *words], cwd=ROOT, check=True)
    print(f"Installed in {time.monotonic() - start:.0f} s.", flush=True)


def requirements(files: Sequence[str]) -> Iterator[str]:
    """Lines that name a package, of the files and of those that they include."""
    for file in files:
        for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
            if line.startswith("-r "):
                yield from requirements([line.removeprefix("-r ")])
            elif re.match(r"\w", line):
                yield line


def find_uv() -> str | None:
    """Path of uv, which is installed if there is none; None where it cannot be."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("uv", path=places)
    if found is None:
        (pinned,) = (line for line in requirements(["requirements-dev.txt"]) if "uv==" in line[:4])
        subprocess.run([*PIP, "install", "-qq", pinned])
        found = shutil.which("uv", path=places)
    return found


def installer(uv: str | None) -> list[str]:
    """The command that installs; uv shows its progress to whoever looks."""
    if uv is None:
        return [*PIP, "install", "-q"]
    quiet = [] if sys.stderr.isatty() else ["-q"]
    return [uv, "pip", "install", *quiet, "--python", sys.executable]


def pip_told_uv() -> dict[str, str]:
    """Variables that tell uv what pip is configured with, none of which it reads itself."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=True)
    rows = [line.partition("=") for line in listed.stdout.splitlines()]
    told = {}
    for section in ("global", "install", ":env:"):  # the later ones hold
        for option, variable in AS_UV.items():
            for key, _, value in rows:
                if key == f"{section}.{option}":
                    told[variable] = str(ast.literal_eval(value))
    if "UV_FIND_LINKS" in told:
        told["UV_FIND_LINKS"] = ",".join(told["UV_FIND_LINKS"].split())
    if "UV_INDEX" in told:
        told["UV_INDEX"] = " ".join(told["UV_INDEX"].split())
        told["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip does
    return told


def wants_cpu_build() -> bool:
    """Whether PyPI's torch would bring CUDA, and nothing here could use it."""
    return sys.platform == "linux" and not (
        Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi")
    )


def install_cpu_build(uv: str | None, torch: str) -> None:
    """Install the CPU build, from where packages are looked for or, by uv, from PyTorch's index."""
    install, ways = installer(uv), [[f"{torch}+cpu"], [torch, "--torch-backend=cpu"]]
    for way in ways if uv else ways[:1]:
        if subprocess.run([*install, "--dry-run", *way], capture_output=True).returncode == 0:
            subprocess.run([*install, *way])
            return
    print("No CPU build of torch was found; PyPI's brings CUDA, which takes gigabytes.", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
