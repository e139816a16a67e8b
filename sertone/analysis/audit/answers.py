"""Answers of a model to waveforms, as a user gets them, and their files.

Axis letters: N waveforms, K classes, R dimensions.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from sertone.errors import SertoneError
from sertone.files import write_text
from sertone.schema import Prediction
from sertone.utils.spreadsheet import guard_formula, read_rows

NO_LABEL = ""
"""The label of a waveform that the model gives none, such as silence."""
FIXED = ("id", "label", "sure")
PREFIX = "value_"
"""Start of the columns of classes and dimensions, whose names could be those of the fixed columns."""
UNANSWERABLE = ("too_short",)
"""Errors of a recording that a perturbation can cause. All others would end in wrong scores."""


@dataclass(frozen=True)
class Answers:
    """Answers to N waveforms.

    Attributes:
        ids: ids of the waveforms.
        labels: class names; `NO_LABEL` where there is none.
        sure: true where there is a label and the model does not call it unsure, (N,).
        values: probabilities of the classes and ratings of the dimensions, (N, K + R); NaN without an answer.
        names: names of the classes, then of the dimensions.
    """

    ids: Sequence[str]
    labels: Sequence[str]
    sure: np.ndarray
    values: np.ndarray
    names: Sequence[str]

    @classmethod
    def from_predictions(
        cls, ids: Sequence[str], predictions: Iterable[Prediction], names: Sequence[str]
    ) -> Self:
        """Collect predictions. A recording that is too short has no label.

        Raises:
            SertoneError: the model failed, with the code of the prediction.
        """
        predictions = list(predictions)
        for id_, prediction in zip(ids, predictions, strict=True):
            if prediction.status == "error" and prediction.code not in UNANSWERABLE:
                problem = f"{id_}: {prediction.message}"
                raise SertoneError(prediction.code, problem, "an answer", "the same command resumes")
        values = [p.probabilities | p.dimensions for p in predictions]
        return cls(
            list(ids),
            [p.label or NO_LABEL for p in predictions],
            np.array([bool(p.label) and not p.unsure for p in predictions], bool),
            np.array([[row.get(name, np.nan) for name in names] for row in values]).reshape(-1, len(names)),
            list(names),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` has written."""
        rows = read_rows(path)
        names = [name.removeprefix(PREFIX) for name in (rows[0] if rows else ()) if name not in FIXED]
        return cls(
            [row["id"] for row in rows],
            [row["label"] for row in rows],
            np.array([row["sure"] == "1" for row in rows], bool),
            np.array([[float(row[PREFIX + name] or "nan") for name in names] for row in rows]),
            names,
        )

    def save(self, path: Path) -> None:
        """Write a CSV file with a row for each waveform."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*FIXED, *(PREFIX + name for name in self.names)])
        for name, label, sure, values in zip(self.ids, self.labels, self.sure, self.values, strict=True):
            numbers = ["" if np.isnan(value) else f"{value:.6f}" for value in values]
            writer.writerow([guard_formula(name), guard_formula(label), int(sure), *numbers])
        write_text(path, text.getvalue())

    @property
    def answered(self) -> np.ndarray:
        """Return where the model gave a label or a rating, (N,)."""
        return np.isfinite(self.values).any(1) | np.array([label != NO_LABEL for label in self.labels])

    def get_column(self, name: str) -> np.ndarray:
        """Return the values of a class or a dimension, (N,)."""
        return self.values[:, list(self.names).index(name)]
