"""Base of the encoders of Hugging Face: the modules and weights are those of `transformers`.

All models but Whisper have the layout of wav2vec 2.0: a front end, a projection, a module with the layers.
Sertone runs them layer by layer, so that an encoder can be cut anywhere and padding changes nothing. Layer
drop (of trained layers only) and time masking follow the recipe, not the model: both are off by default.
Attention and dropout are those of `kernels`.

Axis letters: B batch, N samples, H attention heads, T frames, D width.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from sertone.errors import SertoneError, first_line
from sertone.nn import kernels
from sertone.nn.encoders.base import Encoder, Footprint
from sertone.nn.kernels import replace_dropout
from sertone.nn.masks import span_mask
from sertone.nn.pretrained import (
    expects_normalized_waveforms,
    find_folder,
    has_feature_extractor,
    load_feature_extractor,
)


class TransformersEncoder(Encoder):
    """Base of the encoders of Hugging Face: subclasses run the modules of one layout.

    Args:
        model: Hugging Face model; its modules are shared.
        normalize: bring waveforms to zero mean and unit variance.

    Attributes:
        key_mapping: pattern of names in a file of weights -> replacement; for parts of larger models.
        depth_key: name of the number of layers in the configuration.
        takes_waveforms: whether the input of the model is a waveform, which may be normalised.
        hop: samples per frame.
        projection: the part between the front end and `transformer`.
        transformer: the module with the layers.
        masking: time masking, without effect where its probability is 0.
    """

    key_mapping: ClassVar[dict[str, str]] = {}
    depth_key: ClassVar[str] = "num_hidden_layers"
    takes_waveforms: ClassVar[bool] = True
    hop: int
    projection: Any
    transformer: Any

    def __init__(self, model: Any, normalize: bool) -> None:
        super().__init__()
        replace_dropout(model)
        self.config: Any = model.config
        self.normalize = normalize
        self.width = self.config.hidden_size
        self.depth = getattr(self.config, self.depth_key)
        self.layerdrop = self.config.layerdrop
        # A model without a vector for masked frames, such as Whisper, gets zeros.
        zeros = nn.Buffer(torch.zeros(self.width), persistent=False)
        self.masking = TimeMasking(getattr(model, "masked_spec_embed", zeros), self.config)

    @classmethod
    def get_model_class(cls) -> Any:
        """Return the class of `transformers` that loads and builds the model."""
        return AutoModel

    @classmethod
    def find_normalization(cls, source: str, config: Any) -> bool:
        """Return whether the folder of a model asks for waveforms of zero mean and unit variance.

        Args:
            source: hub id or folder.
            config: configuration of the model.

        Raises:
            SertoneError: as `pretrained.expects_normalized_waveforms`.
        """
        return expects_normalized_waveforms(source)

    def footprint(self, fused: bool) -> Footprint:
        """Estimate the memory in training."""
        return Footprint(self.hop, self.count_scores(fused), self.count_values(), self.estimate_front())

    @abstractmethod
    def count_scores(self, fused: bool) -> int:
        """Count the T x T matrices that a trained layer keeps for the gradient."""

    @abstractmethod
    def count_values(self) -> int:
        """Count the numbers that a trained layer keeps per frame."""

    @abstractmethod
    def estimate_front(self) -> float:
        """Estimate the bytes per sample while the front end runs."""

    def divide(self, front: nn.Module) -> list[list[nn.Module]]:
        """Return the parts of an encoder with this front end and the layout of wav2vec 2.0."""
        inner, last = self.transformer, self.last_norm
        parts = [[front], *([layer] for layer in inner.layers)]
        parts[1] += [self.projection, self.masking]
        parts[1] += [module for module in inner.children() if module not in (inner.layers, last)]
        parts[-1] += [] if last is None else [last]
        return parts

    def idle_modules(self) -> list[nn.Module]:
        """Return modules that are in every file of weights, and that the encoder does not run."""
        return [] if self.masking.probability else [self.masking]

    def freeze(self, cut: int) -> None:
        """Freeze everything up to `cut` and thaw the rest, except what is not run.

        Raises:
            SertoneError: `bad_cut`, where the encoder has fewer layers.
        """
        super().freeze(cut)
        for module in self.idle_modules():  # without a gradient, several processes would wait for it
            module.requires_grad_(False)

    @classmethod
    @abstractmethod
    def tiny_options(cls, width: int, depth: int, norm: str) -> dict[str, Any]:
        """Return the options of a small configuration, for tests; `norm` as in `TinyEncoderConfig`."""

    def describe(self, depth: int | None = None) -> dict[str, Any]:
        config = self.config.to_diff_dict() | {"model_type": self.config.model_type}
        config[self.depth_key] = depth or self.depth
        return {"name": "architecture", "config": config, "normalize": self.normalize}

    def to_model(self) -> Any:
        """Return a Hugging Face model with the weights of this encoder."""
        model = AutoModel.from_config(self.config, trust_remote_code=False)
        self.insert_projection(model)
        model.encoder = self.transformer
        if hasattr(model, "masked_spec_embed"):
            model.masked_spec_embed = self.masking.vector
        return model

    def insert_projection(self, model: Any) -> None:
        """Put the projection into a Hugging Face model."""
        model.feature_projection = self.projection

    @abstractmethod
    def make_extractor(self) -> Any:
        """Return the feature extractor of Hugging Face that belongs to the model."""

    def train(self, mode: bool = True) -> "TransformersEncoder":
        """Switch to training mode; time masking is active also in a frozen prefix."""
        super().train(mode)
        if self.masking.probability:
            self.masking.train(mode)
        return self

    def explain_varying_prefix(self) -> str:
        """Explain why the prefix varies: above the front end, time masking changes it at every step."""
        if self.cut > 0 and self.masking.probability:
            return "model.encoder.mask_time_prob masks frames of its frozen part at random"
        return super().explain_varying_prefix()


class TimeMasking(nn.Module):
    """Replace spans of frames by one vector.

    Args:
        vector: the vector that stood for masked frames in pretraining, a parameter, or a buffer; (D,).
        config: configuration of the model.
    """

    def __init__(self, vector: Tensor, config: PretrainedConfig) -> None:
        super().__init__()
        self.vector = vector
        self.probability: float = config.mask_time_prob
        self.length: int = config.mask_time_length

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Frames (B, T, D), mask of real frames (B, T) -> (B, T, D); outside of training no change."""
        if not (self.training and self.probability):
            return hidden
        masked = span_mask(mask.sum(1), mask.shape[1], self.probability, self.length)
        return torch.where(masked[..., None], self.vector.to(hidden.dtype), hidden)


