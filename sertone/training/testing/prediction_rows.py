"""Predictions beside the labels: rows of predictions.csv, and the scores of emotion that follow from them.

They are the predictions for the test set of a fold, or for another corpus. Where the corpus has annotators'
votes, the rows hold them too.

Axis letters: N utterances, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sertone.labels import class_shares
from sertone.schema import Utterance
from sertone.scoring import calibration, metrics, sufficient_statistics
from sertone.scoring.calibration import Calibration

PROBABILITY_PREFIX = "p_"
VOTE_PREFIX = "v_"


def score_predictions(
    utterances: Sequence[Utterance],
    class_map: dict[str, str],
    classes: list[str],
    probabilities: np.ndarray | None,
    uncalibrated: np.ndarray | None,
    fitted: Calibration,
    *,
    ratings: Mapping[str, Sequence[float]] | None = None,
    fold: int = 0,
    with_votes: bool = False,
) -> dict[str, Any]:
    """Return the predictions as rows beside the labels, and the scores of emotion.

    Args:
        utterances: an emotion and each rating may be missing.
        class_map: emotion -> class.
        classes: all that the model predicts, in order; none without a head of emotion.
        probabilities: calibrated, (N, K); None without classes.
        uncalibrated: the same before calibration, (N, K).
        fitted: the calibration.
        ratings: dimension -> predictions on the scale of the corpus, (N,).
        fold: its number.
        with_votes: write columns of votes, which some utterances of the corpus have.

    Returns:
        `rows` of predictions.csv, where the name of an unknown speaker is empty, and `test`, their number.
        Where emotions are labelled, also `confusion`, `soft` and `confidence` of the labelled rows.
    """
    rows: list[dict[str, Any]] = [
        {"id": u.id, "fold": fold, "speaker": u.speaker if u.known_speaker else ""} for u in utterances
    ]
    if probabilities is not None:
        _add_emotions(rows, utterances, class_map, classes, probabilities)
    for name, values in (ratings or {}).items():
        _add_rating(rows, utterances, name, values)
    if with_votes:
        for row, u in zip(rows, utterances, strict=True):
            row |= _make_vote_columns(u, class_map, classes)
    result = {"rows": rows, "test": len(rows)}
    if probabilities is None or uncalibrated is None:
        return result
    if not sufficient_statistics.select_labelled(rows, "emotion"):
        return result
    return result | _score_emotions(rows, classes, probabilities, uncalibrated, fitted)


def _add_emotions(
    rows: list[dict[str, Any]],
    utterances: Sequence[Utterance],
    class_map: dict[str, str],
    classes: list[str],
    probabilities: np.ndarray,
) -> None:
    for row, u, p in zip(rows, utterances, probabilities, strict=True):
        # Empty where the utterance has no emotion, or one outside the classes.
        row["target"] = class_map.get(str(u.labels.get("emotion")), "")
        row["prediction"] = classes[p.argmax()]
        for name, probability in zip(classes, p, strict=True):
            row[PROBABILITY_PREFIX + name] = _round(probability)


def _add_rating(
    rows: list[dict[str, Any]], utterances: Sequence[Utterance], name: str, values: Sequence[float]
) -> None:
    target, prediction = sufficient_statistics.get_task_columns(name)
    for row, u, value in zip(rows, utterances, values, strict=True):
        row[target] = u.labels.get(name, "")
        row[prediction] = _round(value)


def _round(value: float) -> float:
    """Round to six significant digits; six decimals would turn small probabilities into zero."""
    return float(f"{value:.6g}")


def _score_emotions(
    rows: list[dict[str, Any]],
    classes: list[str],
    probabilities: np.ndarray,
    uncalibrated: np.ndarray,
    fitted: Calibration,
) -> dict[str, Any]:
    """Return `confusion`, `soft` and `confidence` of the rows that have a class."""
    labelled = [number for number, row in enumerate(rows) if row["target"]]
    targets = [rows[number]["target"] for number in labelled]
    predictions = [rows[number]["prediction"] for number in labelled]
    indices = [classes.index(target) for target in targets]
    return {
        "confusion": metrics.count_confusions(targets, predictions, classes).tolist(),
        "soft": score_against_votes([rows[number] for number in labelled], classes),
        "confidence": _score_confidence(indices, probabilities[labelled], uncalibrated[labelled], fitted),
    }


def _score_confidence(
    targets: Sequence[int], probabilities: np.ndarray, uncalibrated: np.ndarray, fitted: Calibration
) -> dict[str, Any]:
    """Return the calibration, scores before and after it, and how many predictions are sure, and right."""
    sure = probabilities.max(1) >= (fitted.threshold or 0.0)  # without a threshold every prediction is sure
    correct = probabilities.argmax(1) == np.asarray(targets)
    return {
        "calibration": fitted.to_json(),
        "before": calibration.compute_calibration_scores(uncalibrated, targets),
        "after": calibration.compute_calibration_scores(probabilities, targets),
        "sure": int(sure.sum()),
        "sure_and_right": int((sure & correct).sum()),
    }


def _make_vote_columns(
    utterance: Utterance, class_map: dict[str, str], classes: Sequence[str]
) -> dict[str, float | str]:
    """Return column -> share of the votes for a class; empty cells where the utterance has no votes."""
    shares = class_shares(utterance.votes, class_map)
    return {VOTE_PREFIX + name: round(shares.get(name, 0.0), 6) if shares else "" for name in classes}


def score_against_votes(rows: Sequence[dict], classes: Sequence[str]) -> dict[str, float] | None:
    """Compute the soft scores of the rows that have votes, with their number; None where no row has votes."""
    voted = [row for row in rows if row.get(VOTE_PREFIX + classes[0], "") != ""]
    if not voted:
        return None
    votes = [[row[VOTE_PREFIX + name] for name in classes] for row in voted]
    probabilities = [[row[PROBABILITY_PREFIX + name] for name in classes] for row in voted]
    return metrics.soft_scores(votes, probabilities) | {"utterances": len(voted)}
