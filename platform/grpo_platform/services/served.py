"""What this server serves, beside what each version's evaluation saw."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from grpo.errors import GRPOError
from grpo_platform.core.errors import PlatformError, UnknownModelError
from grpo_platform.jobs.isolation import Isolation
from grpo_platform.registry.models import Registry
from grpo_platform.registry.records import ModelVersionRef
from grpo_platform.services.once import Once
from grpo_platform.serving.figures import (
    MOST_FEATURES,
    Histogram,
    ServedFigures,
    ServedModel,
    Steps,
    histograms,
)
from grpo_platform.serving.service import ServingService

__all__ = ["Served", "ServedVersion"]

_KEPT: Final = 32
_PLAYING: Final = "The first episodes of its evaluation are being played again; look again soon."


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedVersion:
    """One version: its figures, and what it was asked beside what its evaluation saw."""

    figures: ServedModel

    steps: int
    """Observations that the histograms are of, the latest that were looked at."""

    evaluation_steps: int | None
    """Steps of the evaluation that they are compared with; None where these are not known."""

    note: str | None
    """Why they are not known."""

    features: list[Histogram]
    """Of each number of an observation; none where there are more than 64."""

    actions: list[Histogram]
    """Of the action, or of each of its numbers."""


class Served:
    """Figures of the models that are served here. Safe to call from several threads.

    Args:
        serving: that has them loaded.
        registry: that has their files.
        isolation: where their evaluation is played again.
    """

    def __init__(self, serving: ServingService, registry: Registry, isolation: Isolation) -> None:
        self.figures = ServedFigures()
        self._serving, self._registry, self._isolation = serving, registry, isolation
        self._evaluations: Once[Steps] = Once("served-evaluation", _KEPT)

    def close(self) -> None:
        """Play nothing any more."""
        self._evaluations.close()

    def models(self) -> list[ServedModel]:
        """Of every model that was asked here, the one that was asked last first."""
        found = [self.figures.of(key) for key in self.figures.asked()]
        return sorted((one for one in found if one is not None), key=lambda one: -one.latest)

    def version(self, name: str, version: int) -> ServedVersion:
        """One version's figures; the first call begins to play its evaluation.

        Raises:
            UnknownModelError: it was not asked here.
            StoreError: the store cannot be reached.
        """
        key = next((k for k in self.figures.asked() if k[:2] == (name, version)), None)
        figures = None if key is None else self.figures.of(key)
        if key is None or figures is None:
            raise UnknownModelError(
                f"{name}/{version}",
                "Nothing was asked of it here yet; GET /serving tells of what. ",
            )
        model = self._serving.load(f"{name}/{version}")
        mine = self.figures.steps(key) or Steps(np.zeros((0, 0), np.float32),
                                                np.zeros((0, 0), np.float32))  # fmt: skip
        its, note = self._evaluation(model.ref)
        actions = [str(i) for i in range(MOST_FEATURES)]
        return ServedVersion(
            figures=figures,
            steps=len(mine.actions),
            evaluation_steps=None if its is None else len(its.actions),
            note=note,
            features=histograms(
                model.feature_names,
                mine.observations,
                None if its is None else its.observations,
                None,
            ),
            actions=histograms(
                actions, mine.actions, None if its is None else its.actions, model.choices
            ),
        )

    def _evaluation(self, ref: ModelVersionRef) -> tuple[Steps | None, str | None]:
        """Its steps, or why there are none."""
        playing = self._evaluations.ask(f"{ref.label} {ref.model_id}", lambda: self._play(ref))
        if not playing.done():
            return None, _PLAYING
        try:
            return playing.result(), None
        except (GRPOError, PlatformError) as error:
            return None, str(error)

    def _play(self, ref: ModelVersionRef) -> Steps:
        owner = self._registry.environment_of(ref.name)
        if owner is None:
            raise UnknownModelError(ref.name)
        found: dict[str, Any] = self._isolation.observe(
            self._registry.read(ref), ref.label, owner.env_name, env_kwargs=owner.env_kwargs,
            most_numbers=MOST_FEATURES,
        )  # fmt: skip
        return Steps(*(_rows(found[name]) for name in ("observations", "actions")))


def _rows(values: list[list[float]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(values, np.float32).reshape(len(values), -1)
