"""The encoder of emotion2vec (arXiv 2312.15185) and of emotion2vec+, whose padding changes nothing.

A data2vec 2.0 model of audio (arXiv 2212.07525): convolutions over the waveform, positional convolutions,
extra tokens in front of the frames, and Transformer layers whose attention has a linear bias by distance
(ALiBi, arXiv 2108.12409). The authors divide the layers into a context encoder and blocks; here they are the
layers 1 to L.

Hidden states inside the encoder have the extra tokens. `Encoder.suffix` removes them.

Axis letters: B batch, N samples, T frames, C channels, E extra tokens, S = E + T, D width, H attention heads.
"""

import math
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from sertone.nn import kernels
from sertone.nn.encoders.base import Encoder, EncoderSettings, Footprint
from sertone.nn.encoders.convolutions import (
    convolve_waveforms,
    count_samples_of_a_frame,
    estimate_convolutions,
    standardise_waveforms,
)
from sertone.nn.encoders.transformers_encoder import mask_padded_keys
from sertone.nn.kernels import Dropout
from sertone.recipe.settings import MAX_LAYERS

VARIANCE_FLOOR = 1e-5
"""Added to the variance of a waveform: the constant of the layer norm that the authors apply to it."""


Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]
"""One number for each convolution."""


class Emotion2vecArchitectureConfig(EncoderSettings):
    """The architecture of emotion2vec with random weights; the sizes are those of the base model."""

    is_description: ClassVar = True

    name: Literal["emotion2vec_architecture"] = "emotion2vec_architecture"
    width: int = Field(default=768, ge=1)
    """The width D."""
    depth: int = Field(default=12, ge=1, le=MAX_LAYERS)
    """The number of layers L."""
    heads: int = Field(default=12, ge=1)
    """The number of attention heads H."""
    feed_forward: int = Field(default=3072, ge=1)
    """The width inside the feed-forward part of a layer."""
    channels: int = Field(default=512, ge=1)
    """The number of channels C of the convolutions over the waveform."""
    conv_kernel: Sizes = (10, 3, 3, 3, 3, 2, 2)
    """The kernels of the convolutions over the waveform."""
    conv_stride: Sizes = (5, 2, 2, 2, 2, 2, 2)
    """The strides of the convolutions over the waveform."""
    position_layers: int = Field(default=5, ge=1)
    """The number of positional convolutions."""
    position_kernel: int = Field(default=19, ge=1)
    """The kernel of the positional convolutions."""
    position_groups: int = Field(default=16, ge=1)
    """The groups of the positional convolutions."""
    extra_tokens: int = Field(default=10, ge=1)
    """The number of extra tokens E."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """The dropout of trained layers. That of the published configurations is 0.1."""
    layerdrop: float = Field(default=0.0, ge=0, lt=1)
    """LayerDrop skips a trained layer with this probability at every step of training."""

    @model_validator(mode="after")
    def _require_fitting_sizes(self) -> Self:
        for name in ("heads", "position_groups"):
            if self.width % getattr(self, name):
                raise ValueError(f"width {self.width} is no multiple of {name} {getattr(self, name)}")
        if len(self.conv_kernel) != len(self.conv_stride):
            raise ValueError(f"{len(self.conv_kernel)} conv_kernel and {len(self.conv_stride)} conv_stride")
        return self

    def build(self) -> "Emotion2vecEncoder":
        """Build the encoder with random weights."""
        return Emotion2vecEncoder(self)


class Emotion2vecEncoder(Encoder):
    """The encoder of emotion2vec, run layer by layer.

    Args:
        config: its sizes.
    """

    lora_modules: ClassVar = {
        "attention": ("qkv", "proj"),
        "feed_forward": ("fc1", "fc2"),
    }

    def __init__(self, config: Emotion2vecArchitectureConfig) -> None:
        super().__init__()
        self.config = config
        self.width, self.depth, self.extra_tokens = config.width, config.depth, config.extra_tokens
        self.layerdrop = config.layerdrop
        self.min_samples = count_samples_of_a_frame(config)
        inputs = (1, *[config.channels] * (len(config.conv_kernel) - 1))
        shapes = zip(inputs, config.conv_kernel, config.conv_stride, strict=True)
        self.convolutions = nn.ModuleList(Convolution(c, config.channels, k, s) for c, k, s in shapes)
        self.projection = nn.Sequential(nn.LayerNorm(config.channels), nn.Linear(config.channels, self.width))
        self.positions = nn.ModuleList(
            PositionalConvolution(self.width, config.position_kernel, config.position_groups)
            for _ in range(config.position_layers)
        )
        self.tokens = ExtraTokens(config.extra_tokens, self.width)
        self.bias = DistanceBias(config.heads)
        self.norm = nn.LayerNorm(self.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(self.depth))

    def describe(self, depth: int | None = None) -> dict[str, Any]:
        return self.config.model_dump(mode="json") | {"depth": depth or self.depth}

    def footprint(self, fused: bool) -> Footprint:
        """Estimate the memory in training."""
        config = self.config
        # The bias of each head, and with dropout the weights, the mask and their product.
        copies = 1 + (3 if config.dropout and not fused else 0)
        values = 9 * config.width + 2 * config.feed_forward
        front = estimate_convolutions(config.channels, config.conv_stride[0])
        return Footprint(math.prod(config.conv_stride), copies * config.heads, values, front)

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, N), lengths (B,) -> features (B, T, C), frames (B,)."""
        waveforms = standardise_waveforms(waveforms, lengths, VARIANCE_FLOOR)
        return convolve_waveforms(self.convolutions, self.config, waveforms, lengths)

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features (B, T, C), mask of real frames (B, T) -> hidden state 0 (B, S, D)."""
        hidden = self.projection(features)
        positions = hidden
        for convolution in self.positions:
            # A convolution would mix padding into the last real frames.
            positions = convolution(positions * mask[..., None])
        return self.norm(self.tokens(hidden + positions))

    def context(self, mask: Tensor) -> dict[str, Tensor]:
        bias = self.bias(mask.shape[1], self.extra_tokens)  # (1, H, S, S)
        keys = mask_padded_keys(mask)
        return {"bias": bias if keys is None else bias.masked_fill(~keys, -math.inf)}

    def layer(self, index: int, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
        return self.layers[index - 1](hidden, context["bias"])

    def parts(self) -> list[list[nn.Module]]:
        layers = [[layer] for layer in self.layers]
        layers[0] += [self.projection, self.positions, self.tokens, self.bias, self.norm]
        return [[self.convolutions], *layers]


class Convolution(nn.Module):
    """A convolution over the waveform, layer norm over the channels, GELU: (B, C, N) -> (B, C', T)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=False)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, features: Tensor) -> Tensor:
        return F.gelu(self.norm(self.conv(features).transpose(1, 2)).transpose(1, 2))


class PositionalConvolution(nn.Module):
    """A convolution over frames in groups, layer norm without learned scale, GELU: (B, T, D) -> (B, T, D)."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)

    def forward(self, hidden: Tensor) -> Tensor:
        total = hidden.shape[1]
        # An even kernel gives one frame too many.
        convolved = self.conv(hidden.transpose(1, 2))[..., :total].transpose(1, 2)
        return F.gelu(F.layer_norm(convolved, convolved.shape[-1:]))


class ExtraTokens(nn.Module):
    """Learned vectors in front of the frames: (B, T, D) -> (B, S, D)."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(1, count, width))

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.cat([self.vectors.to(hidden.dtype).expand(len(hidden), -1, -1), hidden], 1)


class DistanceBias(nn.Module):
    """ALiBi with a learned scale for each head; none from or to an extra token.

    Args:
        heads: H.
    """

    slopes: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(heads))
        self.register_buffer("slopes", torch.tensor(compute_slopes(heads)), persistent=False)

    def forward(self, total: int, tokens: int) -> Tensor:
        """Return what is added to the scores, (1, H, S, S), S = `total` with the extra `tokens`."""
        times = torch.arange(total - tokens, device=self.scale.device)
        distances = (times[:, None] - times).abs()
        slopes = self.slopes * self.scale.clamp(min=0)
        return F.pad(-slopes[:, None, None] * distances, (tokens, 0, tokens, 0))[None]


