"""Learning rates: by part of the model, over a stage, after a stall, and in the history."""

import math
import re

import pytest
import torch
from conftest import TINY_MODEL
from training_runs import interrupt, load_weights, train_first_fold

from sertone import models
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.files import load_json
from sertone.recipe.train_parts import NewBobConfig, Rates
from sertone.report import run as report
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import distributed, training_state
from sertone.training.fit.schedules import newbob_factor, schedule_factor
from sertone.training.fit.step import Stepper
from sertone.training.runs.crossval import cross_validate


def stepper_of(recipe, stage=0):
    """Return a stepper of a new model, as fold 0 begins a stage."""
    torch.manual_seed(0)
    experiment = prepare(recipe)
    model = models.build(recipe.model, experiment.build_vocabulary(0))
    return Stepper(model, model.stages()[stage], recipe.train, distributed.make_fabric(recipe.train))


def groups_of(stepper):
    return {group["part"]: group for group in stepper.optimizer.param_groups}


def test_a_rate_rises_stays_or_falls():
    assert [schedule_factor("constant", 0.2, share) for share in (0, 0.1, 0.2, 1)] == [0, 0.5, 1, 1]
    assert [schedule_factor("newbob", 0.2, share) for share in (0, 0.1, 0.2, 1)] == [0, 0.5, 1, 1]
    falling = [schedule_factor("cosine", 0.5, share) for share in (0.25, 0.5, 0.75, 1)]
    assert falling == pytest.approx([0.5, 1, 0.5, 0])
    falling = [schedule_factor("linear", 0.5, share) for share in (0.25, 0.5, 0.6, 0.75, 1)]
    assert falling == pytest.approx([0.5, 1, 0.8, 0.5, 0])


def test_newbob_anneals_after_every_epoch_that_improves_too_little():
    config = NewBobConfig()
    assert newbob_factor([], config) == newbob_factor([0.5], config) == 1
    assert newbob_factor([0.5, 0.6, 0.7], config) == 1
    assert newbob_factor([0.5, 0.501, 0.7, 0.69, 0.69], config) == pytest.approx(
        0.9**3
    )  # of .2 %, worse, equal
    assert newbob_factor([-2.0, -1.99, -1.989], config) == pytest.approx(0.9)  # losses are negated
    assert newbob_factor([0.5, 0.6], NewBobConfig(threshold=0.3, factor=0.5)) == 0.5


def test_the_fusion_has_its_own_rate_and_warm_up(demo_recipe):
    plain = groups_of(stepper_of(demo_recipe()))
    assert list(plain) == ["encoder", "downstream"] and "fusion.weights" in plain["downstream"]["param_names"]
    rates = {"encoder": 1e-5, "downstream": 1e-4, "fusion": 2e-6}
    stepper = stepper_of(demo_recipe(learning_rate=rates, warmup=0.1, fusion_warmup=0.5))
    groups = groups_of(stepper)
    assert {part: group["peak"] for part, group in groups.items()} == rates
    assert {part: group["warmup"] for part, group in groups.items()} == {
        "encoder": 0.1, "downstream": 0.1, "fusion": 0.5
    }  # fmt: skip
    assert groups["fusion"]["param_names"] == ["fusion.weights"]
    assert "fusion.weights" not in groups["downstream"]["param_names"]
    assert "fusion" in groups_of(stepper_of(demo_recipe(fusion_warmup=0.5)))
    names = [name for group in groups.values() for name in group["param_names"]]
    assert sorted(names) == sorted(n for n, p in stepper.model.named_parameters() if p.requires_grad)


def test_a_text_encoder_has_the_rate_of_the_encoder(demo_recipe):
    model = {
        "name": "oliveira2023",
        "encoder": TINY_MODEL["encoder"],
        "text": {"name": "tiny", "width": 16, "depth": 1, "attention_heads": 2},
        "tasks": {"arousal": 1, "valence": 0, "dominance": 0},
    }
    recipe = demo_recipe(
        model, epochs=[1], learning_rate={"encoder": 1e-5, "downstream": 1e-3, "fusion": 1e-4}
    )
    groups = groups_of(stepper_of(recipe))
    of = {name: part for part, group in groups.items() for name in group["param_names"]}
    assert {part for name, part in of.items() if name.startswith("text.")} == {"encoder"}
    assert {part for name, part in of.items() if name.startswith("fusions.")} == {"fusion"}
    assert groups["encoder"]["peak"] == 1e-5


