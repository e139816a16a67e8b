"""A corpus of one's own: one table, one row per utterance. CSV, JSON lines or Parquet.

Columns:
    path (or file)             relative paths resolve against the manifest's folder
    speaker                    who speaks; folds never share a speaker
    emotion, gender, style     any label columns; an empty cell is a missing label
    arousal, valence, dominance, duration_s   numbers
    vote_happy, vote_sad, ...  annotators who heard that emotion, as counts or shares
    id, text, session, split, start_s, end_s   optional
    known_speaker              `no` where the speaker is a name of this row alone, for want of a better one
    any other                  a label; words in it can be the text (`data.text.column`)
Names such as `anger` and `joy` are read as `angry` and `happy`; any other emotion is its own class.
Its licence is what the recipe says in `data.licence`, an identifier such as `cc-by-4.0`; the scales of
its ratings are what it says in `data.scales`, as `{valence: [1, 7]}`.

Expected tree:
    metadata.csv, and the files that it names
"""

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sertone.corpora._files import number, write_tone
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS, SYNONYMS, Scale, shares
from sertone.licences import UNKNOWN
from sertone.schema import Problem, Report, Utterance, stop
from sertone.spreadsheet import restored

TITLE = "a manifest"
LICENCE = UNKNOWN
LANGUAGE = ""
CITATION = ""
NOTE = ""
EMOTIONS = SYNONYMS
SCALES: dict[str, Scale] = {}
FIELDS = ("id", "path", "file", "speaker", "text", "session", "split", "start_s", "end_s", "known_speaker")
NUMBERS = (*DIMENSIONS, "duration_s")
VOTE = "vote_"
GENDER_NAMES = {"f": "female", "w": "female", "woman": "female", "m": "male", "man": "male"}
GENDER_NAMES |= {"female": "female", "male": "male"}
SPLITS = {"dev": "validation", "valid": "validation", "development": "validation"}


def utterances(root: Path, report: Report = stop, *, labelled: bool = True) -> Iterator[Utterance]:
    """Reads a manifest: the file, or the `metadata.csv` of a folder.

    Args:
        root: the file or folder.
        report: called with every problem.
        labelled: or else no label is read, and no speaker required: one that is not given is empty.

    Raises:
        SertoneError: `not_a_manifest`, `missing_column`, `column_twice`, `no_rows`.
    """
    root = root / "metadata.csv" if root.is_dir() else root
    rows = _rows(root, ("path", "speaker") if labelled else ("path",))
    seen: Counter[str] = Counter()
    for count, cells in enumerate(rows, _first_line(root)):
        row = _filled(cells)
        where = f"{root}, line {count}"
        path = row.get("path") or row.get("file")
        if not path or (labelled and "speaker" not in row):
            report(Problem("missing_cell", where, f"no {'speaker' if path else 'path'} given"))
            continue
        stem = path.rsplit(".", 1)[0]
        seen[stem] += 1
        yield Utterance(
            id=row.get("id") or (stem if seen[stem] == 1 else f"{stem}#{seen[stem]}"),
            path=root.parent / path,
            speaker=row.get("speaker", ""),
            labels=_labels(row, where, report) if labelled else {},
            votes=_votes(row, where, report) if labelled else {},
            text=row.get("text"),
            session=row.get("session"),
            split=_split(row, where, report),
            start_s=_number(row, "start_s", where, report) or 0.0,
            end_s=_number(row, "end_s", where, report),
            known_speaker=_known(row, where, report),
        )


