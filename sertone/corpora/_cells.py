"""One row of a table as an utterance."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from sertone.corpora._columns import FIELDS, NUMBERS, VOTE_PREFIX
from sertone.corpora._files import parse_number
from sertone.labels import SYNONYMS, normalise_counts
from sertone.schema import Problem, ReportProblem, Utterance

GENDER_NAMES = {"f": "female", "w": "female", "woman": "female", "m": "male", "man": "male"}
GENDER_NAMES |= {"female": "female", "male": "male"}
SPLIT_SYNONYMS = {
    "training": "train",
    **dict.fromkeys(("dev", "val", "valid", "development"), "validation"),
    **dict.fromkeys(("testing", "eval", "evaluation"), "test"),
}
"""Other names of the sides of a split, in lower case."""


def select_filled(cells: Mapping[str, str | None], named: Mapping[str, str]) -> dict[str, str]:
    """Return the cells of a row that hold something, under the names used here."""
    texts = {name: cells.get(column) for name, column in named.items()}
    return {name: text.strip() for name, text in texts.items() if text and text.strip()}


def build_utterance(
    row: dict[str, str], where: str, report: ReportProblem, *, id_: str, path: Path, labelled: bool = True
) -> Utterance:
    """Read the cells of a row.

    Args:
        row: name -> cell, as `filled` gives them.
        where: the row, for problems.
        report: called with every problem.
        id_: used where the row has none.
        path: the audio file.
        labelled: or else no label is read.
    """
    name, known = row.get("id") or id_, _known(row, where, report)
    return Utterance(
        id=name,
        path=path,
        speaker=row.get("speaker", "") if known else name,  # one that no other row shares
        labels=_labels(row, where, report) if labelled else {},
        votes=_votes(row, where, report) if labelled else {},
        text=row.get("text"),
        session=row.get("session"),
        split=_split(row, where, report),
        start_s=read_number(row, "start_s", where, report) or 0.0,
        end_s=read_number(row, "end_s", where, report),
        known_speaker=known,
    )


def _labels(row: dict[str, str], where: str, report: ReportProblem) -> dict[str, str | float]:
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
        if (value := read_number(row, name, where, report)) is not None:
            labels[name] = value
    return labels


def normalise_emotion(word: str) -> str:
    """Return the name of an emotion that a table calls by some word."""
    return SYNONYMS.get(word.lower(), word.lower())


def _votes(row: dict[str, str], where: str, report: ReportProblem) -> dict[str, float]:
    """Shares of the annotators; a row with a count that cannot be one has no votes."""
    counts: dict[str, float] = defaultdict(float)
    for name in [name for name in row if name.startswith(VOTE_PREFIX)]:
        count = parse_number(row[name])
        if count is None or count < 0:
            report(Problem("bad_number", where, f"{name} is {row[name]!r}; expected a count or a share"))
            return {}
        counts[normalise_emotion(name.removeprefix(VOTE_PREFIX))] += count
    return normalise_counts(counts)


def read_number(row: dict[str, str], name: str, where: str, report: ReportProblem) -> float | None:
    """Return the number in a cell; None where there is none, or a text that is reported."""
    if name not in row:
        return None
    value = parse_number(row[name])
    if value is None:
        report(Problem("bad_number", where, f"{name} is {row[name]!r}; expected a number"))
    return value


def _split(row: dict[str, str], where: str, report: ReportProblem) -> str | None:
    split = row.get("split", "").lower()
    split = SPLIT_SYNONYMS.get(split, split)
    if split not in ("", "train", "validation", "test"):
        report(Problem("bad_split", where, f"{split!r}; expected train, validation or test"))
    return split or None


def _known(row: dict[str, str], where: str, report: ReportProblem) -> bool:
    answer = row.get("known_speaker", "yes").lower()
    if answer not in ("yes", "no"):
        report(Problem("bad_answer", where, f"known_speaker is {answer!r}; expected yes or no"))
    return answer != "no"
