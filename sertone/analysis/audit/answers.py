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

from sertone.files import write_text
from sertone.schema import Prediction
from sertone.utils.spreadsheet import guard_formula, read_rows

NO_LABEL = ""
"""The label of a waveform that the model gives none, such as silence."""
FIXED = ("id", "label", "sure")


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
        """Collect predictions. An error, such as for a recording that is too short, gives no label."""
        predictions = list(predictions)
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
        names = [name for name in (rows[0] if rows else ()) if name not in FIXED]
        return cls(
            [row["id"] for row in rows],
            [row["label"] for row in rows],
            np.array([row["sure"] == "1" for row in rows], bool),
            np.array([[float(row[name] or "nan") for name in names] for row in rows]),
            names,
        )

    def save(self, path: Path) -> None:
        """Write a CSV file with a row for each waveform."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*FIXED, *self.names])
        for name, label, sure, values in zip(self.ids, self.labels, self.sure, self.values, strict=True):
            numbers = ["" if np.isnan(value) else f"{value:.6f}" for value in values]
            writer.writerow([guard_formula(name), guard_formula(label), int(sure), *numbers])
        write_text(path, text.getvalue())

    def get_column(self, name: str) -> np.ndarray:
        """Return the values of a class or a dimension, (N,)."""
        return self.values[:, list(self.names).index(name)]
