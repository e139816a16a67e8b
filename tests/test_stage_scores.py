"""Scores after each stage: those of its weights, carried through stops, and without a trace in training."""

import json
from dataclasses import replace
from itertools import chain

import pytest
import torch
from conftest import TINY_MODEL

from sertone.errors import SertoneError
from sertone.protocol.splits import Fold
from sertone.scoring import metrics
from sertone.training.experiment.experiment import prepare
from sertone.training.fit import checkpoint
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.crossval import cross_validate
from sertone.training.runs.folds import prepare_data, run_fold, train_fold

QUIET = RunProgress(1, quiet=True)
SIDES = ("targets", "predictions")
TASKS = ["gender", "speaker", "style", "asr"]


def train(recipe, folder, *, tested=True):
    """Train the first fold, with its test side or without one."""
    experiment = prepare(recipe)
    if not tested:
        experiment = replace(experiment, folds=[replace(fold, test=[]) for fold in experiment.folds])
    return train_fold(experiment, 0, folder, prepare_data(experiment, QUIET), QUIET)


def result_of(recipe, folder):
    experiment = prepare(recipe)
    run_fold(experiment, 0, folder, prepare_data(experiment, QUIET), QUIET)
    return json.loads((folder / "fold_0/result.json").read_text())


def test_the_scores_after_a_stage_are_those_of_its_weights(demo_recipe, tmp_path):
    """A second stage without epochs ends with the weights of the first."""
    still = result_of(demo_recipe(epochs=[2, 0]), tmp_path / "still")
    moved = result_of(demo_recipe(epochs=[2, 3]), tmp_path / "moved")
    after = still["after_stages"]["auxiliary"]
    assert list(after["metrics"]) == [*after["auxiliary"], "speaker"]
    assert after["metrics"] == {task: still["metrics"][task] for task in after["metrics"]}
    assert after["auxiliary"] == still["auxiliary"] and set(after["metrics"]) == set(TASKS)
    assert moved["after_stages"] == still["after_stages"]
    assert moved["auxiliary"] != still["auxiliary"], "the second stage has changed nothing"
    run = cross_validate(demo_recipe(epochs=[0, 0]), tmp_path / "none", jobs=1, quiet=True)
    assert "after stage 2 (last)" in (run / "report.html").read_text()


def test_scoring_the_test_side_changes_no_weight(demo_recipe, tmp_path):
    recipe = demo_recipe(model=TINY_MODEL | {"dropout": 0.3}, epochs=[2, 2], speeds=[0.8, 1.0, 1.2])
    with_test, without = (train(recipe, tmp_path / f"{x}", tested=x) for x in (True, False))
    assert list(with_test.after_stages) == ["auxiliary"] and without.after_stages == {}
    theirs = without.model.state_dict()
    assert all(torch.equal(own, theirs[name]) for name, own in with_test.model.state_dict().items())
    kept = ("loss", "stage", "ua", "unfit_transcripts")
    first, second = ([[e.get(key) for key in kept] for e in t.history] for t in (with_test, without))
    assert first == second


def test_an_interrupted_training_has_the_same_scores(demo_recipe, tmp_path, monkeypatch):
    """Stopped within the first stage, at its end before it was scored, and within the second."""
    recipe = demo_recipe(epochs=[2, 2], save_every=1)
    whole = train(recipe, tmp_path / "whole").after_stages
    save, stops = checkpoint.save_training_state, [1, 2, 3]

    def save_and_stop(where, number, *rest):
        save(where, number, *rest)
        if number in stops:
            stops.remove(number)
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_training_state", save_and_stop)
    while stops:
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "parts")
    assert train(recipe, tmp_path / "parts").after_stages == whole


def test_a_test_side_that_cannot_be_answered_does_not_end_the_training(demo_recipe, tmp_path):
    """Weights so large that answers overflow, while every step so far was finite."""
    rates = {"encoder": 1e30, "downstream": 1e30}
    recipe = demo_recipe(epochs=[1, 1], learning_rate=rates, batch_size=40)
    with pytest.raises(SertoneError) as caught:
        train(recipe, tmp_path)
    assert caught.value.code == "not_finite"  # of the second stage's own step, not of the test side


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_demo):
    from sertone.recipe import Recipe

    values = {
        "data": {"corpus": "demo", "root": str(small_demo)},
        "protocol": {"split": "grouped_k_fold", "folds": 3},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 2], "batch_size": 8},
    }
    recipe = Recipe.model_validate(values)
    return cross_validate(recipe, tmp_path_factory.mktemp("stages") / "run", jobs=1, quiet=True)


def test_results_and_page_have_the_scores_after_both_stages(run):
    results = json.loads((run / "results.json").read_text())
    folds = [json.loads((run / f"fold_{n}/result.json").read_text()) for n in range(3)]
    after = results["after_stages"]["auxiliary"]
    for fold, own in zip(results["folds"], folds, strict=True):
        assert fold["after_stages"] == {"auxiliary": own["after_stages"]["auxiliary"]["metrics"]}
    for task, score in (("gender", "accuracy"), ("asr", "cer"), ("asr", "wer")):
        own = [fold["after_stages"]["auxiliary"] for fold in folds]
        mean = sum(each["metrics"][task][score] for each in own) / 3
        assert after["mean"][task][score] == pytest.approx(mean)
        sides = [[*chain.from_iterable(each["auxiliary"][task][side] for each in own)] for side in SIDES]
        kind = own[0]["auxiliary"][task]["metric"]
        assert after["pooled"][task][score] == pytest.approx(metrics.SCORES[kind](*sides)[score])
    assert after["pooled"]["asr"] != results["pooled"]["asr"]
    page = (run / "report.html").read_text()
    assert "after stage 1 (auxiliary)" in page and "after stage 2 (emotion)" in page
    for shown in (after, results):
        text = f"{shown['pooled']['asr']['cer']:.1%}<small>mean {shown['mean']['asr']['cer']:.1%}</small>"
        assert text in page


def test_a_model_of_one_stage_has_none(demo_recipe, tmp_path):
    model = {"name": "baseline", "encoder": TINY_MODEL["encoder"], "hidden": 8}
    run = cross_validate(demo_recipe(model, epochs=[1]), tmp_path / "run", jobs=1, quiet=True)
    results = json.loads((run / "results.json").read_text())
    assert "after_stages" not in results and "after stage" not in (run / "report.html").read_text()


def test_other_labels_of_the_test_side_are_another_first_stage(demo_recipe):
    """The scores are kept beside the weights: both must belong to the same test side."""
    from sertone import models
    from sertone.training.fit.first_stages import hash_first_stage

    experiment = prepare(demo_recipe())
    fold, vocabulary = experiment.folds[0], experiment.build_vocabulary(0)
    model = models.build(experiment.recipe.model, vocabulary)
    changed = [replace(u, labels=u.labels | {"gender": "female"}) for u in fold.test]
    other = Fold(fold.name, fold.train, fold.validation, changed)
    keys = {
        hash_first_stage(model, model.stages()[0], experiment.recipe.train, f, {})
        for f in (fold, fold, other)
    }
    assert len(keys) == 2
