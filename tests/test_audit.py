"""Audits: scores under perturbations, groups of speakers, sounds that are no speech, and their page."""

import csv
import json

import numpy as np
import pytest
from exported import COMPACT, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from test_evaluate_any_model import write_manifest
from toys import write_toy

import sertone
from sertone import audio, corpora
from sertone import recipe as recipes
from sertone.analysis.audit import fairness, sounds
from sertone.analysis.audit.answers import NO_LABEL, Answers
from sertone.analysis.audit.audit import AuditSettings
from sertone.analysis.audit.material import Condition
from sertone.analysis.audit.pitch import group_by_pitch, measure_pitch
from sertone.analysis.audit.robustness import find_tolerated_strength, measure_point, measure_share
from sertone.analysis.audit.subject import Subject
from sertone.analysis.audit.verdicts import require_at_least, require_at_most
from sertone.analysis.run_predictions import load_predictions
from sertone.cli import app
from sertone.errors import SertoneError
from sertone.export.bundles import export
from sertone.runtime.bundle import read_metadata

CLASSES = ["neutral", "happy", "angry", "sad"]
FEW = AuditSettings(utterances=16, perturbations=("white_noise", "recorded_noise"))


def make_answers(labels, sure=None):
    count = len(labels)
    values = np.full((count, 1), 0.5)
    return Answers([str(n) for n in range(count)], labels, np.array(sure or [True] * count), values, ["sad"])


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_answers_come_back_from_their_file(tmp_path_factory, data):
    texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1)
    ids = data.draw(st.lists(texts, min_size=1, max_size=5))
    rows = len(ids)
    labels = data.draw(st.lists(st.sampled_from([*CLASSES, NO_LABEL]), min_size=rows, max_size=rows))
    sure = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    numbers = st.floats(-9, 9) | st.just(float("nan"))
    values = np.array(data.draw(st.lists(st.tuples(numbers, numbers), min_size=rows, max_size=rows)))
    path = tmp_path_factory.mktemp("answers") / "a.csv"
    Answers(ids, labels, sure, values, ["label", "arousal"]).save(path)
    loaded = Answers.load(path)
    assert (loaded.ids, loaded.labels, loaded.names) == (ids, labels, ["label", "arousal"])
    assert loaded.sure.tolist() == sure.tolist()
    np.testing.assert_allclose(loaded.values, values, atol=1e-6)


def test_a_point_counts_as_by_hand():
    targets = ["sad", "sad", "angry", "angry", "happy", "neutral"]
    clean = make_answers(["sad", "sad", "angry", "happy", "happy", "neutral"])
    labels = ["sad", "angry", "angry", NO_LABEL, "sad", "neutral"]
    sure = [True, True, False, False, True, False]
    point = measure_point(5.0, targets, clean, make_answers(labels, sure), list("ababab"), CLASSES)
    assert point.ua.value == pytest.approx((1 / 2 + 1 / 2 + 0 + 1) / 4)
    assert point.unchanged.value == pytest.approx(3 / 6)
    assert point.sure.value == pytest.approx(3 / 6)
    assert point.wrong_sure.value == pytest.approx(2 / 3)
    assert point.unanswered.value == pytest.approx(1 / 6)


def test_ua_of_a_point_is_the_balanced_accuracy():
    rng = np.random.default_rng(0)
    targets, labels = (rng.choice(CLASSES, 200).tolist() for _ in range(2))
    speakers = rng.choice(list("abcdefgh"), 200).tolist()
    point = measure_point(0.0, targets, make_answers(labels), make_answers(labels), speakers, CLASSES)
    assert point.ua.value == pytest.approx(balanced_accuracy_score(targets, labels))
    assert point.ua.low < point.ua.value < point.ua.high
    assert point.unchanged.value == 1.0