def attend(attention: Any, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Compute self-attention with Hugging Face's weights: (B, T, D) -> (B, T, D).

    Args:
        attention: `Wav2Vec2Attention`, `WhisperAttention` or another with the same names.
        hidden: (B, T, D).
        mask: true where a key counts, or numbers that are added to the scores; broadcasts to (B, H, T, T).
    """
    heads = (attention.num_heads, -1)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (p(hidden).unflatten(-1, heads).transpose(1, 2) for p in projections)
    mask = mask.to(query.dtype) if mask is not None and mask.is_floating_point() else mask
    mixed = kernels.attention(query, key, value, mask, attention.dropout if attention.training else 0.0)
    return attention.out_proj(mixed.transpose(1, 2).flatten(2))


def mask_padded_keys(mask: Tensor) -> Tensor | None:
    """Return the mask of real keys (B, 1, 1, T) for attention, from that of real frames (B, T).

    None where every frame is real: an exported graph gets no padding, and without a mask attention can use
    faster kernels.
    """
    return None if torch.compiler.is_exporting() or mask.all() else mask[:, None, None]


def count_score_matrices(config: Any, fused: bool) -> int:
    """Return how many T x T matrices a head keeps for the gradient: weights, dropout mask, their product."""
    return 0 if fused or not config.attention_dropout else 3


def require_front_end(source: str, expected: dict[str, Any]) -> None:
    """Require that the feature extractor of a model, if it has a file, is the published one.

    Args:
        source: hub id or folder.
        expected: settings of `preprocessor_config.json` that the encoder's front end has.

    Raises:
        SertoneError: `other_front_end`.
    """
    if not has_feature_extractor(source):
        return  # all published models have the same settings
    actual = _load_settings(source, expected)
    if actual != expected:
        raise SertoneError(
            "other_front_end",
            f"{source}: preprocessor_config.json has {_list_settings(actual)}",
            _list_settings(expected),
            "use the preprocessor_config.json of the model's family",
        )


def _load_settings(source: str, expected: dict[str, Any]) -> dict[str, Any]:
    """Return the same settings as `preprocessor_config.json` has them; None where it lacks one.

    Raises:
        SertoneError: `other_front_end`.
    """
    try:
        extractor = load_feature_extractor(find_folder(source))
    except (OSError, ValueError) as error:
        raise SertoneError(
            "other_front_end",
            f"{source}: preprocessor_config.json cannot be read: {first_line(error)}",
            _list_settings(expected),
            "fetch the file again",
        ) from error
    return {name: getattr(extractor, name, None) for name in expected}


def _list_settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
