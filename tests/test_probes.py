"""Probes: the solvers against scikit-learn's, who trains and who tests, noise, and what is said of layers."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge

from sertone.analysis.layers import layer_scores, linear_probes, solvers
from sertone.analysis.layers.targets import SPEAKER_FOLDS, Target, _deal_speakers, _divide_by_speaker
from sertone.schema import Utterance


def problem(count=160, width=12, classes=3, seed=0):
    """Correlated features of unlike size, ratings and classes that follow from them."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, width)) @ random.normal(size=(width, width)) + random.normal(
        size=width
    )
    signal = features @ random.normal(size=(width, classes)) / width
    ratings = signal[:, :2] + random.normal(size=(count, 2)) + [3.0, -1.0]
    return features, ratings, (signal + random.gumbel(size=signal.shape)).argmax(1)


def target(name="arousal", *, labels, speakers, folds=4, classes=()):
    """Speakers in turn to the folds."""
    names = np.unique(speakers, return_inverse=True)[1]
    tested = names % folds
    parts = np.array([_divide_by_speaker(tested != fold, speakers) for fold in range(folds)])
    rows = np.arange(len(labels))
    return Target(name, rows, np.asarray(labels), list(classes), speakers, tested, parts)


def speech(count, speakers, seed=0):
    return np.array([f"s{number}" for number in np.random.default_rng(seed).integers(speakers, size=count)])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.sampled_from([3, 12, 40]), st.sampled_from([0.001, 0.1, 10.0]))
def test_ridge_is_that_of_scikit_learn(seed, width, penalty):
    features, ratings, _ = problem(count=30, width=width, seed=seed)
    found = solvers.solve_ridge(solvers.compute_gram_matrix(features, ratings), 2, [penalty])
    expected = Ridge(alpha=penalty * len(features)).fit(features, ratings)
    np.testing.assert_allclose(found[1:, 0].T, expected.coef_, atol=1e-8)
    np.testing.assert_allclose(found[0, 0], expected.intercept_, atol=1e-8)


def test_products_of_sets_add_up():
    features, ratings, _ = problem()
    whole = solvers.compute_gram_matrix(features, ratings)
    np.testing.assert_allclose(
        whole - solvers.compute_gram_matrix(features[:50], ratings[:50]),
        solvers.compute_gram_matrix(features[50:], ratings[50:]),
        atol=1e-9,
    )


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 99), st.sampled_from([(200, 5, 2), (120, 30, 4), (40, 90, 3)]), st.booleans())
def test_logistic_regression_is_that_of_scikit_learn(seed, shape, inner):
    """Also on some of the rows whose bound it uses, and with fewer rows than features."""
    count, width, classes = shape
    features, _, labels = problem(count, width, classes, seed)
    labels[:classes] = np.arange(classes)
    features = (features - features.mean(0)) / features.std(0)
    rows = np.arange(count) < (0.7 * count if inner else count)
    turned, squares = solvers.rotate_features(features, np.ones(count, bool))
    penalties, hot = [0.01, 1.0], np.eye(classes)[labels]
    found = solvers.solve_logistic(turned[rows], hot[rows], squares, penalties, tolerance=1e-7)
    for number, penalty in enumerate(penalties):
        twice = 2 if classes == 2 else 1  # there two classes have one set of weights, the difference of ours
        own = LogisticRegression(C=twice / (penalty * rows.sum()), tol=1e-10, max_iter=10_000)
        expected = own.fit(features[rows], labels[rows]).predict_proba(features)
        logits = turned @ found[:, number]
        shares = np.exp(logits - logits.max(1, keepdims=True))
        np.testing.assert_allclose(shares / shares.sum(1, keepdims=True), expected, atol=1e-4)


