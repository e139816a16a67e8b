"""`compact`: a small encoder trained from scratch, for CPUs, small corpora and the demo.

Fixed log-mel front end (its natural frozen prefix), two strided convolutions (10 ms -> 40 ms) and
Conformer (Gulati et al. 2020, arXiv 2005.08100) or Transformer layers whose outputs are hidden
states like any other. Only layer norms, so that no utterance sees its neighbours.

Axis letters: B batch, N samples, T frames, D width, H attention heads.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from sertone.nn import kernels
from sertone.nn.encoders.base import Encoder, EncoderSettings, Footprint
from sertone.nn.encoders.frontend import HOP, MEMORY, FrontEnd
from sertone.nn.kernels import Dropout
from sertone.recipe.choices import OneOf
from sertone.recipe.settings import MAX_LAYERS


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward: (B, T, D), mask (B, T) -> (B, T, D)."""

    def __init__(self, width: int, attention_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(width, attention_heads, dropout)
        self.feed_forward = feed_forward(width, dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = hidden + self.attention(hidden, mask)
        return hidden + self.feed_forward(hidden)


class ConformerBlock(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward: (B, T, D) -> (B, T, D).

    The published block's batch norm is a layer norm here: no utterance sees its neighbours.
    """

    def __init__(self, width: int, attention_heads: int, dropout: float) -> None:
        super().__init__()
        self.before = feed_forward(width, dropout)
        self.attention = SelfAttention(width, attention_heads, dropout)
        self.convolution = ConvolutionModule(width, dropout)
        self.after = feed_forward(width, dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = hidden + 0.5 * self.before(hidden)
        hidden = hidden + self.attention(hidden, mask)
        hidden = hidden + self.convolution(hidden, mask)
        return self.norm(hidden + 0.5 * self.after(hidden))


class SelfAttention(nn.Module):
    """Layer norm and multi-head self-attention over the real frames."""

    def __init__(self, width: int, attention_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_heads = attention_heads
        self.norm = nn.LayerNorm(width)
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            self.inputs(self.norm(hidden))
            .unflatten(-1, (3, self.attention_heads, -1))
            .permute(2, 0, 3, 1, 4)  # (3, B, H, T, D/H)
        )
        mixed = kernels.attention(query, key, value, mask[:, None, None])
        return self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))


class ConvolutionModule(nn.Module):
    """Gated pointwise convolution, depthwise convolution over 15 frames, pointwise convolution."""

    def __init__(self, width: int, dropout: float, kernel: int = 15) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.inner_norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        hidden = F.glu(self.gate(self.norm(hidden))) * mask[..., None]
        hidden = self.depthwise(hidden.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.output(F.silu(self.inner_norm(hidden))))


def feed_forward(width: int, dropout: float, expansion: int = 4) -> nn.Sequential:
    """Layer norm and two linear layers."""
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, expansion * width),
        nn.GELU(),
        Dropout(dropout),
        nn.Linear(expansion * width, width),
        Dropout(dropout),
    )


BLOCKS: dict[str, type[nn.Module]] = {"transformer": TransformerBlock, "conformer": ConformerBlock}
"""The table of layers. To add one, add its class and a line here."""


class CompactEncoderConfig(EncoderSettings):
    """A compact encoder."""

    is_description: ClassVar = True

    name: Literal["compact"] = "compact"
    width: int = Field(default=96, ge=8)
    """The width D, a multiple of `attention_heads`."""
    depth: int = Field(default=4, ge=1, le=MAX_LAYERS)
    """The number of layers L."""
    attention_heads: int = Field(default=4, ge=1)
    """The number of attention heads of each layer."""
    bands: int = Field(default=64, ge=8)
    """The number of mel bands."""
    prosody: bool = False
    """With true the encoder hears pitch and loudness beside the mel bands."""
    block: Annotated[str, OneOf(BLOCKS)] = "transformer"
    """The kind of layer."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """The dropout after every sub-layer."""

    @model_validator(mode="after")
    def _even_heads(self) -> Self:
        if self.width % self.attention_heads:
            raise ValueError(f"width {self.width} is no multiple of attention_heads {self.attention_heads}")
        return self

    def build(self) -> Encoder:
        """Builds it with random weights."""
        return CompactEncoder(self)


class CompactEncoder(Encoder):
    """Log-mel features, strided convolutions, `depth` layers."""

    def __init__(self, config: CompactEncoderConfig) -> None:
        super().__init__()
        self.config, self.width, self.depth = config, config.width, config.depth
        width = config.width
        self.frontend = FrontEnd(config.bands, config.prosody)
        self.min_samples = self.frontend.min_samples
        self.convolutions = nn.ModuleList(
            [nn.Conv1d(self.frontend.feature_count, width, 5, 2, 2), nn.Conv1d(width, width, 3, 2, 1)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.position = nn.Conv1d(width, width, 15, padding=7, groups=width)
        self.dropout = Dropout(config.dropout)
        self.norm = nn.LayerNorm(width)
        block = BLOCKS[config.block]
        self.layers = nn.ModuleList(
            [block(width, config.attention_heads, config.dropout) for _ in range(config.depth)]
        )

    def describe(self, depth: int | None = None) -> dict[str, Any]:
        return self.config.model_dump() | {"depth": depth or self.depth}

    def footprint(self, fused: bool) -> Footprint:
        """Its attention has no dropout and never holds scores; the embedding is counted with the layers."""
        values = 32 if self.config.block == "transformer" else 57
        return Footprint(4 * HOP, 0, values * self.width, MEMORY)

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel features at 10 ms, four stacked frames to one: (B, T, 4 C), frames (B,)."""
        features, frames = self.frontend(waveforms, lengths)
        features = F.pad(features, (0, 0, 0, -features.shape[1] % 4))
        features = features.unflatten(1, (-1, 4)).flatten(2)  # (B, T, 4 C)
        return features, torch.div(frames + 3, 4, rounding_mode="floor")

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, T, 4 C) -> (B, T, D). Padding is zero before each convolution, as beyond the end."""
        hidden = features.unflatten(2, (4, -1)).flatten(1, 2)  # (B, 4 T, C)
        for step, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            hidden = convolution(hidden.transpose(1, 2)).transpose(1, 2)
            finer = mask[..., None].expand(-1, -1, 2 - step).flatten(1)
            hidden = F.gelu(norm(hidden)) * finer[..., None]
        position = self.position(hidden.transpose(1, 2)).transpose(1, 2)
        return self.dropout(hidden + F.gelu(position)) * mask[..., None]

    def context(self, mask: Tensor) -> dict[str, Tensor]:
        return {"mask": mask}

    def layer(self, index: int, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
        return self.layers[index - 1](hidden, context["mask"])

    @property
    def last_norm(self) -> nn.LayerNorm | None:
        return self.norm

    def parts(self) -> list[list[nn.Module]]:
        layers: list[list[nn.Module]] = [[layer] for layer in self.layers]
        layers[0] += [self.convolutions, self.norms, self.position, self.dropout]
        layers[-1].append(self.norm)
        return [[self.frontend], *layers]
