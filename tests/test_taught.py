"""Task distillation: mixed targets, whose teacher, and that no teacher has heard whom it prepares for."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_MODEL
from hypothesis import given
from hypothesis import strategies as st

from sertone import licences, load
from sertone.audio import read
from sertone.errors import SertoneError
from sertone.labels import FOUR_CLASSES, class_shares
from sertone.nn.vocabulary import Vocabulary
from sertone.report import protocol
from sertone.schema import Utterance
from sertone.training.experiment import contamination
from sertone.training.experiment.experiment import prepare
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.crossval import cross_validate
from sertone.training.runs.folds import prepare_data, train_fold
from sertone.training.runs.teacher_targets import TeacherTargets, apply_teacher

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
    st.sampled_from([*FOUR_CLASSES, "bored", None]),
    st.floats(1, 5) | st.none(),
    st.floats(1, 5),
)
def test_targets_are_mixtures_of_label_and_teacher(weight, shares, emotion, rating, answer):
    teacher = dict(zip(CLASSES, np.array(shares) / sum(shares), strict=True))
    labels = {name: value for name, value in (("emotion", emotion), ("valence", rating)) if value is not None}
    teaching = TeacherTargets(weight, [teacher], {"valence": [answer]})
    (made,) = teaching.mix_into([utterance(labels=labels)], FOUR_CLASSES, soft=False)
    label = FOUR_CLASSES.get(emotion)
    own = weight if label else 1.0
    expected = {c: own * teacher[c] + (1 - own) * (c == label) for c in CLASSES}
    assert class_shares(made.votes, FOUR_CLASSES) == pytest.approx(expected)
    target = answer if rating is None else weight * answer + (1 - weight) * rating
    assert made.labels["valence"] == pytest.approx(target)
    assert made.labels.get("emotion") == emotion


@pytest.mark.parametrize("soft", [True, False])
def test_annotators_votes_are_mixed_in_where_they_are_the_targets(soft):
    voted = utterance(labels={"emotion": "sad"}, votes={"sad": 0.5, "happy": 0.25, "excited": 0.25})
    teacher = dict(zip(CLASSES, (0.1, 0.2, 0.3, 0.4), strict=True))
    (made,) = TeacherTargets(0.5, [teacher], {}).mix_into([voted], FOUR_CLASSES, soft)
    own = {"sad": 0.5, "happy": 0.5} if soft else {"sad": 1.0}
    expected = {c: (teacher[c] + own.get(c, 0.0)) / 2 for c in CLASSES}
    assert class_shares(made.votes, FOUR_CLASSES) == pytest.approx(expected)


def test_a_teacher_of_ratings_alone_leaves_votes_and_labels():
    voted = utterance(labels={"emotion": "sad"}, votes={"sad": 0.5, "neutral": 0.5})
    (made,) = TeacherTargets(0.5, [], {"arousal": [3.0]}).mix_into([voted], FOUR_CLASSES, soft=True)
    assert class_shares(made.votes, FOUR_CLASSES) == voted.votes and made.labels == {
        "emotion": "sad",
        "arousal": 3.0,
    }


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
    material = prepare_data(experiment, RunProgress(0, True))
    for number, before in enumerate(experiment.folds):
        fold = apply_teacher(experiment, number, material.recordings)
        assert fold.test == before.test and fold.validation == before.validation
        predictor = load(teacher / f"fold_{number}")
        for u in fold.train[:3]:
            recording = read(u.path)
            said = predictor.predict(recording.samples, 16000)
            assert class_shares(u.votes, FOUR_CLASSES) == pytest.approx(said.probabilities, abs=1e-4)
            assert u.labels["valence"] == pytest.approx(said.dimensions["valence"], abs=1e-3)
            target = Vocabulary.from_utterances(fold.train, FOUR_CLASSES).make_targets(
                "emotion", [u], soft=True
            )[0]
            assert target.tolist() == pytest.approx([said.probabilities[c] for c in CLASSES], abs=1e-4)


def test_what_a_student_learns_depends_on_its_teacher(teacher, small_demo, tmp_path):
    weights = []
    for config in (None, {"source": str(teacher), "weight": 0.3}, {"source": str(teacher), "weight": 0.3}):
        experiment = prepare(recipe_on(small_demo, SMALL, teacher=config))
        trainer = train_fold(
            experiment,
            0,
            tmp_path / f"{len(weights)}",
            prepare_data(experiment, RunProgress(0, True)),
            RunProgress(0, True),
        )
        weights.append(np.concatenate([p.detach().flatten().numpy() for p in trainer.model.parameters()]))
    alone, first, again = weights
    assert np.array_equal(first, again) and not np.allclose(alone, first)


def test_a_teacher_that_has_heard_the_test_side_is_refused(teacher, small_demo):
    for folds, split in ((2, "leave_one_session_out"), (3, "grouped_k_fold")):
        with pytest.raises(SertoneError) as error:
            prepare(recipe_on(small_demo, SMALL, teacher=str(teacher), folds=folds, split=split))
        assert error.value.code == "teacher_mismatch"
    with pytest.raises(SertoneError, match="was trained on S") as error:
        prepare(recipe_on(small_demo, SMALL, teacher=str(teacher / "fold_1")))
    assert error.value.code == "teacher_trained_on_test"
    with pytest.raises(SertoneError) as error:
        prepare(recipe_on(small_demo, SMALL, teacher="nowhere"))
    assert error.value.code == "not_a_checkpoint"


def test_teachers_of_something_else_are_refused(teacher, small_demo):
    with pytest.raises(SertoneError, match="something of what is to be learnt: dominance") as error:
        prepare(recipe_on(small_demo, RATED | {"tasks": {"arousal": 0, "valence": 0}}, teacher=str(teacher)))
    assert error.value.code == "teacher_mismatch"
    recipe = recipe_on(small_demo, SMALL, teacher=str(teacher))
    data = recipe.data.model_copy(update={"classes": {"happy": "up", "sad": "down"}})
    with pytest.raises(SertoneError, match="up, down"):
        prepare(recipe.model_copy(update={"data": data}))


def test_another_recipe_for_the_same_folds_has_its_own_teacher(teacher, small_demo):
    """As a study makes its cells."""
    alone = prepare(recipe_on(small_demo, SMALL))
    both = alone.with_recipe(recipe_on(small_demo, SMALL, teacher=str(teacher)))
    assert "teacher" not in alone.card and len(both.card["teacher"]["weights"]) == 2
    assert ("Teacher", protocol._describe_teacher(both.card["teacher"])) in protocol.build_rows(both.card)
    assert both.card["teacher"]["validation_speakers"] == []  # there are none
    assert both.with_recipe(alone.recipe).card == alone.card
    assert both.with_recipe(both.recipe).card["teacher"] == both.card["teacher"]


def test_validation_speakers_whom_the_teacher_has_heard_are_counted(teacher, small_demo):
    """The teacher has trained on them; they only choose the student's epoch."""
    recipe = recipe_on(small_demo, SMALL, teacher=str(teacher))
    chosen = recipe.model_copy(
        update={"protocol": recipe.protocol.model_copy(update={"validation": "speaker"})}
    )
    card = prepare(chosen).card
    assert card["teacher"]["validation_speakers"] == ["1 of 1", "1 of 1"]
    assert (
        "also trained on 1 of 1, 1 of 1 of the validation speakers"
        in dict(protocol.build_rows(card))["Teacher"]
    )


