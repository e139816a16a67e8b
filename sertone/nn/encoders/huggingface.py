"""Any wav2vec 2.0, HuBERT or WavLM of Hugging Face as an encoder whose padding changes nothing.

The modules and weights are those of `transformers`. This file runs them layer by layer, so that the
encoder can be cut anywhere, and differs in four places:
    - the group norm of the first convolution (base models) averages over the real samples only;
    - layer drop (of trained layers only) and time masking follow the recipe, not the model: off by default;
    - the mask of real frames is always given, also to layer-norm models;
    - attention and dropout are those of `kernels`.

Axis letters: B batch, N samples, T frames, C channels, D width.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig

from sertone.nn import kernels
from sertone.nn.encoders.base import Encoder, EncoderSettings, Footprint
from sertone.nn.kernels import replace_dropout
from sertone.nn.masks import frame_mask, masked_mean, span_mask
from sertone.nn.pretrained import (
    NO_MASKING,
    build_architecture,
    disable_masking,
    expects_normalized_waveforms,
    load_speech_config,
    load_weights,
)
from sertone.recipe.settings import MAX_LAYERS


class PretrainedEncoderConfig(EncoderSettings):
    """A pretrained encoder, by hub id or folder."""

    name: Literal["pretrained"] = "pretrained"
    source: str
    """A hub id such as `facebook/wav2vec2-base`, or a folder that `save_pretrained` wrote."""
    normalize: bool | None = None
    """With true every waveform gets zero mean and unit variance. With null
    `preprocessor_config.json` says whether."""
    layerdrop: float = Field(default=0.0, ge=0, lt=1)
    """LayerDrop skips a trained layer with this probability at every step of training."""
    mask_time_prob: float = Field(default=0.0, ge=0, le=1)
    """SpecAugment masks this share of the frames in training, in spans, by the vector of the model's
    pretraining. It also masks the input of frozen layers, whose output is then not cached."""
    mask_time_length: int = Field(default=10, ge=1)
    """A masked span has so many frames; 10 are 0.2 s."""

    def build(self) -> Encoder:
        """Load the weights; none may be missing.

        Raises:
            SertoneError: as `load_speech_config`, `load_weights` and `expects_normalized_waveforms`.
        """
        config = load_speech_config(self.source)
        config.update(self.model_dump(include={"layerdrop", "mask_time_prob", "mask_time_length"}))
        model, unused = load_weights(self.source, config)
        normalize = expects_normalized_waveforms(self.source) if self.normalize is None else self.normalize
        encoder = HuggingFaceEncoder(model, normalize)
        encoder.unused = unused
        return encoder


class ArchitectureConfig(EncoderSettings):
    """An encoder without weights, as a checkpoint describes a pretrained one."""

    is_description: ClassVar = True

    name: Literal["architecture"] = "architecture"
    config: dict[str, Any]
    """A Hugging Face configuration."""
    normalize: bool
    """With true every waveform gets zero mean and unit variance."""

    def build(self) -> Encoder:
        """Build the encoder with random weights."""
        return HuggingFaceEncoder(build_architecture(NO_MASKING | self.config), self.normalize)


class TinyEncoderConfig(EncoderSettings):
    """The wav2vec 2.0 architecture at toy width with random weights, for tests."""

    name: Literal["tiny"] = "tiny"
    family: Literal["wav2vec2", "hubert", "wavlm"] = "wav2vec2"
    """The architecture."""
    norm: Literal["group", "layer"] = "group"
    """The norm of the convolutions: `group` as in the base models, `layer` as in the large ones."""
    width: int = Field(default=32, ge=8, multiple_of=4)
    """The width D."""
    depth: int = Field(default=2, ge=1, le=MAX_LAYERS)
    """The number of layers L."""

    def build(self) -> Encoder:
        """Build the encoder with random weights."""
        config = AutoConfig.for_model(
            self.family,
            hidden_size=self.width,
            num_hidden_layers=self.depth,
            num_attention_heads=4,
            intermediate_size=2 * self.width,
            conv_dim=[self.width] * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            feat_extract_norm=self.norm,
            do_stable_layer_norm=self.norm == "layer",
            conv_bias=self.norm == "layer",
        )
        model = AutoModel.from_config(disable_masking(config), trust_remote_code=False)
        return HuggingFaceEncoder(model, normalize=True)


class HuggingFaceEncoder(Encoder):
    """A `Wav2Vec2Model`, `HubertModel` or `WavLMModel`, run layer by layer.

    Args:
        model: the Hugging Face model.
        normalize: bring waveforms to zero mean and unit variance.
    """

    def __init__(self, model: Any, normalize: bool) -> None:
        super().__init__()
        replace_dropout(model)
        self.config = model.config
        self.normalize = normalize
        self.width = self.config.hidden_size
        self.depth = self.config.num_hidden_layers
        self.stable = bool(getattr(self.config, "do_stable_layer_norm", False))
        self.min_samples = _count_samples_of_a_frame(self.config)
        self.layerdrop = self.config.layerdrop
        self.convolutions = model.feature_extractor.conv_layers
        self.projection = model.feature_projection
        self.transformer = model.encoder
        self.masking = TimeMasking(model, self.config) if self.config.mask_time_prob else None

    def describe(self, depth: int | None = None) -> dict[str, Any]:
        config = self.config.to_diff_dict() | {"model_type": self.config.model_type}
        config["num_hidden_layers"] = depth or self.depth
        return ArchitectureConfig(config=config, normalize=self.normalize).model_dump()

    def footprint(self, fused: bool) -> Footprint:
        """Estimate the memory in training."""
        config = self.config
        # Three matrices of a head: weights, dropout mask, and their product; WavLM also keeps its bias.
        copies = 0 if fused or not config.attention_dropout else 3
        copies += config.model_type == "wavlm"
        values = 8 * config.hidden_size + 2 * config.intermediate_size
        front = 3.2 * 4 * config.conv_dim[0] / config.conv_stride[0]
        return Footprint(math.prod(config.conv_stride), copies * config.num_attention_heads, values, front)

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, N), lengths (B,) -> features (B, T, C), frames (B,)."""
        if self.normalize:
            waveforms = _standardise_waveforms(waveforms, lengths)
        features, frames = waveforms[:, None], lengths  # (B, 1, N)
        for index, convolution in enumerate(self.convolutions):
            kernel, stride = self.config.conv_kernel[index], self.config.conv_stride[index]
            frames = torch.div(frames - kernel, stride, rounding_mode="floor") + 1
            if index == 0 and self.config.feat_extract_norm == "group":
                features = _convolve_with_group_norm(convolution, features, frames)
            else:
                features = convolution(features)
        return features.transpose(1, 2), frames

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features (B, T, C) -> hidden state 0 (B, T, D)."""
        hidden = self.projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden  # some return the normed input as well
        if self.masking is not None:
            hidden = self.masking(hidden, mask)
        # The positional convolution would mix padding into the last real frames.
        hidden = hidden * mask[..., None]
        hidden = hidden + self.transformer.pos_conv_embed(hidden)
        if not self.stable:
            hidden = self.transformer.layer_norm(hidden)
        return self.transformer.dropout(hidden)

    def context(self, mask: Tensor) -> dict[str, Tensor]:
        # An exported graph gets no padding, and without a mask attention can use faster kernels.
        has_padding = not torch.compiler.is_exporting() and not mask.all()
        context = {"mask": mask[:, None, None]} if has_padding else {}
        if self.config.model_type == "wavlm":
            attention = self.transformer.layers[0].attention  # the only layer with the weights of the bias
            context["bias"] = attention.compute_bias(mask.shape[1], mask.shape[1])
        return context

    def layer(self, index: int, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
        layer = self.transformer.layers[index - 1]
        if not self.stable:
            mixed = layer.dropout(_attend(layer.attention, hidden, context))
            hidden = layer.layer_norm(hidden + mixed)
            return layer.final_layer_norm(hidden + layer.feed_forward(hidden))
        hidden = hidden + layer.dropout(_attend(layer.attention, layer.layer_norm(hidden), context))
        hidden = hidden + layer.feed_forward(layer.final_layer_norm(hidden))
        adapter = getattr(layer, "adapter_layer", None)  # of MMS models
        return hidden + adapter(hidden) if adapter is not None else hidden

    @property
    def last_norm(self) -> nn.LayerNorm | None:
        return self.transformer.layer_norm if self.stable else None

    def train(self, mode: bool = True) -> "HuggingFaceEncoder":
        """Switch to training mode; time masking is active also in a frozen prefix."""
        super().train(mode)
        if self.masking is not None:
            self.masking.train(mode)
        return self

    def explain_varying_prefix(self) -> str:
        """Explain why the prefix varies: above the front end, time masking changes it at every step."""
        if self.cut > 0 and self.masking is not None:
            return "model.encoder.mask_time_prob masks frames of its frozen part at random"
        return super().explain_varying_prefix()

    def parts(self) -> list[list[nn.Module]]:
        inner = self.transformer
        embedding = [self.projection, inner.pos_conv_embed, inner.dropout]
        embedding += [self.masking] if self.masking is not None else []
        layers = [[layer] for layer in inner.layers]
        layers[0] += embedding
        (layers[-1] if self.stable else layers[0]).append(inner.layer_norm)
        return [[self.convolutions], *layers]


class TimeMasking(nn.Module):
    """Replace spans of projected frames by the vector that stood for masked frames in pretraining.

    Args:
        model: Hugging Face model, with its `masked_spec_embed`.
        config: its configuration.
    """

    def __init__(self, model: Any, config: PretrainedConfig) -> None:
        super().__init__()
        self.vector = model.masked_spec_embed
        self.probability = config.mask_time_prob
        self.length = config.mask_time_length

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Frames (B, T, D), mask of real frames (B, T) -> (B, T, D); outside of training no change."""
        if not self.training:
            return hidden
        masked = span_mask(mask.sum(1), mask.shape[1], self.probability, self.length)
        return torch.where(masked[..., None], self.vector.to(hidden.dtype), hidden)


