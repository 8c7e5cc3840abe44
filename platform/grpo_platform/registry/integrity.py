"""Which loaders are ours, and whether a model's files are what was registered."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from grpo_platform.core.errors import UnsafeModelError
from grpo_platform.registry.names import (
    CODE_DIR,
    LOADER_MODULE,
    POLICY_DIR,
    SPEC_FILE,
    WEIGHTS_FILE,
)

__all__ = [
    "DOWNLOAD_NOTE",
    "RELEASED_LOADERS",
    "PolicyFiles",
    "check_sizes",
    "file_hashes",
    "installed_loader",
    "read_policy_files",
    "read_registered",
]

RELEASED_LOADERS: Final[Mapping[str, str]] = {
    "be092d50976daaf7ebe6d4440e458fc79a6b2a6f9edcd129103f2278b5127a9b": "grpo_policy_loader_v1",
    # one rule for huge observations; interprets the graph of any policy
    "0be74c63ec697bcac5d6c88466382b09de5198a6487ab653e08ca493222efe36": "grpo_policy_loader_v2",
    # trees of observations, categories, masks, memory
    "3755367ab19f0b033a0ef66ac7faa26506566f994d90cfa07349978be9b5c248": LOADER_MODULE,
}
"""SHA-256 of each loader that was ever released, and the module name it travels under.

Append only: a version is loaded only if the loader it carries is in here. No two share a name:
Python imports a name once, so that a process that loads models of two releases would otherwise
read the one with the other's loader.
"""

_SPEC = f"{POLICY_DIR}/{SPEC_FILE}"
_WEIGHTS = f"{POLICY_DIR}/{WEIGHTS_FILE}"

DOWNLOAD_NOTE: Final = "registered_model_meta"
"""What MLflow writes beside the files when it downloads a model."""

_MOST_FILES: Final = 100
_MOST_BYTES: Final = 2**20
"""Of each file but those that hold weights; they have some thousand bytes."""
_MOST_WEIGHTS: Final = 2**30

_FLAVOR_KEYS: Final[Mapping[str, Mapping[str, object]]] = {
    "python_function": {"data": POLICY_DIR, "code": CODE_DIR},
    "pytorch": {"model_data": "data", "code": None},
}
_FREE_KEYS: Final = frozenset({"env", "python_version", "pytorch_version"})


class PolicyFiles(NamedTuple):
    """Contents of the files that our loader reads, as verified."""

    spec: bytes
    weights: bytes


def installed_loader() -> bytes:
    """Source of the loader of this installation, which travels with new models.

    Raises:
        UnsafeModelError: it was changed and is none of the released ones.
    """
    source = Path(__file__).with_name("loader.py").read_bytes()
    if hashlib.sha256(source).hexdigest() not in RELEASED_LOADERS:
        raise UnsafeModelError(
            "The installed model loader is not a released one: reinstall grpo-platform, or add "
            "its SHA-256 to RELEASED_LOADERS if you release it."
        )
    return source


def check_sizes(sizes: Mapping[str, int], name: str) -> None:
    """Refuse a model that is larger than any that this platform makes, before it is read.

    Args:
        sizes: bytes of each file, by relative path.
        name: the version, for messages.

    Raises:
        UnsafeModelError: a file is too large, or there are too many.
    """
    if len(sizes) > _MOST_FILES:
        raise UnsafeModelError(f"{name} is not loaded: it has more than {_MOST_FILES} files.")
    for path, size in sizes.items():
        most = _MOST_WEIGHTS if path == _WEIGHTS or path.startswith("data/") else _MOST_BYTES
        if size > most:
            raise UnsafeModelError(
                f"{name} is not loaded: {path!r} has {size:,} bytes; at most {most:,} are read."
            )


def file_hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of every file under `directory`, by relative path.

    Raises:
        UnsafeModelError: something in it is neither a plain file nor a folder.
    """
    return {path: _sha256(_read(directory, path)) for path in _relative_paths(directory)}


