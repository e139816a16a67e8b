"""How right a model is on recordings as they are.

Axis letters: N utterances, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sertone.analysis.audit.answers import NO_LABEL, Answers
from sertone.analysis.audit.robustness import measure_accuracy
from sertone.analysis.audit.verdicts import Test, require_at_least, require_at_most
from sertone.labels import Scale, rescale
from sertone.schema import Utterance
from sertone.scoring import calibration, metrics

MAX_ECE = 0.1
"""Largest expected calibration error that passes."""
MIN_UTTERANCES = 10
"""Speakers and classes with fewer utterances have no score of their own."""
MIN_CCC = 0.3
"""Lowest concordance of a rating that passes."""


def measure_correctness(
    utterances: Sequence[Utterance],
    targets: Sequence[str],
    answers: Answers,
    classes: Sequence[str],
    scales: Mapping[str, tuple[Scale | None, Scale]],
) -> tuple[dict[str, Any], list[Test]]:
    """Score the answers to unchanged recordings.

    Args:
        utterances: utterances, (N,).
        targets: class of each; empty without one.
        answers: the model's answers.
        classes: names of the classes.
        scales: dimension -> its scale for the model, None if unknown, and for the corpus.

    Returns:
        scores, and tests of them.
    """
    scores: dict[str, Any] = {}
    tests: list[Test] = []
    labelled = [n for n, target in enumerate(targets) if target]
    if classes and labelled:
        scores["emotion"], tests = _score_emotions(utterances, targets, answers, classes, labelled)
    for name, pair in scales.items():
        scores[name] = _score_ratings(utterances, answers.get_column(name), name, *pair)
        ccc = scores[name].get("ccc", float("nan"))
        tests.append(require_at_least("correctness", f"{name}, CCC", ccc, MIN_CCC))
    return scores, tests


def _score_emotions(
    utterances: Sequence[Utterance],
    targets: Sequence[str],
    answers: Answers,
    classes: Sequence[str],
    labelled: Sequence[int],
) -> tuple[dict[str, Any], list[Test]]:
    wanted = [targets[n] for n in labelled]
    given = [answers.labels[n] for n in labelled]
    speakers = [utterances[n].speaker for n in labelled]
    ua = measure_accuracy(wanted, given, speakers, classes)
    recall = {name: _share(given, wanted, name) for name in classes}
    precision = {name: _share(wanted, given, name) for name in classes}
    known = [utterances[n].speaker for n in labelled if utterances[n].known_speaker]
    frequent = [name for name in dict.fromkeys(known) if known.count(name) >= MIN_UTTERANCES]
    by_speaker = {name: _mean_recall(wanted, given, speakers, name) for name in frequent}
    lowest_recall = [recall[name] for name in classes if wanted.count(name) >= MIN_UTTERANCES]
    few = f"no {{}} with {MIN_UTTERANCES} utterances"
    ece = _compute_ece(wanted, answers, classes, labelled)
    chance = 1 / len(classes)
    unanswered = given.count(NO_LABEL) / len(given)
    tests = [
        require_at_least(
            "correctness",
            "UA, lower end of its interval",
            ua.low,
            chance,
            "chance level",
            "fewer than two speakers",
        ),
        require_at_most("correctness", "expected calibration error", ece, MAX_ECE, missing="no answers"),
        require_at_most("correctness", "speech without a label", unanswered, 0.02),
        require_at_least(
            "correctness",
            "lowest recall of a class",
            min(lowest_recall, default=float("nan")),
            chance,
            "chance level",
            few.format("class"),
        ),
        require_at_least(
            "correctness",
            "lowest UA of a speaker",
            min(by_speaker.values(), default=float("nan")),
            chance,
            "chance level",
            few.format("speaker"),
        ),
    ]
    ranking = sorted(by_speaker.items(), key=lambda item: item[1])
    return {
        "ua": vars(ua),
        "ece": ece,
        "unanswered": unanswered,
        "recall": recall,
        "precision": precision,
        "utterances": len(labelled),
        "by_speaker": dict(ranking),
    }, tests


def _share(values: Sequence[str], of: Sequence[str], name: str) -> float:
    """Return the share of a name among the values where `of` has this name; NaN without any."""
    places = [value == name for value, other in zip(values, of, strict=True) if other == name]
    return float(np.mean(places)) if places else float("nan")


def _mean_recall(
    targets: Sequence[str], labels: Sequence[str], speakers: Sequence[str], speaker: str
) -> float:
    """Return the mean recall of the classes that a speaker has."""
    own = [
        pair
        for pair, name in zip(zip(targets, labels, strict=True), speakers, strict=True)
        if name == speaker
    ]
    classes = {target for target, _ in own}
    return float(np.mean([_share([b for _, b in own], [a for a, _ in own], name) for name in classes]))


def _compute_ece(
    targets: Sequence[str], answers: Answers, classes: Sequence[str], labelled: Sequence[int]
) -> float:
    probabilities = np.stack([answers.get_column(name) for name in classes], 1)[list(labelled)]
    known = np.isfinite(probabilities).all(1)
    index = np.array([classes.index(target) for target in targets])
    if not known.any():
        return float("nan")
    return calibration.compute_calibration_scores(probabilities[known], index[known])["ece"]


def _score_ratings(
    utterances: Sequence[Utterance], values: np.ndarray, name: str, own: Scale | None, scale: Scale
) -> dict[str, float]:
    """Return CCC, Pearson and RMSE of one dimension on the scale of the corpus; {} without any pair."""
    pairs = [
        (float(u.labels[name]), rescale(value, own or scale, scale))
        for u, value in zip(utterances, values.tolist(), strict=True)
        if name in u.labels and np.isfinite(value)
    ]
    return metrics.SCORES["ratings"]([a for a, _ in pairs], [b for _, b in pairs]) if pairs else {}
