"""A file of answers that grows row by row, and can be gone on with after any interruption.

    results.csv             one row per recording, see `runtime.rows`
    results.csv.journal     what the answers were made by, then `STAMP "FILE"` of every recording before its
                            row is written

A recording is finished when its whole row is there. A stamp holds size and time of the last change of the
file, the text and the stated duration: when one of them has changed, the old row is taken out and the
recording answered again. Going on with another model, or other settings, is refused.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from sertone.errors import SertoneError
from sertone.runtime.batch.inputs import Input
from sertone.runtime.batch.row_formats import RowFormat, RowStatus, iterate_complete_rows, normalise_name
from sertone.schema import Prediction
from sertone.scoring.display import format_count

Provenance = Mapping[str, Any]
"""Model and settings of answers, as JSON."""


def compute_stamp(source: Input) -> str:
    """Another one when the file, its text or its stated duration is another one."""
    found = _state(source.file) if source.content is None else blake2b(source.content).hexdigest()
    return blake2b(repr((found, source.text, source.duration_s)).encode(), digest_size=8).hexdigest()


def _state(file: str) -> tuple[int, int] | None:
    """Return size and time of the last change of a file; None where there is none."""
    try:
        about = Path(file).stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    return about.st_size, about.st_mtime_ns


class ResumableOutput:
    """A file of answers that is open; see `opened`.

    Attributes:
        finished: rows that were there already.
        changed: inputs whose rows were taken out, because they have changed.
    """

    def __init__(self, rows: BinaryIO, journal: BinaryIO, form: RowFormat) -> None:
        self.finished: list[RowStatus] = []
        self.changed: set[str] = set()
        self._rows, self._journal, self._form = rows, journal, form

    def describe_resumption(self) -> str:
        """What was found there, in words; empty for a new file."""
        said = [f"{format_count(len(self.finished), 'row')} from before"] * bool(self.finished)
        some = ", ".join(sorted(self.changed)[:3]) + ", ..." * (len(self.changed) > 3)
        changed = format_count(len(self.changed), "changed input")
        said += [f"{changed} answered again ({some})"] * bool(self.changed)
        return "; ".join(said)

    def select_unfinished(self, inputs: Iterable[Input]) -> list[Input]:
        """The inputs that have no row yet; one that is given twice has two."""
        there = Counter(normalise_name(row.file) for row in self.finished)
        return [source for source in inputs if not _taken(there, normalise_name(source.file))]

    def write(self, stamped: str, prediction: Prediction) -> None:
        """Appends a row.

        Args:
            stamped: stamp of the input before it was read.
            prediction: about it.
        """
        self._journal.write(f"{stamped} {json.dumps(prediction.file)}\n".encode())
        self._journal.flush()
        self._rows.write(self._form.format_row(prediction))
        self._rows.flush()


def _taken(there: Counter[str], name: str) -> bool:
    """Takes one of a name, if there is one."""
    there[name] -= 1
    return there[name] >= 0


@contextmanager
def open_output(
    path: Path, form: RowFormat, made_by: Provenance, inputs: Iterable[Input], *, resume: bool
) -> Iterator[ResumableOutput]:
    """Opens a file of answers for writing.

    Args:
        path: of the rows.
        form: of the rows.
        made_by: model and settings.
        inputs: what is to be answered.
        resume: go on with what is there.

    Raises:
        SertoneError: `missing_folder`, `output_exists`, `output_in_use`, `not_resumable`, `other_output`,
            `bad_rows`.
    """
    path = _followed(path)
    if not path.parent.is_dir():
        raise SertoneError("missing_folder", f"no folder {path.parent} for {path.name}", "one that is there")
    beside = path.with_name(f"{path.name}.journal")
    if path.exists() and not resume:
        way_out = "--resume goes on with it" if beside.exists() else ""
        raise SertoneError("output_exists", f"{path} is there already", "a new file", way_out)
    if path.exists() and not beside.exists():
        raise _not_resumable(path)
    with open(beside, "a+b") as journal:
        _lock(journal, path)
        if path.exists():
            stamps = _stamps(journal, made_by, path)
            finished, changed = _mend(path, form, stamps, inputs)
        else:
            _begin(journal, made_by)
            path.write_bytes(form.header)
            finished, changed = [], set()
        with open(path, "ab") as rows:
            output = ResumableOutput(rows, journal, form)
            output.finished, output.changed = finished, changed
            yield output


def _followed(path: Path) -> Path:
    """Of a link the file that it leads to."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # a link to itself
        raise SertoneError("bad_output", f"{path}: {error}", "a file to write") from None


