"""Readers of tables: CSV, TSV, JSON lines and Parquet, one dictionary of texts per row."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sertone.errors import SertoneError
from sertone.utils.extras import install_command
from sertone.utils.spreadsheet import unguard_formula

Row = dict[str, str | None]
SEPARATORS = (",", ";", "\t")
"""European spreadsheets write semicolons, and tables copied out of a spreadsheet have tabs."""


def load_table(path: Path) -> list[Row]:
    """Read a table; every cell stays text, so that speaker `03` stays `03`.

    Args:
        path: a file ending in .csv, .tsv, .jsonl or .parquet.

    Raises:
        SertoneError: `not_a_manifest`, `column_twice`, `no_rows`.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS or not path.is_file():
        problem = f"{path}" if suffix not in READERS else f"no file {path}"
        expected = f"a file ending in {', '.join(READERS)}"
        raise SertoneError("not_a_manifest", problem, expected, "give the path of the table")
    try:
        rows = READERS[suffix](path)
    except (ValueError, csv.Error) as error:
        raise SertoneError("not_a_manifest", f"{path}: {error}", "a readable table") from None
    if not rows:
        raise SertoneError("no_rows", f"{path} has no rows", "one row per utterance")
    return rows


def get_first_line(path: Path) -> int:
    """Return the line number of a table's first row, as an editor counts lines."""
    return 2 if path.suffix.lower() in (".csv", ".tsv") else 1


def _load_separated(path: Path, separator: str) -> list[Row]:
    """Read a text table; the separator is the one that occurs most often in its first line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8; save the table as CSV UTF-8") from None
    header = text.split("\n", 1)[0]
    best = max((separator, *SEPARATORS), key=header.count)  # the first of several with the same count
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=best, strict=True)
    _require_unique_names(reader.fieldnames or [], path)
    rows = list(reader)  # strict: an unbalanced quote is an error
    # csv.DictReader puts surplus cells under the key None.
    if long := next((number for number, row in enumerate(rows, 2) if None in row), None):
        raise ValueError(f"line {long} has more cells than there are columns")
    return [{name: text and unguard_formula(text) for name, text in row.items()} for row in rows]


def _require_unique_names(columns: Sequence[str], location: Path | str) -> None:
    """Refuse a table with two columns of one name: one of them would be lost silently.

    Raises:
        SertoneError: `column_twice`.
    """
    names = Counter(name for name in columns if name)
    if twice := [name for name, count in names.items() if count > 1]:
        raise SertoneError(
            "column_twice",
            f"{location} has the column {twice[0]} twice",
            "every column once",
            "rename or remove one of them",
        )


def _load_parquet(path: Path) -> list[Row]:
    try:
        import polars
    except ImportError:
        raise SertoneError(
            "missing_extra", f"{path}: Parquet needs polars", way_out=install_command("train")
        ) from None
    try:
        return polars.read_parquet(path).select(polars.all().cast(polars.String)).to_dicts()
    except polars.exceptions.PolarsError as error:
        raise ValueError(str(error)) from None


def _load_json_lines(path: Path) -> list[Row]:
    """Read one object per line, and refuse cells that are objects or lists."""
    rows: list[Row] = []
    for count, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        # json.loads would keep the last of two equal names without an error.
        hook = partial(_build_object, location=f"{path}, line {count}")
        cells = json.loads(line, object_pairs_hook=hook) if line.strip() else {}
        if not isinstance(cells, dict) or any(isinstance(cell, dict | list) for cell in cells.values()):
            raise ValueError(f"line {count} is not a flat object")
        if cells:
            rows.append({name: None if cell is None else str(cell) for name, cell in cells.items()})
    return rows


def _build_object(pairs: list[tuple[str, Any]], location: str) -> dict[str, Any]:
    """Return a JSON object, and refuse one in which a name occurs twice."""
    _require_unique_names([name for name, _ in pairs], location)
    return dict(pairs)


READERS = {
    ".csv": partial(_load_separated, separator=","),
    ".tsv": partial(_load_separated, separator="\t"),
    ".jsonl": _load_json_lines,
    ".parquet": _load_parquet,
}
