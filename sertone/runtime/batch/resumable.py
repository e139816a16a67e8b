"""A file of predictions that grows row by row. An interrupted run can be resumed.

    results.csv             one row per recording, see `row_formats`
    results.csv.journal     the provenance (model and settings), then a line `STAMP "FILE"` per recording,
                            which is written before the row

A recording is finished when its complete row is in the file. A stamp holds the size and the modification
time of the file, the text and the stated duration. If one of them has changed, the old row is removed and
the recording is predicted again. A run with another model or other settings cannot be resumed.
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
from sertone.utils.wording import format_count

MAX_NAMES = 3
"""Most changed inputs that a message names."""
Provenance = Mapping[str, Any]
"""Model and settings of predictions, as JSON."""


def compute_stamp(source: Input) -> str:
    """Return a hash that changes with the file, its text or its stated duration."""
    state = _get_state(source.file) if source.content is None else blake2b(source.content).hexdigest()
    return blake2b(repr((state, source.text, source.duration_s)).encode(), digest_size=8).hexdigest()


def _get_state(file: str) -> tuple[int, int] | None:
    """Return size and modification time of a file; None where there is none."""
    try:
        status = Path(file).stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    return status.st_size, status.st_mtime_ns


class ResumableOutput:
    """An open file of predictions; see `open_output`.

    Attributes:
        finished: rows from before.
        changed: inputs that have changed, so their rows were removed.
    """

    def __init__(self, rows: BinaryIO, journal: BinaryIO, form: RowFormat) -> None:
        self.finished: list[RowStatus] = []
        self.changed: set[str] = set()
        self._rows = rows
        self._journal = journal
        self._form = form

    def describe_resumption(self) -> str:
        """Return one line about the rows from before; empty for a new file."""
        parts = []
        if self.finished:
            parts.append(f"{format_count(len(self.finished), 'row')} from before")
        if self.changed:
            names = sorted(self.changed)[:MAX_NAMES]
            if len(self.changed) > MAX_NAMES:
                names.append("...")
            changed = format_count(len(self.changed), "changed input")
            parts.append(f"{changed} predicted again ({', '.join(names)})")
        return "; ".join(parts)

    def select_unfinished(self, inputs: Iterable[Input]) -> list[Input]:
        """Return the inputs without a row; an input that is given twice has two rows."""
        available = Counter(normalise_name(row.file) for row in self.finished)
        return [source for source in inputs if not _take(available, normalise_name(source.file))]

    def write(self, stamp: str, prediction: Prediction) -> None:
        """Append a row.

        Args:
            stamp: stamp of the input, computed before it was read.
            prediction: prediction of the input.
        """
        # The stamp comes first: a row without a stamp could never be recognised as outdated.
        self._journal.write(f"{stamp} {json.dumps(prediction.file)}\n".encode())
        self._journal.flush()
        self._rows.write(self._form.format_row(prediction))
        self._rows.flush()


def _take(available: Counter[str], name: str) -> bool:
    """Take one row of a name; return whether there was one."""
    available[name] -= 1
    return available[name] >= 0


@contextmanager
def open_output(
    path: Path, form: RowFormat, provenance: Provenance, inputs: Iterable[Input], *, resume: bool
) -> Iterator[ResumableOutput]:
    """Open a file of predictions for writing.

    Args:
        path: path of the rows.
        form: format of the rows.
        provenance: model and settings.
        inputs: recordings to predict.
        resume: keep the rows of an existing file.

    Raises:
        SertoneError: `bad_output`, `missing_folder`, `output_exists`, `output_in_use`, `not_resumable`,
            `other_output`, `bad_rows`.
    """
    path = _resolve_link(path)
    journal_path = path.with_name(f"{path.name}.journal")
    _require_usable(path, journal_path, resume=resume)
    with open(journal_path, "a+b") as journal:
        _lock(journal, path)
        finished: list[RowStatus] = []
        changed: set[str] = set()
        if path.exists():
            stamps = _load_stamps(journal, provenance, path)
            finished, changed = _keep_valid_rows(path, form, stamps, inputs)
        else:
            _start_journal(journal, provenance)
            path.write_bytes(form.header)
        with open(path, "ab") as rows:
            output = ResumableOutput(rows, journal, form)
            output.finished = finished
            output.changed = changed
            yield output


def _resolve_link(path: Path) -> Path:
    """Return the file that a link leads to, or the path itself."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # a link to itself
        raise SertoneError("bad_output", f"{path}: {error}", "a file to write") from None


