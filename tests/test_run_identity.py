"""A run resumes only as the same experiment: the same data, precision, recipe and protocol."""

import json
import shutil

import pytest
import torch
from conftest import code_of
from training_runs import change_training

from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.nn.tensor_files import load_tensors
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import training_state
from sertone.training.runs.crossval import cross_validate
from sertone.training.runs.train import train

CHANGES = {
    "labels.emotion": lambda row: {**row, "emotion": "angry" if row["emotion"] == "sad" else "sad"},
    "labels.gender": lambda row: {**row, "gender": "male" if row["gender"] == "female" else "female"},
    "speakers": lambda row: {**row, "session": "S9"},
    "texts": lambda row: {**row, "text": "something else"},
}


@pytest.fixture
def table(small_demo, tmp_path):
    """The rows of the demo's table, and a function that writes them: table(rows) -> path."""
    import csv

    with open(small_demo / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    (tmp_path / "wav").symlink_to(small_demo / "wav")

    def write(rows):
        with open(tmp_path / "m.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return tmp_path / "m.csv"

    return rows, write


@pytest.mark.parametrize("kind", [*CHANGES, "order"])
def test_a_run_is_not_resumed_after_its_data_has_changed(saving_recipe, table, tmp_path, kind):
    rows, write = table
    data = {"corpus": "manifest", "root": str(write(rows))}
    mine = saving_recipe.model_copy(update={"data": recipes.DataConfig.model_validate(data)})
    (tmp_path / "run" / "fold_0").mkdir(parents=True)  # something was trained there
    card = prepare(mine).card
    (tmp_path / "run" / "protocol.json").write_text(json.dumps(card, default=str))
    write([*rows[1:], rows[0]] if kind == "order" else [CHANGES[kind](rows[0]), *rows[1:]])
    with pytest.raises(SertoneError, match=rf"contents\.{kind}: was") as caught:
        cross_validate(mine, tmp_path / "run", quiet=True)
    assert caught.value.code == "other_experiment"


def test_a_run_that_began_in_another_precision_says_how_to_resume(finished_run, saving_recipe, tmp_path):
    """This happens where `auto` chooses another precision on another machine."""
    copy, original = (
        shutil.copytree(finished_run, tmp_path / "run"),
        recipes.load(finished_run / "recipe.yaml", []),
    )
    way_out = r"resume with --set train\.precision=32-true"
    with pytest.raises(SertoneError, match=way_out) as caught:
        cross_validate(change_training(original, precision="bf16-mixed"), copy, jobs=1, quiet=True)
    assert caught.value.code == "other_experiment" and "--force" not in str(caught.value)
    overrides = ["train.precision=auto", "train.precision=32-true"]  # the later one counts
    cross_validate(recipes.load(finished_run / "recipe.yaml", overrides), copy, jobs=1, quiet=True)
    with pytest.raises(SertoneError, match="--force"):
        cross_validate(change_training(original, precision="bf16-mixed", seed=1), copy, jobs=1, quiet=True)


def torn_copy(folder, to):
    """Copy a run, and empty its recipe and protocol."""
    copy = shutil.copytree(folder, to)
    for name in ("recipe.yaml", "protocol.json"):
        (copy / name).write_bytes(b"")
    return copy


def test_another_experiment_is_refused_where_recipe_and_protocol_are_torn(
    finished_run, saving_recipe, tmp_path
):
    copy = torn_copy(finished_run, tmp_path / "run")
    before = sorted(copy.rglob("*"))
    with pytest.raises(SertoneError, match=r"fold_0/result\.json is of another experiment") as caught:
        cross_validate(change_training(saving_recipe, seed=1), copy, jobs=1, quiet=True)
    assert caught.value.code == "other_experiment"
    assert sorted(copy.rglob("*")) == before, "nothing is put aside before that"


def test_only_their_own_experiment_resumes_from_saves(saving_recipe, tmp_path, monkeypatch):
    mine, save = change_training(saving_recipe, epochs=[3]), training_state.save_training_state

    def stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training_state, "save_training_state", stop)
        train(mine, tmp_path / "begun", quiet=True)
    copy = torn_copy(tmp_path / "begun", tmp_path / "torn")
    assert code_of(train, change_training(mine, seed=1), copy, quiet=True) == "other_experiment"
    weights = load_tensors(train(mine, copy, quiet=True) / "model.safetensors")
    expected = load_tensors(train(mine, tmp_path / "whole", quiet=True) / "model.safetensors")
    assert all(torch.equal(expected[name], weights[name]) for name in expected)
    insisted = torn_copy(tmp_path / "begun", tmp_path / "insisted")
    assert train(change_training(mine, seed=1), insisted, force=True, quiet=True).is_dir()
