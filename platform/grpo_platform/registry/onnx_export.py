"""A policy as an ONNX model: normaliser, masks and distribution inside; checked before it is given.

Needs the extra `onnx`. What is written answers as the server does: the likeliest action, what the
distribution tells, and the value, for a batch of any size.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.export import Dim

from grpo.actions import ActionSpec, BoxActions, DictActions, choices
from grpo.encoding import layout_of
from grpo.errors import UnsupportedPolicyError
from grpo.observations import ADDED, NEXT_STATE, ObservationSpec
from grpo.policies import BasePolicy
from grpo_platform.core.errors import InvalidRequestError
from grpo_platform.registry.graph import EXAMPLE_BATCH, exporting

__all__ = ["CHECKED", "TOLERANCE", "to_onnx"]

CHECKED: Final = 1_000
"""Observations on which the model's answers are compared with the policy's."""

TOLERANCE: Final = 1e-5
"""Largest difference of an action or a probability; of a value, relative to the largest."""

_SPLIT: Final = 0.005
"""Share of whole numbers that may be rounded to the other neighbour."""

_OPSET: Final = 20
_PACKAGES: Final = ("onnx", "onnxruntime", "onnxscript")


class _Named(nn.Module):
    """Takes an array for each part of an observation, each of its type, instead of rows."""

    def __init__(self, policy: BasePolicy) -> None:
        super().__init__()
        self.served = policy.export()
        self.shape = policy.spec.observation_shape

    def forward(self, *parts: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = [part.reshape(part.shape[0], -1).to(torch.float32) for part in parts]
        answer = self.served(torch.cat(rows, dim=1).reshape(-1, *self.shape))
        return tuple(answer.values())


def to_onnx(policy: BasePolicy) -> bytes:
    """The model, as bytes of a .onnx file.

    Inputs are `observation`, or one for each part of a Dict or Tuple, `action_mask` where there are
    masks, and `policy_state` of a policy with memory; the first dimension is the batch. Outputs are
    those of the model in the registry.

    Args:
        policy: on the CPU.

    Raises:
        InvalidRequestError: the extra `onnx` is not installed.
        UnsupportedPolicyError: it cannot be exported, or onnxruntime answers otherwise.
    """
    if any(find_spec(package) is None for package in _PACKAGES):
        raise InvalidRequestError(
            "ONNX needs further packages: pip install 'grpo-platform[onnx]'.", field="format"
        )
    import onnxruntime  # an extra

    reads = policy.spec.reads
    names = list(reads.names or ("observation",))
    named = _Named(policy).eval()
    example = list(_tensors(reads, np.zeros((EXAMPLE_BATCH, reads.size))).values())
    with torch.no_grad():
        told = list(policy.export()(torch.zeros((1, *policy.spec.observation_shape))))
    batch = Dim("batch", min=1)
    try:
        with exporting(), _silent():
            program = torch.onnx.export(
                named,
                tuple(map(torch.from_numpy, example)),
                input_names=names,
                output_names=told,
                dynamic_shapes=(tuple({0: batch} for _ in example),),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
            assert program is not None  # as `dynamo` says
            content: bytes = program.model_proto.SerializeToString()
    except Exception as error:
        said = str(error).strip().splitlines()[0][:300]
        raise UnsupportedPolicyError(
            f"This policy cannot be exported to ONNX ({type(error).__name__}: {said})."
        ) from error
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    _compare(policy, session)
    return content


def _compare(policy: BasePolicy, session: Any) -> None:  # noqa: ANN401 - onnxruntime's
    """Refuse a model that does not answer as the policy does."""
    rows = _observations(policy, CHECKED)
    found = dict(
        zip(
            (output.name for output in session.get_outputs()),
            session.run(None, _tensors(policy.spec.reads, rows)),
            strict=True,
        )
    )
    shaped = rows.reshape(len(rows), *policy.spec.observation_shape)
    told = policy.predict(shaped)
    differences = {"value": _relative(found["value"], told.values)}
    if policy.spec.reads.n_state:
        differences[NEXT_STATE] = _largest(found[NEXT_STATE], policy.next_states(shaped))
    sure = np.ones(len(rows), np.bool_)
    if told.action_probs is not None:
        differences["action_probs"] = _largest(found["action_probs"], told.action_probs)
        sure = _is_sure(told.action_probs, choices(policy.spec.action))
    actions = [each[sure].reshape(sure.sum(), -1) for each in (found["action"], told.actions)]
    rounded = _is_rounded(policy.spec.action, actions[0].shape[1])
    differences["action"] = _relative(*(each[:, ~rounded] for each in actions))
    steps = np.abs(actions[0] - actions[1])[:, rounded]
    if steps.max(initial=0.0) > 1.0 or np.count_nonzero(steps) > _SPLIT * len(rows):
        differences["action, rounded"] = _largest(*(each[:, rounded] for each in actions))
    wrong = {name: error for name, error in differences.items() if not error <= TOLERANCE}
    if wrong:
        raise UnsupportedPolicyError(
            f"onnxruntime does not answer as this policy does, on {CHECKED} observations: "
            + ", ".join(f"{name} differs by {error:.2g}" for name, error in wrong.items())
        )


def _observations(policy: BasePolicy, n: int) -> npt.NDArray[np.float32]:
    """Rows such as the policy has seen, and further ones; shape (n, size)."""
    rng, reads = np.random.default_rng(0), policy.spec.reads
    layout = layout_of(reads)
    mean, std = policy.observation_mean.numpy(), np.sqrt(policy.observation_var.numpy())
    rows = np.ones((n, reads.size))
    numbers = ~np.isfinite(layout.category)
    drawn = mean + 3.0 * std * rng.standard_normal((n, len(mean)))
    rows[:, layout.source[numbers]] = drawn[:, numbers]
    for leaf, own in reads.columns():
        part = rows[:, own]
        if leaf.categories:
            part[:] = leaf.start + rng.integers(0, leaf.categories, part.shape)
        elif leaf.low:
            part[:] = rng.integers(int(min(leaf.low)), int(max(leaf.high)) + 1, part.shape)
    reads.states(rows)[:] = rng.uniform(-1.0, 1.0, (n, reads.n_state))
    if reads.n_mask:
        columns = np.arange(reads.size - reads.n_mask, reads.size)
        for choice in np.split(columns, np.cumsum(choices(policy.spec.action))[:-1]):
            rows[:, choice] = rng.random((n, len(choice))) < 0.5
            rows[np.arange(n), rng.choice(choice, n)] = 1.0
    return rows.astype(np.float32)


def _tensors(reads: ObservationSpec, rows: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Rows, shape (N, size), as an array for each part, of the type that models take it in."""
    found = {
        leaf.name: rows[:, own].reshape(-1, *leaf.shape).astype(leaf.tensor_dtype)
        for leaf, own in reads.columns()
    }
    first = reads.observed
    for name, n in reads.added.items():
        found[name] = rows[:, first : first + n].astype(ADDED[name])
        first += n
    return found


