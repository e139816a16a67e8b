"""Pooling over time: from frames to one vector per utterance, (B, T, D), frames (B,) -> (B, `outputs`).

Only real frames count; an utterance without any gives the same as one whose frames are zero.
Axis letters: B batch, T frames, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sertone.nn.masks import frame_mask, masked_mean, masked_statistics


class Pooling(nn.Module, ABC):
    """Base of all: width D -> `outputs`."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    @abstractmethod
    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        """Pool the frames: (B, T, D), (B,) -> (B, `outputs`)."""


class MeanPooling(Pooling):
    """The mean."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        return masked_mean(features, frames)


class StatisticsPooling(Pooling):
    """Mean and standard deviation, brought to one scale by a layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 2 * width)
        self.norm = nn.LayerNorm(self.outputs)

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        return self.norm(masked_statistics(features, frames))


class StandardisedPooling(Pooling):
    """Mean and standard deviation, each feature brought to zero mean and unit variance over the utterances.

    A batch norm behind the statistics, as in ECAPA-TDNN (arXiv 2005.07143). In evaluation it uses the moments
    of the training set.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 2 * width)
        self.norm = BatchNorm(self.outputs)

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        pooled = masked_statistics(features, frames)
        if not self.training:
            return self.norm(pooled)
        # An utterance without frames, such as one whose audio is withheld, has no part in the moments.
        present = frames > 0
        return self.norm.apply_moments(pooled).index_put((present,), self.norm(pooled[present]))


class BatchNorm(nn.BatchNorm1d):
    """Batch norm that takes a batch of one utterance, which has no variance, as in evaluation."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if len(input) > 1 or not self.training else self.apply_moments(input)

    def apply_moments(self, input: Tensor) -> Tensor:
        """Normalise with the moments of the training set so far, as in evaluation."""
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class AttentivePooling(Pooling):
    """Mean and standard deviation weighted by attention (Okabe et al. 2018, arXiv 1803.10963), layer norm.

    The weight of a frame h is the softmax over the frames of v' tanh(W h + b).

    Args:
        width: D.
        hidden: rows of W.
    """

    def __init__(self, width: int, hidden: int = 128) -> None:
        super().__init__(width, 2 * width)
        self.attention = nn.Sequential(nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.norm = nn.LayerNorm(self.outputs)

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        weights = self.weights(features, frames)[..., None]  # (B, T, 1)
        mean = (weights * features).sum(1, keepdim=True)
        variance = (weights * (features - mean).square()).sum(1)
        # The constant keeps the gradient of the root finite where a feature does not vary.
        return self.norm(torch.cat([mean.squeeze(1), (variance + 1e-5).sqrt()], -1))

    def weights(self, features: Tensor, frames: Tensor) -> Tensor:
        """Return the weight of each frame, (B, T): they add up to 1, and are 0 beyond the real frames."""
        mask = frame_mask(frames, features.shape[1])
        scores = self.attention(features).squeeze(-1).float()
        # The lowest number instead of -inf: without any real frame, a softmax of -inf would be NaN.
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1) * mask


POOLINGS: dict[str, Callable[[int], Pooling]] = {
    "mean": MeanPooling,
    "statistics": StatisticsPooling,
    "standardised": StandardisedPooling,
    "attentive": AttentivePooling,
}
"""The table of poolings. To add one, add its class and a line here."""
