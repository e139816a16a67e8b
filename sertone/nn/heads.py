"""Task heads: from features to logits, a loss in which a missing label costs nothing, and answers.

Every head has
    forward(features (B, T, D), frames (B,)) -> HeadOutput    logits and the head's hidden layer
    loss(output, target)                     -> scalar        zero where no utterance has a label
    decode(output)                           -> one answer per utterance
    metric                                   name of the score in `metrics.SCORES`

Axis letters: B batch, T frames, D width, H hidden width, K outputs, S target length.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sertone.nn.kernels import Dropout
from sertone.nn.masks import masked_mean


@dataclass
class HeadOutput:
    """What a head gives.

    Attributes:
        logits: (B, K), or (B, T, K) for a transcript.
        hidden: the head's hidden layer, pooled over time, (B, H).
        frames: real frames, (B,).
    """

    logits: Tensor
    hidden: Tensor
    frames: Tensor


@dataclass
class EnsembleOutput(HeadOutput):
    """What several heads side by side give.

    Attributes:
        members: output of each.
    """

    members: list[HeadOutput]


class ClassHead(nn.Module):
    """A hidden layer and one logit per class, over the mean of the frames or a pooled vector.

    Args:
        width: D, or the width of the pooled vector.
        hidden: H; None for a single linear layer, whose hidden layer is the pooled vector itself.
        classes: names, in the order of the logits.
        dropout: before each linear layer.
        smoothing: label smoothing of the loss.
        metric: name of its score.
    """

    class_weights: Tensor

    def __init__(
        self,
        width: int,
        hidden: int | None,
        classes: list[str],
        dropout: float = 0.1,
        smoothing: float = 0.0,
        metric: str = "accuracy",
    ) -> None:
        super().__init__()
        self.classes, self.smoothing, self.metric = classes, smoothing, metric
        self.inner = nn.Sequential()
        if hidden is not None:
            self.inner.extend([Dropout(dropout), nn.Linear(width, hidden), nn.GELU()])
        self.output = nn.Sequential(Dropout(dropout), nn.Linear(hidden or width, len(classes)))
        self.register_buffer("class_weights", torch.ones(len(classes)), persistent=False)

    def forward(self, features: Tensor, frames: Tensor) -> HeadOutput:
        return self.classify(masked_mean(features, frames), frames)

    def classify(self, pooled: Tensor, frames: Tensor) -> HeadOutput:
        """Utterance vectors (B, D) -> output."""
        hidden = self.inner(pooled)
        return HeadOutput(self.output(hidden), hidden, frames)

    def loss(self, output: HeadOutput, target: Tensor) -> Tensor:
        """As `class_loss`."""
        return class_loss(output.logits, target, self.class_weights, self.smoothing)

    def decode(self, output: HeadOutput) -> list[str]:
        """The most probable class of each utterance."""
        return [self.classes[index] for index in output.logits.argmax(-1).tolist()]


def class_loss(logits: Tensor, target: Tensor, class_weights: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy over the labelled utterances.

    With target p, answer q, class weights w and smoothing e, over the utterances b and classes k:

        sum_bk w_k ((1 - e) p_bk + e / K) (- log q_bk)  /  sum_bk w_k p_bk

    Args:
        logits: (B, K).
        target: shares of the classes, (B, K): a one for a class, a distribution for annotators'
            votes, zeros without a label.
        class_weights: (K,).
        smoothing: label smoothing.
    """
    surprise = -logits.float().log_softmax(-1) * class_weights  # (B, K)
    spread = surprise.sum(-1) * (smoothing / logits.shape[-1])
    losses = (1 - smoothing) * (surprise * target).sum(-1) + spread
    total = (class_weights * target).sum()
    return (losses * target.any(-1)).sum() / total.clamp(min=1e-6)


