"""Checkpoints: safetensors and JSON only, written aside and renamed, the marker last.

checkpoint/                a trained model
    model.safetensors      weights
    tokenizer.json         of a model that reads text
    card.md                model card
    checkpoint.json        configuration, vocabulary, calibration, protocol card, licences; marks the folder
                           complete
resume/000003/             training between two epochs; the highest intact number counts, and the one
                           before it stays
    model.safetensors, optimizer.safetensors, best.safetensors
    state.json             with the hashes of the weights; marks the folder complete
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sertone import models
from sertone.audio import file_hash
from sertone.errors import SertoneError
from sertone.files import quarantine, read_json, read_text, write_json, write_text
from sertone.models.contract import EmotionModel
from sertone.nn.tensor_files import load_shapes, load_tensors, restore, save_tensors
from sertone.nn.vocabulary import Vocabulary
from sertone.scoring.calibration import Calibration
from sertone.sharing import model_card
from sertone.sharing import model_folder as folders
from sertone.sharing.card_scores import Scores
from sertone.sharing.model_folder import CARD, FORMAT, MARKER, TOKENIZER, WEIGHTS
from sertone.utils.json_shape import find_misfits

KEPT = 2
"""Saves to resume from: the newest, and the one before it, should the newest be damaged."""
STATE = {
    "stage": int,
    "epoch": int,
    "best": (float, None),
    "history": [dict],
    "files": {"model.safetensors": str, "optimizer.safetensors": str},
}
"""The shape of `state.json`, see `shape`."""


def save_model(
    folder: Path,
    model: EmotionModel,
    options: dict,
    vocabulary: Vocabulary,
    card: dict,
    calibration: Calibration,
    ledger: list[dict],
) -> None:
    """Writes a checkpoint.

    Args:
        folder: replaced if it is there.
        model: the trained model.
        options: the `model` part of the recipe.
        vocabulary: what its outputs mean.
        card: protocol card and whatever else should travel with the weights.
        calibration: of its confidence.
        ledger: licences of what it is made of.
    """
    described = options | {"encoder": model.encoder.describe() or None}
    if model.text:
        described["text"] = model.text.describe()
    about = {
        "format": FORMAT,
        "model": described,
        "vocabulary": vocabulary.to_json(),
        "sampling_rate": 16000,
        "min_samples": model.encoder.min_samples,
        "calibration": calibration.to_json(),
        "card": card,
        "licences": ledger,
    }
    aside = _fresh(folder.with_name(f".{folder.name}.part"))
    save_tensors(aside / WEIGHTS, _state(model))
    if vocabulary.tokenizer:
        write_text(aside / TOKENIZER, vocabulary.tokenizer)
    about["files"] = _hashes(aside)
    write_text(aside / CARD, model_card.render(about))
    write_json(aside / MARKER, about)
    shutil.rmtree(folder, ignore_errors=True)
    aside.replace(folder)


def update_model_card(folder: Path, scores: Scores) -> None:
    """Writes the model card of a checkpoint again, with its scores."""
    write_text(folder / CARD, model_card.render(folders.read_about(folder), scores))


def load_model(folder: Path) -> tuple[EmotionModel, Vocabulary, dict]:
    """Reads a checkpoint.

    Returns:
        the model in eval mode, its vocabulary, and what `checkpoint.json` holds.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`.
    """
    about = folders.read_about(folder)
    reads = bool(about["model"].get("text"))
    folders.require_intact(folder, [WEIGHTS, *[TOKENIZER] * reads], about["files"])
    tokenizer = read_text(folder / TOKENIZER, "bad_weights") if reads else ""
    vocabulary = Vocabulary.from_json(about["vocabulary"], tokenizer)
    _require_its_weights(folder, about["model"], vocabulary)
    model = models.build(about["model"], vocabulary)
    restore(model, load_tensors(folder / WEIGHTS), folder)
    return model.eval(), vocabulary, about


def _require_its_weights(folder: Path, options: dict, vocabulary: Vocabulary) -> None:
    """Compare the description with the header of the weights, on a model that takes no memory.

    Raises:
        SertoneError: `bad_weights`, also for whatever keeps the description from being built.
    """
    try:
        with torch.device("meta"):
            expected = {
                name: tuple(t.shape) for name, t in models.build(options, vocabulary).state_dict().items()
            }
    except Exception as error:  # Hugging Face and torch have many kinds for options that do not fit
        if isinstance(error, SertoneError) and error.code == "remote_code":
            raise
        raise SertoneError(
            "bad_weights", f"{folder / MARKER}: {error}", "a model that can be built"
        ) from None
    found = load_shapes(folder / WEIGHTS)
    if other := sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name)):
        name = other[0]
        said = f"{folder}: {name} is {found.get(name, 'not there')}"
        raise SertoneError(
            "bad_weights", said, f"{expected.get(name, 'none')}, as {MARKER} describes the model"
        )


def save_training_state(
    folder: Path, number: int, model: EmotionModel, optimizer: torch.optim.Optimizer, state: dict, best: dict
) -> None:
    """Write what training needs to go on, then remove all saves but the newest two.

    Args:
        folder: of all saves.
        number: grows with every save.
        model: with its present weights.
        optimizer: with its moments.
        state: JSON: stage, epoch, history, fingerprint of the experiment.
        best: weights of the best epoch so far; may be empty.

    Raises:
        SertoneError: `disk_full`.
    """
    aside = _fresh(folder / ".part")
    save_tensors(aside / "model.safetensors", _state(model))
    save_tensors(aside / "optimizer.safetensors", _optimizer_tensors(optimizer))
    if best:
        save_tensors(aside / "best.safetensors", best)
    write_json(aside / "state.json", state | {"format": FORMAT, "files": _hashes(aside)})
    aside.replace(folder / f"{number:06d}")
    for older in _saves(folder)[:-KEPT]:
        shutil.rmtree(older)


def move_damaged_aside(folder: Path, say: Callable[[str], None]) -> None:
    """Rename saves that are incomplete or damaged, newest first, until one is intact.

    Args:
        folder: of all saves.
        say: told of each.
    """
    for save in reversed(_saves(folder)):
        if not (fault := _fault(save)):
            return
        say(f"a save is damaged ({fault}): put aside as {quarantine(save)}; the one before it is used")


def _fault(save: Path) -> str:
    """Return what is wrong with a save; empty where nothing is, or another version wrote it."""
    try:
        state = read_json(save / "state.json", "bad_save")
    except SertoneError as error:
        return error.found
    if state.get("format") != FORMAT:
        return ""
    if find_misfits(state, STATE):
        return f"{save / 'state.json'} lacks a part"
    other = [name for name, known in state["files"].items() if not _is(save / name, known)]
    return f"{save / other[0]} is not what was saved" if other else ""


def _is(path: Path, known: str) -> bool:
    return path.is_file() and file_hash(path) == known


def find_training_state(folder: Path) -> Path | None:
    """Return the newest complete save, or None."""
    saves = [save for save in _saves(folder) if (save / "state.json").is_file()]
    return saves[-1] if saves else None


def load_training_state(save: Path, model: EmotionModel) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
    """Restores a model from a save.

    Returns:
        the JSON state, the optimizer's tensors (`restore_optimizer`), the best weights so far.

    Raises:
        SertoneError: `other_format`.
    """
    state = read_json(save / "state.json", "bad_weights")
    if (own := state.pop("format", None)) != FORMAT:
        raise folders.other_format_error(save, own, FORMAT)
    del state["files"]
    restore(model, load_tensors(save / "model.safetensors"), save)
    best = save / "best.safetensors"
    return (
        state,
        load_tensors(save / "optimizer.safetensors"),
        load_tensors(best) if best.exists() else {},
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts an optimizer's moments back, each to the parameter whose name it was saved under.

    Raises:
        SertoneError: `optimizer_mismatch`, where the optimizer does not train such a parameter, and for saves of
            versions that numbered their moments: other groups would get each other's.
    """
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, kind = key.rsplit(".", 1)
        moments.setdefault(name, {})[kind] = tensor
    names = _parameter_names(optimizer)
    if other := sorted(moments.keys() - set(names)):
        raise SertoneError(
            "optimizer_mismatch",
            f"the save holds the optimizer's moments of {other[0]!r}, which is not trained here",
            "a save of the same version, model and stage",
            "start again with --fresh, or go on with the version that wrote the save",
        )
    state = {number: moments[name] for number, name in enumerate(names) if name in moments}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names, state = _parameter_names(optimizer), optimizer.state_dict()["state"]
    return {f"{names[index]}.{key}": t for index, values in state.items() for key, t in values.items()}


def _parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of the parameters in the order in which torch numbers them."""
    return [name for group in optimizer.param_groups for name in group["param_names"]]


def _saves(folder: Path) -> list[Path]:
    """Return all saves, incomplete ones too, the oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.name.isdigit())


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: file_hash(path) for path in sorted(folder.iterdir())}


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _state(model: EmotionModel) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
