"""Policies: the seam between networks and the rest, and the ways to make one by name.

| part | hand in | or register under the entry-point group |
|---|---|---|
| a policy class | `policy=MyPolicy` | `grpo.policies` |
| a network below the hidden layers | `policy_kwargs={"features_extractor_class": …}` | `grpo.features_extractors` |
| a distribution over actions | `policy_kwargs={"distribution_class": …}` | `grpo.distributions` |
| what stands between the layers | `policy_kwargs={"activation_fn": nn.ReLU}` | by torch's name |
"""  # noqa: E501 - a table

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from grpo.distributions import (
    Categorical,
    DiagGaussian,
    Distribution,
    Factored,
    MultiCategorical,
)
from grpo.errors import IncompatibleError
from grpo.policies.actor_critic import ActorCriticPolicy, FlattenExtractor
from grpo.policies.base import Actor, BasePolicy, ServedPolicy
from grpo.policies.cnn import CnnPolicy, MultiInputPolicy, NatureCNN, default_policy
from grpo.policies.mlp import MLP_PARTS, MlpPolicy
from grpo.policies.recurrent import Memory, RecurrentPolicy
from grpo.policies.spec import PolicySpec, Prediction
from grpo.registry import Objects, Registry, name_of

__all__ = [
    "ACTIVATIONS",
    "DISTRIBUTIONS",
    "FEATURES_EXTRACTORS",
    "POLICIES",
    "Actor",
    "ActorCriticPolicy",
    "BasePolicy",
    "CnnPolicy",
    "FlattenExtractor",
    "Memory",
    "MlpPolicy",
    "MultiInputPolicy",
    "NatureCNN",
    "PolicySpec",
    "Prediction",
    "RecurrentPolicy",
    "ServedPolicy",
    "default_policy",
    "make_policy",
    "name_parts",
]


def _class_of(base: type[Any]) -> Any:  # noqa: ANN401
    """What a registry accepts: a class below `base`."""

    def accept(thing: object) -> type[Any]:
        if not (isinstance(thing, type) and issubclass(thing, base)):
            raise TypeError(f"it is not a class below {base.__module__}.{base.__qualname__}")
        return thing

    return accept


POLICIES: Registry[type[BasePolicy]] = Registry(
    "policy",
    "grpo.policies",
    {
        "ActorCriticPolicy": ActorCriticPolicy,
        "CnnPolicy": CnnPolicy,
        "MlpPolicy": MlpPolicy,
        "MultiInputPolicy": MultiInputPolicy,
        "RecurrentPolicy": RecurrentPolicy,
    },
    _class_of(BasePolicy),
)

FEATURES_EXTRACTORS: Registry[type[nn.Module]] = Registry(
    "policy_kwargs",
    "grpo.features_extractors",
    {"FlattenExtractor": FlattenExtractor, "NatureCNN": NatureCNN},
    _class_of(nn.Module),
)

DISTRIBUTIONS: Registry[type[Distribution]] = Registry(
    "policy_kwargs",
    "grpo.distributions",
    {
        "Categorical": Categorical,
        "DiagGaussian": DiagGaussian,
        "Factored": Factored,
        "MultiCategorical": MultiCategorical,
    },
    _class_of(Distribution),
)

ACTIVATIONS: Registry[type[nn.Module]] = Registry(
    "policy_kwargs",
    "grpo.activations",
    {f.__name__: f for f in (nn.ELU, nn.GELU, nn.LeakyReLU, nn.ReLU, nn.SiLU, nn.Tanh)},
    _class_of(nn.Module),
)

_PARTS: Mapping[str, Registry[Any]] = {
    "activation_fn": ACTIVATIONS,
    "distribution_class": DISTRIBUTIONS,
    "features_extractor_class": FEATURES_EXTRACTORS,
}
"""Members of `policy_kwargs` that are classes."""


def name_parts(policy_kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Classes in `policy_kwargs` by name.

    Returns:
        JSON values for a configuration, and the objects that they name.

    Raises:
        IncompatibleError: another value is no JSON value.
    """
    named, objects = dict[str, Any](), dict[str, Any]()
    for key, value in policy_kwargs.items():
        registry = _PARTS.get(key)
        if registry is None or isinstance(value, str):
            named[key] = value
            continue
        known = next((name for name, thing in registry.items() if thing is value), None)
        named[key] = known or name_of(value)
        if known is None:
            objects[named[key]] = value
    try:
        json.dumps(named, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise IncompatibleError(
            f"policy_kwargs must hold JSON values and the classes {', '.join(sorted(_PARTS))}: "
            f"{error}.",
            field="policy_kwargs",
        ) from error
    return named, objects


def make_policy(spec: PolicySpec, seed: int = 0, objects: Objects | None = None) -> BasePolicy:
    """Build a policy.

    Args:
        spec: shapes, class and parts.
        seed: of the initial weights.
        objects: classes that were handed in, by the names that `spec` has for them.

    Raises:
        UnknownNameError: no such policy or part.
        IncompatibleError: one was handed in and is not in `objects`, or does not fit the others.
    """
    make: Any = POLICIES.get(spec.policy, objects)
    parts = {
        name: _PARTS[name].get(value, objects) if name in _PARTS else value
        for name, value in spec.policy_kwargs.items()
    }
    if make is MlpPolicy:
        others = set(parts) - MLP_PARTS
        if others and others <= set(_PARTS) | {"features_extractor_kwargs", "ortho_init"}:
            make = ActorCriticPolicy  # the same networks, in torch
        else:
            return MlpPolicy(spec, seed)
    try:
        policy: BasePolicy = make(spec, seed, **parts)
        return policy
    except TypeError as error:
        raise IncompatibleError(
            f"{spec.policy.strip('<>')} cannot be built with policy_kwargs "
            f"{sorted(spec.policy_kwargs)}: {error}.",
            field="policy_kwargs",
        ) from error