def _lock(journal: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SertoneError("output_in_use", f"another process writes {path}", "a file of one's own") from None


def _begin(journal: BinaryIO, made_by: Provenance) -> None:
    journal.seek(0)
    if journal.read(1) not in (b"", b"{"):
        raise SertoneError(
            "output_exists", f"{journal.name}, which is no journal", "another name for the output"
        )
    journal.truncate(0)
    journal.write(json.dumps(made_by).encode() + b"\n")
    journal.flush()


def _stamps(journal: BinaryIO, made_by: Provenance, path: Path) -> dict[str, str]:
    """File -> its last stamp; a torn last line is taken out.

    Raises:
        SertoneError: `not_resumable`, `other_output`.
    """
    journal.seek(0)
    head, *lines = journal.read().split(b"\n")
    try:
        before = json.loads(head)
        split = [line.decode().split(" ", 1) for line in lines[:-1]]
        stamps = {normalise_name(json.loads(name)): stamped for stamped, name in split}
    except ValueError:
        raise _not_resumable(path) from None
    _require_same(before, json.loads(json.dumps(made_by)), path)
    journal.truncate(len(b"\n".join([head, *lines[:-1], b""])))
    return stamps


def _not_resumable(path: Path) -> SertoneError:
    return SertoneError(
        "not_resumable",
        f"no sound {path.name}.journal beside {path}",
        "a file that `sertone predict --out` wrote",
        "name another file",
    )


def _require_same(before: Provenance, now: Provenance, path: Path) -> None:
    if other := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
        was, wanted = (_in_words(made, other) for made in (before, now))
        raise SertoneError("other_output", f"{path} was written with {was}", wanted, "name another file")


def _in_words(made_by: Provenance, names: Iterable[str]) -> str:
    """Return what wrote a file: `model 'a', no recognised_by`."""
    values = ((name, made_by.get(name)) for name in names)
    return ", ".join(f"no {name}" if value in (None, "") else f"{name} {value!r}" for name, value in values)


def _mend(
    path: Path, form: RowFormat, stamps: Mapping[str, str], inputs: Iterable[Input]
) -> tuple[list[RowStatus], set[str]]:
    """Writes the file again without what is torn or was made from inputs that have changed since.

    Returns:
        the rows that are left, and the inputs that have changed.
    """
    current = {normalise_name(source.file): compute_stamp(source) for source in inputs}
    finished, changed = [], set()
    aside = path.with_name(f".{path.name}.part")
    with open(path, "rb") as old, open(aside, "wb") as new:
        new.write(form.header)
        for raw, row in _read(old, form, path):
            name = normalise_name(row.file)
            if current.get(name, stamps.get(name)) == stamps.get(name):
                new.write(raw)
                finished.append(row)
            else:
                changed.add(row.file)
        new.flush()
        os.fsync(new.fileno())
    aside.replace(path)
    return finished, changed


def _read(file: BinaryIO, form: RowFormat, path: Path) -> Iterator[tuple[bytes, RowStatus]]:
    rows = iterate_complete_rows(file, form)
    for number, raw in enumerate(rows, 1):
        if number == 1 and form.header:
            if raw != form.header:
                raise _bad_rows(path, number)
            continue
        try:
            yield raw, form.parse_row(raw)
        except (ValueError, KeyError, TypeError):
            raise _bad_rows(path, number) from None


def _bad_rows(path: Path, number: int) -> SertoneError:
    return SertoneError(
        "bad_rows", f"{path}: row {number} is none of this model's", "untouched results", "name another file"
    )
