"""Save the state of a training between two epochs, and resume from it.

resume/000003/             the highest intact number counts, and the one before it stays
    model.safetensors      weights
    optimizer.safetensors  moments, each under the name of its weight
    best.safetensors       weights of the best epoch so far
    average.safetensors    moving average of the weights, with `train.ema`
    state.json             progress and history, with the hashes of the weights; written last, so it marks the
                           folder as complete
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from sertone.audio import file_hash
from sertone.errors import SertoneError
from sertone.files import load_json, quarantine, write_json
from sertone.models.contract import EmotionModel
from sertone.nn.tensor_files import load_tensors, restore, save_tensors
from sertone.sharing import model_folder as folders
from sertone.sharing.model_folder import FORMAT
from sertone.training.fit.checkpoint import copy_weights, create_empty_folder, hash_files
from sertone.utils.json_shape import find_misfits

SAVES = 2
"""The number of saves that stay: the newest, and the one before it in case the newest is damaged."""
SHAPE = {
    "stage": int,
    "epoch": int,
    "best": (float, None),
    "history": [dict],
    "files": {"model.safetensors": str, "optimizer.safetensors": str},
}
"""The shape of `state.json`, see `json_shape`."""


@dataclass
class TrainingState:
    """The state of a training between two epochs, except for the weights, which the model has.

    Attributes:
        stage: index of the current stage.
        epoch: number of its epochs that are done.
        best_score: the highest validation score in the stage so far; None where there is none.
        best_weights: weights of the best epoch so far; may be empty.
        history: one entry per epoch of all stages.
        after_stages: name of each finished stage but the last -> its scores on the test set.
        experiment: fingerprint of the experiment.
        average: moving average of the weights, see `WeightAverage.state_dict`; may be empty.
        loss_scale: state of the loss scaler of fp16; may be empty.
        moments: the optimizer's tensors where the state was loaded, see `restore_optimizer`.
    """

    stage: int = 0
    epoch: int = 0
    best_score: float | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    after_stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiment: str = ""
    average: dict[str, Tensor] = field(default_factory=dict)
    loss_scale: dict[str, float] = field(default_factory=dict)
    moments: dict[str, Tensor] = field(default_factory=dict)

    def advance_to(self, index: int) -> None:
        """Go to the first epoch of a stage, whose optimizer starts without moments."""
        self.stage = index
        self.epoch = 0
        self.best_score = None  # scores of different stages do not compare
        self.moments = {}
        self.average = {}
        self.loss_scale = {}

    def keep_best(self, score: float, model: EmotionModel) -> None:
        """Keep the weights of an epoch if its validation score is the highest in the stage."""
        if self.best_score is None or score > self.best_score:
            self.best_score = score
            weights = model.state_dict()
            # A copy on the CPU, because training changes the weights in place.
            self.best_weights = {name: w.detach().cpu().clone() for name, w in weights.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the content of `state.json`, without format and hashes."""
        return {
            "stage": self.stage,
            "epoch": self.epoch,
            "best": self.best_score,
            "history": self.history,
            "experiment": self.experiment,
            "after_stages": self.after_stages,
            "loss_scale": self.loss_scale,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Return the state that `state.json` holds; older versions saved no scores after stages."""
        return cls(
            stage=content["stage"],
            epoch=content["epoch"],
            best_score=content["best"],
            history=content["history"],
            after_stages=content.get("after_stages", {}),
            experiment=content.get("experiment", ""),
            loss_scale=content.get("loss_scale", {}),
        )


def save_training_state(
    folder: Path, number: int, model: EmotionModel, optimizer: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Save everything that a resumed training needs, then delete all saves but the newest two.

    Args:
        folder: folder of all saves.
        number: grows with every save.
        model: model with its present weights.
        optimizer: optimizer with its moments.
        state: state between two epochs.

    Raises:
        SertoneError: `disk_full`.
    """
    aside = create_empty_folder(folder / ".part")
    save_tensors(aside / "model.safetensors", copy_weights(model))
    save_tensors(aside / "optimizer.safetensors", _collect_moments(optimizer))
    for name, tensors in {"best": state.best_weights, "average": state.average}.items():
        if tensors:
            save_tensors(aside / f"{name}.safetensors", tensors)
    write_json(aside / "state.json", state.to_json() | {"format": FORMAT, "files": hash_files(aside)})
    aside.replace(folder / f"{number:06d}")  # atomic: a save exists completely or not at all
    for older in _list_saves(folder)[:-SAVES]:
        shutil.rmtree(older)


def move_damaged_aside(folder: Path, say: Callable[[str], None]) -> None:
    """Rename saves that are incomplete or damaged, newest first, until one is intact.

    Args:
        folder: folder of all saves.
        say: receives a line for each renamed save.
    """
    for save in reversed(_list_saves(folder)):
        damage = _find_damage(save)
        if not damage:
            return
        say(f"a save is damaged ({damage}): moved to {quarantine(save)}; the one before it is used")


def _find_damage(save: Path) -> str:
    """Describe the damage of a save; empty where it is intact, or has the format of another version."""
    try:
        content = load_json(save / "state.json", "bad_save")
    except SertoneError as error:
        return error.found
    if content.get("format") != FORMAT:
        return ""  # `load_training_state` refuses it with a clear message
    if find_misfits(content, SHAPE):
        return f"{save / 'state.json'} lacks a part"
    for name, digest in content["files"].items():
        path = save / name
        if not path.is_file() or file_hash(path) != digest:
            return f"{path} is not what was saved"
    return ""


def find_training_state(folder: Path) -> Path | None:
    """Return the newest complete save, or None."""
    # Without `state.json` the writing was interrupted.
    saves = [save for save in _list_saves(folder) if (save / "state.json").is_file()]
    return saves[-1] if saves else None


def load_training_state(save: Path, model: EmotionModel) -> TrainingState:
    """Restore a model from a save, and return the state of its training.

    Raises:
        SertoneError: `other_format`.
    """
    content = load_json(save / "state.json", "bad_weights")
    if content.get("format") != FORMAT:
        raise folders.other_format_error(save, content.get("format"), FORMAT)
    state = TrainingState.from_json(content)
    restore(model, load_tensors(save / "model.safetensors"), save)
    state.moments = load_tensors(save / "optimizer.safetensors")
    # The first is missing where no epoch was validated, the second without `train.ema`.
    best, average = save / "best.safetensors", save / "average.safetensors"
    state.best_weights = load_tensors(best) if best.exists() else {}
    state.average = load_tensors(average) if average.exists() else {}
    return state


def restore_optimizer(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    """Restore an optimizer's moments, each for the parameter whose name it was saved under.

    Raises:
        SertoneError: `optimizer_mismatch`, where the optimizer does not train such a parameter, and for saves
            of versions that numbered their moments, which could end in the wrong group.
    """
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, tensor in moments.items():
        name, kind = key.rsplit(".", 1)
        by_name.setdefault(name, {})[kind] = tensor
    names = _list_parameter_names(optimizer)
    if unknown := sorted(by_name.keys() - set(names)):
        raise SertoneError(
            "optimizer_mismatch",
            f"the save holds the optimizer's moments of {unknown[0]!r}, which is not trained here",
            "a save of the same version, model and stage",
            "start again with --fresh, or resume with the version that wrote the save",
        )
    # torch numbers the parameters of all groups in order; those without a gradient so far have no moments.
    state = {number: by_name[name] for number, name in enumerate(names) if name in by_name}
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _collect_moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = _list_parameter_names(optimizer)
    state = optimizer.state_dict()["state"]
    return {f"{names[index]}.{key}": t for index, values in state.items() for key, t in values.items()}


def _list_parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of the parameters in the order in which torch numbers them."""
    return [name for group in optimizer.param_groups for name in group["param_names"]]


def _list_saves(folder: Path) -> list[Path]:
    """Return all saves, incomplete ones too, the oldest first."""
    return sorted(path for path in folder.glob("[0-9]*") if path.name.isdigit())