def _require_usable(path: Path, journal_path: Path, *, resume: bool) -> None:
    if not path.parent.is_dir():
        problem = f"no folder {path.parent} for {path.name}"
        raise SertoneError("missing_folder", problem, "an existing folder")
    if path.exists() and not resume:
        way_out = "--resume continues it" if journal_path.exists() else ""
        raise SertoneError("output_exists", f"{path} exists already", "a new file", way_out)
    if path.exists() and not journal_path.exists():
        raise _build_resume_error(path)


def _lock(journal: BinaryIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SertoneError("output_in_use", f"another process writes {path}", "a separate file") from None


def _start_journal(journal: BinaryIO, provenance: Provenance) -> None:
    journal.seek(0)
    if journal.read(1) not in (b"", b"{"):  # a file of the user that happens to have this name
        problem = f"{journal.name}, which is not a journal"
        raise SertoneError("output_exists", problem, "another name for the output")
    journal.truncate(0)
    journal.write(json.dumps(provenance).encode() + b"\n")
    journal.flush()


def _load_stamps(journal: BinaryIO, provenance: Provenance, path: Path) -> dict[str, str]:
    """Return the last stamp of each file, and remove a torn last line.

    Raises:
        SertoneError: `not_resumable`, `other_output`.
    """
    journal.seek(0)
    first_line, *lines = journal.read().split(b"\n")
    try:
        before = json.loads(first_line)
        pairs = [line.decode().split(" ", 1) for line in lines[:-1]]
        stamps = {normalise_name(json.loads(name)): stamp for stamp, name in pairs}
    except ValueError:
        raise _build_resume_error(path) from None
    # Through JSON and back: tuples become lists there.
    _require_same(before, json.loads(json.dumps(provenance)), path)
    journal.truncate(len(b"\n".join([first_line, *lines[:-1], b""])))
    return stamps


def _build_resume_error(path: Path) -> SertoneError:
    return SertoneError(
        "not_resumable",
        f"no valid {path.name}.journal beside {path}",
        "a file that `sertone predict --out` wrote",
        "name another file",
    )


def _require_same(before: Provenance, now: Provenance, path: Path) -> None:
    different = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if different:
        problem = f"{path} was written with {_describe_settings(before, different)}"
        raise SertoneError("other_output", problem, _describe_settings(now, different), "name another file")


def _describe_settings(provenance: Provenance, names: Iterable[str]) -> str:
    """Return a text such as `model 'a', no asr`."""
    values = ((name, provenance.get(name)) for name in names)
    return ", ".join(f"no {name}" if value in (None, "") else f"{name} {value!r}" for name, value in values)


def _keep_valid_rows(
    path: Path, form: RowFormat, stamps: Mapping[str, str], inputs: Iterable[Input]
) -> tuple[list[RowStatus], set[str]]:
    """Write the file again without torn rows and without rows of inputs that have changed.

    Returns:
        the remaining rows, and the inputs that have changed.
    """
    current = {normalise_name(source.file): compute_stamp(source) for source in inputs}
    finished, changed = [], set()
    new_path = path.with_name(f".{path.name}.part")
    with open(path, "rb") as old, open(new_path, "wb") as new:
        new.write(form.header)
        for raw, row in _parse_rows(old, form, path):
            name = normalise_name(row.file)
            # A row whose input is not given this time stays.
            if current.get(name, stamps.get(name)) == stamps.get(name):
                new.write(raw)
                finished.append(row)
            else:
                changed.add(row.file)
        new.flush()
        os.fsync(new.fileno())  # the data must be on the disk before the old file is replaced
    new_path.replace(path)
    return finished, changed


def _parse_rows(file: BinaryIO, form: RowFormat, path: Path) -> Iterator[tuple[bytes, RowStatus]]:
    rows = iterate_complete_rows(file, form)
    for number, raw in enumerate(rows, 1):
        if number == 1 and form.header:
            if raw != form.header:
                raise _build_row_error(path, number)
            continue
        try:
            yield raw, form.parse_row(raw)
        except (ValueError, KeyError, TypeError):
            raise _build_row_error(path, number) from None


def _build_row_error(path: Path, number: int) -> SertoneError:
    problem = f"{path}: row {number} is not a row of this model"
    return SertoneError("bad_rows", problem, "unmodified results", "name another file")
