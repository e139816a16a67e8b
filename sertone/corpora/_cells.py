"""Conversion of one row of a table to an utterance."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from sertone.corpora._columns import FIELDS, NUMBERS, VOTE_PREFIX
from sertone.corpora._files import parse_number
from sertone.labels import SYNONYMS, normalise_counts
from sertone.schema import Problem, ReportProblem, Utterance

# `w` is also the letter of German tables (weiblich).
GENDER_NAMES = {"f": "female", "w": "female", "woman": "female", "m": "male", "man": "male"}
GENDER_NAMES |= {"female": "female", "male": "male"}
SPLIT_SYNONYMS = {
    "training": "train",
    **dict.fromkeys(("dev", "val", "valid", "development"), "validation"),
    **dict.fromkeys(("testing", "eval", "evaluation"), "test"),
}
"""Other names of the training, validation and test set, in lower case."""


def select_filled(cells: Mapping[str, str | None], columns: Mapping[str, str]) -> dict[str, str]:
    """Return the cells of a row that are not empty, under our names of their columns.

    Args:
        cells: column -> cell.
        columns: our name -> column, as `match_columns` returns it.
    """
    texts = {name: cells.get(column) for name, column in columns.items()}
    return {name: text.strip() for name, text in texts.items() if text and text.strip()}


def build_utterance(
    row: dict[str, str], location: str, report: ReportProblem, *, id_: str, path: Path, labelled: bool = True
) -> Utterance:
    """Build an utterance from the cells of a row.

    Args:
        row: name -> cell, as `select_filled` returns it.
        location: the row's file and line, for problems.
        report: called with every problem.
        id_: used if the row has none.
        path: the audio file.
        labelled: if false, labels and votes are not read.
    """
    name = row.get("id") or id_
    known_speaker = _parse_known_speaker(row, location, report)
    return Utterance(
        id=name,
        path=path,
        # An unknown speaker gets a name that no other row shares.
        speaker=row.get("speaker", "") if known_speaker else name,
        labels=_parse_labels(row, location, report) if labelled else {},
        votes=_parse_votes(row, location, report) if labelled else {},
        text=row.get("text"),
        session=row.get("session"),
        split=_parse_split(row, location, report),
        start_s=parse_cell(row, "start_s", location, report) or 0.0,
        end_s=parse_cell(row, "end_s", location, report),
        known_speaker=known_speaker,
    )


def _parse_labels(row: dict[str, str], location: str, report: ReportProblem) -> dict[str, str | float]:
    labels: dict[str, str | float] = {
        name: cell
        for name, cell in row.items()
        if name not in FIELDS + NUMBERS and not name.startswith(VOTE_PREFIX)
    }
    if "emotion" in row:
        labels |= {"emotion": normalise_emotion(row["emotion"]), "raw_emotion": row["emotion"]}
    if "gender" in labels:
        labels["gender"] = GENDER_NAMES.get(str(labels["gender"]).lower(), labels["gender"])
    for name in NUMBERS:
        if (value := parse_cell(row, name, location, report)) is not None:
            labels[name] = value
    return labels


def normalise_emotion(word: str) -> str:
    """Return our name of an emotion in a table: `Anger` -> `angry`; an unknown word in lower case."""
    return SYNONYMS.get(word.lower(), word.lower())


def _parse_votes(row: dict[str, str], location: str, report: ReportProblem) -> dict[str, float]:
    """Return the annotators' shares by emotion; no votes at all if one of the counts is invalid."""
    counts: dict[str, float] = defaultdict(float)
    for name in [name for name in row if name.startswith(VOTE_PREFIX)]:
        count = parse_number(row[name])
        if count is None or count < 0:
            report(Problem("bad_number", location, f"{name} is {row[name]!r}; expected a count or a share"))
            return {}
        # Two columns may name one emotion, such as vote_happy and vote_joy.
        counts[normalise_emotion(name.removeprefix(VOTE_PREFIX))] += count
    return normalise_counts(counts)


def parse_cell(row: dict[str, str], name: str, location: str, report: ReportProblem) -> float | None:
    """Return the number in a cell; None without a cell, or for a text that is no number (it is reported)."""
    if name not in row:
        return None
    value = parse_number(row[name])
    if value is None:
        report(Problem("bad_number", location, f"{name} is {row[name]!r}; expected a number"))
    return value


def _parse_split(row: dict[str, str], location: str, report: ReportProblem) -> str | None:
    split = row.get("split", "").lower()
    split = SPLIT_SYNONYMS.get(split, split)
    if split not in ("", "train", "validation", "test"):
        report(Problem("bad_split", location, f"split is {split!r}; expected train, validation or test"))
    return split or None


def _parse_known_speaker(row: dict[str, str], location: str, report: ReportProblem) -> bool:
    answer = row.get("known_speaker", "yes").lower()
    if answer not in ("yes", "no"):
        report(Problem("bad_answer", location, f"known_speaker is {answer!r}; expected yes or no"))
    return answer != "no"