def compute_slopes(heads: int) -> list[float]:
    """Return the slope of each head: 2^(-8h/H) for h = 1..H, if H is a power of two.

    For other numbers of heads: first the slopes of the largest power of two P below H, then every second
    slope of 2 P, starting with the first (arXiv 2108.12409, in the authors' code).
    """
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * head / power) for head in range(1, power + 1)]
    return slopes if power == heads else slopes + compute_slopes(2 * power)[::2][: heads - power]


class Layer(nn.Module):
    """A Transformer layer with its norms behind the residuals: (B, S, D) -> (B, S, D)."""

    def __init__(self, config: Emotion2vecArchitectureConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.dropout = Dropout(config.dropout)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.feed_forward)
        self.fc2 = nn.Linear(config.feed_forward, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        hidden = self.norm1(hidden + self.dropout(self._attend(hidden, bias)))
        inner = self.fc2(F.gelu(self.fc1(hidden)))
        return self.norm2(hidden + self.dropout(inner))

    def _attend(self, hidden: Tensor, bias: Tensor) -> Tensor:
        query, key, value = self.qkv(hidden).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        probability = self.dropout.p if self.training else 0.0
        mixed = kernels.attention(query, key, value, bias.to(query.dtype), probability)
        return self.proj(mixed.transpose(1, 2).flatten(2))
