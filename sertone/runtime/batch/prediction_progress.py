"""Progress of many predictions: one changing line on a terminal, a line every 30 s in a log."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TextIO

from sertone.runtime.batch.row_formats import RowStatus
from sertone.schema import Prediction
from sertone.utils.wording import format_count, format_duration

TERMINAL_S, LOG_S = 0.2, 30.0
"""Seconds between two lines, on a terminal and in a log."""


class StatusCounts:
    """Number of predictions by status and code.

    Args:
        rows: rows of predictions made before.
    """

    def __init__(self, rows: Iterable[RowStatus] = ()) -> None:
        self.codes = Counter((row.status, row.code) for row in rows)

    def add(self, prediction: Prediction) -> None:
        """Count a prediction."""
        self.codes[prediction.status, prediction.code] += 1

    def count(self, status: str) -> int:
        """Return the number of predictions with a status."""
        return sum(number for (key, _), number in self.codes.items() if key == status)

    def __str__(self) -> str:
        return f"{self.count('ok')} ok, {self._format_status('warning')}, {self._format_status('error')}"

    def _format_status(self, status: str) -> str:
        """Return a text such as `2 errors (1 empty_file, 1 missing_file)`."""
        codes = [f"{number} {code}" for (key, code), number in self.codes.most_common() if key == status]
        details = f" ({', '.join(codes)})" if codes else ""
        return format_count(self.count(status), status) + details


class PredictionProgress:
    """Prints lines about the progress.

    Args:
        total: number of recordings to predict.
        stream: stream to print to; None: stderr.
        clock: returns the time in seconds.
    """

    def __init__(
        self, total: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = total
        self.stream = stream or sys.stderr
        self.clock = clock
        self.finished = 0
        self.errors = 0
        self.audio_s = 0.0
        self.started = self._last_line = clock()
        self._live = self.stream.isatty()

    def add(self, prediction: Prediction) -> None:
        """Count a prediction, and print a line if it is time for one."""
        self.finished += 1
        self.errors += prediction.status == "error"
        self.audio_s += prediction.duration_s or 0.0
        if self.clock() - self._last_line >= (TERMINAL_S if self._live else LOG_S):
            self._last_line = self.clock()
            self._print(self.format_line())

    def format_line(self) -> str:
        """Return finished files, errors, rates and remaining time."""
        elapsed = max(self.clock() - self.started, 1e-9)  # the first prediction may come at once
        remaining_s = elapsed / max(self.finished, 1) * (self.total - self.finished)
        rates = f"{self.finished / elapsed:.1f} files/s, {self.audio_s / elapsed:.1f} s of audio/s"
        counts = (
            f"{self.finished} of {format_count(self.total, 'file')}, {format_count(self.errors, 'error')}"
        )
        return f"{counts}, {rates}, {format_duration(remaining_s)} left"

    def format_summary(self) -> str:
        """Return the number of files, their length, and the speed."""
        elapsed = self.clock() - self.started
        rate = self.finished / max(elapsed, 1e-9)
        files = format_count(self.finished, "file")
        return f"{files}, {self.audio_s:.1f} s of audio in {elapsed:.1f} s, {rate:.1f} files/s"

    def close(self) -> None:
        """Clear the line on the terminal."""
        if self._live:
            self._print("")

    def _print(self, line: str) -> None:
        if self._live:  # back to the start of the line, and clear what a longer line left behind it
            print(f"\r{line}\x1b[K", end="", file=self.stream, flush=True)
        else:
            print(line, file=self.stream, flush=True)