def test_all_folds_together_teach_a_model_of_everything(teacher, small_demo):
    experiment = prepare(
        recipe_on(small_demo, RATED, teacher={"source": str(teacher), "weight": 1}), everything=True
    )
    fold = apply_teacher(experiment, 0, prepare_data(experiment, RunProgress(0, True)).recordings)
    said = load(teacher).predict(fold.train[0].path)
    assert fold.train[0].labels["arousal"] == pytest.approx(said.dimensions["arousal"], abs=1e-3)
    assert fold.train[0].labels["dominance"] == experiment.folds[0].train[0].labels["dominance"]
    card = json.loads((teacher / "protocol.json").read_text())
    assert len(card["folds"]) == 2


def test_licences_and_past_of_the_teacher_come_with_what_it_taught(teacher, small_demo, tmp_path):
    about = json.loads((teacher / "fold_0/checkpoint/checkpoint.json").read_text())
    experiment = prepare(recipe_on(small_demo, SMALL, teacher=str(teacher)))
    train_fold(experiment, 0, tmp_path, prepare_data(experiment, RunProgress(0, True)), RunProgress(0, True))
    student = json.loads((tmp_path / "checkpoint/checkpoint.json").read_text())
    (own,) = about["licences"]
    assert student["licences"] == [own, own | {"what": "corpus of the teacher"}]
    assert student["card"]["heard"] == about["card"]["heard"]  # both have trained on the same side
    assert "corpus of the teacher" in (tmp_path / "checkpoint/card.md").read_text()


def test_what_a_teacher_was_made_of_stays_known_for_generations():
    """A student becomes the encoder, or the teacher, of others."""
    free = {"what": "corpus", "of": "free", "commercial": True}
    bound = [{"what": what, "of": "bound", "commercial": False} for what in ("corpus", "encoder")]
    student = [free, *licences.mark_as_teacher(bound)]
    model = {"encoder": {"name": "saved", "source": "student"}, "text": None}
    own = {"title": "new", "licence": {"commercial": True}}
    entries = licences.build_ledger(own, model, student)
    assert {(e["what"], e["of"]) for e in entries if not e["commercial"]} == {
        ("corpus of the teacher", "bound"),
        ("encoder of the teacher", "bound"),
    }
    assert {e["what"] for e in licences.mark_as_teacher(student)} == {
        "corpus of the teacher",
        "encoder of the teacher",
    }


def test_what_teachers_have_heard_and_listened_to_is_handed_on():
    known = {"recordings": ["a"], "speakers": ["x"]}
    teacher = {
        "heard": {"recordings": ["b"], "speakers": ["y"]},
        "listened": {"recordings": ["c"], "speakers": ["z"]},
    }
    past = contamination.trace_lineage(known, None, [{"card": teacher}, {"card": {"heard": known}}])
    assert past["heard"] == {"recordings": ["a", "b"], "speakers": ["x", "y"]}
    assert past["listened"] == teacher["listened"]
    assert contamination.trace_lineage(known, None) == {"heard": known}
