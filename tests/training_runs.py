"""The training of a first fold, whole or interrupted, and its weights."""

import pytest
from safetensors.torch import load_file

from sertone.training.experiment.experiment import prepare
from sertone.training.fit import training_state
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.folds import prepare_data, train_fold


def train_first_fold(recipe, folder):
    experiment, progress = prepare(recipe), RunProgress(1, quiet=True)
    return train_fold(experiment, 0, folder, prepare_data(experiment, progress), progress)


def interrupt(monkeypatch, recipe, folder, stop_after):
    """Train until this many epochs are saved, then stop."""
    save = training_state.save_training_state

    def save_and_stop(where, number, *rest):
        save(where, number, *rest)
        if number == stop_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_state, "save_training_state", save_and_stop)
        train_first_fold(recipe, folder)


def load_weights(folder):
    return load_file(folder / "checkpoint" / "model.safetensors")
