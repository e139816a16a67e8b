"""Attention between what the auxiliary heads know and the frames of an utterance.

Axis letters: B batch, A auxiliary vectors, T frames, D width, H hidden width.
"""

import math

import torch
from torch import Tensor, nn

from sertone.nn.masks import frame_mask


class CoAttention(nn.Module):
    """Auxiliary vectors choose the frames that matter (wan2025, arXiv 2412.20707, II-A5; our reading).

    Scaled dot-product attention over the real frames: queries from the pooled hidden layers of the
    auxiliary heads, keys and values from the fused features. Nearest published code: the co-attention
    of CA-MSER (Zou et al. 2022, arXiv 2203.15326).

    Args:
        width: D of the frames.
        hidden: H of the auxiliary vectors.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, auxiliary: Tensor, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Attends.

        Args:
            auxiliary: (B, A, H).
            features: (B, T, D).
            frames: real frames, (B,).

        Returns:
            weighted features (B, A, D) and the attention weights (B, A, T).
        """
        scores = self.query(auxiliary) @ self.key(features).transpose(1, 2)  # (B, A, T)
        mask = frame_mask(frames, features.shape[1])[:, None]
        scores = (scores / math.sqrt(features.shape[-1])).masked_fill(~mask, -math.inf)
        weights = torch.softmax(scores.float(), -1).to(scores.dtype)
        return weights @ self.value(features), weights
