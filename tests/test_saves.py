"""What training leaves on the disk: whole, hashed, readable by others, of one data set, or told and put aside."""

import json
import os
import shutil
import stat

import numpy as np
import pytest
import torch
from conftest import TINY_MODEL
from damage import flip, room, tear

import sertone
from sertone import corpora, files
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.nn.tensor_files import load_tensors, save_tensors, writing_tensors
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import checkpoint
from sertone.training.fit.progress import RunProgress
from sertone.training.fit.step import report_out_of_memory
from sertone.training.runs.crossval import cross_validate
from sertone.training.runs.folds import prepare_data, train_fold
from sertone.training.runs.train import train

SMALL = {"name": "baseline", "encoder": TINY_MODEL["encoder"], "hidden": 8}


@pytest.fixture(scope="module")
def recipe(small_demo):
    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 3},
        "model": SMALL,
        "train": {"epochs": [1], "batch_size": 8, "save_every": 1, "speeds": [1.0], "device": "cpu"},
    }
    return recipes.Recipe.model_validate(values)


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """A finished cross-validation of three folds."""
    return cross_validate(recipe, tmp_path_factory.mktemp("saves") / "run", jobs=1, quiet=True)


def longer(recipe, **changes):
    """The recipe with other settings of training."""
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


def code_of(function, *arguments, **options):
    with pytest.raises(SertoneError) as caught:
        function(*arguments, **options)
    return caught.value.code


# The data of a run


CHANGES = {
    "labels.emotion": lambda row: {**row, "emotion": "angry" if row["emotion"] == "sad" else "sad"},
    "labels.gender": lambda row: {**row, "gender": "male" if row["gender"] == "female" else "female"},
    "speakers": lambda row: {**row, "session": "S9"},
    "texts": lambda row: {**row, "text": "something else"},
}


@pytest.fixture
def table(small_demo, tmp_path):
    """The demo's table beside recordings of its own, and how to write it: table(rows) -> path."""
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
def test_a_run_is_not_gone_on_with_when_what_is_known_of_it_has_changed(recipe, table, tmp_path, kind):
    rows, write = table
    data = {"corpus": "manifest", "root": str(write(rows))}
    mine = recipe.model_copy(update={"data": recipes.DataConfig.model_validate(data)})
    (tmp_path / "run" / "fold_0").mkdir(parents=True)  # something was trained there
    card = prepare(mine).card
    (tmp_path / "run" / "protocol.json").write_text(json.dumps(card, default=str))
    write([*rows[1:], rows[0]] if kind == "order" else [CHANGES[kind](rows[0]), *rows[1:]])
    with pytest.raises(SertoneError, match=rf"contents\.{kind}: was") as caught:
        cross_validate(mine, tmp_path / "run", quiet=True)
    assert caught.value.code == "other_experiment"


# Damage


def saved(recipe, folder, monkeypatch, epochs=4):
    """A training of one fold that was interrupted after its fourth epoch."""
    save = checkpoint.save_training_state

    def stop(where, number, *rest):
        save(where, number, *rest)
        if number == epochs:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_training_state", stop)
        train_first_fold(recipe, folder)
    return folder / "resume"


def train_first_fold(recipe, folder, said=None):
    experiment, progress = prepare(recipe), RunProgress(1, quiet=True)
    if said is not None:
        progress.say = said.append
    return train_fold(experiment, 0, folder, prepare_data(experiment, progress), progress)


def empty(save):
    shutil.rmtree(save)
    save.mkdir()


