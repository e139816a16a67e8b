"""wav2vec 2.0 Conformer (arXiv 2010.05171) and w2v-BERT 2.0 (arXiv 2312.05187); padding changes nothing.

Both have Conformer layers (arXiv 2005.08100): half a feed-forward block, attention with relative positions, a
convolution, and another half feed-forward block. They differ in their front ends and in the convolution.
w2v-BERT takes filter bank energies, two frames of 10 ms in one, and its convolution sees the past only.

In training the batch norm of wav2vec 2.0 Conformer keeps its statistics of pretraining, because those of a
small batch would depend on its padding.

Axis letters: B batch, N samples, T frames, C features, D width.
"""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SeamlessM4TFeatureExtractor

from sertone.errors import SertoneError
from sertone.nn.encoders.filter_bank import HOP, SAMPLING_RATE, STRIDE, WINDOW, FilterBankFrontEnd
from sertone.nn.encoders.relative_attention import attend_with_positions, embed_positions
from sertone.nn.encoders.transformers_encoder import (
    TransformersEncoder,
    count_score_matrices,
    mask_padded_keys,
    require_front_end,
)
from sertone.nn.encoders.wav2vec2 import WaveformEncoder


class ConformerEncoder(TransformersEncoder):
    """Base of the encoders with Conformer layers: subclasses have the front end and the convolution.

    Args:
        model: Hugging Face model; its modules are shared.
        normalize: bring waveforms to zero mean and unit variance.

    Attributes:
        positions: values of `position_embeddings_type` that the models have weights for.

    Raises:
        SertoneError: `unknown_encoder`, for any other value.
    """

    positions: ClassVar[tuple[str | None, ...]] = ("relative", "rotary", None)
    lora_modules: ClassVar = {
        "attention": ("linear_q", "linear_k", "linear_v", "linear_out"),
        "feed_forward": ("intermediate_dense", "output_dense"),
    }

    def __init__(self, model: Any, normalize: bool) -> None:
        super().__init__(model, normalize)
        kind = self.config.position_embeddings_type
        if kind not in self.positions:
            raise SertoneError(
                "unknown_encoder",
                f"position_embeddings_type {kind} of a {self.config.model_type}",
                f"one of {', '.join(known or 'null' for known in self.positions)}",
                "fetch config.json again, or use another model",
            )
        self.projection = model.feature_projection
        self.transformer = model.encoder

    def embed(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features (B, T, C) -> hidden state 0 (B, T, D)."""
        hidden, _ = self.projection(features)
        return self.transformer.dropout(self.masking(hidden, mask) * mask[..., None])

    def context(self, mask: Tensor) -> dict[str, Tensor]:
        context = {"frames": mask[..., None]}
        keys = mask_padded_keys(mask)
        if keys is not None:
            context["mask"] = keys
        positions = embed_positions(self.config, mask.shape[1], mask.device)
        return context if positions is None else context | {"positions": positions}

    def layer(self, index: int, hidden: Tensor, context: dict[str, Tensor]) -> Tensor:
        layer: Any = self.transformer.layers[index - 1]
        hidden = hidden + 0.5 * layer.ffn1(layer.ffn1_layer_norm(hidden))
        mixed = attend_with_positions(layer.self_attn, layer.self_attn_layer_norm(hidden), context)
        hidden = hidden + layer.self_attn_dropout(mixed)
        hidden = hidden + self.convolve(layer.conv_module, hidden, context["frames"])
        return layer.final_layer_norm(hidden + 0.5 * layer.ffn2(layer.ffn2_layer_norm(hidden)))

    def convolve(self, module: Any, hidden: Tensor, mask: Tensor) -> Tensor:
        """Run the convolution block of a layer.

        Args:
            module: the block.
            hidden: (B, T, D).
            mask: real frames, (B, T, 1); the convolution sees zeros in place of the others.
        """
        gated = module.glu(module.pointwise_conv1((module.layer_norm(hidden) * mask).transpose(1, 2)))
        mixed = module.activation(self.mix_frames(module, gated))
        return module.dropout(module.pointwise_conv2(mixed)).transpose(1, 2)

    @abstractmethod
    def mix_frames(self, module: Any, hidden: Tensor) -> Tensor:
        """Run the depthwise convolution of a layer and its norm: (B, D, T) -> (B, D, T)."""

    def count_values(self) -> int:
        return 16 * self.config.hidden_size + 4 * self.config.intermediate_size

    def count_scores(self, fused: bool) -> int:
        """Count the T x T matrices that a trained layer keeps; two are the position bias."""
        return (2 + count_score_matrices(self.config, fused)) * self.config.num_attention_heads


class Wav2Vec2ConformerEncoder(WaveformEncoder, ConformerEncoder):
    """A `Wav2Vec2ConformerModel`, run layer by layer."""

    @classmethod
    def tiny_options(cls, width: int, depth: int, norm: str) -> dict[str, Any]:
        options = {"conv_depthwise_kernel_size": 5, "position_embeddings_type": "relative"}
        return super().tiny_options(width, depth, norm) | options

    def mix_frames(self, module: Any, hidden: Tensor) -> Tensor:
        return module.batch_norm(module.depthwise_conv(hidden))

    @property
    def last_norm(self) -> nn.LayerNorm:
        return self.transformer.layer_norm

    def idle_modules(self) -> list[nn.Module]:
        # The positional convolution is in every file, and no model runs it.
        return [*super().idle_modules(), self.transformer.pos_conv_embed]

    def train(self, mode: bool = True) -> "Wav2Vec2ConformerEncoder":
        """Switch to training mode; the batch norms keep their statistics of pretraining."""
        super().train(mode)
        for layer in self.transformer.layers:
            layer.conv_module.batch_norm.eval()
        return self


class Wav2Vec2BertEncoder(ConformerEncoder):
    """A `Wav2Vec2BertModel`, run layer by layer, on its filter bank energies."""

    positions: ClassVar = (*ConformerEncoder.positions, "relative_key")
    takes_waveforms: ClassVar = False
    hop = STRIDE * HOP
    min_samples = WINDOW + HOP  # two frames of the filter bank are one frame of the encoder

    def __init__(self, model: Any, normalize: bool) -> None:
        super().__init__(model, normalize)
        self.front_end = FilterBankFrontEnd(self.config.feature_projection_input_dim // STRIDE)

    @classmethod
    def find_normalization(cls, source: str, config: Any) -> bool:
        """Return False, once the feature extractor is known to be the published one.

        Raises:
            SertoneError: `other_front_end`.
        """
        bands = config.feature_projection_input_dim // STRIDE
        expected = {"sampling_rate": SAMPLING_RATE, "num_mel_bins": bands, "stride": STRIDE}
        require_front_end(source, expected)
        return False

    @classmethod
    def tiny_options(cls, width: int, depth: int, norm: str) -> dict[str, Any]:
        return {
            "hidden_size": width,
            "num_hidden_layers": depth,
            "num_attention_heads": 4,
            "intermediate_size": 2 * width,
            "conv_depthwise_kernel_size": 5,
        }

    def estimate_front(self) -> float:
        return 4 * 5 * WINDOW / HOP

    def front(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.front_end(waveforms, lengths)

    def mix_frames(self, module: Any, hidden: Tensor) -> Tensor:
        past = F.pad(hidden, (module.depthwise_conv.kernel_size[0] - 1, 0))
        return module.depthwise_layer_norm(module.depthwise_conv(past).transpose(1, 2)).transpose(1, 2)

    def parts(self) -> list[list[nn.Module]]:
        return self.divide(self.front_end)

    def make_extractor(self) -> SeamlessM4TFeatureExtractor:
        bands = self.front_end.bands
        return SeamlessM4TFeatureExtractor(feature_size=bands, num_mel_bins=bands, stride=STRIDE)