def _attend(attention: Any, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
    """Compute self-attention with Hugging Face's weights: (B, T, D) -> (B, T, D).

    Args:
        attention: a `Wav2Vec2Attention`, `HubertAttention` or `WavLMAttention`.
        hidden: (B, T, D).
        context: `mask` of real keys (B, 1, 1, T) where there is padding; WavLM's `bias` (heads, T, T).
    """
    heads = (attention.num_heads, -1)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (p(hidden).unflatten(-1, heads).transpose(1, 2) for p in projections)
    mask = context.get("mask")
    if "bias" in context:
        bias = _position_gate(attention, hidden.unflatten(-1, heads).transpose(1, 2)) * context["bias"]
        mask = (bias if mask is None else bias.masked_fill(~mask, -math.inf)).to(query.dtype)
    mixed = kernels.attention(query, key, value, mask, attention.dropout if attention.training else 0.0)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def _position_gate(attention: Any, hidden: Tensor) -> Tensor:
    """Compute the gate of WavLM's position bias (arXiv 2110.13900): (B, H, T, D) -> (B, H, T, 1)."""
    projected = attention.gru_rel_pos_linear(hidden).unflatten(-1, (2, 4)).sum(-1)  # (B, H, T, 2)
    update, reset = projected.sigmoid().chunk(2, -1)
    return update * (reset * attention.gru_rel_pos_const - 1.0) + 2.0


def _count_samples_of_a_frame(config: PretrainedConfig) -> int:
    """Count the samples that give one frame, by going back through the convolutions."""
    samples = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def _standardise_waveforms(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Bring the real samples to zero mean and unit variance, as Hugging Face's feature extractor does."""
    mask = frame_mask(lengths, waveforms.shape[1])
    count = lengths[:, None]
    mean = (waveforms * mask).sum(1, keepdim=True) / count
    variance = ((waveforms - mean).square() * mask).sum(1, keepdim=True) / count
    return (waveforms - mean) / (variance + 1e-7).sqrt() * mask


def _convolve_with_group_norm(convolution: Any, features: Tensor, frames: Tensor) -> Tensor:
    """Apply the first convolution and its norm over real frames: (B, 1, N), frames (B,) -> (B, C, T)."""
    norm = convolution.layer_norm
    features = convolution.conv(features).transpose(1, 2).float()  # (B, T, C)
    mean = masked_mean(features, frames)[:, None]
    variance = masked_mean((features - mean).square(), frames)[:, None]
    features = (features - mean) / (variance + norm.eps).sqrt()
    return convolution.activation((features * norm.weight + norm.bias).transpose(1, 2))
