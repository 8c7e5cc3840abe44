"""Entry point `sweep`: a run that `mlflow run` created becomes a sweep, led in the foreground."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue

from grpo_platform.api.schemas.sweeps import SweepBody
from grpo_platform.api.schemas.training import TrainRequest
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.core.settings import Settings
from grpo_platform.mlproject.parameters import validated, with_seeds
from grpo_platform.services.container import build_services
from grpo_platform.services.foreground import lead
from grpo_platform.services.sweeps import check_sweep
from grpo_platform.sweeps.files import parse_text, read_space
from grpo_platform.sweeps.records import SweepRecord

__all__ = ["sweep"]


class _Own(SweepBody):
    """What the sweep itself takes, beside its space and what stays fixed."""

    search_space: dict[str, JsonValue] = Field(default_factory=dict)


def sweep(run_id: str, given: Mapping[str, str]) -> int:
    """Search, as POST /sweeps does; parameters that are no field of it stay fixed.

    Ctrl-C stops the sweep with its trials; a server's resume takes it up again.

    Returns:
        Exit code: 0 when the sweep completed, 1 when it failed or was stopped.

    Raises:
        InvalidRequestError: the parameters are malformed.
        grpo.ConfigError: the space is impossible, or cannot be trained.
        PlatformError: they do not fit what is in the store, or it is away.
    """
    values = _values(given)
    services = build_services(Settings())
    request = check_sweep(services, values)
    services.sweeps.adopt(run_id, request)

    def tell(found: SweepRecord) -> str:
        return f"{found.started_trials} of {found.request.n_trials} trials, best {found.best_value}"

    return lead(
        services, services.sweep_runner, lambda: services.sweeps.sweep(run_id), "Sweep", tell
    )


def _values(given: Mapping[str, str]) -> dict[str, Any]:
    names = SweepBody.model_fields.keys() - {"search_space", "config"}
    text = given.get("search_space", "").strip()
    if not text:
        raise InvalidRequestError(
            "search_space is needed: -P search_space=FILE, JSON or YAML.", field="search_space"
        )
    space = parse_text(text) if text.startswith("{") else read_space(Path(text))
    own = validated(_Own, with_seeds({n: text for n, text in given.items() if n in names}))
    fixed = {n: t for n, t in given.items() if n not in names and n != "search_space"}
    config = validated(TrainRequest, fixed).model_dump(exclude_unset=True)
    values: dict[str, Any] = own.model_dump(exclude_unset=True)
    body = SweepBody.model_validate({**values, "search_space": space, "config": config})
    return body.model_dump(exclude_unset=True)
