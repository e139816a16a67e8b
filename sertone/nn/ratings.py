"""Heads of dimensional ratings: arousal, valence, dominance.

    Regressor    utterance vectors (B, D) -> hidden layer (B, H), shared by several ratings or not
    RatingHead   hidden layer (B, H) -> logit (B, 1), whose sigmoid is the rating on a scale from 0 to 1

Targets and answers are on the corpus's own scale. Axis letters: B batch, D width, H hidden width.
"""

import torch
from torch import Tensor, nn

from sertone.errors import SertoneError
from sertone.labels import Scale
from sertone.nn.heads import HeadOutput
from sertone.nn.kernels import Dropout
from sertone.nn.losses import concordance_loss


class Regressor(nn.Sequential):
    """The hidden layer of one or more rating heads."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__(Dropout(dropout), nn.Linear(width, hidden), nn.GELU())


class RatingHead(nn.Module):
    """One rating.

    Args:
        hidden: H of its regressor.
        scale: of the corpus.
        divided: whether a rating is divided by the top of its scale, or else its scale is mapped onto 0 to
            1. The concordance is the same for both; what differs is the part of the sigmoid that is used.
        dropout: before the linear layer.

    Raises:
        SertoneError: `bad_scale`, where a scale that reaches below zero is to be divided by its top.
    """

    metric = "ratings"

    def __init__(
        self, hidden: int, scale: Scale, *, divide_by_top: bool = False, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if divide_by_top and (scale.low < 0 or scale.high <= 0):
            raise SertoneError(
                "bad_scale",
                f"ratings from {scale.low:g} to {scale.high:g}, to be divided by the highest",
                "a scale above zero",
                "set model.ratings_from: scale",
            )
        self.zero = 0.0 if divide_by_top else scale.low
        self.span = scale.high - self.zero
        self.output = nn.Sequential(Dropout(dropout), nn.Linear(hidden, 1))

    def rate(self, hidden: Tensor, frames: Tensor) -> HeadOutput:
        """The regressor's hidden layer (B, H) -> output."""
        return HeadOutput(self.output(hidden), hidden, frames)

    def loss(self, output: HeadOutput, target: Tensor) -> Tensor:
        """One minus the concordance: target (B,) on the corpus's scale, NaN without a rating."""
        return concordance_loss(self._shares(output), (target - self.zero) / self.span)

    def ratings(self, output: HeadOutput) -> Tensor:
        """The rating of each utterance, on the corpus's scale, (B,)."""
        return self.zero + self.span * self._shares(output)

    def decode(self, output: HeadOutput) -> list[float]:
        """The same as numbers."""
        return self.ratings(output).tolist()

    @staticmethod
    def _shares(output: HeadOutput) -> Tensor:
        return torch.sigmoid(output.logits.float()).squeeze(-1)
