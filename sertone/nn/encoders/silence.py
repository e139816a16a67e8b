"""What stands in the place of a speech encoder in a model that only reads."""

from typing import Any

import torch
from torch import Tensor, nn

from sertone.nn.encoders.base import Encoder, Footprint


class NoEncoder(Encoder):
    """Hears nothing: hidden states of width 0, no frame of which counts."""

    width, depth, min_samples = 0, 0, 1

    def describe(self, depth: int | None = None) -> dict[str, Any]:
        """Nothing to build again."""
        return {}

    def freeze(self, cut: int) -> None:
        """There is nothing to freeze."""

    def explain_varying_prefix(self) -> str:
        return "there is no speech encoder, whose output could be kept"

    def footprint(self, fused: bool) -> Footprint:
        """Nothing."""
        return Footprint(1, 0, 0, 0.0)

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """One empty frame each: (B, 1, 0), (B,)."""
        return waveforms.new_zeros(len(waveforms), 1, 0), torch.zeros_like(lengths)

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        return features

    def context(self, mask: Tensor) -> dict[str, Tensor]:
        return {}

    def layer(self, index: int, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
        """There is none."""
        raise IndexError(index)

    def parts(self) -> list[list[nn.Module]]:
        return [[]]
