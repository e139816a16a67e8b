"""Epochs: stages that end early, and classes drawn equally often."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_MODEL
from training_runs import change_training, interrupt, train_first_fold

from sertone.errors import SertoneError
from sertone.labels import FOUR_CLASSES
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.train_config import TrainConfig
from sertone.schema import Utterance
from sertone.training.experiment.experiment import prepare
from sertone.training.fit.epoch_plan import draw_utterances
from sertone.training.fit.schedules import has_stalled
from sertone.training.fit.step import Stepper

EMOTIONS = ["happy", "sad", "angry", "neutral"]

# Early end


@pytest.mark.parametrize(
    ("scores", "stalled"),
    [([], False), ([0.5], False), ([0.5, 0.4], False), ([0.5, 0.4, 0.5], True), ([0.5, 0.4, 0.6], False),
     ([0.1, 0.2, 0.3, 0.2, 0.3], True), ([-2.0, -1.0, -1.5], False)],
)  # fmt: skip
def test_a_stage_stalls_after_two_epochs_that_are_no_better(scores, stalled):
    config = TrainConfig(batch_size=1, patience=2)
    assert has_stalled(config, [{"score": score} for score in scores]) is stalled
    assert not has_stalled(TrainConfig(batch_size=1), [{"score": score} for score in scores])
    assert not has_stalled(config, [{"loss": 1.0}] * 9), "no validation score"


def test_a_training_that_no_longer_improves_ends_early_and_keeps_its_best_epoch(
    demo_recipe, tmp_path, monkeypatch
):
    """With rates near zero nothing improves on the first epoch."""
    tiny = {"name": "baseline", "encoder": {"name": "tiny"}, "hidden": 8}
    rates = {"encoder": 1e-30, "downstream": 1e-30}
    recipe = demo_recipe(
        tiny, {"validation": "speaker"}, epochs=[9], save_every=9, patience=2, learning_rate=rates
    )
    trainer = train_first_fold(recipe, tmp_path / "whole")
    assert len(trainer.history) == 3
    assert trainer.progress.done == 9, "all planned epochs are over"
    interrupt(monkeypatch, change_training(recipe, save_every=1), tmp_path / "parts", 2)
    resumed = train_first_fold(change_training(recipe, save_every=1), tmp_path / "parts")
    assert [entry["score"] for entry in resumed.history] == [entry["score"] for entry in trainer.history]
    again = train_first_fold(recipe, tmp_path / "whole")
    assert len(again.history) == 3, "the end is saved, so that nothing is trained again"
    assert resumed.progress.done == again.progress.done == 9


def test_an_early_end_needs_validation_speakers(demo_recipe):
    with pytest.raises(SertoneError, match=r"train\.patience is set.*no validation speakers") as caught:
        prepare(demo_recipe(patience=3))
    assert caught.value.code == "no_validation" and "who decide when a stage ends" in caught.value.expected


def test_a_stage_of_auxiliary_tasks_alone_has_all_its_epochs(demo_recipe, tmp_path):
    rates = {"encoder": 1e-30, "downstream": 1e-30}
    recipe = demo_recipe(
        TINY_MODEL, {"validation": "speaker"}, epochs=[4, 4], patience=1, learning_rate=rates
    )
    trainer = train_first_fold(recipe, tmp_path)
    assert Counter(entry["stage"] for entry in trainer.history) == {"auxiliary": 4, "emotion": 2}
    assert trainer.progress.done == train_first_fold(recipe, tmp_path).progress.done == 8


# Balanced epochs


def test_balanced_epochs_draw_every_class_equally_often():
    labels = ["happy"] * 200 + ["sad"] * 20 + ["angry"] * 60 + ["neutral"] * 10 + [None] * 110
    rows = [
        Utterance(id=str(n), path=Path("x"), speaker="s", labels={"emotion": e} if e else {})
        for n, e in enumerate(labels)
    ]
    vocabulary, config = (
        Vocabulary.from_utterances(rows, FOUR_CLASSES),
        TrainConfig(batch_size=1, sampling="balanced"),
    )
    counts: Counter = Counter()
    rng = np.random.default_rng(0)
    for _ in range(100):
        drawn = draw_utterances(rows, vocabulary, config, rng)
        assert len(drawn) == len(rows)
        counts.update(u.labels.get("emotion") for u in drawn)
    for emotion in EMOTIONS:
        assert counts[emotion] / 100 == pytest.approx(290 / 4, rel=0.05)
    assert counts[None] / 100 == pytest.approx(110, rel=0.05)
    one, two = (draw_utterances(rows, vocabulary, config, np.random.default_rng(3)) for _ in range(2))
    assert one == two
    assert draw_utterances(rows, vocabulary, TrainConfig(batch_size=1), rng) is rows


def test_a_balanced_training_takes_as_many_utterances_with_replacement(demo_recipe, tmp_path, monkeypatch):
    drawn = []
    step = Stepper.step

    def note(self, batches, progress, utterances, statistics):
        drawn.extend(u.id for rows in utterances for u in rows)
        step(self, batches, progress, utterances, statistics)

    monkeypatch.setattr(Stepper, "step", note)
    recipe = demo_recipe({"name": "baseline", "encoder": {"name": "tiny"}}, epochs=[1], sampling="balanced")
    trainer = train_first_fold(recipe, tmp_path)
    assert len(drawn) == len(trainer.fold.train) > len(set(drawn))


def test_balanced_epochs_need_classes(noises):
    from sertone.recipe import Recipe

    recipe = Recipe.model_validate(
        {
            "data": {"corpus": "manifest", "root": str(noises), "scales": {"arousal": [1, 5], "valence": [1, 5]}},
            "protocol": {"split": "grouped_k_fold", "folds": 2},
            "model": {
                "name": "oliveira2023", "encoder": {"name": "tiny"}, "text": None, "tasks": {"dominance": 0},
            },
            "train": {"batch_size": 8, "epochs": [1], "sampling": "balanced"},
        }
    )  # fmt: skip
    with pytest.raises(SertoneError, match="predicts no emotion classes") as caught:
        prepare(recipe)
    assert caught.value.code == "no_classes"
