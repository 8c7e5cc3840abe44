"""The losses in torch, as the papers state them: the reference that the closed form must equal.

All functions are pure and reduce to a scalar mean, unless they say otherwise.
"""

import math

import torch

__all__ = [
    "categorical_entropy",
    "categorical_log_prob",
    "clipped_surrogate",
    "gaussian_entropy",
    "gaussian_log_prob",
    "k3",
    "value_loss",
]


def clipped_surrogate(
    log_prob: torch.Tensor,
    log_prob_old: torch.Tensor,
    advantages: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> torch.Tensor:
    """−mean min(ρ A, clip(ρ, 1 − ε_low, 1 + ε_high) A), ρ = π/π_old.

    PPO, arXiv 1707.06347, equation 7; two ε as in DAPO, arXiv 2503.14476. All of shape (B,).
    """
    ratio = torch.exp(log_prob - log_prob_old)
    clipped = torch.clamp(ratio, 1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def k3(log_prob: torch.Tensor, log_prob_reference: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(π ‖ π_ref): mean of r − log r − 1 ≥ 0, r = π_ref/π.

    Schulman, "Approximating KL divergence", 2020; DeepSeekMath, arXiv 2402.03300, equation 4.
    Both of shape (B,).
    """
    log_r = log_prob_reference - log_prob
    return (torch.expm1(log_r) - log_r).mean()  # exp(x) − 1 would round below x near 0


def value_loss(scaled: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error, both of shape (B,), in the scaled units of the value network."""
    return torch.square(scaled - targets).mean()


def categorical_log_prob(logits: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """Log softmax at the actions: (B, n), (B,) int64 → (B,)."""
    return torch.log_softmax(logits, dim=1).gather(1, actions[:, None]).squeeze(1)


def categorical_entropy(logits: torch.Tensor) -> torch.Tensor:
    """−Σ p log p: (B, n) → (B,), nats."""
    log_p = torch.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def gaussian_log_prob(
    mean: torch.Tensor, log_std: torch.Tensor, actions: torch.Tensor
) -> torch.Tensor:
    """Log density of N(mean, diag exp(log_std)²): (B, k), (k,), (B, k) → (B,)."""
    deviation = (actions - mean) / log_std.exp()
    return (-0.5 * deviation.square() - log_std - 0.5 * math.log(2.0 * math.pi)).sum(dim=1)


def gaussian_entropy(mean: torch.Tensor, log_std: torch.Tensor) -> torch.Tensor:
    """Σ log σ + k/2 (1 + log 2π), the same for each of the B rows of `mean`: → (B,)."""
    constant = 0.5 * mean.shape[1] * (1.0 + math.log(2.0 * math.pi))
    return (log_std.sum() + constant).expand(mean.shape[0])
