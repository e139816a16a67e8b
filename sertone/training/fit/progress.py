"""Progress on stderr: a row per fold that is running and one for the whole, or plain lines in a log."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Rows

from sertone.scoring.display import format_count, format_duration
from sertone.training.fit import distributed
from sertone.utils.child_process import emit
from sertone.utils.terminal import escape_control, print_status

EVERY_S = 30.0
"""Without a terminal a line is printed at least this often, within an epoch no more often."""
RELAY_S = 1.0
"""Another process tells of its steps no more often than this."""


class ProgressRelay:
    """A `Progress` in another process: passes everything on to the caller's."""

    def __init__(self) -> None:
        self._told = -RELAY_S

    def skip(self, epochs: int) -> None:
        emit(("skip", epochs))

    def step(self, head: str, epoch: int, epochs: int, share: float) -> None:
        if time.monotonic() - self._told >= RELAY_S:
            self._told = time.monotonic()
            emit(("step", head, epoch, epochs, share))

    def epoch(self, head: str, epoch: int, epochs: int, scores: dict[str, float]) -> None:
        emit(("epoch", head, epoch, epochs, scores))

    def say(self, line: str) -> None:
        emit(("say", line))


class RunProgress:
    """How a run is getting on. Use as a context manager.

    Args:
        total: epochs of the whole run, all folds and stages.
        quiet: print nothing.
    """

    def __init__(self, total: int, quiet: bool = False) -> None:
        self.total, self.quiet = total, quiet or not distributed.is_first()
        self.done = self.skipped = 0
        self.started = self._printed = time.monotonic()
        self._parts: dict[str, float] = {}
        self._said: set[str] = set()
        self._tasks: dict[str, TaskID] = {}
        console = Console(stderr=True, quiet=self.quiet)
        head, note = (TextColumn(f"{{task.{of}}}", markup=False) for of in ("description", "fields[note]"))
        columns = (head, BarColumn(16), MofNCompleteColumn(), note)
        self._rows = Rows(*columns, console=console, transient=True)
        self._all = self._rows.add_task("all epochs", total=total, note="")

    def __enter__(self) -> Self:
        if self._live:
            self._rows.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.stop()

    def skip(self, epochs: int) -> None:
        """Counts epochs that an earlier run has done."""
        self.done += epochs
        self.skipped += epochs

    def step(self, head: str, epoch: int, epochs: int, share: float) -> None:
        """Part of an epoch is over.

        Args:
            head: fold and stage.
            epoch: the one under way, from 1.
            epochs: of this stage.
            share: of this epoch that is done.
        """
        self._parts[head] = share
        self._rows.update(self._all, note=self._left())
        if not self._live and self._silent_for_long():
            self._print(f"{head}  epoch {epoch} of {epochs}, {share:.0%}  {self._left()}")

    def epoch(self, head: str, epoch: int, epochs: int, scores: dict[str, float]) -> None:
        """One epoch is over.

        Args:
            head: fold and stage.
            epoch: number, from 1.
            epochs: of this stage.
            scores: what to show, by name.
        """
        self.done += 1
        self._parts.pop(head, None)
        left = self._left()
        shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
        if self._live:
            if head not in self._tasks:
                self._tasks[head] = self._rows.add_task(escape_control(head), total=epochs, note="")
            self._rows.update(self._tasks[head], completed=epoch, note=shown)
            self._rows.update(self._all, completed=self.done, note=left)
            if epoch == epochs:
                self._rows.remove_task(self._tasks.pop(head))
        if epoch == epochs:
            self._print(f"{head}  {format_count(epochs, 'epoch')}  {shown}  {left}")
        elif not self._live and self._silent_for_long():
            self._print(f"{head}  epoch {epoch} of {epochs}  {shown}  {left}")

    def say(self, line: str) -> None:
        """A line of its own; said once, however many folds say it."""
        if line not in self._said:
            self._said.add(line)
            self._print(line)

    def _left(self) -> str:
        """Return the time left, by the epochs and parts of epochs that this process has seen."""
        parts, spent = sum(self._parts.values()), time.monotonic() - self.started
        seen, ahead = self.done - self.skipped + parts, self.total - self.done - parts
        return f"{format_duration(spent / seen * ahead)} left"

    def _silent_for_long(self) -> bool:
        return time.monotonic() - self._printed >= EVERY_S

    @property
    def _live(self) -> bool:
        return self._rows.console.is_terminal and not self.quiet

    def _print(self, line: str) -> None:
        self._printed = time.monotonic()
        if self._live:
            self._rows.console.print(escape_control(line), highlight=False, markup=False)
        elif not self.quiet:
            print_status(line)


class LabelledProgress:
    """Passes everything on, with a label in front of every line.

    Args:
        inner: where to.
        label: such as the cell of a study; may be empty.
    """

    def __init__(self, inner: RunProgress | ProgressRelay, label: str) -> None:
        self.inner, self.label = inner, label

    def skip(self, epochs: int) -> None:
        self.inner.skip(epochs)

    def step(self, head: str, epoch: int, epochs: int, share: float) -> None:
        self.inner.step(self.label + head, epoch, epochs, share)

    def epoch(self, head: str, epoch: int, epochs: int, scores: dict[str, float]) -> None:
        self.inner.epoch(self.label + head, epoch, epochs, scores)

    def say(self, line: str) -> None:
        self.inner.say(self.label + line)


ProgressReporter = RunProgress | ProgressRelay | LabelledProgress
