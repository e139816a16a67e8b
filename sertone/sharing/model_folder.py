"""Where a model is, on the disk or on the Hugging Face hub, and what it says about itself."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sertone import licences
from sertone.audio import SAMPLING_RATE, file_hash
from sertone.errors import SertoneError
from sertone.files import read_json, require_regular
from sertone.labels import is_class_list, is_scale
from sertone.scoring import calibration
from sertone.utils import hub
from sertone.utils.json_shape import find_misfits

FORMAT = 4
MARKER, WEIGHTS, CARD, TOKENIZER = "checkpoint.json", "model.safetensors", "card.md", "tokenizer.json"
"""The files of a checkpoint, the last one only of a model that reads text; the marker makes it complete.
On the hub the card is README.md."""
BUNDLE = ("bundle.json", "model.onnx", "probe.npy")
"""Of a bundle (`runtime.bundle`), beside the tokenizer."""
LONGEST_S = 30
"""No model needs longer recordings, in seconds."""
LAYERS, LARGEST = 1000, 10_000_000
"""No model has more layers, and no number in its description is larger."""
EXPECTED = "a run folder, a fold of it, a checkpoint folder, or OWNER/NAME on the Hugging Face hub"


def _modest(options: Any, name: str = "") -> bool:
    """Return whether a description of a model has no number that would take forever to build it."""
    if isinstance(options, dict):
        return all(_modest(value, str(key)) for key, value in options.items())
    if isinstance(options, list):
        return all(_modest(value, name) for value in options)
    many = name in ("depth", "members") or "layers" in name
    return not isinstance(options, int) or abs(options) <= (LAYERS if many else LARGEST)


def _is_model(options: Any) -> bool:
    shape = {"name": str, "encoder": (dict, None)}
    return (
        not find_misfits(options, shape, "model")
        and isinstance(options.get("text"), dict | None)
        and _modest(options)
    )


def _names_its_fold(card: Mapping[str, Any]) -> bool:
    names = [fold["name"] for fold in card["folds"]], [leak["fold"] for leak in card["leaks"]]
    return all(card["fold"] in known for known in names)


SEEN_SHAPE = {"recordings": [str], "speakers": [str], "unknown_speakers?": int}
"""The shape of what a model has heard, as `training.heard.names` gives it."""
PROTOCOL = {
    "corpus": {
        "name": str,
        "title": str,
        "language": str,
        "citation": str,
        "speakers": int,
        "by_class": {str: int},
    },
    "class_map": {str: str},
    "split": {"split": str},
    "selection": str,
    "folds": [{"name": str}],
    "leaks": [{"fold": str}],
    "metrics": {str: str},
    "versions": {str: str},
    "seed": int,
    "fold": str,
    "heard": SEEN_SHAPE,
}
"""The shape of the part `card`, as far as it is used; see `shape`."""
SHAPE = {
    "model": _is_model,
    "vocabulary": {
        "class_map": {str: str},
        "classes": {
            "emotion": is_class_list,
            "gender": is_class_list,
            "style": is_class_list,
            "speaker": is_class_list,
        },
        "characters": is_class_list,
        "ratings": {str: is_scale},
    },
    "sampling_rate": lambda rate: rate == SAMPLING_RATE,
    "min_samples": lambda count: type(count) is int and 0 < count <= LONGEST_S * SAMPLING_RATE,
    "calibration": calibration.CALIBRATION_SHAPE,
    "card": PROTOCOL,
    "licences": licences.LEDGER_SHAPE,
    "files": {WEIGHTS: str},
}
"""The shape of `checkpoint.json`, see `shape`."""


def find_checkpoints(source: str | Path) -> list[Path]:
    """The checkpoint folders of a model.

    Args:
        source: a checkpoint folder, a fold, a run, or OWNER/NAME on the hub, which is downloaded once.

    Raises:
        SertoneError: `not_a_checkpoint`.
    """
    folder = resolve_folder(source)
    if complete := _complete(folder):
        return complete
    found = f"no checkpoint in {source}" if folder.exists() else hub.describe_missing(source)
    way_out = "`sertone crossval` and `sertone train` write them; hf:OWNER/NAME is a Hugging Face model"
    raise SertoneError("not_a_checkpoint", found, EXPECTED, way_out)


def _complete(path: Path) -> list[Path]:
    for found in ([path], [path / "checkpoint"], sorted(path.glob("fold_*/checkpoint"))):
        if complete := [folder for folder in found if (folder / MARKER).is_file()]:
            return complete
    return []


def has_model(path: Path) -> bool:
    """Return whether a folder is a bundle, a checkpoint, a fold, a run, or a Hugging Face model."""
    return (path / BUNDLE[0]).is_file() or bool(_complete(path)) or hub.is_transformers_model(path)


def hash_model(source: str | Path) -> str:
    """SHA-256 of what decides the answers of a model, as `checkpoints` finds it, or of a bundle.

    Raises:
        SertoneError: `not_a_checkpoint`.
    """
    path = resolve_folder(source)
    if (path / BUNDLE[0]).is_file():
        return file_hash(path / BUNDLE[0])  # which holds those of its files
    markers = [folder / MARKER for folder in find_checkpoints(path)]  # so do these
    return sha256("".join(map(file_hash, markers)).encode()).hexdigest()


def resolve_folder(source: str | Path) -> Path:
    """A path as it is, or the folder of what is called OWNER/NAME on the hub, which is downloaded once.

    Raises:
        SertoneError: `not_a_checkpoint`, `missing_extra`.
    """
    files = (MARKER, WEIGHTS, TOKENIZER, *BUNDLE)
    return hub.resolve_folder(source, files, code="not_a_checkpoint", expected=EXPECTED)


def find_checkpoint(source: str | Path) -> Path:
    """The checkpoint folder of one model; `source` as for `checkpoints`.

    Raises:
        SertoneError: `not_a_checkpoint`, `many_models`.
    """
    found = find_checkpoints(source)
    if len(found) > 1:
        raise SertoneError(
            "many_models",
            f"{source} holds {len(found)} models, one per fold",
            "one model",
            "name a fold, or train one on all the data with `sertone train`",
        )
    return found[0]


def read_about(folder: Path) -> dict:
    """Return what `checkpoint.json` holds.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`, `foreign_source`.
    """
    if not (folder / MARKER).is_file():
        raise SertoneError("not_a_checkpoint", f"no {MARKER} in {folder}", "a run or a checkpoint folder")
    said = read_json(folder / MARKER, "bad_weights")
    if said.get("format") != FORMAT:
        raise other_format_error(folder, said.get("format"), FORMAT)
    if wrong := find_misfits(said, SHAPE) or ["card.fold"] * (not _names_its_fold(said["card"])):
        raise _damaged(folder, f"{MARKER} has no sound {', '.join(wrong[:5])}")
    require_self_contained(said["model"], folder / MARKER)
    if said["model"].get("text") and not (folder / TOKENIZER).is_file():
        raise SertoneError(
            "not_a_checkpoint", f"no {TOKENIZER} in {folder}", "that of a model that reads text"
        )
    return said


def require_intact(folder: Path, names: Iterable[str], hashes: Mapping[str, str]) -> None:
    """Compare files with the hashes that the marker beside them states.

    Raises:
        SertoneError: `bad_weights`.
    """
    for name in names:
        require_regular(folder / name, "bad_weights")
        if file_hash(folder / name) != hashes.get(name):
            raise _damaged(folder, f"{name} is not what was saved")


def _damaged(folder: Path, found: str) -> SertoneError:
    way_out = "fetch it again, or train it again (`--fresh` in the same folder)"
    return SertoneError("bad_weights", f"{folder}: {found}", "an intact checkpoint", way_out)


def find_missing_folds(source: str | Path, abouts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the folds of a run whose models are not there.

    Args:
        source: as for `checkpoints`; what is no run has no folds.
        abouts: what `checkpoint.json` holds of each model that is there.
    """
    path = resolve_folder(source)
    if any((folder / MARKER).is_file() for folder in (path, path / "checkpoint")):
        return []
    present = {about["card"]["fold"] for about in abouts}
    return [fold["name"] for fold in abouts[0]["card"]["folds"] if fold["name"] not in present]


def other_format_error(found: Path, own: object, expected: int) -> SertoneError:
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