HARM = {
    "an empty folder": empty,
    "a torn state": lambda save: tear(save / "state.json"),
    "no state": lambda save: (save / "state.json").unlink(),
    "a state without parts": lambda save: (save / "state.json").write_text(
        f'{{"format": {checkpoint.FORMAT}}}'
    ),
    "a flipped bit": lambda save: flip(save / "model.safetensors"),
    "torn moments": lambda save: tear(save / "optimizer.safetensors"),
    "no best weights": lambda save: (save / "best.safetensors").unlink(),
}


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """The recipe with six epochs and a validation speaker, and the weights that it ends with."""
    mine = longer(recipe, epochs=[6])
    mine = mine.model_copy(update={"protocol": mine.protocol.model_copy(update={"validation": "speaker"})})
    folder = tmp_path_factory.mktemp("whole")
    train_first_fold(mine, folder)
    return mine, load_tensors(folder / "checkpoint" / "model.safetensors")


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_save_is_put_aside_and_the_one_before_it_is_used(whole, tmp_path, monkeypatch, harm):
    recipe, expected = whole
    resume = saved(recipe, tmp_path, monkeypatch)
    assert sorted(path.name for path in resume.iterdir()) == ["000003", "000004"]
    HARM[harm](resume / "000004")
    said = []
    train_first_fold(recipe, tmp_path, said)
    assert any("000004.damaged1" in line and "the one before" in line for line in said)
    assert (resume / "000004.damaged1").is_dir()
    found = load_tensors(tmp_path / "checkpoint" / "model.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_when_both_saves_are_damaged_training_begins_again(whole, tmp_path, monkeypatch):
    recipe, expected = whole
    resume = saved(recipe, tmp_path, monkeypatch)
    for save in list(resume.iterdir()):
        tear(save / "state.json")
    train_first_fold(recipe, tmp_path)
    assert len(list(resume.glob("*.damaged1"))) == 2
    found = load_tensors(tmp_path / "checkpoint" / "model.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("name", ["recipe.yaml", "protocol.json", "fold_1/result.json"])
@pytest.mark.parametrize("harm", [tear, lambda path: path.write_bytes(b"")], ids=["torn", "empty"])
def test_a_torn_file_of_a_run_is_put_aside_and_made_again(run, recipe, tmp_path, capsys, name, harm):
    copy = shutil.copytree(run, tmp_path / "run")
    harm(copy / name)
    before = (copy / name).read_bytes()
    cross_validate(recipe, copy, jobs=1)
    if not (
        name == "protocol.json" and before == b"{}"
    ):  # an empty card is one that differs in nothing known
        assert "put aside" in capsys.readouterr().err
        assert (copy / f"{name}.damaged1").read_bytes() == before
    scores = [json.loads((folder / "results.json").read_text())["pooled"] for folder in (run, copy)]
    assert scores[0] == scores[1]
    assert json.loads((copy / "protocol.json").read_text()) == json.loads((run / "protocol.json").read_text())


def test_a_recipe_that_was_torn_between_two_lines_is_put_aside_too(run, recipe, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    text = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(text[: text.index("train:")])
    cross_validate(recipe, copy, jobs=1)
    assert "recipe.yaml is damaged: put aside" in capsys.readouterr().err
    assert (copy / "recipe.yaml").read_text() == text


def test_a_run_that_began_in_another_precision_says_how_to_go_on(run, recipe, tmp_path):
    """As where `auto` has become another one on another machine."""
    copy, there = shutil.copytree(run, tmp_path / "run"), recipes.load(run / "recipe.yaml", [])
    way_out = r"go on with --set train\.precision=32-true"
    with pytest.raises(SertoneError, match=way_out) as caught:
        cross_validate(longer(there, precision="bf16-mixed"), copy, jobs=1, quiet=True)
    assert caught.value.code == "other_experiment" and "--force" not in str(caught.value)
    said = ["train.precision=auto", "train.precision=32-true"]  # the later one counts
    cross_validate(recipes.load(run / "recipe.yaml", said), copy, jobs=1, quiet=True)
    with pytest.raises(SertoneError, match="--force"):
        cross_validate(longer(there, precision="bf16-mixed", seed=1), copy, jobs=1, quiet=True)


def torn_copy(folder, to):
    """A copy of a run whose recipe and protocol are empty."""
    copy = shutil.copytree(folder, to)
    for name in ("recipe.yaml", "protocol.json"):
        (copy / name).write_bytes(b"")
    return copy


def test_another_experiment_is_refused_where_recipe_and_protocol_are_torn(run, recipe, tmp_path):
    copy = torn_copy(run, tmp_path / "run")
    before = sorted(copy.rglob("*"))
    with pytest.raises(SertoneError, match=r"fold_0/result\.json is of another experiment") as caught:
        cross_validate(longer(recipe, seed=1), copy, jobs=1, quiet=True)
    assert caught.value.code == "other_experiment"
    assert sorted(copy.rglob("*")) == before, "nothing is put aside before that"


def test_saves_are_gone_on_with_by_their_own_experiment_alone(recipe, tmp_path, monkeypatch):
    mine, save = longer(recipe, epochs=[3]), checkpoint.save_training_state

    def stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoint, "save_training_state", stop)
        train(mine, tmp_path / "begun", quiet=True)
    copy = torn_copy(tmp_path / "begun", tmp_path / "torn")
    assert code_of(train, longer(mine, seed=1), copy, quiet=True) == "other_experiment"
    found = load_tensors(train(mine, copy, quiet=True) / "model.safetensors")
    expected = load_tensors(train(mine, tmp_path / "whole", quiet=True) / "model.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    insisted = torn_copy(tmp_path / "begun", tmp_path / "insisted")
    assert train(longer(mine, seed=1), insisted, force=True, quiet=True).is_dir()


def test_what_is_written_may_be_read_by_others(run):
    mask = os.umask(0o022)
    os.umask(mask)
    for path in [run, *run.rglob("*")]:
        expected = (0o777 if path.is_dir() else 0o666) & ~mask
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_a_distilled_encoder_of_hugging_face_may_be_read_by_others(tmp_path):
    from sertone.nn.encoders.huggingface import TinyEncoderConfig
    from sertone.nn.encoders.saved import save_encoder

    save_encoder(TinyEncoderConfig().build(), tmp_path)
    assert len({stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}) == 1


# No room


def test_without_room_what_was_there_before_stays(tmp_path):
    (tmp_path / "file").write_text("before")
    with room(4096):
        assert code_of(files.write_bytes, tmp_path / "file", b"x" * 40_000) == "disk_full"
        assert code_of(save_tensors, tmp_path / "weights", {"a": torch.zeros(40_000)}) == "disk_full"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "before"}


def test_weights_that_cannot_be_written_leave_no_file(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError), writing_tensors(tmp_path / "weights"):
        save_file({"a": torch.zeros(3)}, tmp_path / "nowhere" / "weights")
    assert not list(tmp_path.iterdir())


def test_a_training_that_meets_a_full_disk_is_gone_on_with_from_the_save_before(whole, tmp_path, monkeypatch):
    recipe, expected = whole
    saved(recipe, tmp_path, monkeypatch)
    with room(20_000):
        assert code_of(train_first_fold, recipe, tmp_path) == "disk_full"
    train_first_fold(recipe, tmp_path)
    found = load_tensors(tmp_path / "checkpoint" / "model.safetensors")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


# No memory


def test_a_batch_for_which_there_is_no_memory_is_named(small_demo):
    clips = list(corpora.read_utterances("demo", small_demo))[:2]
    with (
        pytest.raises(
            SertoneError, match=rf"2 utterances of up to 2\.0 s \({clips[1].id}\).*batch_seconds"
        ) as caught,
        report_out_of_memory(clips, torch.tensor([16000, 32000])),
    ):
        torch.empty(2**46)  # more than any machine has
    assert caught.value.code == "out_of_memory"


def test_memory_that_ends_in_the_optimizers_step_names_the_batch_too(recipe, tmp_path):
    """As in its first step, which makes the moments."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    experiment, progress = prepare(recipe), RunProgress(1, quiet=True)
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


def test_a_model_for_which_there_is_no_memory_is_refused(recipe, tmp_path):
    large = recipe.model_copy(update={"model": SMALL | {"hidden": 1_000_000, "members": 1000}})
    encoder = TINY_MODEL["encoder"] | {"width": 1_000_000}
    large = large.model_copy(update={"model": SMALL | {"encoder": encoder}})
    with pytest.raises(SertoneError, match="make it smaller") as caught:
        cross_validate(large, tmp_path, quiet=True)
    assert caught.value.code == "out_of_memory"


# Divergence


@pytest.mark.parametrize("rate", [1e20, 1e38])
def test_a_model_that_has_diverged_has_no_scores(recipe, tmp_path, rate):
    """Too few steps for the limit of bad steps in a row."""
    rates = recipes.TrainConfig.model_validate(
        {"batch_size": 1, "learning_rate": {"encoder": rate, "downstream": rate}}
    )
    wild = longer(recipe, learning_rate=rates.learning_rate, clip_norm=1e30, batch_size=20)
    with pytest.raises(SertoneError, match="start again with --fresh") as caught:
        cross_validate(wild, tmp_path / "run", jobs=1, quiet=True)
    assert caught.value.code in ("diverged", "not_finite")
    assert not list(tmp_path.rglob("result*.json"))
    assert code_of(train, wild, tmp_path / "one", quiet=True) in ("diverged", "not_finite")
    assert not list(tmp_path.rglob("checkpoint.json"))
    assert train(recipe, tmp_path / "one", fresh=True, quiet=True).is_dir(), "as the error says"


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


def test_a_run_without_a_model_says_so_and_is_not_exported(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    name = json.loads((copy / "fold_1" / "checkpoint" / "checkpoint.json").read_text())["card"]["fold"]
    shutil.rmtree(copy / "fold_1" / "checkpoint")
    with pytest.warns(UserWarning, match=rf"2 of the 3 models of the run are there; without fold {name}"):
        answer = sertone.load(copy).predict(np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    assert answer.label
    from sertone.export.bundles import export

    assert (
        code_of(export, copy, tmp_path / "bundle") == "missing_folds" and not (tmp_path / "bundle").exists()
    )
    shutil.copytree(copy / "fold_0" / "checkpoint", copy / "fold_1" / "checkpoint")
    with pytest.warns(UserWarning, match="without fold"):
        sertone.load(copy)


def test_a_fold_and_a_whole_run_are_not_warned_of(run, recwarn):
    sertone.load(run)
    sertone.load(run / "fold_0")
    sertone.load(run / "fold_0" / "checkpoint")
    assert not [w for w in recwarn if "models of the run" in str(w.message)]


def test_models_that_answer_other_classes_have_no_mean(run, recipe, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    data = recipe.data.model_copy(update={"classes": {"angry": "angry", "sad": "sad"}})
    other = train(recipe.model_copy(update={"data": data}), tmp_path / "two", quiet=True)
    shutil.rmtree(copy / "fold_1" / "checkpoint")
    shutil.copytree(other, copy / "fold_1" / "checkpoint")
    assert code_of(sertone.load, copy) == "mismatched_folds"
