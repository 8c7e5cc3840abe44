"""System calls: what they give."""

from datetime import datetime
from typing import Literal

from grpo_platform.api.schemas.common import Reply

__all__ = ["Health", "Probe", "Welcome"]


class Welcome(Reply):
    """What this server is."""

    message: str
    version: str
    endpoints: dict[str, str]
    """What each call does."""

    mlflow_ui: str | None
    """Address of the MLflow UI; null when it is turned off."""

    mlflow_links: dict[str, str] | None
    """Ways into its machine-learning pages: `runs` is the table of our runs with their results as
    columns; `run` and `model` lead to one, with its id or name and then `suffix` added."""


class Health(Reply):
    """How the server is doing."""

    status: Literal["healthy"]
    timestamp: datetime
    active_jobs: int
    """Jobs queued or running."""

    loaded_models: int
    """Models in memory."""


class Probe(Reply):
    """Answer to a probe."""

    status: Literal["live", "ready"]
