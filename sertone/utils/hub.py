"""Model folders, here or on the Hugging Face hub: when the hub is asked, and that nothing of a folder is run.

Only files of known kinds are downloaded, and transformers is only ever given folders of this machine.
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
"""Folders that Sertone's commands write, or its repository has: no owner of models."""
CONFIG_FILES = ("*.json", "*.txt", "*.model", "bpe.codes", "README.md")
"""Configurations and tokenizers, as the hub's repositories have them."""
SAFE_WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
PICKLED_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


def is_hub_id(source: str | Path) -> bool:
    """Whether a name is OWNER/NAME on the hub and cannot be meant as a path.

    A path that was misspelt is not sent to a server: a `Path` is none, nor a name whose owner is a folder
    here or one of `OURS`. Encoders that are known (`licences.ENCODER_LICENCES`) are on the hub whatever is here.
    """
    if not isinstance(source, str):
        return False
    owner = source.partition("/")[0]
    if source in ENCODER_LICENCES or not HUB_ID.fullmatch(source):
        return source in ENCODER_LICENCES
    return owner not in OWN_FOLDERS and not Path(owner).exists()


def describe_missing(source: str | Path) -> str:
    """Says of a source that is not there why it was not looked for on the hub."""
    owner = str(source).partition("/")[0]
    likely = HUB_ID.fullmatch(str(source))
    reason = (
        f", and because of {owner}/ it is taken for a path and not looked for on the hub" if likely else ""
    )
    return f"no folder {source}{reason}"


def resolve_folder(source: str | Path, files: Sequence[str], *, code: str, expected: str) -> Path:
    """Return a path as it is, or the folder of OWNER/NAME on the hub, which is downloaded once.

    Args:
        source: path, or OWNER/NAME.
        files: patterns of the files to download.
        code: of the error where the hub does not have it, or cannot be reached.
        expected: of the same error.

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
            f"no folder {source}, and no such model from the hub: {first_line(error)}",
            expected,
            "without a network, download it elsewhere and give its folder",
        ) from error


@lru_cache
def _download(repository: str, files: tuple[str, ...]) -> Path:
    """The files of a repository that are data; of its first level alone.

    Raises:
        OSError, ValueError: of the hub, the way to it, or the name.
        SertoneError: `missing_extra`.
    """
    try:
        import httpx2
        from huggingface_hub import snapshot_download
    except ImportError:
        raise SertoneError(
            "missing_extra",
            f"no folder {repository}, and huggingface_hub, to look on the hub, is not installed",
            way_out=install_command("hub"),
        ) from None
    try:
        return Path(snapshot_download(repository, allow_patterns=list(files), ignore_patterns=["*/*"]))
    except httpx2.HTTPError as error:
        raise OSError(str(error)) from error


def is_transformers_model(folder: Path) -> bool:
    """Return whether a folder holds a model as `transformers` saves it; no folder of Sertone's does."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and isinstance(values.get("model_type"), str)


def require_data_only(folder: Path) -> None:
    """Refuse a folder that names code to run, or weights that lie elsewhere.

    Raises:
        SertoneError: `remote_code`, `bad_weights`.
    """
    if (folder / "adapter_config.json").exists():
        found, way_out = f"{folder} holds an adapter", "peft: merge_and_unload(), then save_pretrained()"
        raise SertoneError("bad_weights", found, "weights that are whole", way_out)
    for path in sorted(folder.glob("*config.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):  # whoever needs the file says what is wrong with it
            continue
        require_no_code(values, path)


def require_no_code(values: Any, path: Path) -> None:
    """Refuse a configuration that names code.

    Args:
        values: what a JSON file holds.
        path: the file, for the error.

    Raises:
        SertoneError: `remote_code`.
    """
    if names := sorted(set(_naming_code(values))):
        raise SertoneError(
            "remote_code",
            f"{path} names code to run ({', '.join(names)})",
            "a model that is data alone: Sertone runs no code of a model's folder",
            f"if you trust the weights and its kind is one that transformers knows, remove {names[0]} from a "
            "copy of the file",
        )


def _naming_code(values: Any) -> Iterator[str]:
    """Keys that name Python files, or kernels on the hub, at any depth."""
    if isinstance(values, dict):
        for key, value in values.items():
            kernel = "_implementation" in key and "/" in str(value)
            if kernel or (key in ("auto_map", "custom_pipelines") and value):
                yield key
            yield from _naming_code(value)
    elif isinstance(values, list):
        for value in values:
            yield from _naming_code(value)