class EnsembleHead(nn.Module):
    """Class heads side by side over the same vector; their log-probabilities are averaged.

    Each learns by itself. They differ in their first weights and in what dropout takes from them.

    Args:
        members: how many.
        make: makes one; the loss has the smoothing and the class weights of this one.
    """

    class_weights: Tensor

    def __init__(self, members: int, make: Callable[[], ClassHead]) -> None:
        super().__init__()
        self.members = nn.ModuleList([make() for _ in range(members)])
        first = cast(ClassHead, self.members[0])
        self.classes, self.smoothing, self.metric = first.classes, first.smoothing, first.metric
        self.register_buffer("class_weights", torch.ones(len(first.classes)), persistent=False)

    def forward(self, features: Tensor, frames: Tensor) -> EnsembleOutput:
        return self.classify(masked_mean(features, frames), frames)

    def classify(self, pooled: Tensor, frames: Tensor) -> EnsembleOutput:
        """Utterance vectors (B, D) -> output: logits are mean log-probabilities, hidden layers their mean."""
        outputs = [cast(ClassHead, member).classify(pooled, frames) for member in self.members]
        logits = torch.stack([output.logits.log_softmax(-1) for output in outputs]).mean(0)
        hidden = torch.stack([output.hidden for output in outputs]).mean(0)
        return EnsembleOutput(logits, hidden, frames, outputs)

    def loss(self, output: EnsembleOutput, target: Tensor) -> Tensor:
        """Mean of the members' losses (`ClassHead.loss`)."""
        losses = [
            class_loss(member.logits, target, self.class_weights, self.smoothing) for member in output.members
        ]
        return torch.stack(losses).mean()

    decode = ClassHead.decode


class TranscriptHead(nn.Module):
    """Character recognition by connectionist temporal classification (Graves et al. 2006).

    Args:
        width: D.
        hidden: H.
        characters: the alphabet; the blank is added before it.
        dropout: before each linear layer.
    """

    metric = "error_rates"

    def __init__(self, width: int, hidden: int, characters: list[str], dropout: float = 0.1) -> None:
        super().__init__()
        self.characters = characters
        self.inner = nn.Sequential(Dropout(dropout), nn.Linear(width, hidden), nn.GELU())
        self.output = nn.Sequential(Dropout(dropout), nn.Linear(hidden, len(characters) + 1))

    def forward(self, features: Tensor, frames: Tensor) -> HeadOutput:
        hidden = self.inner(features)  # (B, T, H)
        return HeadOutput(self.output(hidden), masked_mean(hidden, frames), frames)

    def loss(self, output: HeadOutput, target: Tensor) -> Tensor:
        """Mean over the usable transcripts of the loss per character: target (B, S), 0 after the end.

        A transcript that is missing or does not fit into its frames (`unfit`) is left out: its loss
        would be infinite and its gradient not a number.
        """
        sizes = (target > 0).sum(1)
        usable = (sizes > 0) & ~self.exceeds_frames(output, target)
        losses = F.ctc_loss(
            output.logits.float().log_softmax(-1).transpose(0, 1),  # (T, B, K)
            torch.where(usable[:, None], target, 0),
            output.frames,
            torch.where(usable, sizes, 0),
            reduction="none",
        )
        losses = torch.where(usable, losses / sizes.clamp(min=1), 0.0)
        return losses.sum() / usable.sum().clamp(min=1)

    @staticmethod
    def exceeds_frames(output: HeadOutput, target: Tensor) -> Tensor:
        """Where a transcript needs more frames (one per character, one more per repeat) than there are."""
        repeats = ((target[:, 1:] == target[:, :-1]) & (target[:, 1:] > 0)).sum(1)
        return (target > 0).sum(1) + repeats > output.frames

    def decode(self, output: HeadOutput) -> list[str]:
        """Best path: the likeliest character of each frame, repeats merged, blanks dropped."""
        texts = []
        for row, frames in zip(output.logits.argmax(-1), output.frames.tolist(), strict=True):
            path = row[:frames].unique_consecutive().tolist()
            texts.append("".join(self.characters[index - 1] for index in path if index))
        return texts
