"""Share trained first stages between the runs of a study.

A first stage (auxiliary tasks only) does not depend on every option of its model: runs that differ only in
`Config.later_options` have the same first stage. The first run trains it and stores the weights. The others
start with their second stage, exactly as if they had trained the first one themselves.
"""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from sertone.audio import file_hash
from sertone.errors import SertoneError
from sertone.files import load_json, write_json
from sertone.models.contract import EmotionModel
from sertone.models.stage import Stage
from sertone.nn.tensor_files import load_tensors, restore, save_tensors
from sertone.protocol.splits import Fold
from sertone.recipe import NEUTRAL
from sertone.recipe.train_config import TrainConfig
from sertone.utils.json_shape import find_misfits

SHAPE = {"history": [dict], "after_stages": {str: dict}, "weights": str}
"""The shape of `history.json`, see `json_shape`: epochs, scores of the test set, hash of the weights."""


class FirstStages:
    """A folder of trained first stages.

    Args:
        folder: created when the first stage is claimed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Lock a stage for the context; wait while another process trains it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{key}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def load(self, key: str, model: EmotionModel) -> tuple[list[dict], dict[str, dict]] | None:
        """Load the weights of a trained stage into a model.

        Returns:
            Its history and the scores after it (`TrainingState.after_stages`); None where no stage is intact.

        Raises:
            SertoneError: `bad_weights`.
        """
        folder = self.folder / key
        try:
            content = load_json(folder / "history.json", "torn")
        except SertoneError:  # missing or incomplete: the stage is trained again
            return None
        weights = folder / "model.safetensors"
        if find_misfits(content, SHAPE) or not weights.is_file() or file_hash(weights) != content["weights"]:
            return None
        # The file lacks what the stage does not depend on: the model keeps its own values there.
        restore(model, load_tensors(weights), folder, complete=False)
        return content["history"], content["after_stages"]

    def save(
        self, key: str, model: EmotionModel, stage: Stage, history: list[dict], after_stages: dict[str, dict]
    ) -> None:
        """Save the weights of a trained stage, its history and its scores."""
        folder = self.folder / key
        folder.mkdir(exist_ok=True)
        save_tensors(folder / "model.safetensors", _select_weights(model, stage))
        weights = file_hash(folder / "model.safetensors")
        # The history comes last, because it marks the stage as complete.
        content = {"history": history, "after_stages": after_stages, "weights": weights}
        write_json(folder / "history.json", content)


def hash_first_stage(model: EmotionModel, stage: Stage, config: TrainConfig, fold: Fold, about: dict) -> str:
    """Return a hash of everything that a trained first stage and its scores depend on.

    Args:
        model: model before training.
        stage: the first.
        config: the `train` part of the recipe.
        fold: the training set, and the test set that the stage is scored on.
        about: further dependencies: hashes of the recordings, number of the fold, versions.
    """
    settings = config.model_dump(mode="json", exclude={*NEUTRAL, "epochs"}) | {"epochs": config.epochs[0]}
    options = model.config.model_dump(mode="json", exclude=set(model.config.later_options))
    plan = asdict(stage) | {"frozen": None}  # the weights below say what is frozen
    dependencies = [type(model).__module__, options, plan, settings, about]
    # The hashes in `about` identify the recordings, wherever their files are.
    rows = [[asdict(u) | {"path": None} for u in subset] for subset in (fold.train, fold.test)]
    digest = hashlib.sha256(json.dumps([dependencies, rows], sort_keys=True, default=str).encode())
    for name, tensor in sorted(_select_weights(model, stage).items()):
        digest.update(name.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _select_weights(model: EmotionModel, stage: Stage) -> dict[str, Tensor]:
    """Return the weights of a model that a stage depends on or changes."""
    unused = tuple(f"{name}." for name in stage.frozen)
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith(unused)
    }
