"""Changed recipes; the training of a first fold, whole or interrupted, and its weights."""

import pytest
from safetensors.torch import load_file

from sertone.training.experiment.experiment import prepare
from sertone.training.fit import training_state
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.folds import prepare_data, train_fold


def change_training(recipe, **changes):
    """Return the recipe with other training settings."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


def train_first_fold(recipe, folder, lines=None):
    """Train the first fold; with a list of lines, add the messages to it."""
    experiment, progress = prepare(recipe), RunProgress(1, quiet=True)
    if lines is not None:
        progress.say = lines.append
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