def recordings(path: Path) -> list[tuple[Path, str | None, float | None]]:
    """The recordings that a table names, in its order: what predicting needs.

    Args:
        path: a manifest: the file, or a folder with a `metadata.csv`; only the path (or file) is required.

    Returns:
        file, text and duration in seconds of each, None where the table does not say.

    Raises:
        SertoneError: `not_a_manifest`, `missing_column`, `no_rows`, `missing_cell`, `bad_number`,
            `parts_of_files`.
    """
    path = path / "metadata.csv" if path.is_dir() else path
    found = []
    for count, cells in enumerate(_rows(path, ("path",)), _first_line(path)):
        row = _filled(cells)
        if not (name := row.get("path") or row.get("file")):
            raise SertoneError("missing_cell", f"{path}, line {count}: no path given", "one in every row")
        if cut := [name for name in ("start_s", "end_s") if name in row]:
            raise SertoneError(
                "parts_of_files",
                f"{path}, line {count}: {cut[0]} of {name}",
                "whole recordings",
                "an RTTM file of the parts answers each: `sertone predict --speakers`",
            )
        duration = _number(row, "duration_s", f"{path}, line {count}", stop)
        found.append((path.parent / name, row.get("text"), duration))
    return found


def _first_line(path: Path) -> int:
    """Number of the first row, as in an editor."""
    return 2 if path.suffix in (".csv", ".tsv") else 1


def _filled(cells: Mapping[str, str | None]) -> dict[str, str]:
    """The cells of a row that hold something."""
    return {name: cell.strip() for name, cell in cells.items() if cell and cell.strip()}


def _rows(root: Path, required: Sequence[str] = ("path", "speaker")) -> list[dict[str, str | None]]:
    """All cells as text, so that a speaker `03` stays `03`.

    Raises:
        SertoneError: `not_a_manifest`, `missing_column`, `no_rows`.
    """
    readers = {
        ".csv": lambda path: _separated(path, ","),
        ".tsv": lambda path: _separated(path, "\t"),
        ".jsonl": _json_lines,
        ".parquet": _parquet,
    }
    if root.suffix not in readers or not root.is_file():
        found = f"{root}" if root.suffix not in readers else f"no file {root}"
        raise SertoneError("not_a_manifest", found, f"a file ending in {', '.join(readers)}", "name the file")
    try:
        rows = readers[root.suffix](root)
    except (ValueError, csv.Error) as error:
        raise SertoneError("not_a_manifest", f"{root}: {error}", "a readable table") from None
    if not rows:
        raise SertoneError("no_rows", f"{root} has no rows", "one row per utterance")
    _require_columns(dict.fromkeys(name for row in rows for name in row), root, required)
    return rows


