"""Task heads: from features to logits, losses that skip missing labels, and predictions.

    ClassHead        class names from frames or pooled vectors
    EnsembleHead     several class heads over the same vector, averaged
    TranscriptHead   characters, by connectionist temporal classification

Axis letters: B batch, T frames, D width, H hidden width, K outputs, S target length.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, ItemsView
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from sertone.nn.kernels import Dropout
from sertone.nn.losses import class_loss, exceeds_frames, transcript_loss
from sertone.nn.masks import masked_mean


@dataclass
class HeadOutput:
    """The output of a head.

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
    """The output of several heads over the same vector.

    Attributes:
        members: output of each head.
    """

    members: list[HeadOutput]


class Head(nn.Module, ABC):
    """Base of all heads.

    Attributes:
        metric: name of its score in `metrics.SCORES`; empty for a head that is only a training target.
    """

    metric: str = ""

    @abstractmethod
    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Return a scalar, the loss of the labelled utterances; zero where no utterance has a label."""

    @abstractmethod
    def weigh(self, target: Tensor) -> Tensor:
        """Return a scalar, the weight of a batch's labels: the number by which `loss` divides its sum.

        Batches whose losses are averaged with these weights have the loss of one large batch.
        """

    def decode(self, output: HeadOutput) -> list[Any]:
        """Return one prediction for each utterance."""
        raise NotImplementedError(f"{type(self).__name__} predicts nothing about an utterance")


class Heads(nn.ModuleDict):
    """The heads of a model by task."""

    def __getitem__(self, key: str) -> Head:
        return cast(Head, super().__getitem__(key))

    def items(self) -> ItemsView[str, Head]:
        """Return the tasks with their heads."""
        return cast(ItemsView[str, Head], super().items())


class ClassHead(Head):
    """A hidden layer and one logit per class, over the mean of the frames or a pooled vector.

    Args:
        width: D, or the width of the pooled vector.
        hidden: H; None for a single linear layer, whose hidden layer is the pooled vector itself.
        classes: names, in the order of the logits.
        dropout: probability of dropout before each linear layer.
        smoothing: label smoothing of the loss.
        metric: name of its score.

    Attributes:
        focal_gamma: exponent of the focal loss, see `class_loss`.
    """

    class_weights: Tensor
    focal_gamma = 0.0

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
        self.classes = classes
        self.smoothing = smoothing
        self.metric = metric
        self.inner = nn.Sequential()
        if hidden is not None:
            self.inner.extend([Dropout(dropout), nn.Linear(width, hidden), nn.GELU()])
        self.output = nn.Sequential(Dropout(dropout), nn.Linear(hidden or width, len(classes)))
        # The weights follow from the training set, so a checkpoint does not hold them.
        self.register_buffer("class_weights", torch.ones(len(classes)), persistent=False)

    def forward(self, features: Tensor, frames: Tensor) -> HeadOutput:
        """Features (B, T, D), frames (B,) -> output."""
        return self.classify(masked_mean(features, frames), frames)

    def classify(self, pooled: Tensor, frames: Tensor) -> HeadOutput:
        """Utterance vectors (B, D), frames (B,) -> output."""
        hidden = self.inner(pooled)
        return HeadOutput(self.output(hidden), hidden, frames)

    def loss(self, output: HeadOutput, target: Tensor) -> Tensor:
        """Return `class_loss` with the head's class weights, smoothing and focal exponent."""
        return class_loss(output.logits, target, self.class_weights, self.smoothing, self.focal_gamma)

    def weigh(self, target: Tensor) -> Tensor:
        """Return the summed class weights of the labels."""
        return (self.class_weights * target).sum()

    def decode(self, output: HeadOutput) -> list[str]:
        """Return the most probable class of each utterance."""
        return [self.classes[index] for index in output.logits.argmax(-1).tolist()]


class EnsembleHead(Head):
    """Class heads over the same vector, whose log-probabilities are averaged.

    Each member has its own loss. The members differ in their first weights and in their dropout masks.

    Args:
        members: number of heads.
        make: makes one member. The loss uses the first member's smoothing and the class weights of this head.
    """

    class_weights: Tensor
    focal_gamma = 0.0

    def __init__(self, members: int, make: Callable[[], ClassHead]) -> None:
        super().__init__()
        self.members = nn.ModuleList([make() for _ in range(members)])
        first = cast(ClassHead, self.members[0])
        self.classes = first.classes
        self.smoothing = first.smoothing
        self.metric = first.metric
        self.register_buffer("class_weights", torch.ones(len(first.classes)), persistent=False)

    def forward(self, features: Tensor, frames: Tensor) -> EnsembleOutput:
        """Features (B, T, D), frames (B,) -> output."""
        return self.classify(masked_mean(features, frames), frames)

    def classify(self, pooled: Tensor, frames: Tensor) -> EnsembleOutput:
        """Utterance vectors (B, D), frames (B,) -> output.

        Its logits are the mean log-probabilities, its hidden layer is the mean of the members' layers.
        """
        outputs = [cast(ClassHead, member).classify(pooled, frames) for member in self.members]
        logits = torch.stack([output.logits.log_softmax(-1) for output in outputs]).mean(0)
        hidden = torch.stack([output.hidden for output in outputs]).mean(0)
        return EnsembleOutput(logits, hidden, frames, outputs)

    def loss(self, output: EnsembleOutput, target: Tensor) -> Tensor:
        """Return the mean of the members' losses (`class_loss`)."""
        losses = [
            class_loss(member.logits, target, self.class_weights, self.smoothing, self.focal_gamma)
            for member in output.members
        ]
        return torch.stack(losses).mean()

    weigh = ClassHead.weigh
    decode = ClassHead.decode


class TranscriptHead(Head):
    """Character recognition by connectionist temporal classification (Graves et al. 2006).

    Args:
        width: D.
        hidden: H.
        characters: the alphabet; the blank is added before it.
        dropout: probability of dropout before each linear layer.
    """

    metric = "error_rates"

    def __init__(self, width: int, hidden: int, characters: list[str], dropout: float = 0.1) -> None:
        super().__init__()
        self.characters = characters
        self.inner = nn.Sequential(Dropout(dropout), nn.Linear(width, hidden), nn.GELU())
        self.output = nn.Sequential(Dropout(dropout), nn.Linear(hidden, len(characters) + 1))

    def forward(self, features: Tensor, frames: Tensor) -> HeadOutput:
        """Features (B, T, D), frames (B,) -> output."""
        hidden = self.inner(features)  # (B, T, H)
        return HeadOutput(self.output(hidden), masked_mean(hidden, frames), frames)

    def loss(self, output: HeadOutput, target: Tensor) -> Tensor:
        """Return `transcript_loss`: target (B, S), characters counted from 1 and 0 after the end."""
        return transcript_loss(output.logits, output.frames, target)

    def weigh(self, target: Tensor) -> Tensor:
        """Return the number of transcripts, also of those that `loss` leaves out as too long."""
        return target.any(-1).sum()

    @staticmethod
    def exceeds_frames(output: HeadOutput, target: Tensor) -> Tensor:
        """Return where a transcript needs more frames than there are (`losses.exceeds_frames`), (B,)."""
        return exceeds_frames(output.frames, target)

    def decode(self, output: HeadOutput) -> list[str]:
        """Return the best path: the likeliest character of each frame, repeats merged, blanks dropped."""
        texts = []
        for row, frames in zip(output.logits.argmax(-1), output.frames.tolist(), strict=True):
            path = row[:frames].unique_consecutive().tolist()
            texts.append("".join(self.characters[index - 1] for index in path if index))
        return texts
