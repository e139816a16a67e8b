"""Task distillation: mixed targets, whose teacher, and that no teacher has heard whom it prepares for."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_MODEL
from hypothesis import given
from hypothesis import strategies as st

from sertone.audio import read
from sertone.errors import SertoneError
from sertone.labels import FOUR, class_shares
from sertone.nn.vocabulary import Vocabulary
from sertone.schema import Utterance
from sertone.training.crossval import cross_validate
from sertone.training.experiment import prepare
from sertone.training.folds import fit, gather
from sertone.training.predict import Predictor
from sertone.training.progress import Progress
from sertone.training.taught import Teaching, taught

CLASSES = ["neutral", "happy", "angry", "sad"]
RATED = {"name": "oliveira2023", "encoder": TINY_MODEL["encoder"], "text": None, "hidden": 8}
BOTH = {
    "name": "ispas2023",
    "encoder": TINY_MODEL["encoder"],
    "text": None,
    "attention_heads": 4,
    "hidden": 8,
}
SMALL = BOTH | {"hidden": 4}


def utterance(**changes):
    return Utterance(**{"id": "a", "path": Path("a"), "speaker": "x", **changes})


@given(
    st.floats(0.01, 1),
    st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
    st.sampled_from([*FOUR, "bored", None]),
    st.floats(1, 5) | st.none(),
    st.floats(1, 5),
)
def test_targets_are_mixtures_of_label_and_teacher(weight, shares, emotion, rating, answer):
    teacher = dict(zip(CLASSES, np.array(shares) / sum(shares), strict=True))
    labels = {name: value for name, value in (("emotion", emotion), ("valence", rating)) if value is not None}
    teaching = Teaching(weight, [teacher], {"valence": [answer]})
    (made,) = teaching.taught([utterance(labels=labels)], FOUR, soft=False)
    label = FOUR.get(emotion)
    own = weight if label else 1.0
    expected = {c: own * teacher[c] + (1 - own) * (c == label) for c in CLASSES}
    assert class_shares(made.votes, FOUR) == pytest.approx(expected)
    target = answer if rating is None else weight * answer + (1 - weight) * rating
    assert made.labels["valence"] == pytest.approx(target)
    assert made.labels.get("emotion") == emotion


@pytest.mark.parametrize("soft", [True, False])
def test_annotators_votes_are_mixed_in_where_they_are_the_targets(soft):
    voted = utterance(labels={"emotion": "sad"}, votes={"sad": 0.5, "happy": 0.25, "excited": 0.25})
    teacher = dict(zip(CLASSES, (0.1, 0.2, 0.3, 0.4), strict=True))
    (made,) = Teaching(0.5, [teacher], {}).taught([voted], FOUR, soft)
    own = {"sad": 0.5, "happy": 0.5} if soft else {"sad": 1.0}
    expected = {c: (teacher[c] + own.get(c, 0.0)) / 2 for c in CLASSES}
    assert class_shares(made.votes, FOUR) == pytest.approx(expected)


def test_a_teacher_of_ratings_alone_leaves_votes_and_labels():
    voted = utterance(labels={"emotion": "sad"}, votes={"sad": 0.5, "neutral": 0.5})
    (made,) = Teaching(0.5, [], {"arousal": [3.0]}).taught([voted], FOUR, soft=True)
    assert class_shares(made.votes, FOUR) == voted.votes and made.labels == {"emotion": "sad", "arousal": 3.0}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, small_demo):
    """A cross-validated run of two folds that answers emotions, valence and arousal."""
    return cross_validate(
        recipe_on(small_demo, BOTH), tmp_path_factory.mktemp("teacher") / "run", jobs=1, quiet=True
    )


def recipe_on(root, model, **train):
    from sertone.recipe import Recipe

    protocol = {"split": train.pop("split", "grouped_k_fold"), "folds": train.pop("folds", 2)}
    return Recipe.model_validate(
        {
            "data": {"corpus": "demo", "root": str(root)},
            "protocol": protocol,
            "model": model,
            "train": {"epochs": [1], "batch_size": 8} | train,
        }
    )


def test_the_training_side_learns_what_the_teacher_of_its_fold_says(teacher, small_demo):
    """Against predictions of the teacher's checkpoint, recording by recording."""
    experiment = prepare(recipe_on(small_demo, SMALL, teacher={"source": str(teacher), "weight": 1.0}))
    material = gather(experiment, Progress(0, True))
    for number, before in enumerate(experiment.folds):
        fold = taught(experiment, number, material.recordings).fold
        assert fold.test == before.test and fold.validation == before.validation
        predictor = Predictor(teacher / f"fold_{number}")
        for u in fold.train[:3]:
            recording = read(u.path)
            said = predictor.predict(recording.samples, 16000)
            assert class_shares(u.votes, FOUR) == pytest.approx(said.probabilities, abs=1e-4)
            assert u.labels["valence"] == pytest.approx(said.dimensions["valence"], abs=1e-3)
            target = Vocabulary.of(fold.train, FOUR).targets("emotion", [u], soft=True)[0]
            assert target.tolist() == pytest.approx([said.probabilities[c] for c in CLASSES], abs=1e-4)


