"""What of a run's answers adds up over speakers and folds, and the scores that follow from the sums.

The answers about emotions become confusion counts, those about a rating the moments of targets and answers:
of both a score of any set of speakers follows from the sum over them, which is all that `intervals` needs.

Axis letters: C columns of a table (encoders, say), S seeds, U units, K classes, F = K * K counts or the
moments of `metrics.MOMENTS`, R sums.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sertone.scoring import metrics
from sertone.scoring.display import EMOTION_SCORES, RATING_SCORES, SCORE_FORMATS


@dataclass(frozen=True)
class SufficientStatistics:
    """Statistics by unit that add up.

    Attributes:
        values: (C, S, U, F).
        score: sums (R, F) -> score -> (R,).
        limits: score -> the lowest and the highest value that it can have.
    """

    values: np.ndarray
    score_sums: Callable[[np.ndarray], dict[str, np.ndarray]]
    limits: Mapping[str, tuple[float, float]]

    @classmethod
    def from_counts(cls, counts: np.ndarray) -> Self:
        """Confusion counts by unit, (U, K, K), by seed too, (S, U, K, K), or by column, (C, S, U, K, K)."""
        flat = counts.reshape(*counts.shape[:-2], -1)
        return cls(_whole(flat), _of_confusion, _limits(EMOTION_SCORES))

    @classmethod
    def from_moments(cls, moments: np.ndarray) -> Self:
        """Moments of a rating by unit, (U, F), by seed too, (S, U, F), or by column, (C, S, U, F)."""
        return cls(_whole(moments), metrics.score_moments, _limits(RATING_SCORES))

    @classmethod
    def from_rows(
        cls, rows: Sequence[Mapping[str, Any]], task: str, classes: Sequence[str], units: ArrayLike
    ) -> Self:
        """Of the answers of one run.

        Args:
            rows: of predictions.csv, all with a target of the task (`labelled`).
            task: `emotion`, or a rating.
            classes: all class names.
            units: who spoke each row, or the fold it belongs to.
        """
        targets, predictions = ([row[name] for row in rows] for name in get_task_columns(task))
        if task == "emotion":
            return cls.from_counts(count_confusions_by_unit(targets, predictions, units, classes)[1])
        names, unit = np.unique(np.asarray(units), return_inverse=True)
        sums = np.zeros((len(names), len(metrics.MOMENTS)))
        np.add.at(sums, unit, metrics.compute_moments(np.array(targets, float), np.array(predictions, float)))
        return cls.from_moments(sums)

    @property
    def unit_count(self) -> int:
        """How many there are."""
        return self.values.shape[2]

    def compute_scores(self) -> dict[str, float]:
        """Over all units together; mean over seeds and columns."""
        whole = self.values.sum(2).reshape(-1, self.values.shape[-1])
        return {name: float(values.mean()) for name, values in self.score_sums(whole).items()}

    def stack_runs(self, others: Sequence[Self], columns: int = 1) -> Self:
        """With runs of the same units and kind, column by column and in each by seed: (columns, S, U, F)."""
        values = np.stack([own.values[0, 0] for own in (self, *others)])
        return replace(self, values=values.reshape(columns, -1, *values.shape[1:]))


def get_task_columns(task: str) -> tuple[str, str]:
    """Where predictions.csv has the targets of a task, and the answers."""
    mark = "" if task == "emotion" else f"{task}_"
    return f"{mark}target", f"{mark}prediction"


def select_labelled(rows: Sequence[Any], task: str) -> list[Any]:
    """The rows that have a target of the task."""
    target, _ = get_task_columns(task)
    return [row for row in rows if row.get(target, "") != ""]


def get_unit(row: Mapping[str, Any]) -> str:
    """Return whom a row of predictions.csv counts for: its speaker, or itself where nobody is named."""
    return row["speaker"] or f"\0{row['id']}"


def count_speakers(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many `speakers` of rows are known, and how many rows are of `unknown_speakers`."""
    names = [row["speaker"] for row in rows]
    return {"speakers": len({*names} - {""}), "unknown_speakers": names.count("")}


def count_confusions_by_unit(
    targets: ArrayLike, predictions: ArrayLike, units: ArrayLike, classes: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """Confusion counts of each unit.

    Args:
        targets: class names.
        predictions: class names.
        units: who spoke each utterance, or the fold it belongs to.
        classes: all class names.

    Returns:
        the units' names in order, and counts by unit, target and prediction, (U, K, K).
    """
    names, unit = np.unique(np.asarray(units), return_inverse=True)
    index = {name: number for number, name in enumerate(classes)}
    counts = np.zeros((len(names), len(classes), len(classes)), dtype=int)
    target, prediction = (
        np.array([index[name] for name in np.asarray(column).tolist()], int)
        for column in (targets, predictions)
    )
    np.add.at(counts, (unit, target, prediction), 1)
    return names.tolist(), counts


def _whole(values: np.ndarray) -> np.ndarray:
    """(U, F) or (S, U, F) as (1, S, U, F)."""
    while values.ndim < 4:
        values = values[None]
    return values


def _of_confusion(counts: np.ndarray) -> dict[str, np.ndarray]:
    classes = isqrt(counts.shape[-1])
    return metrics.score_confusions(counts.reshape(-1, classes, classes))


def _limits(scores: Sequence[str]) -> dict[str, tuple[float, float]]:
    return {name: (SCORE_FORMATS[name].low, SCORE_FORMATS[name].high) for name in scores}
