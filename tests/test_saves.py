"""The files that training writes: complete, hashed, readable for other users; damage and a full disk are reported."""

import json
import os
import shutil
import stat

import pytest
import torch
from conftest import code_of
from damage import flip, room, tear
from training_runs import change_training, interrupt, train_first_fold

from sertone import files
from sertone.nn.tensor_files import load_tensors, save_tensors, writing_tensors
from sertone.training.fit import checkpoint
from sertone.training.runs.crossval import cross_validate

# Damage


def saved(recipe, folder, monkeypatch):
    """Interrupt a training of one fold after its fourth epoch, and return the folder of its saves."""
    interrupt(monkeypatch, recipe, folder, 4)
    return folder / "resume"


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
def whole(saving_recipe, tmp_path_factory):
    """The recipe with six epochs and a validation speaker, and its final weights."""
    mine = change_training(saving_recipe, epochs=[6])
    mine = mine.model_copy(update={"protocol": mine.protocol.model_copy(update={"validation": "speaker"})})
    folder = tmp_path_factory.mktemp("whole")
    train_first_fold(mine, folder)
    return mine, load_tensors(folder / "checkpoint" / "model.safetensors")


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_save_is_renamed_and_the_one_before_it_is_used(whole, tmp_path, monkeypatch, harm):
    recipe, expected = whole
    resume = saved(recipe, tmp_path, monkeypatch)
    assert sorted(path.name for path in resume.iterdir()) == ["000003", "000004"]
    HARM[harm](resume / "000004")
    lines = []
    train_first_fold(recipe, tmp_path, lines)
    assert any("000004.damaged1" in line and "the one before" in line for line in lines)
    assert (resume / "000004.damaged1").is_dir()
    weights = load_tensors(tmp_path / "checkpoint" / "model.safetensors")
    assert all(torch.equal(expected[name], weights[name]) for name in expected)


def test_when_both_saves_are_damaged_training_begins_again(whole, tmp_path, monkeypatch):
    recipe, expected = whole
    resume = saved(recipe, tmp_path, monkeypatch)
    for save in list(resume.iterdir()):
        tear(save / "state.json")
    train_first_fold(recipe, tmp_path)
    assert len(list(resume.glob("*.damaged1"))) == 2
    weights = load_tensors(tmp_path / "checkpoint" / "model.safetensors")
    assert all(torch.equal(expected[name], weights[name]) for name in expected)


@pytest.mark.parametrize("name", ["recipe.yaml", "protocol.json", "fold_1/result.json"])
@pytest.mark.parametrize("harm", [tear, lambda path: path.write_bytes(b"")], ids=["torn", "empty"])
def test_a_torn_file_of_a_run_is_renamed_and_written_again(
    finished_run, saving_recipe, tmp_path, capsys, name, harm
):
    copy = shutil.copytree(finished_run, tmp_path / "run")
    harm(copy / name)
    before = (copy / name).read_bytes()
    cross_validate(saving_recipe, copy, jobs=1)
    if not (
        name == "protocol.json" and before == b"{}"
    ):  # an empty card is one that differs in nothing known
        assert "is damaged; renamed to" in capsys.readouterr().err
        assert (copy / f"{name}.damaged1").read_bytes() == before
    scores = [json.loads((folder / "results.json").read_text())["pooled"] for folder in (finished_run, copy)]
    assert scores[0] == scores[1]
    assert json.loads((copy / "protocol.json").read_text()) == json.loads(
        (finished_run / "protocol.json").read_text()
    )


def test_a_recipe_that_was_torn_between_two_lines_is_renamed_too(
    finished_run, saving_recipe, tmp_path, capsys
):
    copy = shutil.copytree(finished_run, tmp_path / "run")
    text = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(text[: text.index("train:")])
    cross_validate(saving_recipe, copy, jobs=1)
    assert "recipe.yaml is damaged; renamed to" in capsys.readouterr().err
    assert (copy / "recipe.yaml").read_text() == text


def test_written_files_are_readable_for_other_users(finished_run):
    mask = os.umask(0o022)
    os.umask(mask)
    for path in [finished_run, *finished_run.rglob("*")]:
        expected = (0o777 if path.is_dir() else 0o666) & ~mask
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_a_distilled_hugging_face_encoder_is_readable_for_other_users(tmp_path):
    from sertone.nn.encoders.huggingface import TinyEncoderConfig
    from sertone.nn.encoders.saved import save_encoder

    save_encoder(TinyEncoderConfig().build(), tmp_path)
    assert len({stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}) == 1


# No room


def test_a_full_disk_leaves_the_old_file_in_place(tmp_path):
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


def test_a_training_resumes_from_the_save_before_the_disk_was_full(whole, tmp_path, monkeypatch):
    recipe, expected = whole
    saved(recipe, tmp_path, monkeypatch)
    with room(20_000):
        assert code_of(train_first_fold, recipe, tmp_path) == "disk_full"
    train_first_fold(recipe, tmp_path)
    weights = load_tensors(tmp_path / "checkpoint" / "model.safetensors")
    assert all(torch.equal(expected[name], weights[name]) for name in expected)
