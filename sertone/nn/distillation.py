"""Distillation of an encoder (DistilHuBERT, arXiv 2110.01900): a student predicts layers of its teacher.

    waveform -> student -> last hidden state -> one head per target layer -> the teacher's hidden state

The student begins as the front end and the first layers of the teacher. The heads are dropped after training.
The authors' code (s3prl, `upstream/distiller`) does more, which is optional here: heads with a hidden layer,
and a tenth of the gradient for the convolutions.

Axis letters: B batch, T frames, D width of the student, E width of the teacher.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sertone.errors import SertoneError
from sertone.nn.encoders.base import Encoder
from sertone.nn.encoders.saved import build_from_description
from sertone.nn.heads import Head, HeadOutput
from sertone.nn.masks import frame_mask
from sertone.utils.wording import format_count


def build_student(teacher: Encoder, layers: int) -> Encoder:
    """Copy the front end and the first layers of an encoder into a new encoder.

    In `compact`, and in Hugging Face's models with `do_stable_layer_norm`, only the last layer has a norm
    behind it. The student's norm then starts anew, with scale 1 and offset 0, because the teacher's norm was
    learned for the output of another layer. The student's last hidden state is the normalised one of the
    teacher's layer. All other hidden states, and all those of base models, are the teacher's.

    Args:
        teacher: not changed.
        layers: number of layers.

    Raises:
        SertoneError: `bad_student`, where the teacher has fewer layers.
    """
    if not 1 <= layers <= teacher.depth:
        raise SertoneError(
            "bad_student",
            f"a student of {format_count(layers, 'layer')}, from a teacher of {teacher.depth}",
            f"1 to {teacher.depth}",
            "set student.layers",
        )
    student = build_from_description(teacher.describe(layers))
    weights = teacher.state_dict()
    student.load_state_dict({name: weights[name] for name in student.state_dict()})
    if layers < teacher.depth and student.last_norm is not None:
        student.last_norm.reset_parameters()
    return student


def check_targets(teacher: Encoder, targets: Sequence[int]) -> None:
    """Refuse target layers that the teacher does not have.

    Raises:
        SertoneError: `bad_targets`.
    """
    if beyond := [layer for layer in targets if not 1 <= layer <= teacher.depth]:
        raise SertoneError(
            "bad_targets",
            f"target layer {beyond[0]} of a teacher of {format_count(teacher.depth, 'layer')}",
            f"layers from 1 to {teacher.depth}",
            "set targets",
        )


class TargetHead(Head):
    """Predict one layer of the teacher from the student's last hidden state.

    Args:
        width: D.
        target_width: E.
        cosine: weight of the cosine term, lambda in the paper.
        hidden: put a linear layer of width D and GELU before the linear output. In s3prl all heads share one
            first layer of width D times the number of targets, and each head uses its own part of it
            (`SplitLinear`): the same function.
    """

    def __init__(self, width: int, target_width: int, cosine: float, hidden: bool = False) -> None:
        super().__init__()
        self.cosine = cosine
        self.inner = nn.Sequential(nn.Linear(width, width), nn.GELU()) if hidden else nn.Identity()
        self.output = nn.Linear(width, target_width)

    def forward(self, features: Tensor, frames: Tensor) -> HeadOutput:
        """Hidden state (B, T, D), frames (B,) -> prediction (B, T, E)."""
        return HeadOutput(self.output(self.inner(features)), features, frames)

    def loss(self, output: HeadOutput, target: Tensor) -> Tensor:
        """Return the mean loss of the real frames; target: (B, T, E)."""
        return self.sum_losses(output, target) / output.frames.sum()

    def weigh(self, target: Tensor) -> Tensor:
        """Return the number of real frames, since the teacher's hidden states are zero beyond them."""
        return target.any(-1).sum()

    def sum_losses(self, output: HeadOutput, target: Tensor) -> Tensor:
        """Return the summed loss of the real frames; target: (B, T, E)."""
        losses = distillation_losses(output.logits.float(), target.float(), self.cosine)
        return (losses * frame_mask(output.frames, losses.shape[1])).sum()


def distillation_losses(prediction: Tensor, target: Tensor, cosine: float) -> Tensor:
    """Return for each frame: mean absolute difference - `cosine` * log sigmoid(cosine similarity).

    Args:
        prediction: (B, T, E).
        target: (B, T, E).
        cosine: lambda.

    Returns:
        (B, T).
    """
    distance = (prediction - target).abs().mean(-1)
    return distance - cosine * F.logsigmoid(F.cosine_similarity(prediction, target, dim=-1))
