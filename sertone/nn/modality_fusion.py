"""From one vector per modality to one vector per utterance, where a modality may be missing.

Contract (B batch, M modalities):
    (vectors [(B, D_m), ...], there (B, M)) -> (B, `outputs`)
What is said of a modality that is not there makes no difference.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Joining(nn.Module, ABC):
    """Base of all: widths D_m -> `outputs`."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    @abstractmethod
    def forward(self, vectors: Sequence[Tensor], there: Tensor) -> Tensor:
        """([(B, D_m), ...], (B, M)) -> (B, `outputs`)."""


class Concatenation(Joining):
    """One vector behind the other; zeros for what is missing."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(sum(widths))

    def forward(self, vectors: Sequence[Tensor], there: Tensor) -> Tensor:
        kept = [torch.where(t[:, None], v, 0.0) for v, t in zip(vectors, there.unbind(1), strict=True)]
        return torch.cat(kept, -1)


class Gate(Joining):
    """A weighted mean of tanh(W_m v_m), the weights told by all vectors together.

    Gated multimodal unit (Arevalo et al. 2017, arXiv 1702.01992), with a softmax over those that are there in
    the place of its sigmoid.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(max(widths))
        self.together = Concatenation(widths)
        self.inputs = nn.ModuleList([nn.Linear(width, self.outputs) for width in widths])
        self.gate = nn.Linear(sum(widths), len(widths))

    def forward(self, vectors: Sequence[Tensor], there: Tensor) -> Tensor:
        values = [torch.tanh(linear(v)) for linear, v in zip(self.inputs, vectors, strict=True)]
        scores = self.gate(self.together(vectors, there)).float()
        scores = scores.masked_fill(~there, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1) * there  # (B, M)
        return torch.einsum("bm,mbd->bd", weights, torch.stack(values))


MODALITY_FUSIONS: dict[str, Callable[[Sequence[int]], Joining]] = {
    "concatenation": Concatenation,
    "gate": Gate,
}
