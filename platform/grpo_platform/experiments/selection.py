"""Which seed's version serves: chosen by a rule that is named, judged on episodes of its own.

The best of ten scores is high by skill and by luck, and the luck does not come again (the winner's
curse). So the version that is chosen plays fresh episodes, and what it scores there is what its
card says; promotion then compares it with the champion, on other episodes again.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Final, TypeVar

from grpo.errors import GRPOError
from grpo.evaluation import EVALUATION_SEED, evaluation_seeds
from grpo_platform.core.errors import ConflictError, NotFoundError, UnsafeModelError
from grpo_platform.experiments.aggregate import evaluation_of
from grpo_platform.experiments.records import ExperimentRecord, Rule, SeedRecord, Selection
from grpo_platform.registry.card import EvaluationCard, ModelCard
from grpo_platform.registry.names import Tag
from grpo_platform.registry.promotion import Promoter
from grpo_platform.registry.records import ModelVersionRef
from grpo_platform.registry.registering import register_copy
from grpo_platform.tracking.group_records import GroupMember
from grpo_platform.tracking.records import JobRecord

__all__ = ["REEVALUATION_SEED", "choose", "fresh_seed", "select"]

REEVALUATION_SEED: Final = 52_806_117
"""Seeds the episodes on which a chosen version is evaluated again."""

_S = TypeVar("_S", bound=GroupMember)


def choose(seeds: Sequence[_S], rule: Rule) -> _S | None:
    """The seed that the rule names, by the mean return of the final evaluation.

    `median` is the lower one where two are in the middle; of equals it is the first. None where no
    seed was evaluated.
    """
    scores = sorted(score for seed in seeds if (score := evaluation_of(seed)) is not None)
    if not scores:
        return None
    wanted = scores[-1] if rule == "best" else scores[(len(scores) - 1) // 2]
    return next(seed for seed in seeds if evaluation_of(seed) == wanted)


def fresh_seed(n_episodes: int) -> int:
    """Seed of an evaluation that has no episode of a job's own evaluation, nor of its training."""
    seen = set(evaluation_seeds(n_episodes, EVALUATION_SEED).tolist())
    return next(
        seed
        for seed in itertools.count(REEVALUATION_SEED)
        if seen.isdisjoint(evaluation_seeds(n_episodes, seed).tolist())
    )


def select(
    promoter: Promoter, experiment: ExperimentRecord, seeds: Sequence[SeedRecord]
) -> Selection | None:
    """Choose a seed's version, evaluate it afresh, register it under the model's name, judge it.

    Every step finds what an earlier call, whose server died, has done already. The other seeds'
    versions stay where their jobs registered them. None where every seed's version is registered
    under the model's name, or there is nothing to choose from.

    Raises:
        StoreError: the store refused, or is away.
    """
    rule = experiment.request.register
    if rule == "each":
        return None
    chosen = choose(seeds, rule)
    if chosen is None or chosen.job is None:
        return None
    known = experiment.selection
    if known is not None and known.model_version is not None and known.job_id == chosen.job_id:
        return known
    count = sum(evaluation_of(seed) is not None for seed in seeds)
    score = evaluation_of(chosen) or 0.0
    how = (
        f"Seed {chosen.seed} was chosen as the {rule} of {count} seeds of experiment "
        f"{experiment.experiment_id}, by the mean return of their evaluations."
    )
    found = Selection(
        rule=rule, seed=chosen.seed, job_id=chosen.job_id, chosen_by=score,
        evaluation=None, model_version=None, promoted=False, reason=how,
    )  # fmt: skip
    try:
        return _register(promoter, experiment, chosen.job, found)
    except (ConflictError, NotFoundError, UnsafeModelError) as error:
        return dataclasses.replace(found, reason=f"{how} It is not registered: {error}")


def _register(
    promoter: Promoter, experiment: ExperimentRecord, job: JobRecord, found: Selection
) -> Selection:
    registry = promoter.registry
    source = registry.resolve(f"{job.model_name}/{job.model_version}")
    card = _card(promoter, source, found.reason, job.request.config.n_eval_episodes)
    ref = register_copy(registry, source, experiment.model_name, card)
    # one that an earlier call made has the card of that call
    card = ModelCard.from_json(registry.version(ref.name, ref.version).tags.get(Tag.CARD, ""))
    said = f"{found.reason} {_afresh(card.evaluation, found.chosen_by)}"
    actor = f"experiment {experiment.experiment_id}"
    rule = experiment.request.promote
    decision = promoter.decide_after_training(ref, rule, actor, said, asker="experiment")
    return dataclasses.replace(
        found,
        evaluation=card.evaluation,
        model_version=ref.version,
        promoted=decision.promoted,
        reason=f"{ref.label}. {decision.outcome}",
        decision=decision,
    )


def _card(promoter: Promoter, source: ModelVersionRef, how: str, n_episodes: int) -> ModelCard:
    """The version's card, with how it was chosen, and an evaluation that it was not chosen by."""
    tags = promoter.registry.version(source.name, source.version).tags
    card = ModelCard.from_json(tags.get(Tag.CARD, ""))
    try:
        afresh = promoter.evaluate(
            promoter.registry.read(source), source.label, card.env_name,
            env_kwargs=card.env_kwargs, n_episodes=n_episodes, seed=fresh_seed(n_episodes), skip=0,
        )  # fmt: skip
    except GRPOError as error:
        how = f"{how} It could not be evaluated afresh: {error}"
        return dataclasses.replace(card, evaluation=None, selection=how)
    return dataclasses.replace(card, evaluation=EvaluationCard.of(afresh), selection=how)


def _afresh(evaluation: EvaluationCard | None, chosen_by: float) -> str:
    if evaluation is None:
        return "It could not be evaluated on fresh episodes, so nothing is said of how it does."
    return (
        f"On {evaluation.episodes} fresh episodes it returns {evaluation.mean:,.1f} (95 % interval "
        f"{evaluation.ci_low:,.1f} to {evaluation.ci_high:,.1f}); on those that it was chosen by "
        f"it returned {chosen_by:,.1f}."
    )
