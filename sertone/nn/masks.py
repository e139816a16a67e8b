"""Masks over padded sequences: what lies beyond an utterance's length never counts.

Axis letters: B batch, T frames, D width.
"""

import torch
from torch import Tensor


def frame_mask(frames: Tensor, total: int) -> Tensor:
    """True where a frame is real.

    Args:
        frames: real frames per utterance, (B,).
        total: frames of the padded batch, T.

    Returns:
        Boolean mask, (B, T).
    """
    return torch.arange(total, device=frames.device) < frames[:, None]


def masked_mean(features: Tensor, frames: Tensor) -> Tensor:
    """Mean over the real frames: (B, T, D), (B,) -> (B, D)."""
    mask = frame_mask(frames, features.shape[1])[..., None]
    return (features * mask).sum(1) / frames[:, None].clamp(min=1)


def masked_std(features: Tensor, frames: Tensor) -> Tensor:
    """Standard deviation over the real frames: (B, T, D), (B,) -> (B, D).

    A small constant under the root keeps the gradient finite where a feature is constant.
    """
    mean = masked_mean(features, frames)[:, None]
    return (masked_mean((features - mean) ** 2, frames) + 1e-5).sqrt()