def test_the_interval_of_a_share_holds_speakers_together():
    """Twenty speakers who are all right or all wrong: the interval is that of twenty coins, not of 400."""
    speakers = np.repeat(np.arange(20), 20)
    share = measure_share(speakers % 2 == 0, np.ones(400), speakers.tolist())
    assert share.value == 0.5
    assert share.high - share.low == pytest.approx(2 * 2.09 * 0.5 / np.sqrt(20), rel=0.15)
    assert np.isnan(measure_share(np.zeros(4), np.zeros(4), list("abcd")).value)
    assert np.isnan(measure_share(np.ones(4), np.ones(4), list("aaaa")).low), "one speaker has no variation"


def test_the_tolerated_strength_lies_between_two_measured_ones():
    def points(*values):
        labels = [["sad"] * round(100 * v) + ["angry"] * round(100 - 100 * v) for v in values]
        clean = make_answers(["sad"] * 100)
        made = [
            measure_point(10.0 * n, ["sad"] * 100, clean, make_answers(row), ["a"] * 100, CLASSES)
            for n, row in enumerate(labels, 1)
        ]
        return find_tolerated_strength(1.0, made)

    assert points(0.98, 0.90) == pytest.approx(10 + 10 * 3 / 8)
    assert points(0.9, 0.5) == 10.0, "below the mildest strength nothing was measured"
    assert points(0.98, 0.96) is None
    assert points(0.98, 0.99, 0.5) == pytest.approx(20 + 10 * 4 / 49), "it recovers between two strengths"


def biased(rng, count, harm, spread=0.0):
    """Return targets, labels, groups and speakers; the model misses the class sad of group b more often.

    Of twenty speakers ten are in each group, and their accuracy has a standard deviation of `spread`.
    """
    targets, speakers = rng.choice(CLASSES, count), rng.integers(20, size=count)
    groups = np.where(speakers < 10, "a", "b")
    own = (0.25 + spread * rng.standard_normal(20))[speakers]
    miss = rng.random(count) < np.where((groups == "b") & (targets == "sad"), own + harm, own)
    labels = np.where(miss, "neutral", targets)
    return targets.tolist(), labels.tolist(), groups.tolist(), [f"s{n}" for n in speakers]


def test_group_scores_are_those_of_a_loop():
    targets, labels, groups, speakers = biased(np.random.default_rng(0), 400, 0.3)
    labels[5] = NO_LABEL
    spreads = {s.score: s for s in fairness.measure_spreads(targets, labels, groups, speakers, CLASSES)}
    for group in "ab":
        rows = [(t, p) for t, p, g in zip(targets, labels, groups, strict=True) if g == group]
        recalls = {c: np.mean([p == c for t, p in rows if t == c]) for c in CLASSES}
        assert spreads["ua"].by_group[group] == pytest.approx(np.mean(list(recalls.values())))
        assert spreads["recall.sad"].by_group[group] == pytest.approx(recalls["sad"])
        precision = np.mean([t == "neutral" for t, p in rows if p == "neutral"])
        assert spreads["precision.neutral"].by_group[group] == pytest.approx(precision)
        share = np.mean([p == "sad" for _, p in rows]) - np.mean([t == "sad" for t, _ in rows])
        assert spreads["share.sad"].by_group[group] == pytest.approx(share)
    values = spreads["ua"].by_group
    assert spreads["ua"].value == pytest.approx(abs(values["a"] - values["b"]))


def test_chance_is_not_called_bias_and_bias_is_found():
    rng = np.random.default_rng(1)
    for spread in (0.0, 0.15):  # also where speakers differ
        alarms = sum(
            any(
                s.value > s.threshold
                for s in fairness.measure_spreads(*biased(rng, 300, 0.0, spread), CLASSES)
            )
            for _ in range(40)
        )
        assert alarms <= 6, "5 % of the models without bias; 7 or more of 40 have a probability of 0.3 %"
    found = {
        s.score for s in fairness.measure_spreads(*biased(rng, 600, 0.5), CLASSES) if s.value > s.threshold
    }
    assert {"recall.sad", "share.sad"} <= found
    assert "recall.angry" not in found


