"""Layer fusion: from the hidden states of all layers to one sequence.

Contract (B batch, L layers, T frames, D width):
    hidden (B, L+1, T, D) -> (B, T, D)
hidden[:, 0] is the input of the first layer and is not fused.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Last(nn.Module):
    """The last layer's output alone."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, -1]


class WeightedSum(nn.Module):
    """Sum over layers 1..L with softmax weights, equal at first, as in SUPERB (arXiv 2105.01051)."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(depth))

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.einsum("l,bltd->btd", self.weights.softmax(0), hidden[:, 1:])


class AugmentedResidual(nn.Module, ABC):
    """Augmented Residual Integration, H = H_L + sum over l < L of W_l H_l (wan2025, eq. 3).

    The paper calls W_l a weighted matrix. All start at zero: H = H_L at step 0.
    """

    weights: nn.Parameter

    @abstractmethod
    def residual(self, earlier: Tensor) -> Tensor:
        """Sum over l < L of W_l H_l: (B, L-1, T, D) -> (B, T, D)."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[:, -1] + self.residual(hidden[:, 1:-1])


class ScalarARI(AugmentedResidual):
    """One number per layer."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(depth - 1))

    def residual(self, earlier: Tensor) -> Tensor:
        return torch.einsum("l,bltd->btd", self.weights, earlier)


class DiagonalARI(AugmentedResidual):
    """One number per layer and feature."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(depth - 1, width))

    def residual(self, earlier: Tensor) -> Tensor:
        return torch.einsum("ld,bltd->btd", self.weights, earlier)


class FullARI(AugmentedResidual):
    """One matrix per layer."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(depth - 1, width, width))

    def residual(self, earlier: Tensor) -> Tensor:
        return torch.einsum("lde,blte->btd", self.weights, earlier)


FUSIONS: dict[str, type[nn.Module]] = {
    "ari_full": FullARI,
    "ari_diagonal": DiagonalARI,
    "ari_scalar": ScalarARI,
    "weighted_sum": WeightedSum,
    "last": Last,
}
"""The table of fusions. To add one, add its class and a line here."""


def list_fused_layers(fusion: str, depth: int) -> tuple[int, ...]:
    """Return the numbers of the hidden states that a fusion uses; state 0 is never used.

    Args:
        fusion: its name in the table.
        depth: number of layers, L.
    """
    return (depth,) if fusion == "last" else tuple(range(1, depth + 1))
