"""Statistics of a run's predictions that add up over speakers and folds, and the scores of their sums.

Predicted emotions become confusion counts, and predicted ratings the moments of targets and predictions. The
scores of any set of speakers follow from the sum over these speakers, which is all that `intervals` needs.

Axis letters: C columns of a table (such as encoders), S seeds, U units, K classes, F = K * K counts or the
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
    """Statistics by unit whose sums determine the scores.

    Attributes:
        values: (C, S, U, F).
        score_sums: computes the scores of sums, (R, F) -> score -> (R,).
        limits: score -> its lowest and highest possible value.
    """

    values: np.ndarray
    score_sums: Callable[[np.ndarray], dict[str, np.ndarray]]
    limits: Mapping[str, tuple[float, float]]

    @classmethod
    def from_counts(cls, counts: np.ndarray) -> Self:
        """Build from confusion counts: by unit (U, K, K), by seed (S, U, K, K), by column (C, S, U, K, K)."""
        flat = counts.reshape(*counts.shape[:-2], -1)
        return cls(_add_axes(flat), _score_flat_confusions, _get_limits(EMOTION_SCORES))

    @classmethod
    def from_moments(cls, moments: np.ndarray) -> Self:
        """Build from moments of a rating: by unit (U, F), by seed (S, U, F), by column (C, S, U, F)."""
        return cls(_add_axes(moments), metrics.score_moments, _get_limits(RATING_SCORES))

    @classmethod
    def from_rows(
        cls, rows: Sequence[Mapping[str, Any]], task: str, classes: Sequence[str], units: ArrayLike
    ) -> Self:
        """Build from the predictions of one run.

        Args:
            rows: rows of predictions.csv, all with a target of the task (`select_labelled`).
            task: `emotion`, or a rating.
            classes: all class names.
            units: the speaker of each row, or its fold.
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
        """Number of units, U."""
        return self.values.shape[2]

    def compute_scores(self) -> dict[str, float]:
        """Compute the scores over all units together, as the mean over seeds and columns."""
        sums = self.values.sum(2).reshape(-1, self.values.shape[-1])
        return {name: float(values.mean()) for name, values in self.score_sums(sums).items()}

    def stack_runs(self, others: Sequence[Self], columns: int = 1) -> Self:
        """Stack this run with others of the same units and scores: (columns, S, U, F).

        Args:
            others: the other runs, column by column and by seed within a column.
            columns: number of columns, C.
        """
        # Each run alone has one column and one seed.
        values = np.stack([run.values[0, 0] for run in (self, *others)])
        return replace(self, values=values.reshape(columns, -1, *values.shape[1:]))


def get_task_columns(task: str) -> tuple[str, str]:
    """Return the columns of predictions.csv with the targets and the predictions of a task."""
    prefix = "" if task == "emotion" else f"{task}_"
    return f"{prefix}target", f"{prefix}prediction"


def select_labelled(rows: Sequence[Any], task: str) -> list[Any]:
    """Return the rows that have a target of the task."""
    target, _ = get_task_columns(task)
    # A rating of 0 is a label. Only an empty text is none.
    return [row for row in rows if row.get(target, "") != ""]


def get_unit(row: Mapping[str, Any]) -> str:
    """Return the unit of a row of predictions.csv: its speaker, or the row itself where none is named."""
    # The null character keeps an id apart from all names of speakers.
    return row["speaker"] or f"\0{row['id']}"


def count_speakers(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the known `speakers` of rows, and the rows of `unknown_speakers`."""
    names = [row["speaker"] for row in rows]
    return {"speakers": len({*names} - {""}), "unknown_speakers": names.count("")}


def count_confusions_by_unit(
    targets: ArrayLike, predictions: ArrayLike, units: ArrayLike, classes: Sequence[str]
) -> tuple[list[str], np.ndarray]:
    """Count the predictions of each unit by target.

    Args:
        targets: class names.
        predictions: class names.
        units: the speaker of each utterance, or its fold.
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
    # Plain indexing would count a repeated triple once.
    np.add.at(counts, (unit, target, prediction), 1)
    return names.tolist(), counts


def _add_axes(values: np.ndarray) -> np.ndarray:
    """Add the missing axes of columns and seeds: (U, F) or (S, U, F) -> (1, S, U, F)."""
    while values.ndim < 4:
        values = values[None]
    return values


def _score_flat_confusions(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the emotion scores of flat confusion counts: (R, K * K) -> score -> (R,)."""
    classes = isqrt(counts.shape[-1])
    return metrics.score_confusions(counts.reshape(-1, classes, classes))


def _get_limits(scores: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest possible value of each score."""
    return {name: (SCORE_FORMATS[name].low, SCORE_FORMATS[name].high) for name in scores}
