"""How far many predictions are: one line on a terminal, in a log a line now and then."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TextIO

from sertone.runtime.batch.row_formats import RowStatus
from sertone.schema import Prediction
from sertone.scoring.display import format_count, format_duration

TERMINAL_S, LOG_S = 0.2, 30.0
"""Seconds between two lines, on a terminal and in a log."""


class StatusCounts:
    """How many answers there are of each status and code.

    Args:
        rows: of answers that are there already.
    """

    def __init__(self, rows: Iterable[RowStatus] = ()) -> None:
        self.codes = Counter((row.status, row.code) for row in rows)

    def add(self, prediction: Prediction) -> None:
        """Counts one more."""
        self.codes[prediction.status, prediction.code] += 1

    def count(self, status: str) -> int:
        """How many have a status."""
        return sum(count for (each, _), count in self.codes.items() if each == status)

    def __str__(self) -> str:
        return f"{self.count('ok')} ok, {self._said('warning')}, {self._said('error')}"

    def _said(self, status: str) -> str:
        """`2 errors (1 empty_file, 1 missing_file)`."""
        codes = [f"{count} {code}" for (each, code), count in self.codes.most_common() if each == status]
        return format_count(self.count(status), status) + f" ({', '.join(codes)})" * bool(codes)


class PredictionProgress:
    """Lines on how it is going.

    Args:
        total: number of recordings to answer.
        stream: where to.
        clock: seconds.
    """

    def __init__(
        self, total: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.stream, self.clock = total, stream or sys.stderr, clock
        self.done, self.errors, self.audio_s = 0, 0, 0.0
        self.started = self._said = clock()
        self._live = self.stream.isatty()

    def add(self, prediction: Prediction) -> None:
        """Counts one more, and says so if it is time."""
        self.done += 1
        self.errors += prediction.status == "error"
        self.audio_s += prediction.duration_s or 0.0
        if self.clock() - self._said >= (TERMINAL_S if self._live else LOG_S):
            self._said = self.clock()
            self._print(self.format_line())

    def format_line(self) -> str:
        """Done, errors, rates and time left."""
        spent = max(self.clock() - self.started, 1e-9)
        left = format_duration(spent / max(self.done, 1) * (self.total - self.done))
        rates = f"{self.done / spent:.1f} files/s, {self.audio_s / spent:.1f} s of audio/s"
        done = f"{self.done} of {format_count(self.total, 'file')}, {format_count(self.errors, 'error')}"
        return f"{done}, {rates}, {left} left"

    def format_summary(self) -> str:
        """What was done, and how fast."""
        spent = self.clock() - self.started
        rate = self.done / max(spent, 1e-9)
        done = format_count(self.done, "file")
        return f"{done}, {self.audio_s:.1f} s of audio in {spent:.1f} s, {rate:.1f} files/s"

    def close(self) -> None:
        """Takes the line from the terminal."""
        if self._live:
            self._print("")

    def _print(self, line: str) -> None:
        print(
            f"\r{line}\x1b[K" if self._live else line,
            end="" if self._live else "\n",
            file=self.stream,
            flush=True,
        )
