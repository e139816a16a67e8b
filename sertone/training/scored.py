"""The test side of a fold, or another corpus, as it is scored and written down."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sertone import calibration, metrics
from sertone.calibration import Calibration
from sertone.schema import Utterance
from sertone.training import votes


def scored(
    utterances: Sequence[Utterance],
    class_map: dict[str, str],
    classes: list[str],
    probabilities: np.ndarray,
    uncalibrated: np.ndarray,
    by: Calibration,
    *,
    fold: int = 0,
    with_votes: bool = False,
) -> dict[str, Any]:
    """Everything about the emotions that a model heard.

    Args:
        utterances: with labels that `class_map` knows.
        class_map: emotion -> class.
        classes: all that the model answers, in order.
        probabilities: calibrated, (N, K).
        uncalibrated: the same before calibration, (N, K).
        by: the calibration.
        fold: its number.
        with_votes: write columns of votes, which some utterances of the corpus have.

    Returns:
        `rows` of predictions.csv; `confusion`, `soft` and `confidence`; `test`, how many.
    """
    targets = [class_map[str(u.labels["emotion"])] for u in utterances]
    rows: list[dict[str, Any]] = [
        {"id": u.id, "fold": fold, "speaker": u.speaker, "target": target, "prediction": classes[p.argmax()]}
        | {f"p_{name}": float(f"{share:.6g}") for name, share in zip(classes, p, strict=True)}
        | (votes.columns(u, class_map, classes) if with_votes else {})
        for u, target, p in zip(utterances, targets, probabilities, strict=True)
    ]
    predictions = [row["prediction"] for row in rows]
    return {
        "rows": rows,
        "confusion": metrics.confusion(targets, predictions, classes).tolist(),
        "soft": votes.scores(rows, classes),
        "confidence": _confidence([classes.index(t) for t in targets], probabilities, uncalibrated, by),
        "test": len(rows),
    }


def _confidence(
    targets: Sequence[int], probabilities: np.ndarray, uncalibrated: np.ndarray, by: Calibration
) -> dict[str, Any]:
    """The calibration; scores before and after it; how many answers are not unsure, and right."""
    sure = probabilities.max(1) >= (by.threshold or 0.0)
    return {
        "calibration": by.to_json(),
        "before": calibration.scores(uncalibrated, targets),
        "after": calibration.scores(probabilities, targets),
        "sure": int(sure.sum()),
        "sure_and_right": int((sure & (probabilities.argmax(1) == np.asarray(targets))).sum()),
    }
