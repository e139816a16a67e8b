"""Predictions of finished runs, ordered by utterance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sertone.errors import SertoneError
from sertone.files import load_json
from sertone.scoring.sufficient_statistics import (
    SufficientStatistics,
    count_speakers,
    get_task_columns,
    get_unit,
    select_labelled,
)
from sertone.utils import spreadsheet


@dataclass(frozen=True)
class RunPredictions:
    """The test utterances of a run, ordered by id.

    Attributes:
        folder: folder of the run.
        classes: names of the classes.
        ratings: names of the rated dimensions.
        rows: rows of predictions.csv.
    """

    folder: Path
    classes: list[str]
    ratings: list[str]
    rows: list[dict[str, str]]

    @property
    def tasks(self) -> list[str]:
        """Tasks with targets and predictions: `emotion`, if there are classes, and the ratings."""
        return (["emotion"] if self.classes else []) + self.ratings

    def select_task(self, task: str) -> "RunPredictions":
        """Return only the utterances that have a target of the task."""
        return replace(self, rows=select_labelled(self.rows, task))

    @property
    def units(self) -> list[str]:
        """Unit of each row for the bootstrap: its speaker, or the utterance where the speaker is unknown."""
        return [get_unit(row) for row in self.rows]

    @property
    def speaker_counts(self) -> dict[str, int]:
        """Number of known `speakers`, and of utterances of `unknown_speakers`."""
        return count_speakers(self.rows)

    def get_column(self, name: str) -> list[str]:
        """Return one column of all rows."""
        return [row[name] for row in self.rows]


def load_predictions(run: Path) -> RunPredictions:
    """Load the predictions of a run.

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
    results = load_json(run / "results.json", "not_a_run")
    # Folds may be written in another order, so rows are compared by id.
    rows = sorted(spreadsheet.read_rows(run / "predictions.csv"), key=lambda row: row["id"])
    # Older runs have no ratings.
    return RunPredictions(run, results["classes"], list(results.get("ratings", ())), rows)


def sum_statistics(columns: Sequence[Sequence[RunPredictions]], task: str) -> SufficientStatistics | None:
    """Sum the statistics of each speaker, for runs on the same utterances: (C, S, U, F).

    Args:
        columns: the same number of runs for each column; the runs of a column differ in their seeds.
        task: `emotion`, or a rating.

    Returns:
        None where a run does not predict the task, or has no target of it.

    Raises:
        SertoneError: `unlike_runs`, where the runs were not tested on the same utterances.
    """
    if any(task not in run.tasks for column in columns for run in column):
        return None
    runs = [run.select_task(task) for column in columns for run in column]
    # Seeds and columns are drawn with the same speakers, so all runs need the same rows.
    columns_to_match = ("id", "speaker", get_target_column(task))
    for run in runs[1:]:
        if any(run.get_column(name) != runs[0].get_column(name) for name in columns_to_match):
            raise SertoneError(
                "unlike_runs",
                f"{runs[0].folder} and {run.folder} were tested on other utterances",
                "runs that were tested on the same utterances",
            )
    if not runs[0].rows:
        return None
    first, *remaining = (
        SufficientStatistics.from_rows(run.rows, task, runs[0].classes, run.units) for run in runs
    )
    return first.stack_runs(remaining, len(columns))


def get_target_column(task: str) -> str:
    """Return the column of predictions.csv with the targets of a task."""
    return get_task_columns(task)[0]
