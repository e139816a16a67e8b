"""Where a model is, on the disk or on the Hugging Face hub, and what it says about itself."""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from sertone import hub
from sertone.audio import file_hash
from sertone.errors import SertoneError

FORMAT = 3
MARKER, WEIGHTS, CARD, TOKENIZER = "checkpoint.json", "model.safetensors", "card.md", "tokenizer.json"
"""The files of a checkpoint, the last one only of a model that reads text; the marker makes it complete.
On the hub the card is README.md."""
BUNDLE = ("bundle.json", "model.onnx")
"""Of a bundle (`runtime.bundle`), beside the tokenizer."""
EXPECTED = "a run folder, a fold of it, a checkpoint folder, or OWNER/NAME on the Hugging Face hub"


def checkpoints(source: str | Path) -> list[Path]:
    """The checkpoint folders of a model.

    Args:
        source: a checkpoint folder, a fold, a run, or OWNER/NAME on the hub, which is downloaded once.

    Raises:
        SertoneError: `not_a_checkpoint`.
    """
    folder = local(source)
    if complete := _complete(folder):
        return complete
    found = f"no checkpoint in {source}" if folder.exists() else hub.absent(source)
    way_out = "`sertone crossval` and `sertone train` write them"
    raise SertoneError("not_a_checkpoint", found, EXPECTED, way_out)


def _complete(path: Path) -> list[Path]:
    for found in ([path], [path / "checkpoint"], sorted(path.glob("fold_*/checkpoint"))):
        if complete := [folder for folder in found if (folder / MARKER).is_file()]:
            return complete
    return []


def holds_model(path: Path) -> bool:
    """Whether a folder is a bundle, a checkpoint, a fold or a run."""
    return (path / BUNDLE[0]).is_file() or bool(_complete(path))


def digest(source: str | Path) -> str:
    """SHA-256 of what decides the answers of a model, as `checkpoints` finds it, or of a bundle.

    Raises:
        SertoneError: `not_a_checkpoint`.
    """
    path = local(source)
    if (path / BUNDLE[0]).is_file():
        return file_hash(path / BUNDLE[0])  # which holds those of its files
    files = [folder / name for folder in checkpoints(path) for name in (MARKER, WEIGHTS, TOKENIZER)]
    return sha256("".join(file_hash(file) for file in files if file.is_file()).encode()).hexdigest()


def local(source: str | Path) -> Path:
    """A path as it is, or the folder of what is called OWNER/NAME on the hub, which is downloaded once.

    Raises:
        SertoneError: `not_a_checkpoint`, `missing_extra`.
    """
    files = (MARKER, WEIGHTS, TOKENIZER, *BUNDLE)
    return hub.local(source, files, code="not_a_checkpoint", expected=EXPECTED)


def checkpoint(source: str | Path) -> Path:
    """The checkpoint folder of one model; `source` as for `checkpoints`.

    Raises:
        SertoneError: `not_a_checkpoint`, `many_models`.
    """
    found = checkpoints(source)
    if len(found) > 1:
        raise SertoneError(
            "many_models",
            f"{source} holds {len(found)} models, one per fold",
            "one model",
            "name a fold, or train one on all the data with `sertone train`",
        )
    return found[0]


def about(folder: Path) -> dict:
    """What `checkpoint.json` holds.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`, `foreign_source`.
    """
    if not (folder / MARKER).is_file():
        raise SertoneError("not_a_checkpoint", f"no {MARKER} in {folder}", "a run or a checkpoint folder")
    try:
        said = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except ValueError as error:
        raise SertoneError("bad_weights", f"{folder / MARKER}: {error}", "an intact file") from None
    if said.get("format") != FORMAT:
        raise other_format(folder, said.get("format"), FORMAT)
    require_self_contained(said["model"], folder / MARKER)
    if said["model"].get("text") and not (folder / TOKENIZER).is_file():
        raise SertoneError(
            "not_a_checkpoint", f"no {TOKENIZER} in {folder}", "that of a model that reads text"
        )
    return said


def other_format(found: Path, own: object, expected: int) -> SertoneError:
    """The error about what another version of Sertone has written."""
    way_out = "train it again (`--fresh` in the same folder), or use the version of Sertone that wrote it"
    return SertoneError("other_format", f"{found} has format {own}", f"format {expected}", way_out)


def require_self_contained(model: Mapping[str, Any], marker: Path) -> None:
    """Refuse a model whose encoders are to come from outside its own folder.

    Args:
        model: descriptions of its parts: `encoder`, `text`.
        marker: the file that they are from, for the error.

    Raises:
        SertoneError: `foreign_source`.
    """
    for part, described in model.items():
        if isinstance(described, Mapping) and "source" in described:
            raise SertoneError(
                "foreign_source",
                f"{marker}: its {part} is to come from {described['source']!r}",
                "a checkpoint that has all its weights",
                "it is not what Sertone wrote; fetch or train it again",
            )
