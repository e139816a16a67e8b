"""Interrupted and killed trainings end like whole ones; the saves and the run folder from which they resume."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import interrupt, load_weights, train_first_fold

from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.training.fit import training_state
from sertone.training.fit.training_state import TrainingState
from sertone.training.runs.crossval import cross_validate
from sertone.training.runs.run_folder import claim


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_an_interrupted_training_ends_with_the_same_weights(demo_recipe, tmp_path, monkeypatch, stop_after):
    recipe = demo_recipe(epochs=[2, 4], save_every=1, schedule="cosine", warmup=0.1)
    train_first_fold(recipe, tmp_path / "whole")
    interrupt(monkeypatch, recipe, tmp_path / "parts", stop_after)
    assert len(train_first_fold(recipe, tmp_path / "parts").history) == 6
    whole, parts = load_weights(tmp_path / "whole"), load_weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_statistics_and_perturbations_survive_an_interruption(demo_recipe, tmp_path, monkeypatch):
    encoder = {"name": "functionals", "perturbation": {"colour_db": 2.0, "warp": 0.1, "gain_db": 6.0}}
    model = {"name": "baseline", "encoder": encoder, "hidden": 8, "members": 2}
    recipe = demo_recipe(model, epochs=[4], save_every=1)
    train_first_fold(recipe, tmp_path / "whole")
    interrupt(monkeypatch, recipe, tmp_path / "parts", 2)
    train_first_fold(recipe, tmp_path / "parts")
    whole, parts = load_weights(tmp_path / "whole"), load_weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_best_epoch_of_a_validation_speaker_survives_an_interruption(demo_recipe, tmp_path, monkeypatch):
    recipe = demo_recipe(epochs=[1, 4], save_every=2, protocol={"validation": "speaker"})
    trainer = train_first_fold(recipe, tmp_path / "whole")
    scores = [entry["val_ua"] for entry in trainer.history if entry["stage"] == "emotion"]
    assert len(scores) == 4
    interrupt(monkeypatch, recipe, tmp_path / "parts", 3)
    again = train_first_fold(recipe, tmp_path / "parts")
    assert [e.get("val_ua") for e in again.history] == [e.get("val_ua") for e in trainer.history]
    whole, parts = load_weights(tmp_path / "whole"), load_weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_killed_run_resumes(demo_recipe, tmp_path):
    """After SIGKILL at any instant, the same command ends with the same scores."""
    recipe = demo_recipe(epochs=[3, 3], save_every=1)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipes.dump(recipe))
    command = [sys.executable, "-m", "sertone", "crossval", str(path), "--out", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "run").glob("fold_1/resume/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "results.json").exists()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    cross_validate(recipe, tmp_path / "whole", jobs=1, quiet=True)
    killed, whole = (json.loads((tmp_path / d / "results.json").read_text()) for d in ("run", "whole"))
    assert killed["pooled"] == whole["pooled"]
    for number in (0, 1):
        a, b = (load_weights(tmp_path / d / f"fold_{number}") for d in ("run", "whole"))
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_saves_of_another_version_are_refused(tmp_path):
    for name in ("000002", "000007", ".part"):
        (tmp_path / name).mkdir()
    (tmp_path / "000002" / "state.json").write_text("{}")
    assert training_state.find_training_state(tmp_path) == tmp_path / "000002"
    assert training_state.find_training_state(tmp_path / "nowhere") is None
    with pytest.raises(SertoneError, match="has format None"):
        training_state.load_training_state(tmp_path / "000002", torch.nn.Linear(1, 1))


def test_the_file_of_a_training_state_keeps_its_keys():
    """Saves of older versions load, also those without scores after stages."""
    older = {"stage": 0, "epoch": 3, "best": None, "history": [{"loss": 1.0}], "experiment": "abc"}
    state = TrainingState.from_json(older)
    assert state.history == [{"loss": 1.0}] and state.after_stages == {} and state.best_weights == {}
    assert list(state.to_json().items()) == list((older | {"after_stages": {}, "loss_scale": {}}).items())


def test_a_run_folder_belongs_to_one_experiment_and_one_process(tmp_path):
    card = {"seed": 1}
    with claim(tmp_path, "a: 1\n...\n", card, force=False, fresh=False):
        with (
            pytest.raises(SertoneError) as caught,
            claim(tmp_path, "a: 1\n...\n", card, force=False, fresh=False),
        ):
            pass
        assert caught.value.code == "run_in_use"
    with claim(tmp_path, "a: 1\n...\n", card, force=False, fresh=False):
        (tmp_path / "fold_0").mkdir()
    for recipe, other in (("a: 2\n...\n", card), ("a: 1\n...\n", {"seed": 2})):
        with (
            pytest.raises(SertoneError, match="--fresh") as caught,
            claim(tmp_path, recipe, other, force=False, fresh=False),
        ):
            pass
        assert caught.value.code == "other_experiment" and "was 1, now 2" in str(caught.value)
    (tmp_path / "thesis").mkdir()
    with claim(tmp_path, "a: 2\n...\n", card, force=True, fresh=False):
        assert (tmp_path / "fold_0").exists()
    with claim(tmp_path, "a: 3\n...\n", card, force=False, fresh=True):
        assert not (tmp_path / "fold_0").exists() and (tmp_path / "thesis").exists()


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 100))
def test_the_optimizer_survives_the_disk(seed):
    import tempfile
    from pathlib import Path

    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    model[0].bias.requires_grad_(False)

    def optimizer_of(model):
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, fused=True)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()

    first = optimizer_of(model)
    step(model, first)
    with tempfile.TemporaryDirectory() as folder:
        saved = TrainingState(stage=1, epoch=2, best_score=0.5, experiment="this one")
        training_state.save_training_state(Path(folder), 1, model, first, saved)
        copy = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        copy[0].bias.requires_grad_(False)
        state = training_state.load_training_state(Path(folder) / "000001", copy)
    second = optimizer_of(copy)
    training_state.restore_optimizer(second, state.moments)
    step(model, first)
    step(copy, second)
    assert state == replace(saved, moments=state.moments)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), copy.parameters(), strict=True))
