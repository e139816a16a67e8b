"""The answers of finished runs, brought to one order."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sertone.errors import SertoneError
from sertone.files import read_json
from sertone.scoring.sufficient_statistics import Sums, labelled, people, unit_of
from sertone.scoring.sufficient_statistics import columns as columns_of
from sertone.utils import spreadsheet


@dataclass(frozen=True)
class Rows:
    """The test utterances of a run, ordered by id.

    Attributes:
        run: its folder.
        classes: names of the classes.
        ratings: names of the dimensions.
        rows: of predictions.csv.
    """

    run: Path
    classes: list[str]
    ratings: list[str]
    rows: list[dict[str, str]]

    @property
    def tasks(self) -> list[str]:
        """Emotion, if there are classes, and the ratings: what has targets beside the answers."""
        return (["emotion"] if self.classes else []) + self.ratings

    def of(self, task: str) -> "Rows":
        """Only the utterances that have a target of the task."""
        return replace(self, rows=labelled(self.rows, task))

    @property
    def units(self) -> list[str]:
        """What intervals draw, of all rows: speakers, or utterances of unknown ones."""
        return [unit_of(row) for row in self.rows]

    @property
    def people(self) -> dict[str, int]:
        """How many `speakers` are known, and how many utterances are of `unknown_speakers`."""
        return people(self.rows)

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
    found = read_json(run / "results.json", "not_a_run")
    rows = sorted(spreadsheet.read(run / "predictions.csv"), key=lambda row: row["id"])
    return Rows(run, found["classes"], list(found.get("ratings", ())), rows)


def sums_of(columns: Sequence[Sequence[Rows]], task: str) -> Sums | None:
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
    runs = [run.of(task) for own in columns for run in own]
    for other in runs[1:]:
        if any(other.column(key) != runs[0].column(key) for key in ("id", "speaker", target_of(task))):
            raise SertoneError(
                "unlike_runs",
                f"{runs[0].run} and {other.run} were tested on other utterances",
                "the same ones",
            )
    if not runs[0].rows:
        return None
    first, *others = (Sums.of_rows(r.rows, task, runs[0].classes, r.units) for r in runs)
    return first.stacked(others, len(columns))


def target_of(task: str) -> str:
    """The column of a task's targets."""
    return columns_of(task)[0]