def test_the_answers_of_a_fold_are_those_of_scikit_learn():
    """Standardised by the training side, at the penalty that was chosen; classes balanced by their shares."""
    features, ratings, labels = problem(count=300)
    speakers = speech(300, 8)
    rated = target(labels=ratings[:, 0], speakers=speakers)
    classed = target("emotion", labels=labels, speakers=speakers, classes="abc")
    found = linear_probes.probe(features, [rated, classed])
    for fold in range(4):
        train, test = rated.test_folds != fold, rated.test_folds == fold
        scaled = (features - features[train].mean(0)) / features[train].std(0)
        penalty = found["arousal"].penalties[fold]
        expected = (
            Ridge(alpha=penalty * train.sum()).fit(scaled[train], ratings[train, 0]).predict(scaled[test])
        )
        np.testing.assert_allclose(found["arousal"].predictions[test], expected, atol=1e-8)
        own = LogisticRegression(
            C=1 / (found["emotion"].penalties[fold] * train.sum()), tol=1e-9, max_iter=9999
        )
        own.fit(scaled[train], labels[train])
        balanced = own.predict_log_proba(scaled[test]) - np.log(np.bincount(labels[train]) / train.sum())
        assert (balanced.argmax(1) == found["emotion"].predictions[test]).mean() > 0.99


def test_the_penalty_is_the_best_of_the_inner_parts():
    """Second formula: a loop over parts and penalties with scikit-learn's ridge."""
    features, ratings, _ = problem(count=240, width=30)
    speakers = speech(240, 9)
    rated = target(labels=ratings[:, 0], speakers=speakers, folds=3)
    found = linear_probes.probe(features, [rated])["arousal"]
    for fold, parts in enumerate(rated.parts):
        train = parts >= 0
        scaled = (features - features[train].mean(0)) / features[train].std(0)
        scores = []
        for penalty in linear_probes.PENALTIES:
            guesses = np.zeros(240)
            for part in range(3):
                learn = train & (parts != part)
                own = Ridge(alpha=penalty * learn.sum()).fit(scaled[learn], ratings[learn, 0])
                guesses[parts == part] = own.predict(scaled[parts == part])
            t, p = ratings[train, 0], guesses[train]
            scores.append(2 * np.cov(t, p, ddof=0)[0, 1] / (t.var() + p.var() + (t.mean() - p.mean()) ** 2))
        assert found.penalties[fold] == linear_probes.PENALTIES[int(np.argmax(scores))]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=12, max_size=60), st.integers(2, 4))
def test_no_speaker_is_in_two_parts_or_on_both_sides(numbers, folds):
    speakers = np.array([f"s{number}" for number in [0, 1, 2, 3, 4, 5, 6, 7, *numbers]])
    made = target(labels=np.zeros(len(speakers)), speakers=speakers, folds=folds)
    for fold, parts in enumerate(made.parts):
        assert ((parts >= 0) == (made.test_folds != fold)).all()
        for speaker in set(speakers):
            assert len(set(parts[speakers == speaker])) == 1
        assert set(parts[parts >= 0]) == set(range(min(3, len(set(speakers[made.test_folds != fold])))))


@given(st.permutations(range(40)))
@settings(deadline=None, max_examples=20)
def test_a_speakers_utterances_are_dealt_evenly_whatever_their_order(order):
    spoken = [Utterance(id=f"u{n}", path=Path("x"), speaker=f"s{n % 2}") for n in range(40)]
    tested, parts = _deal_speakers(spoken)
    for speaker in range(2):
        own = tested[speaker::2]
        assert np.bincount(own, minlength=SPEAKER_FOLDS).tolist() == [4] * SPEAKER_FOLDS
    shuffled, again = _deal_speakers([spoken[n] for n in order])
    assert (shuffled == tested[order]).all() and (again == parts[:, order]).all()


def test_permuted_utterances_give_the_same_scores():
    features, ratings, labels = problem(count=200)
    speakers, order = speech(200, 8), np.random.default_rng(1).permutation(200)
    first, second = (
        [
            target(labels=ratings[o, 0], speakers=speakers[o]),
            target("emotion", labels=labels[o], speakers=speakers[o], classes="abc"),
        ]
        for o in (np.arange(200), order)
    )
    found, again = linear_probes.probe(features, first), linear_probes.probe(features[order], second)
    for own, other in zip(first, second, strict=True):
        assert found[own.name].penalties == again[own.name].penalties
        np.testing.assert_allclose(
            linear_probes.sum_by_speaker(own, found[own.name]),
            linear_probes.sum_by_speaker(other, again[own.name]),
            atol=1e-6,
        )