@pytest.mark.parametrize("validation", ["none", "speaker"])
def test_newbob_survives_an_interruption(demo_recipe, tmp_path, monkeypatch, validation):
    recipe = demo_recipe(
        epochs=[2, 4],
        save_every=1,
        schedule="newbob",
        newbob={"threshold": 0.5, "factor": 0.5},
        protocol={"validation": validation},
    )
    history = train_first_fold(recipe, tmp_path / "whole").history
    rates = [entry["learning_rates"]["encoder"] for entry in history]
    assert rates[0] == rates[2] == 1e-4 and rates[5] < 1e-4  # every stage begins anew
    assert ("score" in history[5]) == (validation == "speaker")
    interrupt(monkeypatch, recipe, tmp_path / "parts", 4)
    again = train_first_fold(recipe, tmp_path / "parts").history
    assert [entry["learning_rates"] for entry in again] == [entry["learning_rates"] for entry in history]
    whole, parts = load_weights(tmp_path / "whole"), load_weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_moments_of_another_layout_are_refused(demo_recipe, tmp_path, monkeypatch):
    recipe = demo_recipe(epochs=[2, 1], save_every=1)
    interrupt(monkeypatch, recipe, tmp_path, 1)
    save = training_state.find_training_state(tmp_path / "resume")
    assert save
    model = stepper_of(recipe).model
    moments = training_state.load_training_state(save, model).moments
    own_rate = demo_recipe(learning_rate=Rates(fusion=1e-5).model_dump())
    other_groups = stepper_of(own_rate)  # the same parameters in another order
    training_state.restore_optimizer(other_groups.optimizer, moments)
    state = other_groups.optimizer.state
    for name, parameter in other_groups.model.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(state[parameter]["exp_avg"], moments[f"{name}.exp_avg"]), name
    numbered = {f"{number}.exp_avg": tensor for number, tensor in enumerate(moments.values())}
    for foreign in (numbered, {"heads.humour.exp_avg": torch.zeros(1)}):
        with pytest.raises(SertoneError) as caught:
            training_state.restore_optimizer(stepper_of(recipe).optimizer, foreign)
        assert caught.value.code == "optimizer_mismatch"


@pytest.fixture(scope="module")
def run(small_demo, tmp_path_factory):
    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": TINY_MODEL,
        "train": {"epochs": [2, 1], "batch_size": 8, "clip_norm": 0.5, "warmup": 0.9, "fusion_warmup": 0.1},
    }
    recipe = recipes.Recipe.model_validate(values)
    return cross_validate(recipe, tmp_path_factory.mktemp("rates") / "run", jobs=1, quiet=True)


def test_the_history_keeps_gradients_and_rates(run):
    results = load_json(run / "results.json", "none")
    entries = [entry for fold in results["folds"] for entry in fold["history"]]
    assert len(entries) == 6
    for entry in entries:
        assert 0 < entry["gradient_norm"] <= entry["gradient_norm_max"] < math.inf
        assert (entry["clipped_steps"] > 0) == (entry["gradient_norm_max"] > 0.5)
        assert entry["learning_rates"]["fusion"] == 1e-3
    assert any(entry["clipped_steps"] for entry in entries)
    first, second = (entry["learning_rates"]["encoder"] for entry in entries[:2])
    assert 0 < first < second < 1e-4  # still rising


def test_the_page_shows_gradients_rates_and_the_rule_of_the_epoch(run):
    page = report.write(run).read_text()
    for stage in ("Stage 1, auxiliary", "Stage 2, emotion"):
        assert f"{stage}: gradient norm before clipping, mean" in page
        assert f"{stage}: gradient norm before clipping, largest" in page
        assert f"{stage}: share of steps whose gradient was clipped" in page
    assert "Stage 1, auxiliary: learning rate of encoder, downstream, fusion over the epochs" in page
    assert re.search(r">\d\.\de-4</text>", page)  # the axis of learning rates
    assert ">fusion</title>" in page
    assert "Sertone's own rule" in page.replace("&#39;", "'")
