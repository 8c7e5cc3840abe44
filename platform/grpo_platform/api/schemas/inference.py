"""Inference calls: what they take and what they give."""

from typing import Annotated

from pydantic import Field

from grpo_platform.api.schemas.common import (
    MODEL_EXAMPLE,
    ModelReference,
    Reply,
    RequestBody,
    example,
)

__all__ = ["BatchReply", "BatchRequest", "InferenceReply", "InferenceRequest"]


class InferenceRequest(RequestBody):
    """One observation for a model."""

    model_config = example(model_name=MODEL_EXAMPLE, observation=[0.1, 0.0, 0.05, 0.0])

    model_name: ModelReference
    observation: list[float]
    """Flat list of finite numbers, as long as the environment's observation."""

    deterministic: bool = True
    """The likeliest action; false samples from the policy."""


class InferenceReply(Reply):
    """What the policy does with the observation."""

    action: int | float | list[float]
    """An integer for discrete actions; for others a list in the shape of an action, or one number
    where that shape is empty."""

    action_probs: list[float] | None
    """Probability of each discrete action."""

    value: float | None
    """Expected discounted return from here."""

    model_version: int
    """Version that answered."""


class BatchRequest(RequestBody):
    """Many observations for one model."""

    model_config = example(
        model_name=MODEL_EXAMPLE, observations=[[0.1, 0.0, 0.05, 0.0], [-0.1, 0.0, -0.05, 0.0]]
    )

    model_name: ModelReference
    observations: Annotated[list[list[float]], Field(min_length=1)]
    """Observations, each as in POST /inference."""

    deterministic: bool = True


class BatchReply(Reply):
    """What the policy does with each observation, in their order."""

    actions: list[int] | list[float] | list[list[float]]
    action_probs: list[list[float]] | None
    values: list[float] | None
    model_version: int
