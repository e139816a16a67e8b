"""wav2vec 2.0 and the encoders of the same layout, whose padding changes nothing.

HuBERT, WavLM, UniSpeech and data2vec are built from the same parts. They differ from `transformers` in two
places:
    - the group norm of the first convolution (base models) averages over the real samples only;
    - the mask of real frames is always given, also to layer-norm models.

Axis letters: B batch, N samples, T frames, C channels, D width.
"""

import math
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import Wav2Vec2FeatureExtractor

from sertone.nn.encoders.convolutions import (
    convolve_waveforms,
    count_samples_of_a_frame,
    estimate_convolutions,
    has_group_norm,
    standardise_waveforms,
)
from sertone.nn.encoders.transformers_encoder import (
    TransformersEncoder,
    attend,
    count_score_matrices,
    mask_padded_keys,
)

WAV2VEC2_FAMILIES = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio")
"""`model_type` of the configurations that this encoder runs."""


class WaveformEncoder(TransformersEncoder):
    """Base of the encoders with the convolutions of wav2vec 2.0 over the waveform.

    Args:
        model: Hugging Face model; its modules are shared.
        normalize: bring waveforms to zero mean and unit variance.
    """

    def __init__(self, model: Any, normalize: bool) -> None:
        super().__init__(model, normalize)
        self.convolutions = model.feature_extractor.conv_layers
        self.min_samples = count_samples_of_a_frame(self.config)
        self.hop = math.prod(self.config.conv_stride)

    @classmethod
    def tiny_options(cls, width: int, depth: int, norm: str) -> dict[str, Any]:
        return {
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": 4,
            "intermediate_size": 2 * width,
            "conv_dim": [width] * 7,
            "num_conv_pos_embeddings": 16,
            "conv_pos_kernel_size": 5,
            "num_conv_pos_embedding_groups": 4,
            "feat_extract_norm": norm,
            "do_stable_layer_norm": norm == "layer",
            "conv_bias": norm == "layer",
        }

    def estimate_front(self) -> float:
        return estimate_convolutions(self.config.conv_dim[0], self.config.conv_stride[0])

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, N), lengths (B,) -> features (B, T, C), frames (B,)."""
        if self.normalize:
            waveforms = standardise_waveforms(waveforms, lengths)
        return convolve_waveforms(self.convolutions, self.config, waveforms, lengths)

    def parts(self) -> list[list[nn.Module]]:
        return self.divide(self.convolutions)

    def to_model(self) -> Any:
        model = super().to_model()
        model.feature_extractor.conv_layers = self.convolutions
        return model

    def make_extractor(self) -> Wav2Vec2FeatureExtractor:
        # transformers uses models with a group norm without an attention mask.
        mask = not has_group_norm(self.convolutions[0])
        return Wav2Vec2FeatureExtractor(do_normalize=self.normalize, return_attention_mask=mask)


class Wav2Vec2Encoder(WaveformEncoder):
    """A `Wav2Vec2Model`, `HubertModel`, `WavLMModel` or `Data2VecAudioModel`, run layer by layer.

    Args:
        model: the Hugging Face model.
        normalize: bring waveforms to zero mean and unit variance.
    """

    lora_modules: ClassVar = {
        "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
        "feed_forward": ("intermediate_dense", "output_dense"),
    }

    def __init__(self, model: Any, normalize: bool) -> None:
        super().__init__(model, normalize)
        # A configuration may hold the setting although the model, such as data2vec, has no such encoder.
        self.stable = type(model.encoder).__name__.endswith("StableLayerNorm")
        self.projection = self.make_projection(model)
        self.transformer = model.encoder

    def make_projection(self, model: Any) -> Any:
        """Return the part between the convolutions and the positional convolution."""
        return model.feature_projection

    def count_scores(self, fused: bool) -> int:
        """Count the T x T matrices that a trained layer keeps; WavLM also keeps the bias of each head."""
        copies = count_score_matrices(self.config, fused) + (self.config.model_type == "wavlm")
        return copies * self.config.num_attention_heads

    def count_values(self) -> int:
        return 8 * self.config.hidden_size + 2 * self.config.intermediate_size

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features (B, T, C) -> hidden state 0 (B, T, D)."""
        hidden = self.projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden  # some return the normed input as well
        # The positional convolution would mix padding into the last real frames.
        hidden = self.masking(hidden, mask) * mask[..., None]
        hidden = hidden + self._embed_positions(hidden, mask)
        if not self.stable:
            hidden = self.transformer.layer_norm(hidden)
        return self.transformer.dropout(hidden)

    def _embed_positions(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Run the positional convolution, in data2vec several: (B, T, D), (B, T) -> (B, T, D)."""
        embedding = self.transformer.pos_conv_embed
        if not hasattr(embedding, "layers"):
            return embedding(hidden)
        positions = hidden.transpose(1, 2)
        for layer in embedding.layers:
            # Between the convolutions the padding is no longer zero.
            positions = layer(positions * mask[:, None])
        return positions.transpose(1, 2)

    def context(self, mask: Tensor) -> dict[str, Tensor]:
        keys = mask_padded_keys(mask)
        context = {} if keys is None else {"mask": keys}
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


def _attend(attention: Any, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
    """Compute self-attention, in WavLM with its gated position bias: (B, T, D) -> (B, T, D).

    Args:
        attention: attention of any of the models.
        hidden: (B, T, D).
        context: `mask` of real keys (B, 1, 1, T) where there is padding; WavLM's `bias` (heads, T, T).
    """
    mask = context.get("mask")
    if "bias" in context:
        by_head = hidden.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        bias = _position_gate(attention, by_head) * context["bias"]
        mask = bias if mask is None else bias.masked_fill(~mask, -math.inf)
    return attend(attention, hidden, mask)


def _position_gate(attention: Any, hidden: Tensor) -> Tensor:
    """Compute the gate of WavLM's position bias (arXiv 2110.13900): (B, H, T, D) -> (B, H, T, 1)."""
    projected = attention.gru_rel_pos_linear(hidden).unflatten(-1, (2, 4)).sum(-1)  # (B, H, T, 2)
    update, reset = projected.sigmoid().chunk(2, -1)
    return update * (reset * attention.gru_rel_pos_const - 1.0) + 2.0