def test_small_groups_are_not_compared():
    targets, labels, groups, speakers = biased(np.random.default_rng(0), 60, 0.0)
    assert fairness.measure_spreads(targets, labels, [""] * 60, speakers, CLASSES) == []
    assert fairness.measure_spreads(targets, labels, ["a"] * 50 + ["b"] * 10, speakers, CLASSES) == []
    four = [
        f"s{n % 4}" if group == "b" else name
        for n, (group, name) in enumerate(zip(groups, speakers, strict=True))
    ]
    assert fairness.measure_spreads(targets, labels, groups, four, CLASSES) == []
    assert fairness.measure_spreads(targets, labels, groups, speakers, CLASSES)


def test_a_model_that_fails_ends_the_audit(toy, small_demo, tmp_path, monkeypatch):
    """A failure is no missing label: it would pass the tests of sounds."""
    from sertone.runtime.bundle import Bundle

    real = Bundle.outputs

    def fail(bundle, waveforms, text=None):
        if waveforms.shape[1] == 48000:  # the sounds; the probe, with which a bundle is checked, is shorter
            raise MemoryError("no memory")
        return real(bundle, waveforms, text)

    monkeypatch.setattr(Bundle, "outputs", fail)
    with pytest.raises(SertoneError) as caught:
        sertone.audit(toy, "demo", small_demo, tmp_path / "out", FEW)
    assert caught.value.code == "out_of_memory"
    monkeypatch.undo()
    result = sertone.audit(toy, "demo", small_demo, tmp_path / "out", FEW)
    assert any(test.verdict == "passed" for test in result.tests)


def test_a_model_of_ratings_alone(experiment, tmp_path):
    values = {"name": "oliveira2023", "encoder": COMPACT, "text": None, "hidden": 8}
    model = write_checkpoint(tmp_path / "model", experiment, **values)
    table = write_manifest(tmp_path / "own", (1.6, 1.7, 1.8, 1.9), arousal=[1, 2, 4, 3])
    result = sertone.audit(model, "manifest", table, tmp_path / "out", scales={"arousal": (1, 5)})
    verdicts = {(test.part, test.name): test.verdict for test in result.tests}
    assert verdicts["robustness", "robustness"] == "not testable"
    assert verdicts["correctness", "arousal, CCC"] in ("failed", "not testable"), "noise has no ratings"
    assert len(list((tmp_path / "out" / "answers").glob("*noise_*.csv"))) == 0


@pytest.mark.parametrize("pitch_hz", [90, 140, 220, 380])
def test_pitch_of_a_pulse_train_in_noise(pitch_hz):
    time = np.arange(32000) / 16000
    tones = sum(np.cos(2 * np.pi * pitch_hz * n * time) / n for n in range(1, 12))
    noise = np.random.default_rng(0).standard_normal(32000)
    assert measure_pitch(0.1 * tones + 0.01 * noise) == pytest.approx(pitch_hz, rel=0.02)
    assert np.isnan(measure_pitch(noise)) and np.isnan(measure_pitch(np.zeros(100)))


def test_speakers_are_grouped_by_their_pitch():
    pitches = [110, 115, 210, 205, np.nan, 160, np.nan]
    assert group_by_pitch(pitches, list("aabbbcd")) == [
        *["low pitch"] * 2, *["high pitch"] * 3, "middle pitch", "",
    ]  # fmt: skip


def test_sounds_have_their_level_and_their_seed():
    for make in {**sounds.NOT_SPEECH, **sounds.UNUSUAL_VOICES}.values():
        made = [sounds.make_sound(make, seed) for seed in (3, 3, 4)]
        assert made[0].shape == (48000,) and np.abs(made[0]).max() <= 1 and np.isfinite(made[0]).all()
        np.testing.assert_array_equal(made[0], made[1])
        if made[0].any():
            assert not np.array_equal(made[0], made[2])
            level = 20 * np.log10(np.sqrt(np.mean(made[2] ** 2)))
            assert sounds.LEVELS_DBFS[0] - 0.1 <= level <= sounds.LEVELS_DBFS[1] + 0.1


