"""Calibration against independent formulas, and from the validation speakers to the report."""

import csv
import itertools
import json
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY_MODEL
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss

import sertone
from sertone import cli, load
from sertone.errors import SertoneError
from sertone.recipe import Recipe
from sertone.scoring import calibration as cal
from sertone.scoring.calibration import Calibration
from sertone.training.experiment.experiment import prepare
from sertone.training.runs.crossval import cross_validate


def drawn(n, classes=4, seed=0, sharpness=1.0):
    """Return logits; the targets are drawn from their softmax at `sharpness`."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1.5, (n, classes))
    truth = cal.softmax(logits)
    targets = np.array([draw.choice(classes, p=row) for row in truth])
    return logits * sharpness, targets


cases = st.tuples(
    st.integers(1, 60), st.integers(2, 6), st.integers(0, 999), st.sampled_from([0.2, 1.0, 3.0, 30.0])
).map(lambda case: drawn(*case))


@settings(deadline=None)
@given(cases, st.floats(0.05, 20))
def test_a_temperature_never_changes_the_predicted_class(case, temperature):
    logits, _ = case
    p, q = cal.softmax(logits), cal.softmax(logits, temperature)
    assert (q >= 0).all() and np.allclose(q.sum(1), 1)
    # Confidences that round to the same number may come out in any order.
    assert np.take_along_axis(q, p.argmax(1)[:, None], 1)[:, 0] == pytest.approx(q.max(1))
    expected = torch.from_numpy(logits / temperature).softmax(-1).numpy()
    np.testing.assert_allclose(q, expected, rtol=1e-9, atol=1e-300)
    assert cal.softmax(logits[0], temperature) == pytest.approx(q[0])


@settings(deadline=None)
@given(cases)
def test_likelihood_and_brier_score(case):
    logits, targets = case
    p, classes = cal.softmax(logits), logits.shape[1]
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets))
    assert cal.nll(p, targets) == pytest.approx(loss.item(), rel=1e-9)
    if p.min() > 1e-12:  # below it scikit-learn clips
        assert cal.nll(p, targets) == pytest.approx(log_loss(targets, p, labels=range(classes)), rel=1e-6)
    by_class = [brier_score_loss(targets == k, p[:, k], pos_label=True) for k in range(classes)]
    assert cal.brier(p, targets) == pytest.approx(sum(by_class))


def ece_by_a_loop(confidence, correct, bins=15):
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high or (number == 0 and c == 0)]
        if inside:
            accuracy = sum(bool(correct[i]) for i in inside) / len(inside)
            mean = sum(float(confidence[i]) for i in inside) / len(inside)
            total += len(inside) / len(confidence) * abs(accuracy - mean)
    return total


@settings(deadline=None)
@given(cases)
def test_calibration_errors_against_a_loop(case):
    logits, targets = case
    p = cal.softmax(logits)
    confidence, correct = p.max(1), p.argmax(1) == targets
    assert cal.ece(confidence, correct) == pytest.approx(ece_by_a_loop(confidence, correct))
    by_class = [ece_by_a_loop(p[:, k], targets == k) for k in range(p.shape[1])]
    assert cal.classwise_ece(p, targets) == pytest.approx(sum(by_class) / len(by_class))
    bins = cal.compute_reliability(confidence, correct)
    assert sum(b["utterances"] for b in bins) == len(targets)
    assert all(b["low"] <= b["confidence"] <= b["high"] + 1e-12 for b in bins)


def test_the_error_of_a_calibrated_model_tends_to_zero_and_that_of_an_overconfident_one_does_not():
    errors = []
    for n in (300, 3000, 30000):
        logits, targets = drawn(n, seed=n)
        p = cal.softmax(logits)
        errors.append(cal.ece(p.max(1), p.argmax(1) == targets))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.012
    p = cal.softmax(3 * logits)
    assert cal.ece(p.max(1), p.argmax(1) == targets) > 0.15


@settings(deadline=None, max_examples=40)
@given(cases)
def test_the_fitted_temperature_is_the_best_one(case):
    logits, targets = case
    found = cal.fit_temperature(logits, targets)
    likelihood = cal.nll(cal.softmax(logits, found), targets)
    assert likelihood <= cal.nll(cal.softmax(logits), targets)
    tried = np.geomspace(*cal.TEMPERATURE_BOUNDS, 400)
    best = min(cal.nll(cal.softmax(logits, t), targets) for t in tried)
    assert likelihood <= best + 1e-5


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.5])
def test_the_fit_recovers_the_temperature_of_the_logits(sharpness):
    logits, targets = drawn(20000, sharpness=sharpness)
    assert cal.fit_temperature(logits, targets) == pytest.approx(sharpness, rel=0.04)


pairs_of_both = st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.7]), st.booleans()), min_size=1, max_size=5)


@settings(deadline=None)
@given(pairs_of_both)
def test_risk_and_coverage(pairs):
    """The expected value is a mean over all orders of equal confidences, which no threshold can separate."""
    confidence, correct = zip(*pairs, strict=True)
    found = cal.compute_selective_risks(confidence, correct)
    orders = [sorted(order, key=lambda pair: -pair[0]) for order in itertools.permutations(pairs)]
    wrong = np.array([[not right for _, right in order] for order in orders])
    expected = (wrong.cumsum(1) / np.arange(1, len(pairs) + 1)).mean(0)
    np.testing.assert_allclose(found, expected)
    assert cal.aurc(confidence, correct) == pytest.approx(expected.mean())


def test_the_area_is_smallest_where_errors_are_least_confident():
    confidence, correct = np.linspace(0.3, 0.9, 10), np.array([False] * 4 + [True] * 6)
    assert cal.aurc(confidence, correct) == pytest.approx(sum(k / (6 + k) for k in range(1, 5)) / 10)
    assert cal.aurc(confidence, ~correct) > cal.aurc(confidence, correct)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0.01, 0.99))
def test_the_threshold_reaches_the_coverage_and_no_higher_one_does(confidence, coverage):
    found, confidence = cal.find_threshold(confidence, coverage), np.array(confidence)
    assert (confidence >= found).mean() >= coverage - 1e-9
    assert (confidence > found).mean() < coverage


@settings(deadline=None)
@given(cases)
def test_the_description_of_a_fit(case):
    logits, targets = case
    speakers = ["b", "a"] * len(targets)
    result = cal.fit_calibration(logits, targets, 0.8, speakers[: len(targets)])
    assert result.fitted_on == {
        "speakers": ["a", "b"][-2:] if len(targets) > 1 else ["b"],
        "utterances": len(targets),
    }
    assert "also chose the epoch" in result.note and Calibration(**result.to_json()) == result
    sure = result.to_probabilities(logits).max(1) >= result.threshold
    assert sure.mean() >= 0.8 - 1e-9
    best = cal.fit_temperature(logits, targets)
    assert result.temperature == max(1, best) and (f"the {best:.2f} that fits" in result.note) == (best < 1)
    assert cal.fit_calibration(logits, targets).threshold is None


def test_a_temperature_at_its_bound_is_reported():
    logits, targets = np.eye(2)[[0, 1] * 5] * 4, np.array([1, 0] * 5)  # sure and always wrong
    result = cal.fit_calibration(logits, targets)
    assert (
        result.temperature == pytest.approx(cal.TEMPERATURE_BOUNDS[1], rel=1e-3)
        and "at its bound" in result.note
    )


# From the validation speakers to the page


def recipe_of(root, **changes):
    values = {
        "data": {"corpus": "demo", "root": str(root)},
        "protocol": {"split": "grouped_k_fold", "folds": 2, "validation": "speaker"},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 4], "batch_size": 8, "seed": 2, "coverage": 0.5},
    }
    return Recipe.model_validate({part: value | changes.get(part, {}) for part, value in values.items()})


@pytest.fixture(scope="module")
def run(small_demo, tmp_path_factory):
    return cross_validate(
        recipe_of(small_demo), tmp_path_factory.mktemp("calibrated") / "run", jobs=1, quiet=True
    )


def results_of(run):
    return json.loads((run / "results.json").read_text())


def calibration_of(fold):
    return json.loads((fold / "checkpoint" / "checkpoint.json").read_text())["calibration"]


def probabilities_of(rows, classes):
    return np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows])


def rows_of(run):
    with open(run / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_checkpoint_is_calibrated_on_the_validation_speaker_with_the_chosen_weights(run, small_demo):
    experiment = prepare(recipe_of(small_demo))
    for number, fold in enumerate(experiment.folds):
        own = calibration_of(run / f"fold_{number}")
        assert own["fitted_on"] == {"speakers": [fold.validation[0].speaker], "utterances": 4}
        assert own["coverage"] == 0.5 and own == results_of(run)["folds"][number]["confidence"]["calibration"]
        predictor = load(run / f"fold_{number}")
        predictor.model.calibrations = [Calibration()]
        plain = [predictor.predict(u.path).probabilities for u in fold.validation]
        logits = np.log([[row[name] for name in experiment.classes] for row in plain])
        targets = [experiment.classes.index(u.labels["emotion"]) for u in fold.validation]
        again = cal.fit_calibration(logits, targets, 0.5, own["fitted_on"]["speakers"])
        assert own["temperature"] == pytest.approx(again.temperature, rel=1e-2)
        assert own["threshold"] == pytest.approx(again.threshold, abs=1e-4)


def test_reported_confidence_follows_from_the_predictions(run):
    results, rows = results_of(run), rows_of(run)
    classes = results["classes"]
    for number, fold in enumerate(results["folds"]):
        own, p = fold["confidence"], probabilities_of([r for r in rows if r["fold"] == str(number)], classes)
        targets = [classes.index(r["target"]) for r in rows if r["fold"] == str(number)]
        after = cal.compute_calibration_scores(p, targets)
        assert own["after"] == pytest.approx(after | {"aurc": own["after"]["aurc"]}, abs=1e-4)
        assert own["after"]["aurc"] == pytest.approx(
            after["aurc"], abs=0.02
        )  # rounded, confidences can be equal
        plain = cal.softmax(np.log(p) * own["calibration"]["temperature"])
        before = cal.compute_calibration_scores(plain, targets)
        assert own["before"] == pytest.approx(before | {"aurc": own["before"]["aurc"]}, abs=1e-3)
        right = p.argmax(1) == targets
        for key, among in (("sure", np.ones_like(right)), ("sure_and_right", right)):
            fewest, most = (  # in predictions.csv confidences are rounded
                ((p.max(1) >= own["calibration"]["threshold"] + slack) & among).sum()
                for slack in (1e-5, -1e-5)
            )
            assert fewest <= own[key] <= most
    pooled, p = results["pooled"]["emotion"]["confidence"], probabilities_of(rows, classes)
    targets = [classes.index(row["target"]) for row in rows]
    assert {k: pooled[k] for k in cal.DEFINITIONS} == pytest.approx(
        cal.compute_calibration_scores(p, targets), abs=1e-5
    )
    assert sum(b["utterances"] for b in pooled["reliability"]) == len(rows)
    assert pooled["risk_coverage"][-1] == [1.0, pytest.approx(1 - results["pooled"]["emotion"]["wa"])]
    assert pooled["sure"] == sum(fold["confidence"]["sure"] for fold in results["folds"])


def test_predictions_state_their_confidence(run, small_demo, tmp_path, capsys):
    files = sorted((small_demo / "wav").iterdir())[:12]
    threshold = calibration_of(run / "fold_0")["threshold"]
    assert cli.app(["predict", str(run / "fold_0"), *map(str, files), "missing.wav"]) == 1
    *answers, missing = map(json.loads, capsys.readouterr().out.splitlines())
    for answer in answers:
        assert answer["confidence"] == max(answer["probabilities"].values())
        assert answer["unsure"] == (answer["confidence"] < threshold) and answer["label"]
    assert {answer["unsure"] for answer in answers} == {True, False}
    assert missing["confidence"] is None and missing["unsure"] is False


def test_a_run_averages_calibrated_probabilities_and_thresholds(run, small_demo, tmp_path):
    path = small_demo / "wav" / "S2M_angry_00.wav"
    plain = sertone.load(run / "fold_1").predict(path).probabilities
    run = shutil.copytree(run, tmp_path / "run")
    marker = run / "fold_1" / "checkpoint" / "checkpoint.json"
    about = json.loads(marker.read_text())
    about["calibration"]["temperature"] *= 3
    marker.write_text(json.dumps(about))
    cooled = cal.softmax(np.log(list(plain.values())), 3)
    found = sertone.load(run / "fold_1").predict(path).probabilities
    assert list(found.values()) == pytest.approx(cooled, abs=1e-6)
    whole, folds = sertone.load(run), [sertone.load(run / f"fold_{n}") for n in (0, 1)]
    each = [fold.predict(path).probabilities for fold in folds]
    for name, p in whole.predict(path).probabilities.items():
        assert p == pytest.approx((each[0][name] + each[1][name]) / 2)
    thresholds = [calibration_of(run / f"fold_{n}")["threshold"] for n in (0, 1)]
    assert whole.model.threshold == pytest.approx(sum(thresholds) / 2)


def test_the_report_shows_confidence(run):
    page, pooled = (run / "report.html").read_text(), results_of(run)["pooled"]["emotion"]["confidence"]
    assert f"Expected calibration error (ECE) {pooled['ece']:.1%}" in page
    assert "As they also chose the epoch" in page and "Requested coverage: 50% of the recordings" in page
    alternatives = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert any(words.startswith("Share of correct predictions by confidence: ") for words in alternatives)
    assert any("most confident first" in words for words in alternatives)
    assert page.count("mean confidence") == len(pooled["reliability"])


def test_without_validation_speakers_nothing_is_fitted_and_the_note_says_so(small_demo, tmp_path):
    recipe = recipe_of(
        small_demo, protocol={"validation": "none"}, train={"coverage": None, "epochs": [0, 1]}
    )
    run = cross_validate(recipe, tmp_path / "run", jobs=1, quiet=True)
    own = calibration_of(run / "fold_0")
    assert own == Calibration().to_json() and own["temperature"] == 1 and "not fitted" in own["note"]
    fold = results_of(run)["folds"][0]["confidence"]
    assert fold["before"] == fold["after"] and fold["sure"] == results_of(run)["folds"][0]["test"]
    page = (run / "report.html").read_text()
    assert "no temperature is known" in page and "Requested coverage" not in page
    assert sertone.load(run).model.threshold is None
    answer = sertone.load(run / "fold_0").predict(small_demo / "wav" / "S2M_angry_00.wav")
    assert answer.confidence == max(answer.probabilities.values()) and not answer.unsure


def test_a_coverage_without_validation_speakers_is_refused_before_training(small_demo):
    with pytest.raises(SertoneError, match="validation: speaker") as caught:
        prepare(recipe_of(small_demo, protocol={"validation": "none"}))
    assert caught.value.code == "no_validation"
    with pytest.raises(ValueError, match="coverage"):
        recipe_of(small_demo, train={"coverage": 1.0})
