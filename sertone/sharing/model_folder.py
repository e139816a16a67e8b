"""The folder of a model, on the disk or on the Hugging Face hub, and the description that it holds."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from sertone import licences
from sertone.audio import SAMPLING_RATE, file_hash
from sertone.errors import SertoneError
from sertone.files import load_json, require_regular
from sertone.labels import is_class_list, is_scale
from sertone.scoring import calibration
from sertone.utils import hub
from sertone.utils.json_shape import find_misfits

FORMAT = 4
MARKER, WEIGHTS, CARD, TOKENIZER = "checkpoint.json", "model.safetensors", "card.md", "tokenizer.json"
"""The files of a checkpoint. The tokenizer belongs to models that use text. The marker makes a checkpoint
complete. On the hub the card is README.md."""
BUNDLE = ("bundle.json", "model.onnx", "probe.npy")
"""The files of a bundle (`runtime.bundle`), beside the tokenizer."""
MAX_MIN_SECONDS = 30
"""The largest value of the shortest recording that a model accepts, in seconds."""
MAX_LAYERS = 1000
"""The largest number of layers or members in the description of a model."""
MAX_INTEGER = 10_000_000
"""The largest other number in the description of a model."""
MAX_LISTED = 5
"""Most invalid keys that an error lists."""
EXPECTED = "a run folder, a fold of it, a checkpoint folder, or OWNER/NAME on the Hugging Face hub"


def _has_sane_sizes(options: Any, name: str = "") -> bool:
    """Return whether no number in the description of a model is so large that building it takes for ever."""
    if isinstance(options, dict):
        return all(_has_sane_sizes(value, str(key)) for key, value in options.items())
    if isinstance(options, list):
        return all(_has_sane_sizes(value, name) for value in options)
    is_count = name in ("depth", "members") or "layers" in name
    return not isinstance(options, int) or abs(options) <= (MAX_LAYERS if is_count else MAX_INTEGER)


def _is_model(options: Any) -> bool:
    shape = {"name": str, "encoder": (dict, None)}
    return (
        not find_misfits(options, shape, "model")
        and isinstance(options.get("text"), dict | None)
        and _has_sane_sizes(options)
    )


def _lists_own_fold(card: Mapping[str, Any]) -> bool:
    """Return whether the fold of a checkpoint is among the folds and the leak reports of its card."""
    folds = [fold["name"] for fold in card["folds"]]
    leaks = [leak["fold"] for leak in card["leaks"]]
    return card["fold"] in folds and card["fold"] in leaks


SEEN_SHAPE = {"recordings": [str], "speakers": [str], "unknown_speakers?": int}
"""The shape of the training data of a model, as `contamination.hash_training_data` gives it."""
CARD_SHAPE = {
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
"""The shape of the part `card`, as far as it is used; see `json_shape`."""
# A checkpoint may come from a stranger: every value that the program relies on is checked before it is used.
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
    # `type` and not `isinstance`, since True is an integer too.
    "min_samples": lambda count: type(count) is int and 0 < count <= MAX_MIN_SECONDS * SAMPLING_RATE,
    "calibration": calibration.CALIBRATION_SHAPE,
    "card": CARD_SHAPE,
    "licences": licences.LEDGER_SHAPE,
    "files": {WEIGHTS: str},
}
"""The shape of `checkpoint.json`, see `json_shape`."""


def find_checkpoints(source: str | Path) -> list[Path]:
    """Return the checkpoint folders of a model.

    Args:
        source: a checkpoint folder, a fold, a run, or OWNER/NAME on the hub, which is downloaded once.

    Raises:
        SertoneError: `not_a_checkpoint`.
    """
    folder = resolve_folder(source)
    if complete := _list_complete(folder):
        return complete
    problem = f"no checkpoint in {source}" if folder.exists() else hub.describe_missing(source)
    way_out = "`sertone crossval` and `sertone train` write them; hf:OWNER/NAME is a Hugging Face model"
    raise SertoneError("not_a_checkpoint", problem, EXPECTED, way_out)


def _list_complete(path: Path) -> list[Path]:
    """Return the complete checkpoints of a path: itself, that of a fold or of `train`, or those of a run."""
    for candidates in ([path], [path / "checkpoint"], sorted(path.glob("fold_*/checkpoint"))):
        if complete := [folder for folder in candidates if (folder / MARKER).is_file()]:
            return complete
    return []


def has_model(path: Path) -> bool:
    """Return whether a folder is a bundle, a checkpoint, a fold, a run, or a Hugging Face model."""
    return (path / BUNDLE[0]).is_file() or bool(_list_complete(path)) or hub.is_transformers_model(path)


def hash_model(source: str | Path) -> str:
    """Return a SHA-256 that changes with the predictions of a model or a bundle.

    Args:
        source: a bundle, or as for `find_checkpoints`.

    Raises:
        SertoneError: `not_a_checkpoint`.
    """
    path = resolve_folder(source)
    if (path / BUNDLE[0]).is_file():
        return file_hash(path / BUNDLE[0])
    # The markers, and bundle.json, hold the hashes of all other files.
    markers = [folder / MARKER for folder in find_checkpoints(path)]
    return sha256("".join(map(file_hash, markers)).encode()).hexdigest()


def resolve_folder(source: str | Path) -> Path:
    """Return a path as it is; for OWNER/NAME on the hub the folder into which it is downloaded once.

    Raises:
        SertoneError: `not_a_checkpoint`, `missing_extra`.
    """
    # No other file of a repository is downloaded: pickled weights could run code.
    files = (MARKER, WEIGHTS, TOKENIZER, *BUNDLE)
    return hub.resolve_folder(source, files, code="not_a_checkpoint", expected=EXPECTED)


def find_checkpoint(source: str | Path) -> Path:
    """Return the checkpoint folder of one model; `source` is as for `find_checkpoints`.

    Raises:
        SertoneError: `not_a_checkpoint`, `many_models`.
    """
    folders = find_checkpoints(source)
    if len(folders) > 1:
        raise SertoneError(
            "many_models",
            f"{source} holds {len(folders)} models, one per fold",
            "one model",
            "name a fold, or train one model on all data with `sertone train`",
        )
    return folders[0]


def read_about(folder: Path) -> dict:
    """Return the content of `checkpoint.json`.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`, `foreign_source`.
    """
    if not (folder / MARKER).is_file():
        raise SertoneError("not_a_checkpoint", f"no {MARKER} in {folder}", "a run or a checkpoint folder")
    about = load_json(folder / MARKER, "bad_weights")
    if about.get("format") != FORMAT:
        raise other_format_error(folder, about.get("format"), FORMAT)
    misfits = find_misfits(about, SHAPE)
    if not misfits and not _lists_own_fold(about["card"]):
        misfits = ["card.fold"]
    if misfits:
        raise _make_damage_error(folder, f"{MARKER} has no valid {', '.join(misfits[:MAX_LISTED])}")
    require_self_contained(about["model"], folder / MARKER)
    if about["model"].get("text") and not (folder / TOKENIZER).is_file():
        raise SertoneError(
            "not_a_checkpoint", f"no {TOKENIZER} in {folder}", "the tokenizer of a model that uses text"
        )
    return about


def require_intact(folder: Path, names: Iterable[str], hashes: Mapping[str, str]) -> None:
    """Compare files with the hashes that the marker beside them states.

    Raises:
        SertoneError: `bad_weights`.
    """
    for name in names:
        require_regular(folder / name, "bad_weights")
        if file_hash(folder / name) != hashes.get(name):
            raise _make_damage_error(folder, f"{name} has changed since it was saved")


def _make_damage_error(folder: Path, problem: str) -> SertoneError:
    way_out = "fetch it again, or train it again (`--fresh` in the same folder)"
    return SertoneError("bad_weights", f"{folder}: {problem}", "an intact checkpoint", way_out)


def find_missing_folds(source: str | Path, abouts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the folds of a run whose models are missing.

    Args:
        source: as for `find_checkpoints`; a single model has no folds.
        abouts: the content of `checkpoint.json` of each model that is present.
    """
    path = resolve_folder(source)
    # A single checkpoint states all folds of its run too, but it is not meant to be complete.
    if any((folder / MARKER).is_file() for folder in (path, path / "checkpoint")):
        return []
    present = {about["card"]["fold"] for about in abouts}
    return [fold["name"] for fold in abouts[0]["card"]["folds"] if fold["name"] not in present]


def other_format_error(path: Path, version: object, expected: int) -> SertoneError:
    """Return the error about a file or folder that another version of Sertone has written."""
    way_out = "train it again (`--fresh` in the same folder), or use the version of Sertone that wrote it"
    return SertoneError("other_format", f"{path} has format {version}", f"format {expected}", way_out)


def require_self_contained(model: Mapping[str, Any], marker: Path) -> None:
    """Refuse a model with an encoder whose weights would come from outside its own folder.

    Args:
        model: descriptions of its parts: `encoder`, `text`.
        marker: the file that holds the descriptions, for the error.

    Raises:
        SertoneError: `foreign_source`.
    """
    for part, description in model.items():
        if isinstance(description, Mapping) and "source" in description:
            raise SertoneError(
                "foreign_source",
                f"{marker}: the weights of its {part} would come from {description['source']!r}",
                "a checkpoint that has all its weights",
                "Sertone has not written this file; fetch or train the model again",
            )
