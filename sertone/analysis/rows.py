"""The answers of finished runs, brought to one order."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sertone import intervals
from sertone.errors import SertoneError


@dataclass(frozen=True)
class Rows:
    """The test utterances of a run, ordered by id.

    Attributes:
        run: its folder.
        classes: names of the classes.
        rows: of predictions.csv.
    """

    run: Path
    classes: list[str]
    rows: list[dict[str, str]]

    def column(self, name: str) -> list[str]:
        """One column of all rows."""
        return [row[name] for row in self.rows]


def read_rows(run: Path) -> Rows:
    """Reads the answers of a run.

    Raises:
        SertoneError: `not_a_run`.
    """
    if not (run / "results.json").is_file() or not (run / "predictions.csv").is_file():
        raise SertoneError(
            "not_a_run",
            f"no results.json and predictions.csv in {run}",
            "the folder of a finished run, or of runs that differ in their seeds",
            "`sertone crossval` writes one",
        )
    classes = json.loads((run / "results.json").read_text(encoding="utf-8"))["classes"]
    with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
        return Rows(run, classes, sorted(csv.DictReader(file), key=lambda row: row["id"]))


def counts_of(runs: Sequence[Rows]) -> np.ndarray:
    """Confusion counts of runs on the same utterances, by run and speaker: (S, U, K, K).

    Raises:
        SertoneError: `unlike_runs`, where they have not answered the same utterances.
    """
    first = runs[0]
    for other in runs[1:]:
        if any(other.column(key) != first.column(key) for key in ("id", "target", "speaker")):
            raise SertoneError(
                "unlike_runs", f"{first.run} and {other.run} were tested on other utterances", "the same ones"
            )
    return np.stack(
        [
            intervals.tables(
                own.column("target"), own.column("prediction"), own.column("speaker"), first.classes
            )[1]
            for own in runs
        ]
    )
