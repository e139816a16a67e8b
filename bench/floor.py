"""Operations that one epoch of `wan2025` cannot do without, and how fast this machine multiplies.

A multiplication and an addition are two operations. Axis letters: N samples, T frames, D width.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch

TRAINED = 3  # forward, gradient of the input, gradient of the weights


@dataclass(frozen=True)
class Counts:
    """Operations of the parts of a wav2vec 2.0, HuBERT or WavLM for one utterance.

    Args:
        config: of the Hugging Face encoder.
        samples: N.
    """

    config: Any
    samples: int

    @property
    def frames(self) -> int:
        """T."""
        count = self.samples
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            count = (count - kernel) // stride + 1
        return count

    @property
    def convolutions(self) -> int:
        """The feature extractor."""
        total, count, inputs = 0, self.samples, 1
        shapes = zip(self.config.conv_dim, self.config.conv_kernel, self.config.conv_stride, strict=True)
        for outputs, kernel, stride in shapes:
            count = (count - kernel) // stride + 1
            total += 2 * count * inputs * outputs * kernel
            inputs = outputs
        return total

    @property
    def embedding(self) -> int:
        """Projection and positional convolution."""
        width, groups = self.config.hidden_size, self.config.num_conv_pos_embedding_groups
        position = width * (width // groups) * self.config.num_conv_pos_embeddings
        return 2 * self.frames * (self.config.conv_dim[-1] * width + position)

    @property
    def layer(self) -> int:
        """One Transformer layer."""
        width, inner = self.config.hidden_size, self.config.intermediate_size
        return 2 * self.frames * (4 * width**2 + 2 * width * inner) + 4 * self.frames**2 * width

    def heads(self, hidden: int, characters: int) -> int:
        """ARI, transcript head and co-attention; the other heads see one vector per utterance."""
        width, depth = self.config.hidden_size, self.config.num_hidden_layers
        transcript = width * hidden + hidden * (characters + 1)
        return 2 * self.frames * ((depth - 1) * width**2 + transcript + 2 * width**2)

    def usual(self, hidden: int, characters: int, frozen_layers: int) -> int:
        """One training step the usual way: what is frozen is computed all the same."""
        trained = (self.config.num_hidden_layers - frozen_layers) * self.layer
        rest = TRAINED * (trained + self.heads(hidden, characters)) + frozen_layers * self.layer
        return self.convolutions + rest + self.embedding * (1 if frozen_layers else TRAINED)

    def cached(self, hidden: int, characters: int, frozen_layers: int) -> int:
        """One training step with the frozen prefix known."""
        trained = (self.config.num_hidden_layers - frozen_layers) * self.layer
        return TRAINED * (trained + self.heads(hidden, characters) + (0 if frozen_layers else self.embedding))


def multiplication_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product, best of several."""
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
    """Waits for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
