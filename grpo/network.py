"""A multilayer perceptron in numpy: its flat parameter vector, forward, backward.

Everything is feature-major: an array of shape (features, B) holds one sample a column. Each array
of activations ends in a row of ones, and each matrix of weights in a column of biases, so that
one product applies, and one differentiates, both.

This file knows neither actions nor losses.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FloatArray", "Layout", "Parameters", "Workspace", "backward", "forward", "initialize"]

FloatArray = npt.NDArray[np.floating[Any]]

_ONE = np.array(1.0, np.float32)  # ufuncs take an array of the weights' type fastest


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each weight of a network lies in its flat vector: layer by layer, then log σ."""

    widths: tuple[int, ...]
    """Features of the input, of each hidden layer, and of the output."""

    log_std: int = 0
    """Free parameters beside the layers: the log standard deviations of a Gaussian."""

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(n_out * (n_in + 1) for n_in, n_out in pairwise(self.widths)) + self.log_std


class Parameters:
    """Views of a flat vector, laid out by `Layout`; also used for gradients.

    Attributes:
        flat: shape (size,), the vector itself.
        layers: per layer, shape (n_out, n_in + 1): weights, and biases as the last column.
        log_std: shape (layout.log_std,).
    """

    __slots__ = ("flat", "layers", "layout", "log_std")

    def __init__(self, layout: Layout, flat: FloatArray) -> None:
        if flat.shape != (layout.size,):
            raise ValueError(f"Expected {layout.size} parameters, got shape {flat.shape}.")
        self.layout = layout
        self.flat = flat
        layers, offset = [], 0
        for n_in, n_out in pairwise(layout.widths):
            size = n_out * (n_in + 1)
            layers.append(flat[offset : offset + size].reshape(n_out, n_in + 1))
            offset += size
        self.layers = tuple(layers)
        self.log_std = flat[offset:]


class Workspace:
    """Buffers of one pass over a batch of B columns; reused from pass to pass.

    `backward` says whether gradients will be asked for too.

    Attributes:
        inputs: shape (n_in + 1, B), the last row ones; for callers without an array of their own.
        hidden: per hidden layer, shape (n + 1, B), the last row ones.
        outputs: per hidden layer, the same without the row of ones.
        head: shape (n_out, B), the network's output.
    """

    __slots__ = ("deltas", "head", "hidden", "inputs", "outputs", "scratch")

    def __init__(
        self, layout: Layout, batch: int, dtype: npt.DTypeLike, *, backward: bool = False
    ) -> None:
        widths = layout.widths[1:-1]
        self.inputs: FloatArray = np.ones((layout.widths[0] + 1, batch), dtype)
        self.hidden: list[FloatArray] = [np.ones((n + 1, batch), dtype) for n in widths]
        self.outputs: list[FloatArray] = [layer[:-1] for layer in self.hidden]
        self.head: FloatArray = np.empty((layout.widths[-1], batch), dtype)
        backward_widths = widths if backward else ()
        self.deltas: list[FloatArray] = [np.empty((n, batch), dtype) for n in backward_widths]
        self.scratch: list[FloatArray] = [np.empty((n, batch), dtype) for n in backward_widths]


def forward(parameters: Parameters, inputs: FloatArray, work: Workspace) -> FloatArray:
    """Apply h ← tanh(W h + b) through the hidden layers, then W h + b.

    Args:
        parameters: weights.
        inputs: shape (n_in + 1, B), the last row ones.
        work: buffers for B columns.

    Returns:
        Shape (n_out, B): `work.head`.
    """
    below = inputs
    for weights, layer, output in zip(parameters.layers, work.hidden, work.outputs, strict=False):
        np.matmul(weights, below, out=output)
        np.tanh(output, out=output)
        below = layer
    np.matmul(parameters.layers[-1], below, out=work.head)
    return work.head


def backward(
    parameters: Parameters,
    gradient: Parameters,
    inputs: FloatArray,
    work: Workspace,
    delta: FloatArray,
) -> None:
    """Fill `gradient.layers` after a forward pass.

    Backpropagation: ∂W = δ hᵀ, δ_below = Wᵀ δ ⊙ (1 − h²), h = tanh(…).

    Args:
        parameters: weights of the forward pass.
        gradient: receives the gradient of each layer.
        inputs: those of the forward pass.
        work: buffers of the forward pass.
        delta: shape (n_out, B), gradient by the network's output.
    """
    for index in range(len(work.hidden) - 1, -1, -1):
        output, scratch = work.outputs[index], work.scratch[index]
        np.matmul(delta, work.hidden[index].T, out=gradient.layers[index + 1])
        weights = parameters.layers[index + 1][:, :-1]
        delta = np.matmul(weights.T, delta, out=work.deltas[index])
        np.multiply(output, output, out=scratch)
        np.subtract(_ONE, scratch, out=scratch)
        np.multiply(delta, scratch, out=delta)
    np.matmul(delta, inputs.T, out=gradient.layers[0])


def orthogonal(
    shape: tuple[int, int], gain: float, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Random matrix with orthonormal rows or columns, times `gain` (Saxe et al., 1312.6120)."""
    rows, columns = shape
    q, r = np.linalg.qr(generator.standard_normal((max(shape), min(shape))))
    q = q * np.sign(np.diag(r))
    matrix: npt.NDArray[np.float64] = gain * (q if rows >= columns else q.T)
    return matrix


def initialize(parameters: Parameters, last_gain: float, generator: np.random.Generator) -> None:
    """Orthogonal weights of gain √2, the last layer's `last_gain`; biases and log σ zero."""
    parameters.flat[:] = 0.0
    *hidden, last = (layer[:, :-1] for layer in parameters.layers)
    for weights in hidden:
        weights[:] = orthogonal(weights.shape, math.sqrt(2.0), generator)
    last[:] = orthogonal(last.shape, last_gain, generator)
