"""Why the policy acts as it does in the state that an episode is in, as JSON values."""

from typing import Any

import numpy as np
import numpy.typing as npt

from grpo.errors import IncompatibleError
from grpo.explanation import (
    ActionOutcome,
    Attribution,
    attribute,
    candidate_actions,
    compare_actions,
)
from grpo.policies import BasePolicy
from grpo.scenarios.environment import feature_names
from grpo.statistics import Interval
from grpo_platform.play.episode import Episode

__all__ = ["explain"]


def explain(
    policy: BasePolicy,
    episode: Episode,
    *,
    continuations: int = 64,
    horizon: int = 1000,
    seconds: float = 20.0,
) -> dict[str, Any]:
    """Compare every action from here, and attribute the preferred one to what is observed.

    Args:
        policy: that acts.
        episode: where it is.
        continuations: after each action.
        horizon: steps after which a continuation is cut.
        seconds: see `compare_actions`.

    Raises:
        IncompatibleError: the environment cannot be branched exactly, the episode is over, or the
            actions cannot be compared.
        EnvironmentFaultError: the environment raised.
    """
    if episode.is_over:
        raise IncompatibleError("The episode is over: wind back to a step before its end.")
    rows, prediction = episode.predict(policy, deterministic=True)
    preferred = np.asarray(prediction.actions[0])
    found = compare_actions(
        policy,
        episode.spec,
        episode.snapshot(),
        candidate_actions(policy, preferred),
        state=episode.remembered(policy),
        continuations=continuations,
        horizon=horizon,
        seconds=seconds,
        seed=episode.seed,
    )
    try:
        attributed, why_not = attribute(policy, rows[0], preferred), ""
    except IncompatibleError as error:
        attributed, why_not = None, str(error)
    return {
        "step": episode.step,
        "preferred": preferred,
        "value": float(prediction.values[0]),
        "continuations": found.continuations,
        "horizon": found.horizon,
        "cut": found.cut,
        "seconds": found.seconds,
        "actions": [_outcome(each) for each in found.actions],
        "attribution": None if attributed is None else _attribution(attributed, rows[0], episode),
        "why_no_attribution": why_not,
    }


def _outcome(outcome: ActionOutcome) -> dict[str, Any]:
    return {
        "action": outcome.action,
        "returns": outcome.returns,
        "mean_length": float(outcome.lengths.mean()),
        "mean": _interval(outcome.mean),
        "difference": None if outcome.difference is None else _interval(outcome.difference),
        "parts_at": outcome.parts_at,
        "typical": list(outcome.typical),
        "worst": list(outcome.worst),
    }


def _interval(interval: Interval) -> dict[str, float]:
    return {
        "estimate": float(interval.estimate), "low": float(interval.low),
        "high": float(interval.high),
    }  # fmt: skip


def _attribution(found: Attribution, row: npt.NDArray[Any], episode: Episode) -> dict[str, Any]:
    names = feature_names(episode.spec) or [
        f"{leaf.name}[{i}]" if leaf.shape else leaf.name
        for leaf, columns in episode.spec.observation.columns()
        for i in range(columns.stop - columns.start)
    ]
    return {
        "target": found.target,
        "at_observation": found.at_observation,
        "at_baseline": found.at_baseline,
        "features": [
            {"name": name, "value": value, "baseline": baseline, "attribution": attribution}
            for name, value, baseline, attribution in zip(
                names, np.ravel(row).tolist(), found.baseline.tolist(), found.values.tolist(),
                strict=True,
            )
        ],
    }  # fmt: skip