def test_what_a_student_learns_depends_on_its_teacher(teacher, small_demo, tmp_path):
    weights = []
    for config in (None, {"source": str(teacher), "weight": 0.3}, {"source": str(teacher), "weight": 0.3}):
        experiment = prepare(recipe_on(small_demo, SMALL, teacher=config))
        trainer = fit(
            experiment,
            0,
            tmp_path / f"{len(weights)}",
            gather(experiment, Progress(0, True)),
            Progress(0, True),
        )
        weights.append(np.concatenate([p.detach().flatten().numpy() for p in trainer.model.parameters()]))
    alone, first, again = weights
    assert np.array_equal(first, again) and not np.allclose(alone, first)


def test_a_teacher_that_has_heard_the_test_side_is_refused(teacher, small_demo):
    for folds, split in ((2, "leave_one_session_out"), (3, "grouped_k_fold")):
        experiment = prepare(recipe_on(small_demo, SMALL, teacher=str(teacher), folds=folds, split=split))
        with pytest.raises(SertoneError) as error:
            taught(experiment, 0, gather(experiment, Progress(0, True)).recordings)
        assert error.value.code == "unlike_teacher"
    experiment = prepare(recipe_on(small_demo, SMALL, teacher=str(teacher / "fold_1")))
    material = gather(experiment, Progress(0, True))
    with pytest.raises(SertoneError, match="was trained on S") as error:
        taught(experiment, 0, material.recordings)
    assert error.value.code == "teacher_heard_test"
    assert taught(experiment, 1, material.recordings).fold.train != experiment.folds[1].train


def test_teachers_of_something_else_are_refused(teacher, small_demo):
    rated = prepare(
        recipe_on(small_demo, RATED | {"tasks": {"arousal": 0, "valence": 0}}, teacher=str(teacher))
    )
    with pytest.raises(SertoneError, match="something of what is to be learnt: dominance") as error:
        taught(rated, 0, gather(rated, Progress(0, True)).recordings)
    assert error.value.code == "unlike_teacher"
    merged = recipe_on(small_demo, SMALL, teacher=str(teacher))
    two = merged.model_copy(
        update={"data": merged.data.model_copy(update={"classes": {"happy": "up", "sad": "down"}})}
    )
    experiment = prepare(two)
    with pytest.raises(SertoneError, match="up, down"):
        taught(experiment, 0, gather(experiment, Progress(0, True)).recordings)


def test_all_folds_together_teach_a_model_of_everything(teacher, small_demo):
    experiment = prepare(
        recipe_on(small_demo, RATED, teacher={"source": str(teacher), "weight": 1}), everything=True
    )
    fold = taught(experiment, 0, gather(experiment, Progress(0, True)).recordings).fold
    said = Predictor(teacher).predict(fold.train[0].path)
    assert fold.train[0].labels["arousal"] == pytest.approx(said.dimensions["arousal"], abs=1e-3)
    assert fold.train[0].labels["dominance"] == experiment.folds[0].train[0].labels["dominance"]
    card = json.loads((teacher / "protocol.json").read_text())
    assert len(card["folds"]) == 2


def test_licences_and_past_of_the_teacher_come_with_what_it_taught(teacher, small_demo, tmp_path):
    about = json.loads((teacher / "fold_0/checkpoint/checkpoint.json").read_text())
    experiment = prepare(recipe_on(small_demo, SMALL, teacher=str(teacher)))
    fit(experiment, 0, tmp_path, gather(experiment, Progress(0, True)), Progress(0, True))
    student = json.loads((tmp_path / "checkpoint/checkpoint.json").read_text())
    (own,) = about["licences"]
    assert student["licences"] == [own, own | {"what": "corpus of the teacher"}]
    assert student["card"]["heard"] == about["card"]["heard"]  # both have trained on the same side
    assert "corpus of the teacher" in (tmp_path / "checkpoint/card.md").read_text()
