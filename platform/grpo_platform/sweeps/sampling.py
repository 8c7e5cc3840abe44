"""What is tried next and what is given up: Optuna, told afresh of every trial so far.

Nothing is kept between two calls, so a restart of the server forgets nothing. The generator is
seeded by the sweep's seed and the trial's number: the same trials so far give the same next one.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from grpo_platform.sweeps.records import Outcome, Trial
from grpo_platform.sweeps.request import Sampler
from grpo_platform.sweeps.space import Choices, FloatRange, IntRange, Spec, grid_point

__all__ = ["importances", "propose", "should_prune"]

_STATES: Final[Mapping[Outcome, TrialState]] = {
    "running": TrialState.RUNNING, "completed": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED, "failed": TrialState.FAIL,
}  # fmt: skip
_STARTUP_TRIALS: Final = 5
_WARMUP_STEPS: Final = 4


def propose(
    space: Mapping[str, Spec],
    past: Sequence[Trial],
    *,
    seed: int,
    number: int,
    sampler: Sampler,
    maximize: bool,
) -> dict[str, Any]:
    """Hyperparameters of the next trial.

    Args:
        space: what varies.
        past: the trials so far, in order of their numbers.
        seed: of the sweep.
        number: of the trial, from 0.
        sampler: `tpe` learns from the trials so far; `grid` takes every combination in turn.
        maximize: whether larger values are better.
    """
    if sampler == "grid":  # Optuna's own would need a study that outlives the call
        return grid_point(space, number)
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    own_seed = int.from_bytes(digest[:4], "big")
    chosen: optuna.samplers.BaseSampler = (
        optuna.samplers.TPESampler(seed=own_seed)
        if sampler == "tpe"
        else optuna.samplers.RandomSampler(seed=own_seed)
    )
    study = _study(space, past, maximize, chosen)
    drawn = study.ask(_distributions(space)).params
    return {name: _value(spec, drawn[name]) for name, spec in space.items()}


def should_prune(
    space: Mapping[str, Spec], past: Sequence[Trial], trial: Trial, *, maximize: bool
) -> bool:
    """Whether a running trial is worse than the median of those completed, at the same point.

    Never before five trials are completed, nor in the first fifth of the budget.
    """
    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=_STARTUP_TRIALS, n_warmup_steps=_WARMUP_STEPS
    )
    # numpy decides, and its booleans are not Python's
    return bool(pruner.prune(_study(space, past, maximize), _frozen(space, trial)))


def importances(
    space: Mapping[str, Spec], past: Sequence[Trial], *, maximize: bool
) -> dict[str, float]:
    """How much each field tells the best trials from the others, shares of 1.

    Empty where fewer than five trials were completed, or all came to the same.
    """
    values = {trial.value for trial in past if trial.outcome == "completed"}
    done = sum(trial.outcome == "completed" for trial in past)
    if done < _STARTUP_TRIALS or len(values) < 2:
        return {}
    found = optuna.importance.get_param_importances(
        _study(space, past, maximize), evaluator=optuna.importance.PedAnovaImportanceEvaluator()
    )
    return {name: float(share) for name, share in found.items()}


def _study(
    space: Mapping[str, Spec],
    past: Sequence[Trial],
    maximize: bool,
    sampler: optuna.samplers.BaseSampler | None = None,
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.add_trials([_frozen(space, trial) for trial in past])
    return study


def _frozen(space: Mapping[str, Spec], trial: Trial) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=_STATES[trial.outcome],
        value=trial.value if trial.outcome == "completed" else None,
        params={name: _label(spec, trial.params[name]) for name, spec in space.items()},
        distributions=_distributions(space),
        intermediate_values=dict(trial.intermediate),
    )


def _distributions(space: Mapping[str, Spec]) -> dict[str, BaseDistribution]:
    return {name: _distribution(spec) for name, spec in space.items()}


def _distribution(spec: Spec) -> BaseDistribution:
    match spec:
        case FloatRange():
            return FloatDistribution(spec.low, spec.high, log=spec.log)
        case IntRange():
            high = spec.low + (spec.high - spec.low) // spec.step * spec.step
            return IntDistribution(spec.low, high, log=spec.log, step=spec.step)
        case Choices():
            return CategoricalDistribution([_label(spec, value) for value in spec.choices])


def _label(spec: Spec, value: object) -> Any:  # noqa: ANN401
    # Optuna takes scalars only, and for it 1 and True are the same
    return json.dumps(value) if isinstance(spec, Choices) else value


def _value(spec: Spec, drawn: Any) -> Any:  # noqa: ANN401
    return json.loads(drawn) if isinstance(spec, Choices) else drawn