def test_targets_asked_together_are_answered_as_alone():
    features, ratings, labels = problem(count=200)
    speakers = speech(200, 8)
    asked = [
        target(labels=ratings[:, 0], speakers=speakers),
        target("valence", labels=ratings[:, 1], speakers=speakers),
        target("emotion", labels=labels, speakers=speakers, classes="abc"),
    ]
    together = linear_probes.probe(features, asked)
    for own in asked:
        alone = linear_probes.probe(features, [own])[own.name]
        np.testing.assert_allclose(alone.predictions, together[own.name].predictions, atol=1e-7)


def scored(own, *layers):
    found = [linear_probes.probe(features, [own])[own.name] for features in layers]
    return layer_scores.score_target(
        own, [{"values": linear_probes.sum_by_speaker(own, f), "penalties": f.penalties} for f in found]
    )


def test_noise_scores_chance_and_its_intervals_hold_it():
    """Of twenty draws of noise 95 % intervals may miss a few."""
    held = {"ccc": 0, "ua": 0}
    for seed in range(20):
        random = np.random.default_rng(seed)
        features, speakers = random.normal(size=(200, 20)).astype(np.float32), speech(200, 10, seed)
        rated = target(labels=random.normal(size=200), speakers=speakers, folds=5)
        classed = target(
            "emotion", labels=random.integers(3, size=200), speakers=speakers, folds=5, classes="abc"
        )
        for own in (rated, classed):
            layer = scored(own, features)["layers"][0]
            low, high = layer["intervals"][own.score]
            held[own.score] += low <= own.chance <= high
            assert abs(layer["scores"][own.score] - own.chance) < 0.2
    assert min(held.values()) >= 16


def test_knowing_the_speaker_does_not_help():
    """Features that name the speaker, labels that differ by speaker alone: only the same speaker could be answered."""
    random = np.random.default_rng(0)
    numbers = np.repeat(np.arange(12), 30)
    speakers = np.array([f"s{n:02}" for n in numbers])
    features = np.eye(12, dtype=np.float32)[numbers] + random.normal(size=(360, 12)).astype(np.float32) * 0.05
    ratings = random.permutation(np.arange(12.0))[numbers]
    rated = target(labels=ratings, speakers=speakers, folds=6)
    classed = target("emotion", labels=(ratings > 5).astype(int), speakers=speakers, folds=6, classes="ab")
    assert scored(rated, features)["layers"][0]["scores"]["ccc"] < 0.1
    assert scored(classed, features)["layers"][0]["scores"]["ua"] < 0.6
    tested, parts = _deal_speakers(
        [Utterance(id=str(n), path=Path("x"), speaker=s) for n, s in enumerate(speakers)]
    )
    named = Target("speaker", np.arange(360), numbers, sorted(set(speakers)), speakers, tested, parts)
    assert scored(named, features)["layers"][0]["scores"]["wa"] > 0.95


def test_the_score_of_speakers_is_the_share_of_right_answers():
    random = np.random.default_rng(0)
    numbers = random.integers(4, size=80)
    speakers = np.array([f"s{n}" for n in numbers])
    tested, parts = _deal_speakers(
        [Utterance(id=str(n), path=Path("x"), speaker=s) for n, s in enumerate(speakers)]
    )
    own = Target("speaker", np.arange(80), numbers, list("abcd"), speakers, tested, parts)
    answers = np.where(random.random(80) < 0.7, numbers, (numbers + 1) % 4)
    values = linear_probes.sum_by_speaker(own, linear_probes.ProbeOutput(answers, [1.0]))
    assert linear_probes.build_statistics(own, values[None]).compute_scores()["wa"] == pytest.approx(
        (answers == numbers).mean()
    )


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.floats(0.1, 5), st.floats(-3, 3))
def test_a_centre_is_a_layer_and_stays_when_scores_are_shifted_or_scaled(scores, scale, shift):
    values = np.round(scores, 3)
    found = layer_scores.compute_centre(values)
    assert -1e-9 <= found <= len(values) - 1 + 1e-9
    assert (
        layer_scores.compute_centre(values * scale + shift) == pytest.approx(found, abs=1e-3 * len(values))
        or np.ptp(values) < 1e-9
    )


