"""Trained first stages that several runs of a study share.

A first stage (auxiliary tasks only) does not look at every option of its model: runs that differ only
in `Config.later_options` have the same one. Whoever comes first trains it and leaves the weights; the others
begin with their second stage, exactly as if they had trained the first themselves.
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
from sertone.files import read_json, write_json
from sertone.models.contract import EmotionModel
from sertone.models.stage import Stage
from sertone.nn.tensor_files import load_tensors, restore, save_tensors
from sertone.protocol.splits import Fold
from sertone.recipe import NEUTRAL
from sertone.recipe.train_config import TrainConfig
from sertone.utils.json_shape import find_misfits

SHAPE = {"history": [dict], "after_stages": {str: dict}, "weights": str}
"""Of `history.json`, see `shape`: epochs, scores of the test side, and the hash of the weights."""


class FirstStages:
    """A folder of trained first stages.

    Args:
        folder: made when the first one is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[None]:
        """Waits until no other process is training this stage."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f"{key}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def load(self, key: str, model: EmotionModel) -> tuple[list[dict], dict[str, dict]] | None:
        """Put a trained stage into a model.

        Returns:
            its history and `Trainer.after_stages`; None where no stage is intact.

        Raises:
            SertoneError: `bad_weights`.
        """
        kept = self.folder / key
        try:
            found = read_json(kept / "history.json", "torn")
        except SertoneError:  # none, or one whose writing ended early: it is trained again
            return None
        weights = kept / "model.safetensors"
        if find_misfits(found, SHAPE) or not weights.is_file() or file_hash(weights) != found["weights"]:
            return None
        restore(model, load_tensors(weights), kept, complete=False)
        return found["history"], found["after_stages"]

    def save(
        self, key: str, model: EmotionModel, stage: Stage, history: list[dict], after_stages: dict[str, dict]
    ) -> None:
        """Keep what a stage has trained, and how it scored."""
        kept = self.folder / key
        kept.mkdir(exist_ok=True)  # the history comes last and marks it complete
        save_tensors(kept / "model.safetensors", _used(model, stage))
        weights = file_hash(kept / "model.safetensors")
        known = {"history": history, "after_stages": after_stages, "weights": weights}
        write_json(kept / "history.json", known)


def hash_first_stage(model: EmotionModel, stage: Stage, config: TrainConfig, fold: Fold, about: dict) -> str:
    """Name everything that a trained first stage and its scores depend on.

    Args:
        model: as it begins.
        stage: the first.
        config: the `train` part of the recipe.
        fold: its training side, and the test side that the stage is scored on.
        about: whatever else counts: hashes of the recordings, number of the fold, versions.
    """
    settings = config.model_dump(mode="json", exclude={*NEUTRAL, "epochs"}) | {"epochs": config.epochs[0]}
    options = model.config.model_dump(mode="json", exclude=set(model.config.later_options))
    known = [type(model).__module__, options, asdict(stage) | {"frozen": None}, settings, about]
    rows = [[asdict(u) | {"path": None} for u in side] for side in (fold.train, fold.test)]
    text = hashlib.sha256(json.dumps([known, rows], sort_keys=True, default=str).encode())
    for name, tensor in sorted(_used(model, stage).items()):
        text.update(name.encode())
        text.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return text.hexdigest()[:32]


def _used(model: EmotionModel, stage: Stage) -> dict[str, Tensor]:
    """Weights of a model on which a stage depends or which it changes."""
    unused = tuple(f"{name}." for name in stage.frozen)
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if not name.startswith(unused)
    }
