"""What ends or spoils a run: lack of memory, divergence, missing folds."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import SMALL_MODEL, TINY_MODEL, code_of
from training_runs import change_training

import sertone
from sertone import corpora
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.training.experiment.experiment import prepare
from sertone.training.fit.progress import RunProgress
from sertone.training.fit.step import report_out_of_memory
from sertone.training.runs.crossval import cross_validate
from sertone.training.runs.folds import prepare_data, train_fold
from sertone.training.runs.train import train

# No memory


def test_a_batch_that_does_not_fit_into_memory_is_named(small_demo):
    clips = list(corpora.load_utterances("demo", small_demo))[:2]
    with (
        pytest.raises(
            SertoneError, match=rf"2 utterances of up to 2\.0 s \({clips[1].id}\).*batch_seconds"
        ) as caught,
        report_out_of_memory(clips, torch.tensor([16000, 32000])),
    ):
        torch.empty(2**46)  # more than any machine has
    assert caught.value.code == "out_of_memory"


def test_a_lack_of_memory_in_the_optimizer_names_the_batch_too(saving_recipe, tmp_path):
    """The first step of an optimizer allocates its moments."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    experiment, progress = prepare(saving_recipe), RunProgress(1, quiet=True)
    material, seen = prepare_data(experiment, progress), []

    def fill(*_):
        seen.append(True)
        torch.empty(2**46)  # more than any machine has

    hook = register_optimizer_step_pre_hook(fill)
    try:
        with pytest.raises(SertoneError, match="utterances of up to") as caught:
            train_fold(experiment, 0, tmp_path, material, progress)
    finally:
        hook.remove()
    assert caught.value.code == "out_of_memory" and seen


def test_a_model_that_does_not_fit_into_memory_is_refused(saving_recipe, tmp_path):
    large = saving_recipe.model_copy(update={"model": SMALL_MODEL | {"hidden": 1_000_000, "members": 1000}})
    encoder = TINY_MODEL["encoder"] | {"width": 1_000_000}
    large = large.model_copy(update={"model": SMALL_MODEL | {"encoder": encoder}})
    with pytest.raises(SertoneError, match="make it smaller") as caught:
        cross_validate(large, tmp_path, quiet=True)
    assert caught.value.code == "out_of_memory"


# Divergence


@pytest.mark.parametrize("rate", [1e20, 1e38])
def test_a_model_that_has_diverged_has_no_scores(saving_recipe, tmp_path, rate):
    """There are fewer steps than the limit of bad steps in a row."""
    rates = recipes.TrainConfig.model_validate(
        {"batch_size": 1, "learning_rate": {"encoder": rate, "downstream": rate}}
    )
    wild = change_training(saving_recipe, learning_rate=rates.learning_rate, clip_norm=1e30, batch_size=20)
    with pytest.raises(SertoneError, match="start again with --fresh") as caught:
        cross_validate(wild, tmp_path / "run", jobs=1, quiet=True)
    assert caught.value.code in ("diverged", "not_finite")
    assert not list(tmp_path.rglob("result*.json"))
    assert code_of(train, wild, tmp_path / "one", quiet=True) in ("diverged", "not_finite")
    assert not list(tmp_path.rglob("checkpoint.json"))
    assert train(saving_recipe, tmp_path / "one", fresh=True, quiet=True).is_dir(), "as the error says"


def test_a_distillation_that_has_diverged_leaves_no_encoder(small_demo, tmp_path):
    from sertone.training.distill.distill import distill
    from sertone.training.distill.distill_recipe import DistillRecipe

    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "teacher": {"name": "tiny"},
        "student": {"layers": 1},
        "targets": [2],
        "train": {"epochs": 1, "batch_size": 40, "learning_rate": 1e38, "clip_norm": 1e30, "device": "cpu"},
    }
    assert code_of(distill, DistillRecipe.model_validate(values), tmp_path, quiet=True) in (
        "diverged",
        "not_finite",
    )
    assert not (tmp_path / "encoder").exists()


# Missing folds


def test_a_run_with_a_missing_model_warns_and_is_not_exported(finished_run, tmp_path):
    copy = shutil.copytree(finished_run, tmp_path / "run")
    name = json.loads((copy / "fold_1" / "checkpoint" / "checkpoint.json").read_text())["card"]["fold"]
    shutil.rmtree(copy / "fold_1" / "checkpoint")
    with pytest.warns(UserWarning, match=rf"2 of the 3 models of the run are there; without fold {name}"):
        answer = sertone.load(copy, any_sound=True).predict(
            np.random.default_rng(0).normal(0, 0.1, 16000), 16000
        )
    assert answer.label
    from sertone.export.bundles import export

    assert (
        code_of(export, copy, tmp_path / "bundle") == "missing_folds" and not (tmp_path / "bundle").exists()
    )
    shutil.copytree(copy / "fold_0" / "checkpoint", copy / "fold_1" / "checkpoint")
    with pytest.warns(UserWarning, match="without fold"):
        sertone.load(copy)


def test_a_fold_and_a_complete_run_do_not_warn(finished_run, recwarn):
    sertone.load(finished_run)
    sertone.load(finished_run / "fold_0")
    sertone.load(finished_run / "fold_0" / "checkpoint")
    assert not [w for w in recwarn if "models of the run" in str(w.message)]


def test_models_of_different_classes_are_not_averaged(finished_run, saving_recipe, tmp_path):
    copy = shutil.copytree(finished_run, tmp_path / "run")
    data = saving_recipe.data.model_copy(update={"classes": {"angry": "angry", "sad": "sad"}})
    other = train(saving_recipe.model_copy(update={"data": data}), tmp_path / "two", quiet=True)
    shutil.rmtree(copy / "fold_1" / "checkpoint")
    shutil.copytree(other, copy / "fold_1" / "checkpoint")
    assert code_of(sertone.load, copy) == "mismatched_folds"


def test_a_training_without_epochs_writes_the_first_weights(demo_recipe, tmp_path):
    checkpoint = train(demo_recipe(epochs=[0, 0]), tmp_path / "run", quiet=True)
    assert (checkpoint / "model.safetensors").is_file() and not (tmp_path / "run" / "resume").exists()
