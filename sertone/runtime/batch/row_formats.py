"""Rows of predictions as JSON lines or CSV, and the complete rows of a file that may be torn at its end."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from sertone.errors import SertoneError
from sertone.runtime.answering import AnswerFormat
from sertone.schema import COLUMNS, Prediction
from sertone.utils.spreadsheet import guard_formula, unguard_formula
from sertone.utils.terminal import escape_control

DIGITS = 6
"""Decimal places of numbers in CSV."""


class RowStatus(NamedTuple):
    """The part of a row that a resumed run reads."""

    file: str
    status: str
    code: str


class RowFormat(Protocol):
    """A format of rows."""

    @property
    def header(self) -> bytes:
        """First line of the file; may be empty."""
        ...

    def format_row(self, prediction: Prediction) -> bytes:
        """Return a row with its line end."""
        ...

    def parse_row(self, row: bytes) -> RowStatus:
        """Parse a row; ValueError, KeyError or TypeError for lines in another format."""
        ...

    def is_complete(self, start: bytes) -> bool:
        """Return whether lines form a complete row."""
        ...


def select_format(path: Path, answer_format: AnswerFormat) -> RowFormat:
    """Return the format for a file's suffix.

    Raises:
        SertoneError: `bad_output`.
    """
    if path.suffix.lower() == ".jsonl":
        return JsonLines()
    if path.suffix.lower() == ".csv":
        return Csv(answer_format.class_names, list(answer_format.model.scales))
    raise SertoneError("bad_output", f"--out {path}", "a name that ends in .jsonl or .csv")


def format_json_line(prediction: Prediction) -> str:
    """Return a prediction as a JSON object, in ASCII if a file name or a text is not valid Unicode."""
    values = prediction.to_json()
    line = json.dumps(values, ensure_ascii=False)
    return escape_control(line) if line == _replace_surrogates(line) else json.dumps(values)


def _replace_surrogates(text: str) -> str:
    """Write lone surrogates, as in file names that are not UTF-8, as escape sequences."""
    return text.encode("utf-8", "backslashreplace").decode()


class JsonLines:
    """One JSON object per line."""

    header = b""

    def format_row(self, prediction: Prediction) -> bytes:
        return format_json_line(prediction).encode() + b"\n"

    def parse_row(self, row: bytes) -> RowStatus:
        values = json.loads(row)
        return RowStatus(values["file"], values["status"], values["code"])

    def is_complete(self, start: bytes) -> bool:
        return start.endswith(b"\n")


@dataclass(frozen=True)
class Csv:
    """One row per prediction below a header: `p_NAME` for each class, and each dimension by its name.

    Cells that a spreadsheet would take for a formula get an apostrophe in front (`utils.spreadsheet`).

    Args:
        classes: names.
        dimensions: names.
    """

    classes: Sequence[str]
    dimensions: Sequence[str]

    @property
    def header(self) -> bytes:
        return _format_cells(self._columns)

    @property
    def _columns(self) -> list[str]:
        return [*COLUMNS, *(f"p_{name}" for name in self.classes), *self.dimensions, "text"]

    def format_row(self, prediction: Prediction) -> bytes:
        values = prediction.to_row()
        return _format_cells([values.get(name) for name in self._columns])

    def parse_row(self, row: bytes) -> RowStatus:
        try:
            (cells,) = csv.reader(io.StringIO(row.decode(), newline=""), strict=True)
        except csv.Error as error:
            raise ValueError(str(error)) from None
        if len(cells) != len(self._columns):
            raise ValueError(f"{len(cells)} cells")
        return RowStatus(*map(unguard_formula, cells[:3]))

    def is_complete(self, start: bytes) -> bool:
        """Return whether all quotes are closed: line breaks within quotes belong to the row."""
        return start.endswith(b"\n") and start.count(b'"') % 2 == 0


def _format_cells(values: Sequence[object]) -> bytes:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(
        [round(value, DIGITS) if isinstance(value, float) else guard_formula(value) for value in values]
    )
    return _replace_surrogates(line.getvalue()).encode()


def iterate_complete_rows(file: BinaryIO, form: RowFormat) -> Iterator[bytes]:
    """Yield the complete rows of a file; a torn row at its end is left out."""
    row = b""
    for line in file:
        row += line
        if form.is_complete(row):
            yield row
            row = b""


def normalise_name(file: str) -> str:
    """Return a file's name in a form that every row format can store."""
    return _replace_surrogates(file)
