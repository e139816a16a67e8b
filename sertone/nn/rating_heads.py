"""Heads for ratings: arousal, valence or dominance, from the hidden layer of a regressor.

Axis letters: B batch, D width, H hidden width.
"""

import torch
from torch import Tensor, nn

from sertone.errors import SertoneError
from sertone.labels import Scale
from sertone.nn.heads import Head, HeadOutput
from sertone.nn.kernels import Dropout
from sertone.nn.losses import concordance_loss


class Regressor(nn.Sequential):
    """The hidden layer of one or more rating heads: utterance vectors (B, D) -> (B, H)."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__(Dropout(dropout), nn.Linear(width, hidden), nn.GELU())


class RatingHead(Head):
    """One rating: the regressor's hidden layer (B, H) -> logit (B, 1).

    The sigmoid of the logit is the rating on a scale from 0 to 1. Targets and predictions are on the corpus's
    own scale.

    Args:
        hidden: H of its regressor.
        scale: scale of the corpus.
        divide_by_top: divide a rating by the top of its scale; else map the scale onto 0 to 1. The
            concordance is the same for both, but they use different parts of the sigmoid.
        dropout: probability of dropout before the linear layer.

    Raises:
        SertoneError: `bad_scale`, where `divide_by_top` meets a scale that reaches below zero.
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
        self.lowest = 0.0 if divide_by_top else scale.low
        self.span = scale.high - self.lowest
        self.output = nn.Sequential(Dropout(dropout), nn.Linear(hidden, 1))

    def rate(self, hidden: Tensor, frames: Tensor) -> HeadOutput:
        """The regressor's hidden layer (B, H), frames (B,) -> output."""
        return HeadOutput(self.output(hidden), hidden, frames)

    def loss(self, output: HeadOutput, target: Tensor) -> Tensor:
        """Return one minus the concordance: target (B,) on the corpus's scale, NaN without a rating."""
        return concordance_loss(self._unit_ratings(output), (target - self.lowest) / self.span)

    def weigh(self, target: Tensor) -> Tensor:
        """Return the number of ratings; a concordance stays that of its own batch."""
        return target.isfinite().sum()

    def ratings(self, output: HeadOutput) -> Tensor:
        """Return the rating of each utterance on the corpus's scale, (B,)."""
        return self.lowest + self.span * self._unit_ratings(output)

    def decode(self, output: HeadOutput) -> list[float]:
        """Return the rating of each utterance on the corpus's scale, as numbers."""
        return self.ratings(output).tolist()

    @staticmethod
    def _unit_ratings(output: HeadOutput) -> Tensor:
        """Return the ratings on the scale from 0 to 1, (B,)."""
        return torch.sigmoid(output.logits.float()).squeeze(-1)
