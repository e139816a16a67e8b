"""The columns of a table: what each is called here, and under which other names it is known."""

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
"""Column -> other names that tables give it. Case, and blanks or hyphens for underscores, do not matter.
`sentence` and `class` are not among them: they often hold codes of sentences and classes of a school."""
KNOWN = {name: name for name in (*FIELDS, *NUMBERS, *LABELS)}
KNOWN |= {other: name for name, others in SYNONYMS.items() for other in others}


def match_columns(
    columns: Iterable[str], chosen: Mapping[str, str], where: Path, required: Sequence[str]
) -> dict[str, str]:
    """Find out what the columns of a table mean.

    A known name is recognised in upper and lower case; any other column keeps its own name.

    Args:
        columns: of the table, as they are written.
        chosen: name used here -> column of the table, as `data.columns` says; it overrides known names.
        where: the table, for errors.
        required: names that must be among them.

    Returns:
        name used here -> column of the table.

    Raises:
        SertoneError: `unknown_column`, `column_twice`, `missing_column`.
    """
    columns = [column for column in columns if column.strip()]  # pandas writes its index under no name
    named = {name: _find(column, columns, where) for name, column in chosen.items()}
    for column in columns:
        if column in named.values() or _spelling(column) in chosen:
            continue
        name = _meaning(column)
        if name in chosen:
            name = column.strip()  # a second column of that meaning is a label under its own name
        if name in named:
            _refuse_two(named[name], column, name, where)
        named[name] = column
    _require(named, columns, where, required)
    return named


def note_synonyms(named: Mapping[str, str], chosen: Mapping[str, str], where: Path) -> Iterator[Problem]:
    """Yield a note of the columns that are recognised under another name, if there are any.

    Args:
        named: name used here -> column, as `named_columns` returns it.
        chosen: those that the user has named.
        where: the table.
    """
    others = [
        f"{name} from {column.strip()!r}"
        for name, column in named.items()
        if name not in chosen and _spelling(column) in SYNONYMS.get(name, ())
    ]
    if others:
        yield Problem("read_as", str(where), f"read as: {', '.join(others)}", "note")


def _spelling(name: str) -> str:
    """Return a name without what tables write differently: case, blanks, hyphens."""
    return "_".join(name.lower().replace("-", " ").split())


def _meaning(column: str) -> str:
    spelling = _spelling(column)
    if spelling.startswith(VOTE_PREFIX):
        return VOTE_PREFIX + column.strip()[len(VOTE_PREFIX) :]  # the emotion as it is written
    return KNOWN.get(spelling, column.strip())


def _find(wanted: str, columns: Sequence[str], where: Path) -> str:
    """Return the column that is written so, or else that differs only in spelling."""
    exact = [column for column in columns if column.strip() == wanted.strip()]
    alike = exact or [column for column in columns if _spelling(column) == _spelling(wanted)]
    if not alike:
        near = _near([wanted], columns)
        raise SertoneError(
            "unknown_column",
            f"{where} has no column {wanted!r}, which --columns or data.columns names",
            f"one of {_list(columns)}",
            f"did you mean {near!r}?" if near else "",
        )
    if len(alike) > 1:
        _refuse_two(alike[0], alike[1], wanted, where)
    return alike[0]


def _near(wanted: Iterable[str], columns: Iterable[str]) -> str | None:
    """Return the column whose spelling is nearest to one of these names, if one is near."""
    spellings = {_spelling(column): column.strip() for column in columns}
    near = (difflib.get_close_matches(_spelling(name), spellings, 1, 0.6) for name in wanted)
    return next((spellings[found[0]] for found in near if found), None)


def _list(columns: Iterable[str]) -> str:
    return ", ".join(column.strip() for column in columns)


def _refuse_two(first: str, second: str, name: str, where: Path) -> None:
    columns = (second.strip(), first.strip())
    best = min(columns, key=lambda column: (column != name, _spelling(column) != name))
    raise SertoneError(
        "column_twice",
        f"{where} has the columns {first!r} and {second!r}, which both mean {name}",
        "one of them",
        f"choose with --columns {name}={best} (in a recipe data.columns: {{{name}: {best}}})",
    )


def _require(named: Mapping[str, str], columns: Sequence[str], where: Path, required: Sequence[str]) -> None:
    missing = [name for name in required if name not in named]
    if not missing:
        return
    name = missing[0]
    near = _near((name, *SYNONYMS.get(name, ())), columns) or "NAME"
    ways_out = [f"--columns {name}={near} (in a recipe data.columns: {{{name}: {near}}}) says which it is"]
    if "speaker" in missing:
        ways_out.append("without speakers no split is speaker-independent")
    raise SertoneError(
        "missing_column",
        f"{where} has the columns {_list(columns)}",
        f"a column {' and a column '.join(missing)}",
        "; ".join(ways_out),
    )
