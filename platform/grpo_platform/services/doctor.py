"""What `grpo-platform doctor` looks at: whether this machine and folder are ready for a server."""

import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple

import requests
import torch
from packaging.requirements import Requirement

import grpo_platform
from grpo import GRPOConfig, GRPOError
from grpo.envs import check_environment
from grpo.trainer import Trainer
from grpo_platform.core.errors import PlatformError
from grpo_platform.core.messages import without_credentials
from grpo_platform.core.settings import Settings, kind_of_store
from grpo_platform.services import store
from grpo_platform.tracking.addresses import named_store_uri
from grpo_platform.tracking.schema import SchemaState

__all__ = ["Finding", "State", "examine"]

_DISTRIBUTION: Final = "grpo-platform"
_SHOWN: Final = ("mlflow", "torch", "gymnasium", "numpy", "fastapi")
_FAMILIES: Final = {"MuJoCo": "Hopper-v5", "Box2D": "LunarLander-v3"}
_LEAST_FREE: Final = 2 << 30
"""Bytes: a store grows by about a megabyte a job."""

_TRIAL_TIMESTEPS: Final = 5_000


class State(StrEnum):
    """What a finding means for a server here."""

    OK = "ok"
    NOTE = "note"
    """It works without."""

    PROBLEM = "problem"
    """A server or its jobs would fail."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    state: State
    found: str
    advice: str = ""
    """What to do; empty where there is nothing to do."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at versions, store, ports, disk, GPU and the time of a training, one after the other.

    Args:
        settings: of the server that would start here.

    Yields:
        What was found; nothing is raised, since what fails is a finding.
    """
    looks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _versions, _requirements, _store, _ports, _disk, _gpu, _environments, _training,
    )  # fmt: skip
    for look in looks:
        yield from look(settings)


def _versions(_: Settings) -> Iterator[Finding]:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _SHOWN)
    yield Finding("versions", State.OK, f"grpo-platform {grpo_platform.__version__}, {versions}")
    system = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores"
    if sys.platform == "linux":
        yield Finding("system", State.OK, system)
    else:
        advice = "Linux is what is tested; elsewhere lost workers are found by heartbeat alone."
        yield Finding("system", State.NOTE, system, advice)


def _requirements(_: Settings) -> Iterator[Finding]:
    """As `pip check` does, of what this distribution leads to; and which extras are complete."""
    seen: set[tuple[str, str]] = set()
    wrong = dict.fromkeys(_wrong(_DISTRIBUTION, "", seen))
    if wrong:
        advice = f"Install {_DISTRIBUTION} anew; in a checkout: pip install -r requirements.txt"
        yield Finding("packages", State.PROBLEM, "; ".join(wrong), advice)
    else:
        yield Finding("packages", State.OK, "All that is required is there.")
    there: dict[bool, list[str]] = {True: [], False: []}
    for extra in metadata.metadata(_DISTRIBUTION).get_all("Provides-Extra") or ():
        there[not any(_wrong(_DISTRIBUTION, extra, set(seen)))].append(extra)
    found = ", ".join(there[True]) or "none"
    if there[False]:
        found += f"; not installed: {', '.join(there[False])}"
    yield Finding("extras", State.OK, found)


def _wrong(name: str, extra: str, seen: set[tuple[str, str]]) -> Iterator[str]:
    """What a distribution and those that it requires lack, with one of its extras or without.

    Args:
        name: of the distribution.
        extra: of it; empty for none.
        seen: those that were looked at, with their extras; they are passed over.
    """
    seen.add((name, extra))
    for wanted in map(Requirement, metadata.requires(name) or ()):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": extra}):
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield f"{wanted.name} is missing"
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name} {found} is not {wanted.specifier}"
        for more in ("", *wanted.extras):
            if (wanted.name, more) not in seen:
                yield from _wrong(wanted.name, more, seen)


def _store(settings: Settings) -> Iterator[Finding]:
    shown = without_credentials(settings.tracking_uri)
    empty = f"{shown}; the first start of the server makes it"
    try:
        uri = named_store_uri(settings)
        if kind_of_store(uri).startswith("http"):
            requests.get(f"{uri.rstrip('/')}/health", timeout=10).raise_for_status()
            yield Finding("store", State.OK, f"{shown} answers")
            return
        if uri.startswith("sqlite:") and not Path(uri.removeprefix("sqlite:///")).exists():
            yield Finding("store", State.OK, empty)
            return
        schema = store.schema(settings)
    except (PlatformError, requests.RequestException, OSError) as error:
        advice = "Set MLFLOW_TRACKING_URI to a store that can be reached, or unset it."
        yield Finding("store", State.PROBLEM, f"{shown}: {error}", advice)
        return
    if schema.is_older:
        advice = "Stop the server, then: grpo-platform store upgrade"
        yield Finding("store", State.PROBLEM, f"{shown} is of an older MLflow", advice)
    elif schema.state is SchemaState.EMPTY:
        yield Finding("store", State.OK, empty)
    else:
        yield Finding("store", State.OK, f"{shown}, schema {schema.found}")


def _ports(settings: Settings) -> Iterator[Finding]:
    if settings.port:
        yield _port("API port", settings.host, settings.port)
    if settings.mlflow_ui_port and not _is_free("127.0.0.1", settings.mlflow_ui_port):
        found = f"{settings.mlflow_ui_port} is in use"
        yield Finding("MLflow UI port", State.NOTE, found, "The next free one will be taken.")
    elif settings.mlflow_ui_port:
        yield Finding("MLflow UI port", State.OK, f"{settings.mlflow_ui_port} is free")


def _port(what: str, host: str, port: int) -> Finding:
    if _is_free(host, port):
        return Finding(what, State.OK, f"{port} is free")
    try:
        served = requests.get(f"http://{host}:{port}/health", timeout=5).ok
    except requests.RequestException:
        served = False
    if served:
        advice = f"See it with grpo-platform open, or serve on another port: GRPO_PORT={port + 1}"
        return Finding(what, State.NOTE, f"A server answers at {port} already.", advice)
    advice = f"Stop what listens there, or take another port: GRPO_PORT={port + 1}"
    return Finding(what, State.PROBLEM, f"{port} is in use", advice)


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _disk(_: Settings) -> Iterator[Finding]:
    for what, folder in (("disk, here", Path.cwd()), ("disk, scratch", tempfile.gettempdir())):
        free = shutil.disk_usage(folder).free
        found = f"{free / 2**30:.1f} GiB free"
        if not os.access(folder, os.W_OK):
            advice = "Start the server in a folder that it may write to."
            yield Finding(what, State.PROBLEM, f"{folder} cannot be written to", advice)
        elif free < _LEAST_FREE:
            advice = "Jobs fail once it is full: make room, or start elsewhere."
            yield Finding(what, State.NOTE, found, advice)
        else:
            yield Finding(what, State.OK, found)


def _gpu(_: Settings) -> Iterator[Finding]:
    if torch.cuda.is_available():
        found = f"{torch.cuda.get_device_name()}; jobs use it with device=cuda"
        yield Finding("GPU", State.OK, found)
    else:
        said = "none that torch can use; control tasks train on the CPU"
        yield Finding("GPU", State.OK, said)


def _environments(_: Settings) -> Iterator[Finding]:
    for family, env_name in _FAMILIES.items():
        try:
            check_environment(env_name)
        except GRPOError as error:
            yield Finding(family, State.NOTE, str(error), "Other environments train without it.")
        else:
            yield Finding(family, State.OK, f"{env_name} can be made")


def _training(_: Settings) -> Iterator[Finding]:
    start = time.perf_counter()
    try:
        with Trainer(GRPOConfig(total_timesteps=_TRIAL_TIMESTEPS, n_eval_episodes=10)) as trainer:
            result = trainer.train()
    except (GRPOError, RuntimeError, OSError) as error:
        yield Finding("training", State.PROBLEM, str(error), "Nothing can be trained here.")
        return
    seconds = time.perf_counter() - start
    found = f"{result.timesteps:,} steps of CartPole in {seconds:.1f} s, its evaluation included"
    yield Finding("training", State.OK, found)
