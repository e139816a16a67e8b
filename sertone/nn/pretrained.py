"""Pretrained models of Hugging Face: configuration and weights. A model that lacks weights is refused.

Every call of transformers that opens a model's folder is in this file. None of them runs code of the folder,
asks whether it may, or looks for anything outside the folder.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoTokenizer, PretrainedConfig
from transformers.utils import logging

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError, first_line
from sertone.nn.tensor_files import describe_failure
from sertone.utils import hub

EXPECTED = "a Hugging Face id or a folder with config.json"


def find_folder(source: str, weights: tuple[str, ...] = ()) -> Path:
    """Return the folder of a pretrained model, which names no code.

    Args:
        source: folder, or OWNER/NAME on the hub, whose settings and `weights` are downloaded once.
        weights: patterns of the files of weights.

    Raises:
        SertoneError: `missing_encoder`, `remote_code`, `bad_weights`.
    """
    folder = hub.resolve_folder(source, hub.CONFIG_FILES + weights, code="missing_encoder", expected=EXPECTED)
    if not folder.is_dir():
        raise SertoneError(
            "missing_encoder", hub.describe_missing(source), EXPECTED, "OWNER/NAME is one of the hub"
        )
    hub.require_data_only(folder)
    return folder


def _find_folder_with_weights(source: str) -> Path:
    """Return the folder with its weights.

    Pickled weights are used only if there are no others; only tensors are loaded from them.
    """
    folder = find_folder(source, hub.SAFE_WEIGHTS)
    if any(folder.glob("*.safetensors")):
        return folder
    return find_folder(source, hub.SAFE_WEIGHTS + hub.PICKLED_WEIGHTS)


def build_architecture(values: Mapping[str, Any], kind: Any = AutoModel) -> Any:
    """Return a model of random weights.

    Args:
        values: a Hugging Face configuration with its `model_type`, from a checkpoint.
        kind: class of the model, or one that finds it.

    Raises:
        SertoneError: `remote_code`.
    """
    options = dict(values)
    hub.require_no_code(options, Path("checkpoint.json"))
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    return kind.from_config(config, trust_remote_code=False) if kind is AutoModel else kind(config)


NO_MASKING = {"layerdrop": 0.0, "mask_time_prob": 0.0, "mask_feature_prob": 0.0}
"""Settings without layer drop and masking, which Hugging Face switches on by default."""


def disable_masking(config: PretrainedConfig) -> PretrainedConfig:
    """Switch off layer drop and masking, so that every pass gives the same hidden states, all of them."""
    config.update(NO_MASKING)
    return config


def load_speech_config(source: str, families: Iterable[str]) -> PretrainedConfig:
    """Load the configuration of a speech encoder, or of a model with one, without layer drop and masking.

    Args:
        source: hub id or folder.
        families: values of `model_type` that the caller can use.

    Raises:
        SertoneError: `missing_encoder`, `unknown_encoder`, `remote_code`.
    """
    config = load_config(source, "; for emotion2vec set model.encoder.name: emotion2vec")
    if config.model_type not in families:
        raise SertoneError(
            "unknown_encoder",
            f"{source} is a {config.model_type}",
            f"one of {', '.join(families)}",
            "choose a speech encoder of such an architecture",
        )
    return disable_masking(config)


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Silence the progress bars and reports of transformers; errors are still raised."""
    level = logging.get_verbosity()
    had_bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()


def load_weights(
    source: str,
    config: PretrainedConfig,
    optional: tuple[str, ...] = (),
    kind: Any = AutoModel,
    key_mapping: Mapping[str, str] | None = None,
) -> tuple[Any, str]:
    """Load a pretrained model, all of whose weights come from the file.

    Args:
        source: hub id or folder.
        config: config of the model.
        optional: beginnings of the names that may be missing.
        kind: class of the model, or one that finds it.
        key_mapping: pattern of names in the file -> replacement.

    Returns:
        The model, and one line about the weights of the file that it does not use; empty without any.

    Raises:
        SertoneError: `missing_encoder`, `remote_code`, `bad_weights`, `missing_weights`.
    """
    model, report = _read_weights(source, config, kind, key_mapping)
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(optional))
    if missing:
        raise SertoneError(
            "missing_weights",
            f"{source} lacks {len(missing)} weights: {', '.join(missing[:5])}",
            "every weight of the model in the file",
            "they would be random; fetch the model again",
        )
    unused = sorted(report["unexpected_keys"])
    if problem := _find_misfit(model, report["mismatched_keys"], unused):
        raise SertoneError(
            "bad_weights",
            f"{source}: {problem}",
            "config.json and weights of the same model",
            "fetch both again",
        )
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise SertoneError("bad_weights", f"{source}: {name} is not finite", "finite weights")
    return model, _describe_unused(source, unused)


