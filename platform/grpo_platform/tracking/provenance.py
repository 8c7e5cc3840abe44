"""Where a run comes from: code, packages, environment (as an MLflow dataset too), command."""

import contextlib
import functools
import getpass
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from mlflow.entities import Dataset, DatasetInput, InputTag

import grpo
from grpo.config import GRPOConfig, resolve_config
from grpo.envs import check_environment
from grpo.envs.catalogue import allowed_modules
from grpo.errors import ConfigError
from grpo.observations import path_from_json, path_name
from grpo.registry import plug_ins
from grpo_platform.core.names import Tag
from grpo_platform.core.request import JobRequest

__all__ = [
    "CodeVersion",
    "code_version",
    "dataset_of",
    "environment_of",
    "package_versions",
    "provenance_tags",
    "reproduce_command",
]

_PACKAGES: Final = ("grpo-platform", "torch", "numpy", "gymnasium", "mlflow")
_GIT_SECONDS: Final = 5.0
_MAX_SPEC: Final = 7_500
_LARGE: Final = ("low", "high")


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeVersion:
    """The commit that the running code is from."""

    commit: str
    branch: str
    """Empty on a detached HEAD."""

    dirty: bool
    """Files that git tracks were changed since."""

    repository: str
    """URL of origin without credentials; empty where there is none."""


@functools.cache
def code_version() -> CodeVersion | None:
    """Commit of this package, as of the process's start; None where it is not from a checkout."""
    package = Path(grpo.__file__).resolve()
    if _git(package.parent, "ls-files", "--error-unmatch", package.name) is None:
        return None  # installed: a repository around it is somebody else's
    commit = _git(package.parent, "rev-parse", "HEAD")
    if not commit:
        return None
    return CodeVersion(
        commit=commit,
        branch=_git(package.parent, "branch", "--show-current") or "",
        dirty=bool(_git(package.parent, "status", "--porcelain", "--untracked-files=no")),
        repository=_anonymous(_git(package.parent, "config", "--get", "remote.origin.url") or ""),
    )


def provenance_tags(request: JobRequest, *, environment: bool = True) -> dict[str, str]:
    """All tags that say where a run of this request comes from.

    Args:
        request: of the run.
        environment: also what its environment is, for which it is made here: not in a server.
    """
    command = {Tag.REPRODUCE: reproduce_command(request)}
    return {**_process_tags(), **(_environment_tags(request) if environment else {}), **command}


def reproduce_command(request: JobRequest) -> str:
    """The command that trains the same again, to be run in a checkout of the run's commit.

    It names what differs from the environment's preset, which depends on the budget, the reward,
    and what else is named.
    """
    config = request.config.to_dict()
    given = {name: config[name] for name in ("env_name", "seed", "total_timesteps")}
    reward = config["reward_function_type"]
    if reward != resolve_config(**given).reward_function_type:
        given["reward_function_type"] = reward
    while missed := _differences(resolve_config(**given), config):
        given |= missed
    if request.init_from is not None:
        given["init_from"] = request.init_from
    words = [f"-P {shlex.quote(f'{name}={_text(value)}')}" for name, value in given.items()]
    return " ".join(["mlflow run . --env-manager=local", *words])


def _differences(found: GRPOConfig, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a config that have another value than is wanted, with that value."""
    return {name: wanted[name] for name, value in found.to_dict().items() if value != wanted[name]}


def environment_of(request: JobRequest) -> tuple[dict[str, Any], str] | None:
    """The environment's spec and its SHA-256; None where it cannot be made here."""
    try:
        spec = check_environment(request.config.env_name, request.config.env_kwargs).to_dict()
    except ConfigError:
        return None
    return spec, hashlib.sha256(_json(spec).encode()).hexdigest()


@functools.cache
def _process_tags() -> Mapping[str, str]:
    tags = {
        Tag.PACKAGES: _json(package_versions()),
        Tag.PYTHON: platform.python_version(),
        Tag.PLATFORM: platform.platform(),
        Tag.USER: _user(),
    }
    code = code_version()
    if code is None:
        return tags
    tags |= {Tag.GIT_COMMIT: code.commit, Tag.GIT_DIRTY: str(code.dirty).lower()}
    if code.branch:
        tags[Tag.GIT_BRANCH] = code.branch
    if code.repository:
        tags[Tag.GIT_REPOSITORY] = code.repository
    return tags


def _environment_tags(request: JobRequest) -> dict[str, str]:
    found = environment_of(request)
    if found is None:
        return {}
    spec, digest = found
    text = _json(spec)
    if len(text) > _MAX_SPEC:  # the bounds of an image would not fit; the digest covers them
        spec = {
            key: {k: v for k, v in value.items() if k not in _LARGE}
            if isinstance(value, dict)
            else value
            for key, value in spec.items()
        }
        text = _json(spec)
    return {Tag.ENVIRONMENT_SPEC: text[:_MAX_SPEC], Tag.ENVIRONMENT_HASH: digest}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None when it fails or there is no git."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8",
            errors="replace", timeout=_GIT_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _anonymous(url: str) -> str:
    parts = urlsplit(url)
    if not parts.scheme:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@functools.cache
def package_versions() -> Mapping[str, str]:
    """Versions of the packages that a training depends on, plug-ins included."""
    plugins = [entry.dist for entry in plug_ins()]
    found = {plugin.name: plugin.version for plugin in plugins if plugin is not None}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found | {module: _version_of(module) for module in allowed_modules()}


def _version_of(module: str) -> str:
    """Version of the package that a module is part of; of a file beside it, its SHA-256."""
    top = module.partition(".")[0]
    distributions = packages_distributions().get(top)
    if distributions:
        return version(distributions[0])
    found = PathFinder.find_spec(top, [*sys.path, os.getcwd()])
    try:
        source = Path(found.origin).read_bytes() if found is not None and found.origin else None
    except OSError:
        source = None
    return "unknown" if source is None else f"sha256:{hashlib.sha256(source).hexdigest()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user id may have no name
        return "unknown"


def _text(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else _json(value)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


_DIGEST_LENGTH = 32


def dataset_of(request: JobRequest) -> DatasetInput | None:
    """Entry for a run's inputs; None where the environment cannot be made here."""
    found = environment_of(request)
    if found is None:
        return None
    spec, digest = found
    source = {"env_name": spec["env_name"], "env_kwargs": spec["env_kwargs"]}
    seen = spec["observation"]
    features = [
        _tensor(path_name(path_from_json(leaf["path"])), leaf["shape"], leaf["dtype"])
        for leaf in seen.get("leaves", [{"path": [], "dtype": "float32", **seen}])
    ]
    profile = {
        name: spec[name] for name in ("max_episode_steps", "reward_threshold") if name in spec
    }
    dataset = Dataset(
        name=spec["env_name"],
        digest=digest[:_DIGEST_LENGTH],
        source_type="gymnasium",
        source=json.dumps(source),
        schema=json.dumps({"mlflow_tensorspec": {"features": json.dumps(features)}}),
        profile=json.dumps(profile | {"action": _without_bounds(spec["action"])}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", "training")])


def _tensor(name: str, shape: list[int], dtype: str) -> dict[str, Any]:
    return {
        "name": name or "observation",
        "type": "tensor",
        "tensor-spec": {"dtype": dtype, "shape": [-1, *shape]},
    }


def _without_bounds(action: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in action.items() if name not in ("low", "high")}
