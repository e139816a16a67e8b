"""Modality fusion: from one vector per modality to one vector per utterance.

Contract (B batch, M modalities):
    (vectors [(B, D_m), ...], present (B, M)) -> (B, `outputs`)
A modality may be missing; its vector then makes no difference.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class ModalityFusion(nn.Module, ABC):
    """Base of all: widths D_m -> `outputs`."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    @abstractmethod
    def forward(self, vectors: Sequence[Tensor], present: Tensor) -> Tensor:
        """Fuse the vectors: ([(B, D_m), ...], (B, M)) -> (B, `outputs`)."""


class Concatenation(ModalityFusion):
    """One vector behind the other; zeros for what is missing."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(sum(widths))

    def forward(self, vectors: Sequence[Tensor], present: Tensor) -> Tensor:
        masked = [
            torch.where(is_present[:, None], vector, 0.0)
            for vector, is_present in zip(vectors, present.unbind(1), strict=True)
        ]
        return torch.cat(masked, -1)


class Gate(ModalityFusion):
    """A weighted mean of tanh(W_m v_m), with weights from all vectors together.

    Gated multimodal unit (Arevalo et al. 2017, arXiv 1702.01992). Instead of its sigmoid it has a softmax
    over the modalities that are present.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(max(widths))
        self.concatenation = Concatenation(widths)
        self.inputs = nn.ModuleList([nn.Linear(width, self.outputs) for width in widths])
        self.gate = nn.Linear(sum(widths), len(widths))

    def forward(self, vectors: Sequence[Tensor], present: Tensor) -> Tensor:
        values = [torch.tanh(linear(v)) for linear, v in zip(self.inputs, vectors, strict=True)]
        scores = self.gate(self.concatenation(vectors, present)).float()
        # The lowest number instead of -inf: with no modality at all, a softmax of -inf would be NaN.
        scores = scores.masked_fill(~present, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1) * present  # (B, M)
        return torch.einsum("bm,mbd->bd", weights, torch.stack(values))


MODALITY_FUSIONS: dict[str, Callable[[Sequence[int]], ModalityFusion]] = {
    "concatenation": Concatenation,
    "gate": Gate,
}
"""The table of modality fusions. To add one, add its class and a line here."""
