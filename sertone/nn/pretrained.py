"""Pretrained models of Hugging Face: configuration and weights, all of them there or refused."""

from typing import Any

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, PretrainedConfig

from sertone.errors import SertoneError

FAMILIES = ("wav2vec2", "hubert", "wavlm")


def plain(config: PretrainedConfig) -> PretrainedConfig:
    """A configuration without layer drop and masking: the same hidden states at every pass, all of them."""
    config.update({"layerdrop": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0})
    return config


def speech_config(source: str) -> PretrainedConfig:
    """The configuration of a speech encoder, or of a model that has one, without layer drop and masking.

    Args:
        source: hub id or folder.

    Raises:
        SertoneError: `missing_encoder`, `unknown_encoder`.
    """
    config = config_of(source)
    if config.model_type not in FAMILIES:
        raise SertoneError(
            "unknown_encoder", f"{source} is a {config.model_type}", f"one of {', '.join(FAMILIES)}"
        )
    return plain(config)


def load_weights(
    source: str, config: PretrainedConfig, optional: tuple[str, ...] = (), kind: Any = AutoModel
) -> Any:
    """A pretrained model, all of whose weights come from the file.

    Args:
        source: hub id or folder.
        config: of the model.
        optional: beginnings of the names that may be missing.
        kind: class of the model, or one that finds it.

    Raises:
        SertoneError: `bad_weights`, `missing_weights`.
    """
    try:
        model, report = kind.from_pretrained(
            source, config=config, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # safetensors, shapes, pickles that torch refuses: one way out
        raise SertoneError(
            "bad_weights", f"{source}: {error}", f"intact weights of a {config.model_type}"
        ) from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(optional))
    if missing:
        raise SertoneError(
            "missing_weights",
            f"{source} lacks {len(missing)} weights: {', '.join(missing[:5])}",
            "every weight of the model in the file",
            "they would be random; fetch the model again",
        )
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise SertoneError("bad_weights", f"{source}: {name} is not finite", "finite weights")
    return model


def config_of(source: str) -> PretrainedConfig:
    """The configuration of a pretrained model.

    Args:
        source: hub id or folder.

    Raises:
        SertoneError: `missing_encoder`.
    """
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise SertoneError(
            "missing_encoder",
            f"no encoder at {source!r}: {str(error).splitlines()[0]}",
            "a Hugging Face id or a folder with config.json",
            "without a network, download it elsewhere and give its folder",
        ) from error


def normalize_of(source: str) -> bool:
    """Whether a pretrained model wants waveforms of zero mean and unit variance.

    Raises:
        SertoneError: `missing_preprocessor`.
    """
    try:
        return bool(AutoFeatureExtractor.from_pretrained(source).do_normalize)
    except (OSError, ValueError, AttributeError) as error:
        raise SertoneError(
            "missing_preprocessor",
            f"{source} has no preprocessor_config.json",
            "to know whether waveforms are normalised",
            "add the file, or set model.encoder.normalize: true or false",
        ) from error