def _read_weights(
    source: str, config: PretrainedConfig, kind: Any, key_mapping: Mapping[str, str] | None
) -> tuple[Any, dict[str, Any]]:
    """Return a model and the report of transformers about its weights.

    Raises:
        SertoneError: `missing_encoder`, `remote_code`, `bad_weights`.
    """
    folder = _find_folder_with_weights(source)
    try:
        with silence_transformers():
            return kind.from_pretrained(
                folder,
                config=config,
                key_mapping=dict(key_mapping or {}) or None,
                output_loading_info=True,
                dtype=torch.float32,
                use_safetensors=any(folder.glob("*.safetensors")),
                weights_only=True,
                ignore_mismatched_sizes=True,  # the report names them, the error would not
                trust_remote_code=False,
                local_files_only=True,
            )
    except Exception as error:  # safetensors, and pickles that torch refuses: one way out
        raise SertoneError(
            "bad_weights", f"{source}: {describe_failure(error)}", f"intact weights of a {config.model_type}"
        ) from error


def _find_misfit(model: Any, mismatched: Collection[tuple[str, Any, Any]], unused: Iterable[str]) -> str:
    """Return where weights do not fit the configuration, in shape or in number of layers; empty: nowhere.

    Args:
        model: built from the configuration.
        mismatched: name of a weight, its shape in the file, its shape in the model.
        unused: names of weights in the file alone.
    """
    if mismatched:
        name, shape, expected = min(mismatched)
        return f"{name} has the shape {list(shape)}, and {list(expected)} by config.json"
    prefix = f"{model.base_model_prefix}."  # a file may have it or not
    names = {name.removeprefix(prefix) for name in model.state_dict()}
    for name in unused:
        # Only where the model has the same weight in its first layer: a decoder has other names.
        if re.sub(r"\.\d+\.", ".0.", name.removeprefix(prefix), count=1) in names:
            return f"{name} is beyond the layers of config.json"
    return ""


def _describe_unused(source: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{source}: {len(names)} of its weights are not used: {shown}"


def load_config(source: str, hint: str = "") -> PretrainedConfig:
    """Load the configuration of a pretrained model.

    Args:
        source: hub id or folder.
        hint: a further way out where there is none.

    Raises:
        SertoneError: `missing_encoder`, `remote_code`.
    """
    try:
        return AutoConfig.from_pretrained(find_folder(source), trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise SertoneError(
            "missing_encoder",
            f"no encoder at {source!r}: {first_line(error)}",
            EXPECTED,
            f"without a network, download it elsewhere and give its folder{hint}",
        ) from error


def expects_normalized_waveforms(source: str) -> bool:
    """Return whether a pretrained model expects waveforms of zero mean and unit variance.

    Raises:
        SertoneError: `missing_preprocessor`, `other_rate`, `remote_code`.
    """
    try:
        extractor = load_feature_extractor(find_folder(source))
        normalize, rate = bool(extractor.do_normalize), extractor.sampling_rate
    except (OSError, ValueError, AttributeError) as error:
        raise SertoneError(
            "missing_preprocessor",
            f"{source} has no preprocessor_config.json",
            "to know whether waveforms are normalised",
            "add the file, or set model.encoder.normalize: true or false",
        ) from error
    if rate != SAMPLING_RATE:
        raise SertoneError(
            "other_rate",
            f"{source} expects audio of {rate} Hz",
            f"{SAMPLING_RATE} Hz, to which Sertone converts all audio",
            "use a model for 16 kHz; on audio of another rate its hidden states would be wrong",
        )
    return normalize


def has_feature_extractor(source: str) -> bool:
    """Return whether the folder of a pretrained model has the settings of its feature extractor."""
    return (find_folder(source) / "preprocessor_config.json").is_file()


def load_feature_extractor(folder: Path) -> Any:
    """Load the feature extractor of a folder that names no code (`find_folder`).

    Raises:
        OSError, ValueError: the folder has none.
    """
    return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def load_tokenizer(source: str) -> Any:
    """Load the tokenizer of a pretrained model, as transformers has it.

    Raises:
        SertoneError: `missing_encoder`, `remote_code`.
        Exception: of various types, if a file is missing or a converter is not installed.
    """
    return AutoTokenizer.from_pretrained(find_folder(source), trust_remote_code=False, local_files_only=True)
