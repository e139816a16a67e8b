"""Model folders on this machine or on the Hugging Face hub, without running any code in them.

Only files of known kinds are downloaded, and transformers only gets local folders.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sertone.errors import SertoneError, first_line
from sertone.licences import ENCODER_LICENCES
from sertone.utils.extras import install_command

HUB_ID = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")
OWN_FOLDERS = ("corpora", "recipes", "runs", "studies")
"""Folders of Sertone's repository and commands, which are never owners of models on the hub."""
CONFIG_FILES = ("*.json", "*.txt", "*.model", "bpe.codes", "README.md")
"""Configurations and tokenizers in the hub's repositories."""
SAFE_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
HUGGING_FACE_PREFIX = "hf:"
"""Marks a folder or OWNER/NAME as an audio-classification model of Hugging Face."""
PICKLED_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


def is_hub_id(source: str | Path) -> bool:
    """Return whether a name is OWNER/NAME on the hub and not a path.

    A misspelt path must not be sent to a server. So a `Path` is no hub id, nor is a name whose owner is a
    local folder or one of `OWN_FOLDERS`. Known encoders (`licences.ENCODER_LICENCES`) are always hub ids.
    """
    if not isinstance(source, str):
        return False
    owner = source.partition("/")[0]
    if source in ENCODER_LICENCES or not HUB_ID.fullmatch(source):
        return source in ENCODER_LICENCES
    return owner not in OWN_FOLDERS and not Path(owner).exists()


def describe_missing(source: str | Path) -> str:
    """Return a message about a missing folder, with the reason why the hub was not searched."""
    owner = str(source).partition("/")[0]
    reason = ""
    if HUB_ID.fullmatch(str(source)):
        reason = f"; the hub was not searched, because {owner}/ marks a path"
    return f"no folder {source}{reason}"


def resolve_folder(source: str | Path, files: Sequence[str], *, code: str, expected: str) -> Path:
    """Return a local path unchanged, or download OWNER/NAME from the hub once and return its folder.

    Args:
        source: path, or OWNER/NAME.
        files: patterns of the files to download.
        code: code of the error if the hub does not have the model, or cannot be reached.
        expected: expectation of the same error.

    Raises:
        SertoneError: `code`; `missing_extra`.
    """
    if Path(source).exists() or not is_hub_id(source):
        return Path(source)
    try:
        return _download(str(source), tuple(files))
    except (OSError, ValueError) as error:
        raise SertoneError(
            code,
            f"no folder {source}, and the hub gives no such model: {first_line(error)}",
            expected,
            "without a network, download the model on another machine and pass its folder",
        ) from error


@lru_cache
def _download(repository: str, files: tuple[str, ...]) -> Path:
    """Download the data files in the top folder of a repository.

    Raises:
        OSError, ValueError: from the hub, the connection, or because of the name.
        SertoneError: `missing_extra`.
    """
    try:
        import httpx2
        from huggingface_hub import snapshot_download
    except ImportError:
        raise SertoneError(
            "missing_extra",
            f"no folder {repository}, and huggingface_hub, which searches the hub, is not installed",
            way_out=install_command("hub"),
        ) from None
    try:
        return Path(snapshot_download(repository, allow_patterns=list(files), ignore_patterns=["*/*"]))
    except httpx2.HTTPError as error:
        raise OSError(str(error)) from error


def is_transformers_model(folder: Path) -> bool:
    """Return whether a folder holds a model saved by `transformers`, which no folder of Sertone does."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and isinstance(values.get("model_type"), str)


def require_data_only(folder: Path) -> None:
    """Refuse a folder that refers to code, or to weights outside the folder.

    Raises:
        SertoneError: `remote_code`, `bad_weights`.
    """
    if (folder / "adapter_config.json").exists():
        found = f"{folder} holds an adapter"
        way_out = "in peft, call merge_and_unload() and then save_pretrained()"
        raise SertoneError("bad_weights", found, "complete weights", way_out)
    for path in sorted(folder.glob("*config.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue  # if the file is needed, the code that loads it reports the fault
        require_no_code(values, path)


def require_no_code(values: Any, path: Path) -> None:
    """Refuse a configuration that refers to code.

    Args:
        values: content of a JSON file.
        path: the file, for the error.

    Raises:
        SertoneError: `remote_code`.
    """
    if names := sorted(set(_find_code_keys(values))):
        raise SertoneError(
            "remote_code",
            f"{path} names code to run ({', '.join(names)})",
            "a model without code: Sertone runs no code from a model's folder",
            f"if you trust the weights and transformers knows this architecture, remove {names[0]} from a "
            "copy of the file",
        )


def _find_code_keys(values: Any) -> Iterator[str]:
    """Yield the keys that refer to Python files, or to kernels on the hub, at any depth."""
    if isinstance(values, dict):
        for key, value in values.items():
            kernel = "_implementation" in str(key) and "/" in str(value)
            if kernel or (key in ("auto_map", "custom_pipelines") and value):
                yield key
            yield from _find_code_keys(value)
    elif isinstance(values, list):
        for value in values:
            yield from _find_code_keys(value)
