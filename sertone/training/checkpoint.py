"""Checkpoints: safetensors and JSON only, written aside and renamed, the marker last.

checkpoint/                a trained model
    model.safetensors      weights
    tokenizer.json         of a model that reads text
    card.md                model card
    checkpoint.json        configuration, vocabulary, calibration, protocol card, licences; marks the folder
                           complete
resume/0003/               training between two epochs, the highest complete number counts
    model.safetensors, optimizer.safetensors, state.json
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sertone import models
from sertone.calibration import Calibration
from sertone.files import write_json, write_text
from sertone.nn.vocabulary import Vocabulary
from sertone.nn.weights import load_tensors, restore, save_tensors
from sertone.sharing import folder as folders
from sertone.sharing import model_card
from sertone.sharing.folder import CARD, FORMAT, MARKER, TOKENIZER, WEIGHTS
from sertone.sharing.scores import Scores


def save_model(
    folder: Path,
    model: Any,
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
    write_text(aside / CARD, model_card.render(about))
    write_json(aside / MARKER, about)
    shutil.rmtree(folder, ignore_errors=True)
    aside.replace(folder)


def state_scores(folder: Path, scores: Scores) -> None:
    """Writes the model card of a checkpoint again, with its scores."""
    write_text(folder / CARD, model_card.render(folders.about(folder), scores))


def load_model(folder: Path) -> tuple[Any, Vocabulary, dict]:
    """Reads a checkpoint.

    Returns:
        the model in eval mode, its vocabulary, and what `checkpoint.json` holds.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_weights`, `other_format`.
    """
    about = folders.about(folder)
    tokenizer = (folder / TOKENIZER).read_text(encoding="utf-8") if about["model"].get("text") else ""
    vocabulary = Vocabulary.from_json(about["vocabulary"], tokenizer)
    model = models.build(about["model"], vocabulary)
    restore(model, load_tensors(folder / WEIGHTS), folder)
    return model.eval(), vocabulary, about


def save_resume(
    folder: Path, number: int, model: Any, optimizer: torch.optim.Optimizer, state: dict, best: dict
) -> None:
    """Writes what training needs to go on, then removes older saves.

    Args:
        folder: of all saves.
        number: grows with every save.
        model: with its present weights.
        optimizer: with its moments.
        state: JSON: stage, epoch, history.
        best: weights of the best epoch so far; may be empty.
    """
    aside = _fresh(folder / ".part")
    save_tensors(aside / "model.safetensors", _state(model))
    save_tensors(aside / "optimizer.safetensors", _optimizer_tensors(optimizer))
    if best:
        save_tensors(aside / "best.safetensors", best)
    write_json(aside / "state.json", state | {"format": FORMAT})
    aside.replace(folder / f"{number:06d}")
    for older in _saves(folder)[:-1]:
        shutil.rmtree(older)


def find_resume(folder: Path) -> Path | None:
    """The newest complete save, or None."""
    saves = _saves(folder)
    return saves[-1] if saves else None


def load_resume(save: Path, model: Any) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
    """Restores a model from a save.

    Returns:
        the JSON state, the optimizer's tensors (`restore_optimizer`), the best weights so far.

    Raises:
        SertoneError: `other_format`.
    """
    state = json.loads((save / "state.json").read_text(encoding="utf-8"))
    if (own := state.pop("format", None)) != FORMAT:
        raise folders.other_format(save, own, FORMAT)
    restore(model, load_tensors(save / "model.safetensors"), save)
    best = save / "best.safetensors"
    return (
        state,
        load_tensors(save / "optimizer.safetensors"),
        load_tensors(best) if best.exists() else {},
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts an optimizer's moments back."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": t for index, values in state.items() for key, t in values.items()}


def _saves(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("[0-9]*") if (p / "state.json").is_file())


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _state(model: Any) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