@pytest.mark.parametrize(
    ("scores", "expected"), [([0, 0, 1, 0], 2), ([0, 1, 1, 0], 1.5), ([0.3] * 5, 2), ([1, 0.5, 0], 1 / 3)]
)
def test_centres_that_are_known(scores, expected):
    assert layer_scores.compute_centre(np.array(scores, float)) == pytest.approx(expected)


def peaked(name, at, random, shape=(10, 100)):
    """Answers of 13 layers, best at one of them, by speakers of unlike slope and bias: target, sums, true centre.

    The noise of neighbouring layers is alike. The concordance of very many speakers follows from the variances.
    """
    own, shared, layer = (random.normal(size=shape) for _ in range(3))
    truth = own + 0.3 * random.normal(size=(shape[0], 1))
    slope, bias = 1 + 0.2 * random.normal(size=(shape[0], 1)), 0.2 * random.normal(size=(shape[0], 1))
    asked = target(
        name, labels=truth.ravel(), speakers=np.repeat([f"s{n}" for n in range(shape[0])], shape[1])
    )
    found, known = [], []
    for r in 0.5 + 0.2 * np.exp(-(((np.arange(13) - at) / 2.0) ** 2)):
        layer = 0.8 * layer + 0.6 * random.normal(size=shape)
        noise = np.sqrt(1 - r * r) * (np.sqrt(0.7) * shared + np.sqrt(0.3) * layer)
        answers = r * (slope * truth + noise + bias)
        found.append(
            {
                "values": linear_probes.sum_by_speaker(asked, linear_probes.ProbeOutput(answers.ravel(), [])),
                "penalties": [],
            }
        )
        known.append(2 * r * 1.09 / (1.09 + r * r * (1.04 * 1.09 + 1 - r * r + 0.04)))
    return asked, found, layer_scores.compute_centre(np.array(known))


@pytest.mark.slow
def test_intervals_of_centres_and_their_distances_hold_the_truth():
    """Of ten speakers in about 87 and 85 % of the cases; plain quantiles of the draws in 63 and 8 %."""
    random, held = np.random.default_rng(0), []
    for _ in range(60):
        first, found, early = peaked("arousal", 4, random)
        second, others, late = peaked("valence", 9, random)
        low, high = layer_scores.score_target(first, found)["centre"]["interval"]
        (pair,) = layer_scores.compare_centres([first, second], {"arousal": found, "valence": others})
        held.append((low <= early <= high, pair["low"] <= late - early <= pair["high"]))
        assert (pair["p"] < 0.05) == (pair["low"] * pair["high"] > 0)
    assert (np.mean(held, 0) > 0.78).all(), np.mean(held, 0)


def test_distances_of_centres_are_signed_paired_and_of_common_speakers():
    random = np.random.default_rng(0)
    speakers = speech(300, 10)
    ratings = random.normal(size=(300, 2))
    layers = [random.normal(size=(300, 8)) for _ in range(6)]
    layers[1][:, 0] += 2 * ratings[:, 0]
    layers[4][:, 3] += 2 * ratings[:, 1]
    early = target("arousal", labels=ratings[:, 0], speakers=speakers, folds=5)
    late = target("valence", labels=ratings[:, 1], speakers=speakers, folds=5)
    found = {
        own.name: [
            {"values": linear_probes.sum_by_speaker(own, p), "penalties": p.penalties}
            for p in (linear_probes.probe(x, [own])[own.name] for x in layers)
        ]
        for own in (early, late)
    }
    (pair,) = layer_scores.compare_centres([early, late], found)
    assert (
        pair["first"] == "arousal" and 2 < pair["low"] < pair["value"] < pair["high"] < 4 and pair["p"] < 0.01
    )
    (turned,) = layer_scores.compare_centres([late, early], found)
    assert turned["value"] == pytest.approx(-pair["value"]) and turned["low"] == pytest.approx(
        -pair["high"], abs=0.05
    )
    centres = [layer_scores.score_target(own, found[own.name])["centre"]["value"] for own in (early, late)]
    assert pair["value"] == pytest.approx(centres[1] - centres[0])
    best = layer_scores.score_target(early, found["arousal"])["best"]
    assert best["layer"] == 1 and best["range"] == [1, 1] and sum(best["shares"]) == pytest.approx(1)
