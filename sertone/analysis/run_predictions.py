"""The answers of finished runs, brought to one order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sertone.errors import SertoneError
from sertone.files import read_json
from sertone.scoring.sufficient_statistics import (
    SufficientStatistics,
    count_speakers,
    get_unit,
    select_labelled,
)
from sertone.scoring.sufficient_statistics import get_task_columns as columns_of
from sertone.utils import spreadsheet


@dataclass(frozen=True)
class RunPredictions:
    """The test utterances of a run, ordered by id.

    Attributes:
        run: its folder.
        classes: names of the classes.
        ratings: names of the dimensions.
        rows: of predictions.csv.
    """

    folder: Path
    classes: list[str]
    ratings: list[str]
    rows: list[dict[str, str]]

    @property
    def tasks(self) -> list[str]:
        """Emotion, if there are classes, and the ratings: what has targets beside the answers."""
        return (["emotion"] if self.classes else []) + self.ratings

    def select_task(self, task: str) -> "RunPredictions":
        """Only the utterances that have a target of the task."""
        return replace(self, rows=select_labelled(self.rows, task))

    @property
    def units(self) -> list[str]:
        """What intervals draw, of all rows: speakers, or utterances of unknown ones."""
        return [get_unit(row) for row in self.rows]

    @property
    def speaker_counts(self) -> dict[str, int]:
        """How many `speakers` are known, and how many utterances are of `unknown_speakers`."""
        return count_speakers(self.rows)

    def get_column(self, name: str) -> list[str]:
        """One column of all rows."""
        return [row[name] for row in self.rows]


def load_predictions(run: Path) -> RunPredictions:
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
    found = read_json(run / "results.json", "not_a_run")
    rows = sorted(spreadsheet.read_rows(run / "predictions.csv"), key=lambda row: row["id"])
    return RunPredictions(run, found["classes"], list(found.get("ratings", ())), rows)


def sum_statistics(columns: Sequence[Sequence[RunPredictions]], task: str) -> SufficientStatistics | None:
    """What adds up over the speakers of runs on the same utterances: (C, S, U, F).

    Args:
        columns: in each the same number of runs, which differ in their seeds.
        task: `emotion`, or a rating.

    Returns:
        None where a run has no such task, or no target of it.

    Raises:
        SertoneError: `unlike_runs`, where they have not answered the same utterances.
    """
    if any(task not in run.tasks for own in columns for run in own):
        return None
    runs = [run.select_task(task) for own in columns for run in own]
    for other in runs[1:]:
        if any(
            other.get_column(key) != runs[0].get_column(key)
            for key in ("id", "speaker", get_target_column(task))
        ):
            raise SertoneError(
                "unlike_runs",
                f"{runs[0].folder} and {other.folder} were tested on other utterances",
                "the same ones",
            )
    if not runs[0].rows:
        return None
    first, *others = (SufficientStatistics.from_rows(r.rows, task, runs[0].classes, r.units) for r in runs)
    return first.stack_runs(others, len(columns))


def get_target_column(task: str) -> str:
    """The column of a task's targets."""
    return columns_of(task)[0]
