"""Tables as text: CSV, TSV, JSON lines and Parquet, one dictionary per row."""

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
"""European spreadsheets write semicolons, and tables copied out of one have tabs."""


def read_table(path: Path) -> list[Row]:
    """Read a table; every cell stays text, so that a speaker `03` stays `03`.

    Args:
        path: a file ending in .csv, .tsv, .jsonl or .parquet.

    Raises:
        SertoneError: `not_a_manifest`, `column_twice`, `no_rows`.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS or not path.is_file():
        found = f"{path}" if suffix not in READERS else f"no file {path}"
        raise SertoneError("not_a_manifest", found, f"a file ending in {', '.join(READERS)}", "name the file")
    try:
        rows = READERS[suffix](path)
    except (ValueError, csv.Error) as error:
        raise SertoneError("not_a_manifest", f"{path}: {error}", "a readable table") from None
    if not rows:
        raise SertoneError("no_rows", f"{path} has no rows", "one row per utterance")
    return rows


def get_first_line(path: Path) -> int:
    """Return the number of a table's first row, as an editor counts lines."""
    return 2 if path.suffix.lower() in (".csv", ".tsv") else 1


def _separated(path: Path, separator: str) -> list[Row]:
    """Read a text table; the separator is the one that its first line has most of."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8; save the table as CSV UTF-8") from None
    header = text.split("\n", 1)[0]
    best = max((separator, *SEPARATORS), key=header.count)  # the first of several with the same count
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=best, strict=True)
    _require_once(reader.fieldnames or [], path)
    rows = list(reader)
    if long := next((number for number, row in enumerate(rows, 2) if None in row), None):
        raise ValueError(f"line {long} has more cells than there are columns")
    return [{name: text and unguard_formula(text) for name, text in row.items()} for row in rows]


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


def _parquet(path: Path) -> list[Row]:
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


def _json_lines(path: Path) -> list[Row]:
    """Read one object per line; cells that are objects or lists are refused."""
    rows: list[Row] = []
    for count, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
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


READERS = {
    ".csv": partial(_separated, separator=","),
    ".tsv": partial(_separated, separator="\t"),
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
