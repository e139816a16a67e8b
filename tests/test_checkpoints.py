"""Checkpoints: what they state, and damaged ones that are refused."""

import json
import math
import os

import numpy as np
import pytest
import torch
from conftest import TINY_MODEL
from damage import rehash
from safetensors.torch import load_file, save_file
from training_runs import train_first_fold

from sertone.errors import SertoneError
from sertone.training.fit import checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small_demo):
    from sertone.recipe import Recipe

    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    folder = tmp_path_factory.mktemp("trained")
    trainer = train_first_fold(Recipe.model_validate(values), folder)
    return trainer, folder / "checkpoint"


def test_a_checkpoint_explains_itself(trained):
    trainer, folder = trained
    model, vocabulary, about = checkpoint.load_model(folder)
    assert vocabulary == trainer.vocabulary
    assert about["card"]["split"]["split"] == "grouped_k_fold" and "file_hashes" not in about["card"]
    before = trainer.model.state_dict()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not any(p.suffix in (".pt", ".bin", ".pkl") for p in folder.iterdir())


def damaged(trained, tmp_path):
    import shutil

    return shutil.copytree(trained[1], tmp_path / "checkpoint")


def test_damaged_checkpoints_are_refused(trained, tmp_path):
    def code():
        with pytest.raises(SertoneError) as caught:
            checkpoint.load_model(folder)
        return caught.value.code

    folder = damaged(trained, tmp_path)
    path, marker = folder / "model.safetensors", folder / checkpoint.MARKER
    good, about = path.read_bytes(), json.loads(marker.read_text())
    path.write_bytes(good[:-100])
    assert code() == "bad_weights"
    path.write_bytes(good)
    tensors = load_file(path)
    name = "fusion.weights"
    remaining = {k: v for k, v in tensors.items() if k != name}
    for changed in ({name: tensors[name] + math.nan}, {}, {name: tensors[name].int()}, {"x": tensors[name]}):
        save_file(remaining | changed, path)
        assert code() == "bad_weights"
        rehash(folder)
        with pytest.raises(SertoneError, match=name) as caught:
            checkpoint.load_model(folder)
        assert caught.value.code == "bad_weights"
    path.write_bytes(good)
    about["vocabulary"]["classes"]["emotion"].pop()
    marker.write_text(json.dumps(about))
    assert code() == "bad_weights"
    marker.write_text(json.dumps(about | {"format": 99}))
    assert code() == "other_format"
    marker.write_text('{"format": 1, ')
    assert code() == "bad_weights"
    marker.unlink()
    assert code() == "not_a_checkpoint"


def put(*path, value):
    """Return a function that sets a value of `checkpoint.json`."""

    def change(about):
        for key in path[:-1]:
            about = about[key]
        about[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("licences", value=[{"what": "corpus"}]), "no valid licences"),
        (put("licences", value=None), "no valid licences"),
        (
            put("vocabulary", "classes", "emotion", value=["sad", "sad", "x", "y"]),
            "vocabulary.classes.emotion",
        ),
        (put("vocabulary", "ratings", value={"arousal": {"low": 5, "high": 1}}), "vocabulary.ratings"),
        (put("calibration", "temperature", value=0), "calibration.temperature"),
        (put("calibration", "threshold", value="high"), "calibration.threshold"),
        (put("min_samples", value=10**30), "min_samples"),
        (put("card", "corpus", value="demo"), "card.corpus"),
        (put("card", "fold", value="nobody"), "card.fold"),
        (put("card", "heard", value={}), "card.heard.recordings"),
        (put("files", value={}), "files.model.safetensors"),
        (put("model", value=[]), "no valid model"),
        (put("model", "encoder", "depth", value=10**9), "no valid model"),
        (put("model", "encoder", "depth", value=900), "as checkpoint.json describes the model"),
        (put("model", "encoder", "width", value=999_998), "as checkpoint.json describes the model"),
        (put("model", "encoder", "attention_heads", value=3), "no multiple of attention_heads"),
        (put("model", "name", value="nothing"), "model.name 'nothing'"),
    ],
)
def test_the_content_of_a_checkpoint_is_compared_with_its_shape(trained, tmp_path, change, message):
    folder = damaged(trained, tmp_path)
    about = json.loads((folder / checkpoint.MARKER).read_text())
    change(about)
    (folder / checkpoint.MARKER).write_text(json.dumps(about))
    with pytest.raises(SertoneError, match=message) as caught:
        checkpoint.load_model(folder)
    assert caught.value.code == "bad_weights"


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.json"])
def test_a_pipe_instead_of_a_file_does_not_block(trained, tmp_path, name):
    folder = damaged(trained, tmp_path)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(SertoneError) as caught:
        checkpoint.load_model(folder)
    assert caught.value.code == ("not_a_checkpoint" if name == "checkpoint.json" else "bad_weights")


def test_a_device_that_fails_is_no_fault_of_the_model(trained):
    """The model works on the CPU; the device `meta` computes nothing at all."""
    from sertone.training.testing.trained import TorchModel

    model = TorchModel(trained[1], device="meta")
    assert model.device == "meta" and next(model.models[0].parameters()).is_meta
    with pytest.raises(NotImplementedError):
        model.outputs(np.zeros((1, 16000), np.float32))
