"""Adam over one flat vector, in place, in a handful of numpy calls."""

import math

import numpy as np

from grpo.network import FloatArray

__all__ = ["ADAM_BETAS", "ADAM_EPSILON", "FlatAdam", "clip_norm"]

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-5
"""As PPO implementations use it (Huang et al., "The 37 implementation details of PPO", 2022)."""


class FlatAdam:
    """Adam (Kingma & Ba, arXiv 1412.6980), equal to torch's up to rounding.

    The sums m and v are those of torch's `exp_avg` and `exp_avg_sq`.

    Attributes:
        exp_avg: shape (n,), running mean of the gradient.
        exp_avg_sq: shape (n,), running mean of its square.
        learning_rate: of the next steps.
        steps: updates done.
    """

    def __init__(self, parameters: FloatArray, learning_rate: float) -> None:
        self.exp_avg: FloatArray = np.zeros_like(parameters)
        self.exp_avg_sq: FloatArray = np.zeros_like(parameters)
        self.steps = 0
        self._parameters = parameters
        self.learning_rate = learning_rate
        self._scratch: FloatArray = np.empty_like(parameters)

    def step(self, gradient: FloatArray) -> None:
        """θ ← θ − lr · m̂ / (√v̂ + ε), with both running means corrected for their zero start.

        Written as θ − (lr √c₂ / c₁) · m / (√v + ε √c₂), c_i = 1 − β_iᵗ, which touches fewer
        arrays. `gradient` is overwritten.
        """
        beta1, beta2 = ADAM_BETAS
        self.steps += 1
        root = math.sqrt(1.0 - beta2**self.steps)
        rate = self.learning_rate * root / (1.0 - beta1**self.steps)
        m, v, scratch = self.exp_avg, self.exp_avg_sq, self._scratch

        np.multiply(gradient, gradient, out=scratch)
        np.subtract(scratch, v, out=scratch)
        np.multiply(scratch, 1.0 - beta2, out=scratch)
        np.add(v, scratch, out=v)

        np.subtract(gradient, m, out=gradient)
        np.multiply(gradient, 1.0 - beta1, out=gradient)
        np.add(m, gradient, out=m)

        np.sqrt(v, out=scratch)
        np.add(scratch, ADAM_EPSILON * root, out=scratch)
        np.divide(m, scratch, out=scratch)
        np.multiply(scratch, rate, out=scratch)
        np.subtract(self._parameters, scratch, out=self._parameters)


def clip_norm(gradient: FloatArray, max_norm: float) -> float:
    """Scale the gradient down, in place, to at most `max_norm`; returns the norm before.

    As torch's `clip_grad_norm_`, its 1e-6 included.
    """
    norm = math.sqrt(float(np.dot(gradient, gradient)))
    scale = max_norm / (norm + 1e-6)
    if scale < 1.0:
        np.multiply(gradient, scale, out=gradient)
    return norm
