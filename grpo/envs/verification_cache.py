"""Answers of slow trials, kept on disk while the code that they are about stays the same."""

import contextlib
import hashlib
import json
import logging
import os
import platform
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gymnasium.envs.registration import EnvSpec

from grpo.envs.spec import EnvironmentSpec

__all__ = ["remembered"]

_log = logging.getLogger(__name__)

_WORTH_KEEPING_SECONDS = 1.0
_FORMAT = 1

T = TypeVar("T")


def remembered(spec: EnvironmentSpec, question: str, find: Callable[[], T]) -> T:
    """The answer of an earlier process to the same question about the same code, else `find()`.

    Kept below the user's cache directory, and only if finding it took long and the environment is
    registered by the name of its code: of a function that was handed over nobody knows the version.

    Args:
        spec: what it is about.
        question: its name.
        find: gives the answer, JSON values.
    """
    path = _path(spec, question)
    if path is not None:
        with contextlib.suppress(OSError, ValueError):
            kept: T = json.loads(path.read_bytes())
            _log.info("What trials of %s showed is known from an earlier run.", spec.env_name)
            return kept
    start = time.monotonic()
    answer = find()
    seconds = time.monotonic() - start
    if seconds >= _WORTH_KEEPING_SECONDS:
        _log.info("Trials of %s took %.1f s.", spec.env_name, seconds)
        if path is not None:
            with contextlib.suppress(OSError):
                _write(path, json.dumps(answer))
    return answer


def _path(spec: EnvironmentSpec, question: str) -> Path | None:
    registered = spec.source
    if not isinstance(registered, EnvSpec) or not isinstance(registered.entry_point, str):
        return None
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        key = json.dumps([
            *(_FORMAT, question, registered.entry_point, str(registered.additional_wrappers)),
            *(registered.kwargs, spec.to_dict(), platform.python_version()),
            # changes whenever anything is installed or removed, engines for example
            os.stat(sysconfig.get_path("purelib")).st_mtime_ns,
            _files_of(registered.entry_point.partition(":")[0]),
        ])  # fmt: skip
    except (LookupError, OSError, RuntimeError, TypeError, ValueError):
        return None
    return home / "grpo-trials" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _files_of(module: str) -> list[tuple[str, int, int]]:
    """Name, size and time of each source file of the package that a module belongs to."""
    package: Any = sys.modules.get(module.partition(".")[0])
    name = getattr(package, "__file__", None) or sys.modules[module].__file__
    if name is None:
        raise ValueError(f"{module} has no file")
    file = Path(name)
    files = file.parent.rglob("*.py") if file.name == "__init__.py" else [file]
    stats = [(str(path), path.stat()) for path in sorted(files)]
    return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(text.encode())
    os.replace(file.name, path)
