"""The two-trunk multilayer perceptron in numpy: its flat parameter vector, forward, backward.

Policy and value head have a trunk each, of the same widths, so both run as one batched matrix
product per layer. Everything is feature-major: an array of shape (features, B) holds one sample
a column. Each array of activations ends in a row of ones, and each matrix of weights in a
column of biases, so that one product applies, and one differentiates, both.

This file knows neither actions nor losses.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FloatArray", "Layout", "Parameters", "Workspace", "backward", "forward"]

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each weight lies in the flat vector.

    The order is: policy head, log σ, policy trunk, value trunk, value head. So the policy is one
    slice, and the two trunks lie side by side and can be seen as one stack.
    """

    inputs: int
    """Features of an observation."""

    hidden: tuple[int, ...]
    """Widths of the hidden layers of each trunk."""

    outputs: int
    """Outputs of the policy head: logits, or means."""

    log_std: int
    """Free log standard deviations: 0 for discrete actions."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths from the input to the last hidden layer."""
        return (self.inputs, *self.hidden)

    @property
    def trunk_size(self) -> int:
        """Parameters of one trunk."""
        return sum(
            n_out * (n_in + 1) for n_in, n_out in zip(self.widths, self.hidden, strict=False)
        )

    @property
    def policy_size(self) -> int:
        """Parameters of the policy: the first part of the vector."""
        return self.outputs * (self.widths[-1] + 1) + self.log_std + self.trunk_size

    @property
    def size(self) -> int:
        """Parameters in all."""
        return self.policy_size + self.trunk_size + self.widths[-1] + 1


class Parameters:
    """Views of a flat vector, laid out by `Layout`; also used for gradients.

    Attributes:
        flat: shape (size,), the vector itself.
        policy: shape (policy_size,), all that belongs to the policy.
        value: shape (size − policy_size,), all that belongs to the value head.
        hidden: per layer, shape (2, n_out, n_in + 1): the policy's weights, then the value's.
        policy_head: shape (outputs, n + 1).
        value_head: shape (1, n + 1).
        log_std: shape (log_std,).
    """

    __slots__ = (
        "flat",
        "hidden",
        "layout",
        "log_std",
        "policy",
        "policy_head",
        "value",
        "value_head",
    )

    def __init__(self, layout: Layout, flat: FloatArray) -> None:
        if flat.shape != (layout.size,):
            raise ValueError(f"Expected {layout.size} parameters, got shape {flat.shape}.")
        width = layout.widths[-1] + 1
        head = layout.outputs * width
        start = layout.policy_size - layout.trunk_size
        stop = layout.policy_size + layout.trunk_size
        self.layout = layout
        self.flat = flat
        self.policy = flat[: layout.policy_size]
        self.value = flat[layout.policy_size :]
        self.policy_head = flat[:head].reshape(layout.outputs, width)
        self.log_std = flat[head:start]
        self.value_head = flat[stop:].reshape(1, width)
        self.hidden = _stacked_layers(layout, flat[start:stop].reshape(2, layout.trunk_size))


def _stacked_layers(layout: Layout, trunks: FloatArray) -> tuple[FloatArray, ...]:
    layers, offset = [], 0
    for n_in, n_out in zip(layout.widths, layout.hidden, strict=False):
        size = n_out * (n_in + 1)
        layers.append(trunks[:, offset : offset + size].reshape(2, n_out, n_in + 1))
        offset += size
    return tuple(layers)


