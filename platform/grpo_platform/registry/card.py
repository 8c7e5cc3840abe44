"""The card of a model version: where it comes from and how well it plays."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from grpo import GRPOConfig
from grpo.envs import EnvironmentSpec
from grpo.evaluation import Evaluation
from grpo.verdict import Verdict
from grpo_platform.core.errors import UnsafeModelError
from grpo_platform.registry.names import Tag

__all__ = ["EvaluationCard", "ModelCard", "canonical_json"]


def canonical_json(value: object) -> str:
    """Compact JSON with sorted keys; infinities and NaN become null."""
    return json.dumps(_finite(value), separators=(",", ":"), sort_keys=True, allow_nan=False)


def _finite(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationCard:
    """Greedy evaluation on the environment's own reward and fixed seeds."""

    episodes: int
    """Number of episodes."""

    mean: float
    std: float
    iqm: float
    """Interquartile mean of the returns."""

    ci_low: float
    """Lower end of the 95 % interval of what `interval_of` names."""

    ci_high: float
    """Upper end of it."""

    interval_of: Literal["mean", "iqm"] = "iqm"
    """What the interval is of; `iqm` in versions made before it was the mean's."""

    @classmethod
    def of(cls, evaluation: Evaluation) -> "EvaluationCard":
        """The figures of an evaluation."""
        return cls(
            episodes=len(evaluation.returns),
            mean=evaluation.mean,
            std=evaluation.std,
            iqm=evaluation.iqm,
            ci_low=evaluation.ci_low,
            ci_high=evaluation.ci_high,
            interval_of="mean",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelCard:
    """What a version's tags and description say; travels as JSON."""

    job_id: str
    """MLflow run that trained it."""

    env_name: str
    """Gymnasium id of its environment."""

    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the environment."""

    observation_shape: tuple[int, ...]
    """Shape of one observation."""

    action: Mapping[str, Any]
    """Action space of its environment."""

    environment_sha256: str | None = None
    """Hash of the whole environment specification."""

    config: Mapping[str, Any]
    """All hyperparameters that were in force."""

    seed: int
    """Seed of the training run."""

    timesteps: int
    """Environment steps trained."""

    git_commit: str | None = None
    """Commit of the code that trained it."""

    evaluation: EvaluationCard | None = None
    """Reported evaluation, if there was one."""

    baselines: Verdict | None = None
    """Whether its job's evaluation is better than random actions and than what the job started
    from; None in versions of earlier releases."""

    selection: str | None = None
    """How the policy was chosen among those of several seeds, in a sentence; its evaluation is
    then of episodes that it was not chosen by. None where it was not chosen."""

    created_at: str
    """When the version was made, ISO 8601, UTC."""

    @classmethod
    def of_job(
        cls,
        job_id: str,
        config: GRPOConfig,
        environment: EnvironmentSpec,
        *,
        timesteps: int,
        evaluation: Evaluation | None,
        baselines: Verdict | None = None,
        git_commit: str | None,
    ) -> "ModelCard":
        """Card of the policy that a job trained.

        Args:
            job_id: MLflow run.
            config: all hyperparameters in force.
            environment: that it was trained in.
            timesteps: environment steps done.
            evaluation: the reported one.
            baselines: what it is compared with.
            git_commit: of the code; None outside of a repository.
        """
        specification = environment.to_dict()
        return cls(
            job_id=job_id,
            env_name=environment.env_name,
            env_kwargs=environment.env_kwargs,
            observation_shape=environment.observation_shape,
            action=specification["action"],
            environment_sha256=hashlib.sha256(canonical_json(specification).encode()).hexdigest(),
            config=config.to_dict(),
            seed=config.seed,
            timesteps=timesteps,
            git_commit=git_commit,
            evaluation=EvaluationCard.of(evaluation) if evaluation else None,
            baselines=baselines,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def to_json(self) -> str:
        """Compact JSON, for `from_json`."""
        return canonical_json(dataclasses.asdict(self))

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values: dict[str, Any] = json.loads(self.to_json())
        return values

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Inverse of `to_json`.

        Raises:
            UnsafeModelError: the text is no card of ours.
        """
        try:
            return _CARD.validate_json(text)
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(str(part) for part in fault["loc"]) or "all of it"
            raise UnsafeModelError(
                f"A model version's card cannot be read ({where}): {fault['msg']}."
            ) from error

    def to_tags(self) -> dict[str, str]:
        """Tags of the version: the whole card, and what one searches for."""
        tags = {
            Tag.CARD: self.to_json(),
            Tag.ENV_NAME: self.env_name,
            Tag.SEED: str(self.seed),
        }
        if self.git_commit:
            tags[Tag.GIT_COMMIT] = self.git_commit
        if self.evaluation:
            tags[Tag.EVAL_MEAN] = repr(self.evaluation.mean)
        if self.baselines:
            tags[Tag.LEARNED] = str(self.baselines.better).lower()
        return tags

    def to_markdown(self) -> str:
        """Description of the version that the MLflow UI shows."""
        lines = [
            f"GRPO policy for **{self.env_name}**, {self.timesteps:,} timesteps, seed {self.seed}.",
            "",
            f"Trained by run `{self.job_id}`"
            + (f" at commit `{self.git_commit[:12]}`." if self.git_commit else "."),
        ]
        if self.selection:
            lines += ["", self.selection]
        if self.baselines:
            lines.insert(1, f"\n{self.baselines.sentence}")
        if self.evaluation:
            e = self.evaluation
            lines.insert(
                1,
                f"\nReturn over {e.episodes} greedy episodes: mean {e.mean:.1f}, 95 % interval "
                f"{e.ci_low:.1f} to {e.ci_high:.1f} (standard deviation {e.std:.1f}, "
                f"interquartile mean {e.iqm:.1f}).",
            )
        return "\n".join(lines)


_CARD: Final = TypeAdapter(ModelCard)
