"""One row per prediction, as JSON lines or CSV; complete rows of a file that may be torn at its end."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from sertone.errors import SertoneError
from sertone.runtime.predictor import Predictor
from sertone.schema import COLUMNS, Prediction
from sertone.utils.spreadsheet import guard_formula, unguard_formula
from sertone.utils.terminal import escape_control

DIGITS = 6


class RowStatus(NamedTuple):
    """What is read again of a row."""

    file: str
    status: str
    code: str


class RowFormat(Protocol):
    """How rows are written."""

    @property
    def header(self) -> bytes:
        """What the file begins with."""
        ...

    def format_row(self, prediction: Prediction) -> bytes:
        """A row, with the end of its line."""
        ...

    def parse_row(self, row: bytes) -> RowStatus:
        """What a row holds; ValueError or KeyError where it is none."""
        ...

    def is_complete(self, start: bytes) -> bool:
        """Whether lines are a whole row."""
        ...


def select_format(path: Path, predictor: Predictor) -> RowFormat:
    """The form that a file's name asks for.

    Raises:
        SertoneError: `bad_output`.
    """
    if path.suffix.lower() == ".jsonl":
        return JsonLines()
    if path.suffix.lower() == ".csv":
        return Csv(predictor.answer_format.names(predictor.model), list(predictor.model.scales))
    raise SertoneError("bad_output", f"--out {path}", "a name that ends in .jsonl or .csv")


def format_json_line(prediction: Prediction) -> str:
    """A prediction as a JSON object; in ASCII where a file's name or a text is no Unicode."""
    values = prediction.to_json()
    line = json.dumps(values, ensure_ascii=False)
    return escape_control(line) if line == _unicode(line) else json.dumps(values)


def _unicode(text: str) -> str:
    """Half a character, as in names that are not UTF-8, is written out as its number."""
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
    """One row per prediction under a head; `p_NAME` for each class, the dimensions by their names.

    What a spreadsheet would take for a formula is guarded (`spreadsheet`).

    Args:
        classes: names.
        dimensions: names.
    """

    classes: Sequence[str]
    dimensions: Sequence[str]

    @property
    def header(self) -> bytes:
        return _cells(self._columns)

    @property
    def _columns(self) -> list[str]:
        return [*COLUMNS, *(f"p_{name}" for name in self.classes), *self.dimensions, "text"]

    def format_row(self, prediction: Prediction) -> bytes:
        values = prediction.to_row()
        return _cells([values.get(name) for name in self._columns])

    def parse_row(self, row: bytes) -> RowStatus:
        try:
            (cells,) = csv.reader(io.StringIO(row.decode(), newline=""), strict=True)
        except csv.Error as error:
            raise ValueError(str(error)) from None
        if len(cells) != len(self._columns):
            raise ValueError(f"{len(cells)} cells")
        return RowStatus(*map(unguard_formula, cells[:3]))

    def is_complete(self, start: bytes) -> bool:
        """Lines within quotes belong to their row."""
        return start.endswith(b"\n") and start.count(b'"') % 2 == 0


def _cells(values: Sequence[object]) -> bytes:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(
        [round(value, DIGITS) if isinstance(value, float) else guard_formula(value) for value in values]
    )
    return _unicode(line.getvalue()).encode()


def iterate_complete_rows(file: BinaryIO, form: RowFormat) -> Iterator[bytes]:
    """The complete rows of a file; what is torn at its end is left out."""
    row = b""
    for line in file:
        row += line
        if form.is_complete(row):
            yield row
            row = b""


def normalise_name(file: str) -> str:
    """A file's name as every form can keep it."""
    return _unicode(file)
