"""The minimum of operations in one epoch of `wan2025`, and the speed of this machine's matrix products.

A multiplication and an addition count as two operations. Axis letters: N samples, T frames, D width.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch

TRAINING_PASSES = 3  # forward, gradient of the input, gradient of the weights


@dataclass(frozen=True)
class Counts:
    """Operations in the parts of a wav2vec 2.0, HuBERT or WavLM for one utterance.

    Args:
        config: configuration of the Hugging Face encoder.
        samples: length of the utterance, N.
    """

    config: Any
    samples: int

    @property
    def frames(self) -> int:
        """Number of frames, T."""
        count = self.samples
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            count = (count - kernel) // stride + 1
        return count

    @property
    def convolutions(self) -> int:
        """Operations of the convolutional feature extractor."""
        total, count, inputs = 0, self.samples, 1
        shapes = zip(self.config.conv_dim, self.config.conv_kernel, self.config.conv_stride, strict=True)
        for outputs, kernel, stride in shapes:
            count = (count - kernel) // stride + 1
            total += 2 * count * inputs * outputs * kernel
            inputs = outputs
        return total

    @property
    def embedding(self) -> int:
        """Operations of the projection and the positional convolution."""
        width, groups = self.config.hidden_size, self.config.num_conv_pos_embedding_groups
        position = width * (width // groups) * self.config.num_conv_pos_embeddings
        return 2 * self.frames * (self.config.conv_dim[-1] * width + position)

    @property
    def layer(self) -> int:
        """Operations of one Transformer layer."""
        width, inner = self.config.hidden_size, self.config.intermediate_size
        # Four projections and a feed-forward part of two, and two products of T x T x D for attention.
        return 2 * self.frames * (4 * width**2 + 2 * width * inner) + 4 * self.frames**2 * width

    def count_heads(self, hidden: int, characters: int) -> int:
        """Return the operations of ARI, transcript head and co-attention.

        The other heads are neglected, as they process one vector per utterance.
        """
        width, depth = self.config.hidden_size, self.config.num_hidden_layers
        transcript = width * hidden + hidden * (characters + 1)
        return 2 * self.frames * ((depth - 1) * width**2 + transcript + 2 * width**2)

    def count_without_cache(self, hidden: int, characters: int, frozen_layers: int) -> int:
        """Return the operations of a usual training step, which computes the frozen layers every time."""
        trained = (self.config.num_hidden_layers - frozen_layers) * self.layer
        layers = TRAINING_PASSES * (trained + self.count_heads(hidden, characters))
        layers += frozen_layers * self.layer
        return self.convolutions + layers + self.embedding * (1 if frozen_layers else TRAINING_PASSES)

    def count_with_cache(self, hidden: int, characters: int, frozen_layers: int) -> int:
        """Return the operations of a training step with a cached frozen prefix."""
        trained = (self.config.num_hidden_layers - frozen_layers) * self.layer
        embedding = 0 if frozen_layers else self.embedding
        return TRAINING_PASSES * (trained + self.count_heads(hidden, characters) + embedding)


def measure_product_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second of a large matrix product, the best of several runs."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(6):
        synchronize(device)
        started = time.perf_counter()
        torch.mm(left, right)
        synchronize(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize()
