"""Settings of the encoders of Hugging Face, and the table of their architectures."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from sertone.errors import SertoneError
from sertone.nn.encoders.base import Encoder, EncoderSettings
from sertone.nn.encoders.conformer import Wav2Vec2BertEncoder, Wav2Vec2ConformerEncoder
from sertone.nn.encoders.sew import SewEncoder
from sertone.nn.encoders.transformers_encoder import TransformersEncoder
from sertone.nn.encoders.wav2vec2 import WAV2VEC2_FAMILIES, Wav2Vec2Encoder
from sertone.nn.encoders.whisper import WhisperEncoder
from sertone.nn.pretrained import (
    NO_MASKING,
    build_architecture,
    has_feature_extractor,
    load_speech_config,
    load_weights,
)
from sertone.recipe.choices import OneOf
from sertone.recipe.settings import MAX_LAYERS

FAMILIES: dict[str, type[TransformersEncoder]] = {
    **dict.fromkeys(WAV2VEC2_FAMILIES, Wav2Vec2Encoder),
    "wav2vec2-conformer": Wav2Vec2ConformerEncoder,
    "wav2vec2-bert": Wav2Vec2BertEncoder,
    "sew": SewEncoder,
    "whisper": WhisperEncoder,
}
"""`model_type` of a Hugging Face configuration -> the encoder that runs its modules."""


LAYERS_BEHIND = ("add_adapter", "use_intermediate_ffn_before_adapter")
"""Settings of a configuration that put further layers behind the encoder."""


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
    pretraining. Whisper has no such vector, so masked frames become zeros after the convolutions. The input
    of frozen layers is masked as well, so their output is not cached."""
    mask_time_length: int = Field(default=10, ge=1)
    """A masked span has so many frames; 10 are 0.2 s."""

    def build(self) -> Encoder:
        """Load the weights; none may be missing.

        Raises:
            SertoneError: as `load_speech_config`, `load_weights` and `find_normalization` of the family;
                `other_front_end`.
        """
        config = load_speech_config(self.source, FAMILIES)
        config.update(self.model_dump(include={"layerdrop", "mask_time_prob", "mask_time_length"}))
        # The encoder does not run layers behind its last one, so their weights are named as not used.
        config.update({name: False for name in LAYERS_BEHIND if hasattr(config, name)})
        family = FAMILIES[config.model_type]
        normalize = self._find_normalization(family, config)
        model, unused = load_weights(
            self.source, config, kind=family.get_model_class(), key_mapping=family.key_mapping
        )
        encoder = family(model, normalize)
        encoder.unused = unused
        return encoder

    def _find_normalization(self, family: type[TransformersEncoder], config: Any) -> bool:
        """Return whether to normalise waveforms; with a setting, the feature extractor's file is optional.

        Raises:
            SertoneError: `other_front_end`; as `find_normalization` of the family.
        """
        if self.normalize and not family.takes_waveforms:
            raise SertoneError(
                "other_front_end",
                f"model.encoder.normalize: true for {self.source}, whose input is log-mel energies",
                "no normalised waveforms",
                "remove model.encoder.normalize",
            )
        if self.normalize is not None and not has_feature_extractor(self.source):
            return self.normalize
        expected = family.find_normalization(self.source, config)
        return expected if self.normalize is None else self.normalize


class ArchitectureConfig(EncoderSettings):
    """An encoder without weights, as a checkpoint describes a pretrained one."""

    is_description: ClassVar = True

    name: Literal["architecture"] = "architecture"
    config: dict[str, Any]
    """A Hugging Face configuration."""
    normalize: bool
    """With true every waveform gets zero mean and unit variance."""

    @field_validator("config")
    @classmethod
    def _require_known_architecture(cls, config: dict[str, Any]) -> dict[str, Any]:
        if config.get("model_type") not in FAMILIES:
            raise ValueError(f"model_type {config.get('model_type')!r} is none of {', '.join(FAMILIES)}")
        return config

    def build(self) -> Encoder:
        """Build the encoder with random weights."""
        family = FAMILIES[self.config["model_type"]]
        model = build_architecture(NO_MASKING | self.config, family.get_model_class())
        return family(model, self.normalize)


class TinyEncoderConfig(EncoderSettings):
    """The wav2vec 2.0 architecture at toy width with random weights, for tests."""

    name: Literal["tiny"] = "tiny"
    family: Annotated[str, OneOf(FAMILIES)] = "wav2vec2"
    """The architecture."""
    norm: Literal["group", "layer"] = "group"
    """The norm of the convolutions: `group` as in the base models, `layer` as in the large ones."""
    width: int = Field(default=32, ge=8, multiple_of=4)
    """The width D."""
    depth: int = Field(default=2, ge=1, le=MAX_LAYERS)
    """The number of layers L."""

    def build(self) -> Encoder:
        """Build the encoder with random weights."""
        family = FAMILIES[self.family]
        options = family.tiny_options(self.width, self.depth, self.norm)
        model = build_architecture(
            NO_MASKING | {"model_type": self.family} | options, family.get_model_class()
        )
        return family(model, normalize=family.takes_waveforms)
