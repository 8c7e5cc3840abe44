"""The project's code at a commit, without a change to anybody's checkout."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import grpo
from grpo_platform.core.errors import ConflictError
from grpo_platform.tracking.provenance import code_version

__all__ = ["SourceTree", "check_commit", "source_tree"]

_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SECONDS: Final = 120.0
_ENTRY_POINTS: Final = ("mlproject", "project")
"""Packages that train in a given run: by today's name, and by that of commits before it."""

_PACKAGE: Final = ("platform/grpo_platform", "grpo_platform")


class SourceTree(NamedTuple):
    """The project's code as of a commit."""

    folder: Path
    module: str
    """What `mlflow run` calls there, as of that commit."""


def check_commit(commit: str | None) -> None:
    """Refuse a commit whose code cannot be had here.

    Raises:
        ConflictError: it is not in this checkout's history, or this is no checkout.
    """
    code = code_version()
    if commit is None:
        return
    if code is None:
        raise ConflictError(
            f"The run was trained by commit {commit[:64]}, and this grpo-platform is installed "
            "without its history: call reproduce in a clone of the project."
        )
    if not _COMMIT.fullmatch(commit) or _git("cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise ConflictError(
            f"Commit {commit[:64]!r} of the run is not in this checkout: fetch it "
            "(git fetch --unshallow, or from whoever trained it), then try again."
        )


@contextmanager
def source_tree(commit: str | None) -> Iterator[SourceTree]:
    """The project's code as of a commit: this checkout if it is that, else a temporary worktree.

    Args:
        commit: one that `check_commit` admits; None is the code that runs now.

    Raises:
        ConflictError: git cannot make the worktree, or the commit has no entry points.
    """
    code = code_version()
    if commit is None or (code is not None and code.commit == commit and not code.dirty):
        yield _entered(_here(), "of this grpo-platform")
        return
    with TemporaryDirectory(prefix="grpo-reproduce-") as folder:
        tree = Path(folder) / "tree"
        # no hook of the user's may run in it
        added = _git(
            "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(tree), commit
        )
        if added is None:
            raise ConflictError(f"git could not check commit {commit} out into a worktree.")
        try:
            yield _entered(tree / (_git("rev-parse", "--show-prefix") or ""), f"of commit {commit}")
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _entered(folder: Path, whose: str) -> SourceTree:
    for name in _ENTRY_POINTS:
        # in a checkout, and beside each other where they are installed
        if any(path for where in _PACKAGE for path in folder.glob(f"{where}/{name}*")):
            return SourceTree(folder, f"grpo_platform.{name}")
    raise ConflictError(f"The code {whose} is too old: it cannot train in a given run.")


def _here() -> Path:
    return Path(grpo.__file__).resolve().parents[1]


def _git(*arguments: str) -> str | None:
    """What git says; None when it fails or there is no git."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_here(), capture_output=True, encoding="utf-8",
            errors="surrogateescape", timeout=_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