def _is_sure(probabilities: npt.NDArray[Any], counts: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Where the likeliest action is so by more than rounding, shape (N,)."""
    sure = np.ones(len(probabilities), np.bool_)
    for choice in np.split(probabilities, np.cumsum(counts)[:-1], axis=1):
        best = np.sort(choice, axis=1)
        if choice.shape[1] > 1:
            sure &= best[:, -1] - best[:, -2] > TOLERANCE
    return sure


def _is_rounded(action: ActionSpec, size: int) -> npt.NDArray[np.bool_]:
    """Which numbers of an action are rounded, shape (size,): beside a half either way is right."""
    parts = action.parts if isinstance(action, DictActions) else (((), action),)
    whole = [
        np.full(math.prod(part.shape), isinstance(part, BoxActions) and part.integer)
        for _, part in parts
    ]
    return np.concatenate(whole)[:size]


def _largest(found: npt.NDArray[Any], told: npt.NDArray[Any]) -> float:
    return float(np.abs(found - told).max(initial=0.0))


def _relative(found: npt.NDArray[Any], told: npt.NDArray[Any]) -> float:
    return _largest(found, told) / max(1.0, float(np.abs(told).max(initial=0.0)))


@contextmanager
def _silent() -> Iterator[None]:
    """Without what torch says of packages that this needs not."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