class Workspace:
    """Buffers of one pass over a batch, for the trunks in `nets`; reused from pass to pass.

    Attributes:
        nets: which trunks run: `slice(0, 1)` the policy's, `slice(1, 2)` the value's,
            `slice(0, 2)` both.
        inputs: shape (n_in + 1, B), the last row ones; the caller fills the rest.
        layers: per layer, shape (nets, n_out + 1, B), the last row ones.
        outputs: per layer, the same without the row of ones.
    """

    __slots__ = ("_deltas", "_scratch", "inputs", "layers", "nets", "outputs")

    def __init__(self, layout: Layout, batch: int, dtype: npt.DTypeLike, nets: slice) -> None:
        n = nets.stop - nets.start
        self.nets = nets
        self.inputs: FloatArray = np.ones((layout.inputs + 1, batch), dtype)
        self.layers: list[FloatArray] = [np.ones((n, h + 1, batch), dtype) for h in layout.hidden]
        self.outputs = [layer[:, :-1] for layer in self.layers]
        self._deltas: list[FloatArray] = [np.empty((n, h, batch), dtype) for h in layout.hidden]
        self._scratch: list[FloatArray] = [np.empty((n, h, batch), dtype) for h in layout.hidden]

    def features(self, net: int, inputs: FloatArray) -> FloatArray:
        """What the head of trunk `net` (0 policy, 1 value) reads, shape (n + 1, B)."""
        return self.layers[-1][net - self.nets.start] if self.layers else inputs

    def delta(self, net: int) -> FloatArray:
        """Where the gradient of trunk `net`'s last layer goes, shape (n, B)."""
        delta: FloatArray = self._deltas[-1][net - self.nets.start]
        return delta


def forward(parameters: Parameters, inputs: FloatArray, work: Workspace) -> None:
    """Run the trunks: h ← tanh(W h + b); the results are in `work.features`.

    Args:
        parameters: weights.
        inputs: shape (n_in + 1, B), the last row ones.
        work: buffers for B columns.
    """
    below = inputs
    for weights, layer, output in zip(parameters.hidden, work.layers, work.outputs, strict=True):
        np.matmul(weights[work.nets], below, out=output)
        np.tanh(output, out=output)
        below = layer


def backward(
    parameters: Parameters, gradient: Parameters, inputs: FloatArray, work: Workspace
) -> None:
    """Fill `gradient.hidden` from the gradients at the last layer's output, `work.delta`.

    Backpropagation through tanh: δ ← δ ⊙ (1 − h²); ∂W = δ hᵀ; δ_below = Wᵀ δ.

    Args:
        parameters: weights of the forward pass.
        gradient: receives the trunks' part.
        inputs: those of the forward pass.
        work: buffers of the forward pass; `delta` filled for each of its trunks.
    """
    for index in range(len(work.layers) - 1, -1, -1):
        output, delta, scratch = work.outputs[index], work._deltas[index], work._scratch[index]
        np.multiply(output, output, out=scratch)
        np.subtract(1.0, scratch, out=scratch)
        np.multiply(delta, scratch, out=delta)
        below = work.layers[index - 1] if index else inputs
        np.matmul(delta, below.swapaxes(-1, -2), out=gradient.hidden[index][work.nets])
        if index:
            weights = parameters.hidden[index][work.nets][:, :, :-1]
            np.matmul(weights.swapaxes(-1, -2), delta, out=work._deltas[index - 1])


def orthogonal(
    shape: tuple[int, int], gain: float, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Random matrix with orthonormal rows or columns, times `gain` (Saxe et al., 1312.6120)."""
    rows, columns = shape
    normal = generator.standard_normal((max(shape), min(shape)))
    q, r = np.linalg.qr(normal)
    q = q * np.sign(np.diag(r))
    matrix: npt.NDArray[np.float64] = gain * (q if rows >= columns else q.T)
    return matrix


def initialize(parameters: Parameters, generator: np.random.Generator) -> None:
    """Orthogonal weights of gain √2, the policy head's 0.01, the value head's 1; biases zero.

    A small last gain starts the policy near uniform (Engstrom et al., 2005.12729).
    """
    parameters.flat[:] = 0.0
    for layer in parameters.hidden:
        for weights in layer:
            weights[:, :-1] = orthogonal(weights[:, :-1].shape, math.sqrt(2.0), generator)
    for head, gain in ((parameters.policy_head, 0.01), (parameters.value_head, 1.0)):
        head[:, :-1] = orthogonal(head[:, :-1].shape, gain, generator)
