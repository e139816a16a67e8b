"""The test side of a fold, or another corpus, as it is scored and written down."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sertone.schema import Utterance
from sertone.scoring import calibration, metrics, sufficient_statistics
from sertone.scoring.calibration import Calibration
from sertone.training.testing import votes


def score_predictions(
    utterances: Sequence[Utterance],
    class_map: dict[str, str],
    classes: list[str],
    probabilities: np.ndarray | None,
    uncalibrated: np.ndarray | None,
    by: Calibration,
    *,
    ratings: Mapping[str, Sequence[float]] | None = None,
    fold: int = 0,
    with_votes: bool = False,
) -> dict[str, Any]:
    """Everything that a model said, beside what is known.

    Args:
        utterances: whose emotion and ratings may each be missing.
        class_map: emotion -> class.
        classes: all that the model answers, in order; none without a head of emotion.
        probabilities: calibrated, (N, K); None without classes.
        uncalibrated: the same before calibration, (N, K).
        by: the calibration.
        ratings: dimension -> answers on the scale of the corpus, (N,).
        fold: its number.
        with_votes: write columns of votes, which some utterances of the corpus have.

    Returns:
        `rows` of predictions.csv, where the name of an unknown speaker is empty; `test`, how many; where
        emotions are known, of these alone, `confusion`, `soft` and `confidence`.
    """
    rows: list[dict[str, Any]] = [
        {"id": u.id, "fold": fold, "speaker": u.speaker if u.known_speaker else ""} for u in utterances
    ]
    if probabilities is not None:
        _add_emotions(rows, utterances, class_map, classes, probabilities)
    for name, answers in (ratings or {}).items():
        _add_rating(rows, utterances, name, answers)
    if with_votes:
        for row, u in zip(rows, utterances, strict=True):
            row |= votes.make_vote_columns(u, class_map, classes)
    found = {"rows": rows, "test": len(rows)}
    if (
        probabilities is None
        or uncalibrated is None
        or not sufficient_statistics.select_labelled(rows, "emotion")
    ):
        return found
    return found | _emotions(rows, classes, probabilities, uncalibrated, by)


def _add_emotions(
    rows: list[dict[str, Any]],
    utterances: Sequence[Utterance],
    class_map: dict[str, str],
    classes: list[str],
    probabilities: np.ndarray,
) -> None:
    for row, u, p in zip(rows, utterances, probabilities, strict=True):
        row["target"] = class_map.get(str(u.labels.get("emotion")), "")
        row["prediction"] = classes[p.argmax()]
        row |= {f"p_{name}": _digits(share) for name, share in zip(classes, p, strict=True)}


def _add_rating(
    rows: list[dict[str, Any]], utterances: Sequence[Utterance], name: str, answers: Sequence[float]
) -> None:
    target, prediction = sufficient_statistics.get_task_columns(name)
    for row, u, value in zip(rows, utterances, answers, strict=True):
        row[target] = u.labels.get(name, "")
        row[prediction] = _digits(value)


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


def _emotions(
    rows: list[dict[str, Any]],
    classes: list[str],
    probabilities: np.ndarray,
    uncalibrated: np.ndarray,
    by: Calibration,
) -> dict[str, Any]:
    known = [number for number, row in enumerate(rows) if row["target"]]
    targets, predictions = ([rows[n][key] for n in known] for key in ("target", "prediction"))
    indices = [classes.index(target) for target in targets]
    return {
        "confusion": metrics.count_confusions(targets, predictions, classes).tolist(),
        "soft": votes.score_against_votes([rows[n] for n in known], classes),
        "confidence": _confidence(indices, probabilities[known], uncalibrated[known], by),
    }


def _confidence(
    targets: Sequence[int], probabilities: np.ndarray, uncalibrated: np.ndarray, by: Calibration
) -> dict[str, Any]:
    """The calibration; scores before and after it; how many answers are not unsure, and right."""
    sure = probabilities.max(1) >= (by.threshold or 0.0)
    return {
        "calibration": by.to_json(),
        "before": calibration.compute_calibration_scores(uncalibrated, targets),
        "after": calibration.compute_calibration_scores(probabilities, targets),
        "sure": int(sure.sum()),
        "sure_and_right": int((sure & (probabilities.argmax(1) == np.asarray(targets))).sum()),
    }
