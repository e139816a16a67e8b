"""Speech recognition with Whisper through faster-whisper; it needs the extra `asr`.

Recognition is deterministic: the temperature is 0, every recording is recognised by itself, and no voice
activity filter is used.

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
"""The libraries on which a transcript depends."""


class Recogniser:
    """Transcribes speech.

    Args:
        config: the model and how it runs.
        language: ISO 639-1 code, used where the configuration has none; empty: it is detected.

    Raises:
        SertoneError: `missing_extra`, `bad_asr_model`, `unknown_language`.
    """

    def __init__(self, config: AsrConfig, language: str = "") -> None:
        self.config = config
        self.language = config.language or language or None
        self.model = _load_model(config)
        if self.language not in (None, *self.model.supported_languages):
            raise SertoneError(
                "unknown_language",
                f"language {self.language!r}, which {config.model} does not know",
                f"one of {', '.join(self.model.supported_languages)}",
                "set data.text.asr.language to the language spoken",
            )

    def __call__(self, samples: np.ndarray) -> str:
        """Return the transcript of a recording; empty where no word was recognised.

        Args:
            samples: (N,), float32, 16 kHz.
        """
        segments, _ = self.model.transcribe(
            samples,
            language=self.language,
            beam_size=self.config.beam_size,
            temperature=0.0,  # a single one: faster-whisper then never falls back to sampling
            condition_on_previous_text=False,  # an error cannot carry over to the next segment
            without_timestamps=True,
            vad_filter=False,
        )
        # Segments begin with a space; runs of spaces become one.
        return " ".join(" ".join(segment.text for segment in segments).split())


def get_versions() -> dict[str, str]:
    """Return the versions of the libraries for recognition.

    Raises:
        SertoneError: `missing_extra`.
    """
    try:
        return {name: version(name) for name in PACKAGES}
    except PackageNotFoundError as error:
        raise _make_extra_error(error.name or PACKAGES[0]) from None


def identify_model(model: str) -> dict[str, str]:
    """Return the identity of a model: its name on the hub, or the hash of a folder's files."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return {"model": model}
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name} {audio.file_hash(path)}\n".encode())
    return {"model": folder.resolve().name, "sha256": digest.hexdigest()}


def _load_model(config: AsrConfig) -> Any:
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise _make_extra_error("faster-whisper") from None
    folder = Path(config.model).expanduser()
    name = str(folder) if folder.is_dir() else config.model
    _require_local_or_hub(name, folder)
    try:
        return WhisperModel(name, device=config.device, compute_type=config.compute_type)
    except (ValueError, OSError, RuntimeError) as error:
        raise _make_model_error(f"{config.model!r}: {error}") from None


def _require_local_or_hub(name: str, folder: Path) -> None:
    """Refuse names for which faster-whisper would search the hub although a folder is meant."""
    if folder.is_dir() and not (folder / "tokenizer.json").is_file():
        # Without this file faster-whisper would download a tokenizer.
        raise _make_model_error(f"{name!r}: no tokenizer.json")
    if "/" in name and not folder.is_dir() and not hub.is_hub_id(name):
        raise _make_model_error(hub.describe_missing(name))


def _make_model_error(problem: str) -> SertoneError:
    return SertoneError(
        "bad_asr_model",
        f"data.text.asr.model {problem}",
        "a size such as `small`, a converted Whisper on the hub, or a folder that holds one, and a "
        "device and compute_type that this machine has",
        "ct2-transformers-converter converts a Whisper of transformers, with its tokenizer.json",
    )


def _make_extra_error(name: str) -> SertoneError:
    return SertoneError("missing_extra", f"{name} is not installed", way_out=install_command("asr"))
