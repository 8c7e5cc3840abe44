"""Inference calls: what they take and what they give."""

from typing import Annotated

from pydantic import Field, JsonValue

from grpo_platform.api.schemas.common import (
    MODEL_EXAMPLE,
    ModelReference,
    Reply,
    RequestBody,
    example,
)

__all__ = ["BatchReply", "BatchRequest", "InferenceReply", "InferenceRequest"]


Observation = Annotated[list[float] | JsonValue, Field(union_mode="left_to_right")]
"""What is no flat list of numbers is judged by the model, which knows its space."""


class InferenceRequest(RequestBody):
    """One observation for a model."""

    model_config = example(model_name=MODEL_EXAMPLE, observation=[0.1, 0.0, 0.05, 0.0])

    model_name: ModelReference
    observation: Observation
    """As the environment's observation space is nested: numbers in lists, Tuples as lists, Dicts as
    objects, a Discrete one as its number; or all numbers in one flat list, in that order."""

    action_mask: list[JsonValue] | None = None
    """Which actions may be taken, as the environment says it: a one for each that may, a zero for
    the others, of several choices one after the other or in a list each; all when left out."""

    deterministic: bool = True
    """The likeliest action; false samples from the policy."""

    state: str | None = None
    """Of a model with memory: the `state` of the reply to the observation before; none at the start
    of an episode, unless `episode_id` names it."""

    episode_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Of a model with memory, instead of `state`: a name of yours for the episode, which this
    server remembers for ten minutes after its last request."""

    episode_start: bool = False
    """Whether this is an episode's first observation, so that nothing before it is remembered."""


class InferenceReply(Reply):
    """What the policy does with the observation."""

    action: int | float | list[JsonValue] | dict[str, JsonValue]
    """An integer for discrete actions; for others a list in the shape of an action, or one number
    where that shape is empty; Tuples as lists and Dicts as objects of those."""

    action_probs: list[float] | list[list[float]] | None
    """Probability of each discrete action; of several choices at once, a list for each."""

    value: float | None
    """Expected discounted return from here."""

    model_version: int
    """Version that answered."""

    state: str | None = None
    """Of a model with memory: what to send with the next observation of the episode; left out for
    others."""


class BatchRequest(RequestBody):
    """Many observations for one model."""

    model_config = example(
        model_name=MODEL_EXAMPLE, observations=[[0.1, 0.0, 0.05, 0.0], [-0.1, 0.0, -0.05, 0.0]]
    )

    model_name: ModelReference
    observations: Annotated[list[Observation], Field(min_length=1)]
    """Observations, each as in POST /inference."""

    action_masks: list[list[JsonValue] | None] | None = None
    """For each observation, the `action_mask` of POST /inference."""

    deterministic: bool = True

    states: list[str | None] | None = None
    """For each observation, the `state` of POST /inference, all of one version."""


class BatchReply(Reply):
    """What the policy does with each observation, in their order."""

    actions: list[int] | list[float] | list[JsonValue]
    action_probs: list[list[float]] | list[list[list[float]]] | None
    values: list[float] | None
    model_version: int

    states: list[str] | None = None
    """For each observation, the `state` of POST /inference."""
