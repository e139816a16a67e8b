"""Masks over padded sequences: nothing beyond an utterance's length ever counts.

Axis letters: B batch, T frames, D width.
"""

import torch
from torch import Tensor


def frame_mask(frames: Tensor, total: int) -> Tensor:
    """Return a mask that is true where a frame is real.

    Args:
        frames: real frames per utterance, (B,).
        total: frames of the padded batch, T.

    Returns:
        Boolean mask, (B, T).
    """
    return torch.arange(total, device=frames.device) < frames[:, None]


def span_mask(frames: Tensor, total: int, probability: float, length: int) -> Tensor:
    """Draw spans of frames to mask, as Hugging Face's SpecAugment does (arXiv 1904.08779).

    An utterance of t frames gets floor(probability * t / length + u) spans, u uniform from 0 to 1. They start
    anywhere and may overlap. An utterance that is no longer than a span gets none.

    Args:
        frames: real frames per utterance, (B,).
        total: frames of the padded batch, T.
        probability: share of the frames to mask, but for overlaps.
        length: length of a span, in frames.

    Returns:
        True where a frame is masked, (B, T).
    """
    chance = torch.rand(len(frames), device=frames.device)
    spans = (probability * frames / length + chance).floor() * (frames > length)  # (B,)
    # All utterances draw as many starts as the one with most spans; `is_drawn` drops the surplus.
    most = max(1, int(spans.max()))
    room = (frames - length + 1).clamp(min=1)[:, None]
    starts = (torch.rand(len(frames), most, device=frames.device) * room).long()  # (B, spans)
    offsets = torch.arange(total, device=frames.device) - starts[..., None]  # (B, spans, T)
    is_drawn = torch.arange(most, device=frames.device) < spans[:, None]
    return ((offsets >= 0) & (offsets < length) & is_drawn[..., None]).any(1)


def masked_mean(features: Tensor, frames: Tensor) -> Tensor:
    """Average over the real frames: (B, T, D), (B,) -> (B, D)."""
    mask = frame_mask(frames, features.shape[1])[..., None]
    # The sum over a long clip may exceed fp16, whose largest number is 65504.
    dtype = torch.promote_types(features.dtype, torch.float32)
    return (features * mask).sum(1, dtype=dtype) / frames[:, None].clamp(min=1)


def masked_std(features: Tensor, frames: Tensor) -> Tensor:
    """Return the standard deviation over the real frames: (B, T, D), (B,) -> (B, D)."""
    mean = masked_mean(features, frames)[:, None]
    # The constant keeps the gradient of the root finite where a feature does not vary.
    return (masked_mean((features - mean) ** 2, frames) + 1e-5).sqrt()


def masked_statistics(features: Tensor, frames: Tensor) -> Tensor:
    """Return mean and standard deviation over the real frames: (B, T, D), (B,) -> (B, 2 D)."""
    return torch.cat([masked_mean(features, frames), masked_std(features, frames)], -1)