def read_policy_files(directory: Path, files: Mapping[str, str], name: str) -> PolicyFiles:
    """Read a version's policy, after every file was checked; nothing in it is run.

    Args:
        directory: the model's folder on this machine.
        files: SHA-256 of each file, from the version's tags.
        name: the version, for messages.

    Raises:
        UnsafeModelError: a file is missing, changed, foreign or no plain file, or the model
            names a loader that is not one of ours.
    """
    present = _relative_paths(directory)
    wrong = sorted(set(files).symmetric_difference(present))
    if wrong:
        raise UnsafeModelError(f"{name} is not loaded: {wrong[0]!r} was added or is missing.")
    check_sizes({path: (directory / path).stat().st_size for path in present}, name)
    contents: dict[str, bytes] = {}
    for path in present:
        content = _read(directory, path)
        if _sha256(content) != files[path]:
            raise UnsafeModelError(f"{name} is not loaded: {path!r} was changed.")
        if not path.startswith("data/"):  # the exported model is for others
            contents[path] = content
    missing = sorted({"MLmodel", _SPEC, _WEIGHTS}.difference(contents))
    if missing:
        raise UnsafeModelError(f"{name} is not loaded: it has no {missing[0]!r}.")
    _check_mlmodel(contents["MLmodel"], _loader_module(contents, name), name)
    return PolicyFiles(spec=contents[_SPEC], weights=contents[_WEIGHTS])


def read_registered(directory: Path, path: str, files: Mapping[str, str], name: str) -> bytes:
    """One file of a version, as it was registered.

    Args:
        directory: the model's folder on this machine.
        path: of the file in it.
        files: SHA-256 of each file, from the version's tags.
        name: the version, for messages.

    Raises:
        UnsafeModelError: it was changed, or is not there.
    """
    try:
        content = _read(directory, path)
    except FileNotFoundError as error:
        raise UnsafeModelError(f"{name} is not read: it has no {path!r}.") from error
    if _sha256(content) != files[path]:
        raise UnsafeModelError(f"{name} is not read: {path!r} was changed.")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _relative_paths(directory: Path) -> list[str]:
    found: list[str] = []
    for folder, folders, names in os.walk(directory, followlinks=False):
        here = Path(folder)
        # left by whoever imported the loader from here; the server never does
        folders[:] = [sub for sub in folders if sub != "__pycache__"]
        for entry in (*folders, *names):
            path = here / entry
            plain = path.is_dir() if entry in folders else path.is_file()
            if path.is_symlink() or not plain:
                raise UnsafeModelError(f"A model holds {entry!r}, which is no plain file.")
        found += [(here / entry).relative_to(directory).as_posix() for entry in names]
    return sorted(path for path in found if path != DOWNLOAD_NOTE)


def _read(directory: Path, path: str) -> bytes:
    descriptor = os.open(directory / path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_MOST_WEIGHTS)


def _loader_module(contents: Mapping[str, bytes], name: str) -> str:
    """Name of the loader that is the only code in the model, and one of ours."""
    code = [path for path in contents if path.startswith(f"{CODE_DIR}/")]
    module = RELEASED_LOADERS.get(_sha256(contents[code[0]])) if len(code) == 1 else None
    if module is None or code != [f"{CODE_DIR}/{module}.py"]:
        raise UnsafeModelError(f"{name} is not loaded: it carries a loader that is not ours.")
    return module


def _check_mlmodel(content: bytes, loader_module: str, name: str) -> None:
    expected: dict[str, Mapping[str, object]] = dict(_FLAVOR_KEYS)
    expected["python_function"] = {"loader_module": loader_module, **expected["python_function"]}
    try:
        flavors: Any = yaml.safe_load(content)["flavors"]
        fits = not set(flavors).difference(expected) and all(
            _flavor_fits(flavors[flavor], keys) for flavor, keys in expected.items()
        )
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UnsafeModelError(f"{name} is not loaded: its MLmodel file cannot be read.") from error
    if not fits:
        raise UnsafeModelError(
            f"{name} is not loaded: its MLmodel file names a loader, flavor or path that is "
            "not ours."
        )


def _flavor_fits(flavor: Mapping[str, Any], expected: Mapping[str, object]) -> bool:
    unknown = set(flavor).difference(expected, _FREE_KEYS)
    return not unknown and all(flavor.get(key) == value for key, value in expected.items())
