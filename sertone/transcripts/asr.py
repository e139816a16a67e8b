"""Speech recognition with Whisper, as faster-whisper runs it: the extra `asr`.

Nothing here is drawn at random: temperature 0, each recording by itself, no voice activity filter.

Axis letters: N samples.
"""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from sertone import audio
from sertone.errors import SertoneError
from sertone.recipe import AsrConfig
from sertone.utils import hub
from sertone.utils.extras import install_command

PACKAGES = ("faster-whisper", "ctranslate2")


class Recogniser:
    """Writes down what is said.

    Args:
        config: which model, and how it runs.
        language: ISO 639-1 code, where the configuration has none; empty: it is detected.

    Raises:
        SertoneError: `missing_extra`, `bad_asr_model`, `unknown_language`.
    """

    def __init__(self, config: AsrConfig, language: str = "") -> None:
        self.config, self.language = config, config.language or language or None
        self.model = _load(config)
        if self.language not in (None, *self.model.supported_languages):
            raise SertoneError(
                "unknown_language",
                f"language {self.language!r}, which {config.model} does not know",
                f"one of {', '.join(self.model.supported_languages)}",
                "data.text.asr.language says what is spoken",
            )

    def __call__(self, samples: np.ndarray) -> str:
        """What is said in a recording: samples (N,), float32, 16 kHz. Empty where nothing was understood."""
        segments, _ = self.model.transcribe(
            samples,
            language=self.language,
            beam_size=self.config.beam_size,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
            vad_filter=False,
        )
        return " ".join(" ".join(segment.text for segment in segments).split())


def get_versions() -> dict[str, str]:
    """Of the libraries that recognise.

    Raises:
        SertoneError: `missing_extra`.
    """
    try:
        return {name: version(name) for name in PACKAGES}
    except PackageNotFoundError as error:
        raise _missing(error.name or PACKAGES[0]) from None


def identify_model(model: str) -> dict[str, str]:
    """What tells a model from others: its name on the hub, or the hash of a folder's files."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return {"model": model}
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name} {audio.file_hash(path)}\n".encode())
    return {"model": folder.resolve().name, "sha256": digest.hexdigest()}


def _load(config: AsrConfig) -> Any:
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise _missing("faster-whisper") from None
    folder = Path(config.model).expanduser()
    name = str(folder) if folder.is_dir() else config.model
    _require_known(name, folder)
    try:
        return WhisperModel(name, device=config.device, compute_type=config.compute_type)
    except (ValueError, OSError, RuntimeError) as error:
        raise _bad_model(f"{config.model!r}: {error}") from None


def _require_known(name: str, folder: Path) -> None:
    """Refuses what faster-whisper would look for on the hub although a folder is meant."""
    if folder.is_dir() and not (folder / "tokenizer.json").is_file():
        raise _bad_model(f"{name!r}: no tokenizer.json")
    if "/" in name and not folder.is_dir() and not hub.is_hub_id(name):
        raise _bad_model(hub.describe_missing(name))


def _bad_model(found: str) -> SertoneError:
    return SertoneError(
        "bad_asr_model",
        f"data.text.asr.model {found}",
        "a size such as `small`, a converted Whisper on the hub, or a folder that holds one, and a "
        "device and compute_type that this machine has",
        "ct2-transformers-converter converts a Whisper of transformers, with its tokenizer.json",
    )


def _missing(name: str) -> SertoneError:
    return SertoneError("missing_extra", f"{name} is not installed", way_out=install_command("asr"))
