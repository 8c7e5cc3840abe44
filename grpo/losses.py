"""The losses in torch, as the papers state them: the reference that the closed form must equal.

All functions are pure and reduce to a scalar mean, unless they say otherwise.
"""

import torch

__all__ = [
    "clipped_surrogate",
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
