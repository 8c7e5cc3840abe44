"""Serving calls: what they give."""

from datetime import UTC, datetime

from grpo_platform.api.schemas.common import Reply, reply_from, reply_of
from grpo_platform.services.served import ServedVersion
from grpo_platform.serving import figures

__all__ = ["Histogram", "ServedList", "ServedModel", "Serving", "served_reply", "serving_reply"]


@reply_from(figures.ServedModel)
class ServedModel(Reply):
    """One version's figures."""

    since: datetime
    """When it was first asked here, UTC."""

    latest: datetime
    """When it was last asked."""


class ServedList(Reply):
    """What this server was asked, the latest first."""

    models: list[ServedModel]


@reply_from(figures.Histogram)
class Histogram(Reply):
    """One number of the observations or actions: how often it was where."""


@reply_from(ServedVersion, without=("figures",))
class Serving(ServedModel):
    """One version's figures, and what it was asked beside what its evaluation saw."""

    features: list[Histogram]
    actions: list[Histogram]


def served_reply(found: figures.ServedModel) -> ServedModel:
    """The figures of one version."""
    return reply_of(ServedModel, found, **_times(found))


def serving_reply(found: ServedVersion) -> Serving:
    """All that is known of one version."""
    return reply_of(Serving, found.figures, found, **_times(found.figures))


def _times(found: figures.ServedModel) -> dict[str, datetime]:
    moments = {"since": found.since, "latest": found.latest}
    return {name: datetime.fromtimestamp(moment, UTC) for name, moment in moments.items()}