def _separated(path: Path, separator: str) -> list[dict[str, str | None]]:
    """A text table; European spreadsheets write semicolons where others write commas."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8; save the table as CSV UTF-8") from None
    header = text.split("\n", 1)[0]
    if header.count(";") > header.count(separator):
        separator = ";"
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    _require_once(reader.fieldnames or [], path)
    rows = list(reader)
    if long := next((number for number, row in enumerate(rows, 2) if None in row), None):
        raise ValueError(f"line {long} has more cells than there are columns")
    return [{name: text and restored(text) for name, text in row.items()} for row in rows]


def _require_once(columns: Sequence[str], where: Path | str) -> None:
    """Refuse a table that names a column twice: one of the two would be lost without a word.

    Raises:
        SertoneError: `column_twice`.
    """
    names = Counter(name for name in columns if name)
    if twice := [name for name, count in names.items() if count > 1]:
        raise SertoneError(
            "column_twice",
            f"{where} has the column {twice[0]} twice",
            "every column once",
            "rename or drop one",
        )


def _parquet(path: Path) -> list[dict[str, str | None]]:
    try:
        import polars
    except ImportError:
        raise SertoneError(
            "missing_extra", f"{path}: Parquet needs polars", way_out='pip install "sertone[train]"'
        ) from None
    try:
        return polars.read_parquet(path).select(polars.all().cast(polars.String)).to_dicts()
    except polars.exceptions.PolarsError as error:
        raise ValueError(str(error)) from None


def _json_lines(path: Path) -> list[dict[str, str | None]]:
    """One object per line; cells that are objects or lists are refused."""
    rows = []
    for count, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        once = partial(_once, where=f"{path}, line {count}")
        cells = json.loads(line, object_pairs_hook=once) if line.strip() else {}
        if not isinstance(cells, dict) or any(isinstance(cell, dict | list) for cell in cells.values()):
            raise ValueError(f"line {count} is not a flat object")
        if cells:
            rows.append({name: None if cell is None else str(cell) for name, cell in cells.items()})
    return rows


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """Return an object of JSON whose names are all different."""
    _require_once([name for name, _ in pairs], where)
    return dict(pairs)


def _require_columns(columns: Iterable[str], root: Path, required: Sequence[str]) -> None:
    columns = list(columns)
    there = {*columns, *(["path"] if "file" in columns else [])}
    missing = [name for name in required if name not in there]
    if missing:
        raise SertoneError(
            "missing_column",
            f"{root} has the columns {', '.join(columns)}",
            f"a column {' and a column '.join(missing)}",
            "without speakers no split is speaker-independent" if "speaker" in missing else "",
        )


def _labels(row: dict[str, str], where: str, report: Report) -> dict[str, str | float]:
    labels: dict[str, str | float] = {
        name: cell for name, cell in row.items() if name not in FIELDS + NUMBERS and not name.startswith(VOTE)
    }
    if "emotion" in row:
        labels |= {"emotion": _emotion(row["emotion"]), "raw_emotion": row["emotion"]}
    if "gender" in labels:
        labels["gender"] = GENDER_NAMES.get(str(labels["gender"]).lower(), labels["gender"])
    for name in NUMBERS:
        if (value := _number(row, name, where, report)) is not None:
            labels[name] = value
    return labels


def _emotion(word: str) -> str:
    return SYNONYMS.get(word.lower(), word.lower())


def _votes(row: dict[str, str], where: str, report: Report) -> dict[str, float]:
    """Shares of the annotators; a row with a count that cannot be one has no votes."""
    counts: dict[str, float] = defaultdict(float)
    for name in [name for name in row if name.startswith(VOTE)]:
        count = number(row[name])
        if count is None or count < 0:
            report(Problem("bad_number", where, f"{name} is {row[name]!r}; expected a count or a share"))
            return {}
        counts[_emotion(name.removeprefix(VOTE))] += count
    return shares(counts)


def _number(row: dict[str, str], name: str, where: str, report: Report) -> float | None:
    if name not in row:
        return None
    value = number(row[name])
    if value is None:
        report(Problem("bad_number", where, f"{name} is {row[name]!r}; expected a number"))
    return value


def _split(row: dict[str, str], where: str, report: Report) -> str | None:
    split = row.get("split", "").lower()
    split = SPLITS.get(split, split)
    if split not in ("", "train", "validation", "test"):
        report(Problem("bad_split", where, f"{split!r}; expected train, validation or test"))
    return split or None


def _known(row: dict[str, str], where: str, report: Report) -> bool:
    answer = row.get("known_speaker", "yes").lower()
    if answer not in ("yes", "no"):
        report(Problem("bad_answer", where, f"known_speaker is {answer!r}; expected yes or no"))
    return answer != "no"


def fake(root: Path, full: bool = False) -> None:
    """Writes a manifest of six speakers; with missing labels and votes, and an emotion of its own."""
    lines = ["path,speaker,gender,emotion,text,valence,vote_joy,vote_awe"]
    for row in range(400 if full else 40):
        speaker, emotion = row % 6, ("joy", "anger", "neutral", "sadness", "awe", "")[row // 6 % 6]
        write_tone(root / f"clips/{row:03d}.wav", row)
        gender = "female" if speaker % 2 else "male"
        votes = f"{row % 4},{4 - row % 4}" if emotion in ("joy", "awe") else ","
        lines.append(f"clips/{row:03d}.wav,0{speaker},{gender},{emotion},hello there,{row % 5},{votes}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