def test_verdicts_name_their_threshold():
    assert require_at_most("robustness", "x", 0.05, 0.05).verdict == "passed"
    assert require_at_most("robustness", "x", 0.06, 0.05).verdict == "failed"
    assert require_at_least("correctness", "x", 0.2, 0.25).verdict == "failed"
    assert require_at_least("correctness", "x", float("nan"), 0.25).verdict == "not testable"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("audited") / "toy")


@pytest.fixture(scope="module")
def audited(toy, small_demo, tmp_path_factory):
    out = tmp_path_factory.mktemp("audit") / "out"
    return out, sertone.audit(toy, "demo", small_demo, out, FEW)


def test_an_audit_has_its_parts_and_names_what_it_cannot_test(audited):
    out, result = audited
    assert result.about["utterances"] == 16
    content = json.loads((out / "audit.json").read_text())
    assert content == result.to_json() and "NaN" not in (out / "audit.json").read_text()
    verdicts = {(test.part, test.name): test for test in result.tests}
    assert verdicts["robustness", "recorded noise"].verdict == "not testable"
    assert verdicts["fairness", "accent"].verdict == "not testable"
    assert verdicts["not speech", "white noise"].verdict == "passed"
    assert verdicts["robustness", "white noise, loss of UA"].threshold == 0.05
    assert [p["strength"] for p in result.robustness["white_noise"]["points"]] == [30, 20, 15, 10, 5, 0]
    with open(out / "tests.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(result.tests)
    with open(out / "robustness.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 7
    page = (out / "report.html").read_text()
    assert "nothing is known of the model" in page.lower() and page.count("<svg") == 1
    assert "https://" not in page and "recorded noise" in page


def test_answers_are_those_of_predict(audited, toy, small_demo):
    out, _ = audited
    predictor = sertone.load(toy)
    answers = Answers.load(out / "answers" / Condition().file_name)
    for name, label in list(zip(answers.ids, answers.labels, strict=True))[:4]:
        assert (predictor.predict(small_demo / f"{name}.wav").label or NO_LABEL) == label


def test_a_stopped_audit_resumes_with_the_same_result(audited, toy, small_demo):
    out, _ = audited
    before = (out / "audit.json").read_bytes()
    kept = out / "answers" / Condition().file_name
    time = kept.stat().st_mtime_ns
    (out / "answers" / Condition("white_noise", 10.0).file_name).unlink()
    (out / "audit.json").unlink()
    said = []
    two = AuditSettings(utterances=16, perturbations=FEW.perturbations, jobs=2)
    sertone.audit(toy, "demo", small_demo, out, two, say=said.append)
    assert (out / "audit.json").read_bytes() == before
    assert said == ["white_noise 10  1 of 1"] and kept.stat().st_mtime_ns == time


def test_another_audit_is_not_overwritten(audited, toy, small_demo, tmp_path, capsys):
    out, _ = audited
    with pytest.raises(SertoneError, match="another audit") as caught:
        sertone.audit(toy, "demo", small_demo, out, AuditSettings(utterances=8))
    assert caught.value.code == "other_audit"
    with pytest.raises(SertoneError) as caught:
        sertone.audit(toy, out=tmp_path / "x", settings=AuditSettings(perturbations=("pink",)))
    assert caught.value.code == "unknown_perturbation"
    command = ["audit", str(toy), "--out", str(tmp_path / "alone"), "--jobs", "1"]
    assert app(command) == 0
    printed = capsys.readouterr().out
    assert "not speech: 10 passed" in printed and "robustness: 0 passed, 0 failed, 1 not testable" in printed
    assert app(["audit", str(toy), "demo", str(small_demo), *command[2:], "--utterances", "4", "--perturbations",
                "quiet", "--fresh"]) == 0  # fmt: skip
    assert "EmoDB" not in (tmp_path / "alone" / "report.html").read_text()


def test_a_run_is_tested_by_the_fold_that_has_not_seen_the_utterance(finished_run):
    recipe = recipes.load(finished_run / "recipe.yaml")
    subject = Subject.open(finished_run, recipe.data.corpus)
    utterances = subject.select_known(corpora.load(recipe.data.corpus, recipe.data.root))
    rows = {row["id"]: row for row in load_predictions(finished_run).rows}
    assert len(subject.predictors) == 3 and len(utterances) == len(rows)
    for utterance in utterances[::4]:
        model = subject.choose_predictor(utterance).model
        expected = float(rows[utterance.id][f"p_{model.classes[0]}"])
        outputs = model.outputs(audio.read(utterance.path).samples[None])
        assert outputs.probabilities[0, 0] == pytest.approx(expected, abs=2e-5)
    assert subject.list_warnings("demo", utterances) == []


def test_emotions_are_drawn_evenly(toy, small_demo, tmp_path):
    result = sertone.audit(
        toy, "demo", small_demo, tmp_path / "a", AuditSettings(utterances=8, perturbations=("quiet",))
    )
    answers = Answers.load(tmp_path / "a" / "answers" / Condition().file_name)
    counts = [sum(name in id_ for id_ in answers.ids) for name in CLASSES]
    assert counts == [2, 2, 2, 2] and result.about["speakers"] > 1


def test_audits_are_compared_on_the_same_utterances(audited, small_demo, tmp_path, capsys):
    first, result = audited
    other = write_toy(tmp_path / "other", threshold=0.99)
    second = tmp_path / "second"
    sertone.audit(other, "demo", small_demo, second, FEW)
    comparison = sertone.compare([first, second])
    unchanged, noise = comparison["perturbations"]
    assert noise["label"] == "white noise" and len(noise["points"]) == 6
    clean = [point["ua"]["value"] for point in result.robustness["unchanged"]["points"]]
    assert [unchanged["points"][0]["ua"][0]] == clean
    assert unchanged["points"][0]["differences"][0]["value"] == pytest.approx(0), "only the threshold differs"
    assert app(["compare", str(first), str(second)]) == 0
    printed = capsys.readouterr().out
    assert "white noise, UA; five points are lost at" in printed and "10 dB SNR" in printed
    sertone.audit(
        other, "demo", small_demo, second, AuditSettings(utterances=8, perturbations=("quiet",)), fresh=True
    )
    with pytest.raises(SertoneError) as caught:
        sertone.compare([first, second])
    assert caught.value.code == "unlike_audits"


def test_the_card_of_a_bundle_states_the_audit_of_its_model(finished_run, audited, small_demo, tmp_path):
    fold, out = finished_run / "fold_0", tmp_path / "audit"
    result = sertone.audit(
        fold, "demo", small_demo, out, AuditSettings(utterances=8, perturbations=("quiet",))
    )
    about = export(fold, tmp_path / "bundle", audit=out)
    card = (tmp_path / "bundle" / "README.md").read_text()
    passed = sum(test.part == "not speech" and test.verdict == "passed" for test in result.tests)
    assert f"| not speech | {passed} | {10 - passed} | 0 |" in card and "8 utterances of" in card
    assert read_metadata(tmp_path / "bundle")["audit"] == about["audit"]
    failed = [test.name for test in result.tests if test.verdict == "failed"]
    assert all(name in card for name in failed)
    for wrong, code in ((audited[0], "other_model"), (tmp_path, "not_an_audit")):
        with pytest.raises(SertoneError) as caught:
            export(fold, tmp_path / "again", audit=wrong)
        assert caught.value.code == code
