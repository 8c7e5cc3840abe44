"""Settings of the server, read from the environment once, in the entry point."""

import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from grpo_platform.core.access import TOKEN_DIGEST
from grpo_platform.core.errors import StoreError
from grpo_platform.core.messages import without_credentials

__all__ = [
    "TOKEN_VARIABLE",
    "Settings",
    "WorkerSettings",
    "child_environment",
    "in_sentences",
    "kind_of_store",
    "unknown_variables",
]

_PREFIX = "GRPO_"
_MIN_TOKEN_BYTES = 32
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

TOKEN_VARIABLE = "GRPO_API_TOKEN"
"""Holds `Settings.api_token`."""


class WorkerSettings(BaseSettings):
    """What workers, which see no token, read from the environment too.

    Raises:
        pydantic.ValidationError: a value out of range.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, env_ignore_empty=True)

    video_frames: int = Field(500, ge=0, le=100_000)
    """Most frames of a job's video, and of each clip of its worst episodes; 0 makes none."""


class Settings(WorkerSettings):
    """Everything that can be set from outside; every variable has the prefix `GRPO_`.

    Raises:
        pydantic.ValidationError: a value out of range, or a non-loopback host without a token.
    """

    host: str = "127.0.0.1"
    """Address the API listens on; another than loopback needs `api_token`."""

    port: int = Field(8000, ge=0, le=65535)
    """Port of the API; 0 takes a free one."""

    api_token: str | None = Field(None, repr=False)
    """Token that every call must carry, at least 32 bytes; none means loopback only."""

    max_concurrent_jobs: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=1024)
    """Jobs that run at once."""

    max_queued_jobs: int = Field(1000, ge=0)
    """Jobs that may wait; one more is refused with 429."""

    max_job_memory_megabytes: int | None = Field(None, ge=0, le=1 << 30)
    """MiB that one job may take; 0 is no limit, None three quarters of what this machine has."""

    max_watchers: int = Field(1000, ge=1, le=100_000)
    """Clients that may watch the events of jobs at once; one more is refused with 429."""

    max_play_sessions: int = Field(8, ge=0, le=256)
    """Policies that may be at play at once, a process each; one more is refused with 429."""

    max_play_sessions_per_client: int = Field(3, ge=1, le=256)
    """Those that one client's address may steer at once."""

    play_idle_seconds: float = Field(600.0, ge=1, le=86_400, allow_inf_nan=False)
    """How long a policy stays at play without a command."""

    viewer_checkpoint_seconds: float = Field(5.0, ge=1, le=86_400, allow_inf_nan=False)
    """Least time between two checkpoints that a job makes for those who watch it train."""

    keep_alive_seconds: int = Field(75, ge=1, le=3600)
    """How long an idle connection of a client stays open."""

    model_cache_size: int = Field(32, ge=1)
    """Loaded models kept in memory."""

    mlflow_ui_port: int = Field(5000, ge=0, le=65535)
    """Port of the MLflow UI, moved up when busy; 0 turns the UI off."""

    job_backend: str = "local"
    """Where jobs run: `local`, processes of this machine, `ray`, a Ray cluster, `memory`, threads
    of the server, or the name of an installed backend (entry point `grpo.backends`)."""

    environment_seconds: float = Field(30.0, ge=1, le=3600, allow_inf_nan=False)
    """How long an environment may take to be made and reset when a job for it is submitted."""

    env_modules: Annotated[tuple[str, ...], NoDecode] = ()
    """Modules that register environments when they are imported, separated by commas; of installed
    packages, or files in the working directory. No other module is ever imported for a client."""

    artifact_root: str | None = None
    """Where PostgreSQL stores keep artifacts; ignored elsewhere."""

    max_timesteps: int = Field(1_000_000_000, ge=1, le=1_000_000_000)
    """Largest `total_timesteps` of one job."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe messages that are logged; `info` includes a line for every request."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Further values of the Host header that are accepted, separated by commas."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose pages may call the API, separated by commas."""

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, object]) -> dict[str, object]:
        for name in ("allowed_hosts", "cors_origins", "env_modules"):
            text = values.get(name)
            if isinstance(text, str):
                values[name] = tuple(part.strip() for part in text.split(",") if part.strip())
        return values

    @model_validator(mode="after")
    def _token_guards_the_network(self) -> Self:
        if self.api_token is not None and len(self.api_token.encode()) < _MIN_TOKEN_BYTES:
            raise ValueError(f"GRPO_API_TOKEN must have at least {_MIN_TOKEN_BYTES} bytes.")
        wrong = next((name for name in self.env_modules if not _MODULE.fullmatch(name)), None)
        if wrong is not None:
            raise ValueError(
                f"GRPO_ENV_MODULES names modules such as my_package.envs, not {wrong!r}."
            )
        if not self.is_loopback and self.api_token is None:
            raise ValueError(
                f"GRPO_HOST={self.host} is reachable from other machines: set GRPO_API_TOKEN "
                f"(at least {_MIN_TOKEN_BYTES} bytes) too, or listen on 127.0.0.1."
            )
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the API."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def tracking_uri(self) -> str:
        """MLflow store: `MLFLOW_TRACKING_URI`, else mlflow.db in the working directory."""
        configured = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
        return configured or "sqlite:///mlflow.db"


def kind_of_store(uri: str) -> str:
    """`sqlite`, `postgresql`, `http` or `https`.

    Raises:
        StoreError: none of these.
    """
    import sqlalchemy  # the command line starts without it

    try:
        kind = sqlalchemy.make_url(uri).drivername.partition("+")[0]
    except (ValueError, sqlalchemy.exc.ArgumentError):
        kind = "no address"
    if kind not in ("sqlite", "postgresql", "http", "https"):
        raise StoreError(
            f"MLFLOW_TRACKING_URI={without_credentials(uri)[:200]!r} is not supported: use "
            "sqlite:///file, an MLflow server (http://…) or postgresql://…, or leave it unset for "
            "mlflow.db in this directory."
        )
    return kind


def in_sentences(error: ValidationError) -> str:
    """What is wrong with settings, a line for each of them, by the name of its variable."""
    lines = []
    for finding in error.errors(include_url=False, include_input=False):
        message = finding["msg"].removeprefix("Value error, ")
        name = "GRPO_" + "_".join(str(part) for part in finding["loc"]).upper()
        lines.append(f"{name}: {message}" if finding["loc"] else message)
    return "\n".join(lines)


def child_environment() -> dict[str, str]:
    """This process's environment without the token: no child needs it, and plug-ins run in some."""
    return {k: v for k, v in os.environ.items() if k.upper() != TOKEN_VARIABLE}


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str | None]:
    """Variables with our prefix that set nothing, and the setting that each may mean."""
    settings = {_PREFIX + name.upper() for name in Settings.model_fields}
    others = {"GRPO_URL", TOKEN_DIGEST}  # of the command line, and of the MLflow UI's process
    given = {name for name in environ if name.upper().startswith(_PREFIX)}
    unknown = {name for name in given if name.upper() not in settings | others}
    if not unknown:
        return {}
    from grpo.errors import nearest  # imports torch

    meant = [name.removeprefix(_PREFIX) for name in settings]
    found = {name: nearest(name[len(_PREFIX) :], meant) for name in sorted(unknown)}
    return {name: None if like is None else _PREFIX + like for name, like in found.items()}
