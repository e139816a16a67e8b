"""The columns of a table: our name of each column, and other names under which it is recognised."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS
from sertone.schema import Problem

FIELDS = ("id", "path", "speaker", "text", "session", "split", "start_s", "end_s", "known_speaker")
NUMBERS = (*DIMENSIONS, "duration_s")
LABELS = ("emotion", "gender", "style")
VOTE_PREFIX = "vote_"
SYNONYMS = {
    "path": (
        *("file", "file_name", "filename", "file_path", "filepath", "audio", "audio_file", "audio_path"),
        *("wav", "wav_file", "wav_path"),
    ),
    "speaker": ("speaker_id", "spk", "spk_id", "actor", "actor_id"),
    "emotion": ("label",),
    "gender": ("sex",),
    "text": ("transcript", "transcription"),
}
"""Our name -> other names for it in tables. Case does not matter, nor blanks or hyphens for underscores.
`sentence` and `class` are not among them: they often hold codes of sentences and school classes."""
NAMES = {name: name for name in (*FIELDS, *NUMBERS, *LABELS)}
NAMES |= {synonym: name for name, synonyms in SYNONYMS.items() for synonym in synonyms}
"""Recognised spelling -> our name."""


def match_columns(
    columns: Iterable[str], chosen: Mapping[str, str], table: Path, required: Sequence[str]
) -> dict[str, str]:
    """Match the columns of a table to our names.

    Recognised names may be in upper or lower case. Any other column keeps its own name.

    Args:
        columns: columns of the table, as they are written.
        chosen: our name -> column of the table, as in `data.columns`; it overrides recognised names.
        table: its path, for errors.
        required: our names that must be among them.

    Returns:
        our name -> column of the table.

    Raises:
        SertoneError: `unknown_column`, `column_twice`, `missing_column`.
    """
    columns = [column for column in columns if column.strip()]  # pandas writes its index under no name
    matched = {name: _find_column(column, columns, table) for name, column in chosen.items()}
    for column in columns:
        if column in matched.values() or _normalise_spelling(column) in chosen:
            continue
        name = _recognise_column(column)
        if name in chosen:
            name = column.strip()  # a second column with this meaning is a label under its own name
        if name in matched:
            _refuse_two(matched[name], column, name, table)
        matched[name] = column
    _require_columns(matched, columns, table, required)
    return matched


def note_synonyms(matched: Mapping[str, str], chosen: Mapping[str, str], table: Path) -> Iterator[Problem]:
    """Yield a note if columns are recognised under another name.

    Args:
        matched: our name -> column, as `match_columns` returns it.
        chosen: our name -> column, for columns that the user has named.
        table: its path.
    """
    synonyms = [
        f"{name} from {column.strip()!r}"
        for name, column in matched.items()
        if name not in chosen and _normalise_spelling(column) in SYNONYMS.get(name, ())
    ]
    if synonyms:
        yield Problem("read_as", str(table), f"read as: {', '.join(synonyms)}", "note")


def _normalise_spelling(name: str) -> str:
    """Return a name without the differences between tables: case, blanks, hyphens."""
    return "_".join(name.lower().replace("-", " ").split())


def _recognise_column(column: str) -> str:
    spelling = _normalise_spelling(column)
    if spelling.startswith(VOTE_PREFIX):
        return VOTE_PREFIX + column.strip()[len(VOTE_PREFIX) :]  # the emotion as it is written
    return NAMES.get(spelling, column.strip())


def _find_column(wanted: str, columns: Sequence[str], table: Path) -> str:
    """Return the column with exactly this name, or else the one that differs only in spelling."""
    exact = [column for column in columns if column.strip() == wanted.strip()]
    matches = exact or [
        column for column in columns if _normalise_spelling(column) == _normalise_spelling(wanted)
    ]
    if not matches:
        similar = _find_similar([wanted], columns)
        raise SertoneError(
            "unknown_column",
            f"{table} has no column {wanted!r}, which --columns or data.columns names",
            f"one of {_list_columns(columns)}",
            f"did you mean {similar!r}?" if similar else "",
        )
    if len(matches) > 1:
        _refuse_two(matches[0], matches[1], wanted, table)
    return matches[0]


def _find_similar(wanted: Iterable[str], columns: Iterable[str]) -> str | None:
    """Return the column whose spelling is closest to one of these names; None if no column is close."""
    spellings = {_normalise_spelling(column): column.strip() for column in columns}
    for name in wanted:
        if matches := difflib.get_close_matches(_normalise_spelling(name), spellings, 1, 0.6):
            return spellings[matches[0]]
    return None


def _list_columns(columns: Iterable[str]) -> str:
    return ", ".join(column.strip() for column in columns)


def _refuse_two(first: str, second: str, name: str, table: Path) -> None:
    columns = (second.strip(), first.strip())
    # Suggest the column with our exact name, or else with its spelling.
    best = min(columns, key=lambda column: (column != name, _normalise_spelling(column) != name))
    raise SertoneError(
        "column_twice",
        f"{table} has the columns {first!r} and {second!r}, which both mean {name}",
        "one of them",
        f"choose with --columns {name}={best} (in a recipe data.columns: {{{name}: {best}}})",
    )


def _require_columns(
    matched: Mapping[str, str], columns: Sequence[str], table: Path, required: Sequence[str]
) -> None:
    missing = [name for name in required if name not in matched]
    if not missing:
        return
    name = missing[0]
    column = _find_similar((name, *SYNONYMS.get(name, ())), columns) or "NAME"
    ways_out = [
        f"--columns {name}={column} (in a recipe data.columns: {{{name}: {column}}}) says which column it is"
    ]
    if "speaker" in missing:
        ways_out.append("without speakers no split is speaker-independent")
    raise SertoneError(
        "missing_column",
        f"{table} has the columns {_list_columns(columns)}",
        f"a column {' and a column '.join(missing)}",
        "; ".join(ways_out),
    )
