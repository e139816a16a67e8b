"""The encoder of a model that uses the text alone."""

from typing import Any

import torch
from torch import Tensor, nn

from sertone.nn.encoders.base import Encoder, Footprint


class NoEncoder(Encoder):
    """The encoder of a model that uses the text alone: hidden states of width 0, without a real frame."""

    width, depth, min_samples = 0, 0, 1

    def describe(self, depth: int | None = None) -> dict[str, Any]:
        """Return nothing: there is nothing to build again."""
        return {}

    def freeze(self, cut: int) -> None:
        """Do nothing: there is nothing to freeze."""

    def explain_varying_prefix(self) -> str:
        return "there is no speech encoder, so no output to cache"

    def footprint(self, fused: bool) -> Footprint:
        """Return a footprint of zero."""
        return Footprint(1, 0, 0, 0.0)

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, N), lengths (B,) -> one empty frame each, (B, 1, 0), (B,)."""
        return waveforms.new_zeros(len(waveforms), 1, 0), torch.zeros_like(lengths)

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        return features

    def context(self, mask: Tensor) -> dict[str, Tensor]:
        return {}

    def layer(self, index: int, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
        """Refuse: there is no layer.

        Raises:
            IndexError: always.
        """
        raise IndexError(index)

    def parts(self) -> list[list[nn.Module]]:
        return [[]]
