"""Report progress on stderr: a bar per running fold and one for the run, or plain lines in a log."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from sertone.labels import DIMENSIONS
from sertone.training.fit import distributed
from sertone.utils.child_process import emit
from sertone.utils.terminal import escape_control, print_status
from sertone.utils.wording import format_count, format_duration

EVERY_S = 30.0
"""Without a terminal, a line is printed at least this often, and within an epoch no more often."""
RELAY_S = 1.0
"""A child process reports its steps no more often than this."""

SCORE_NAMES = {
    "loss": "loss",
    "val_loss": "held-out loss",
    "ua": "train UA",
    "val_ua": "validation UA",
    **{f"val_{name}": f"validation CCC {name}" for name in DIMENSIONS},
}
"""Entries of the history that a progress line shows, with their names there."""


def select_scores(entry: dict) -> dict[str, float]:
    """Return the scores of an epoch that a progress line shows, by their names there."""
    return {name: entry[key] for key, name in SCORE_NAMES.items() if key in entry}


class ProgressRelay:
    """The `RunProgress` of a child process, which passes everything to the one of its caller.

    The caller calls the method that each event names.
    """

    def __init__(self) -> None:
        self._sent_at = -RELAY_S

    def skip(self, epochs: int) -> None:
        emit(("skip", epochs))

    def step(self, head: str, epoch: int, epochs: int, share: float) -> None:
        # A step may take milliseconds, so most of them are not worth a message to the caller.
        if time.monotonic() - self._sent_at >= RELAY_S:
            self._sent_at = time.monotonic()
            emit(("step", head, epoch, epochs, share))

    def epoch(self, head: str, epoch: int, epochs: int, scores: dict[str, float], ends: bool) -> None:
        emit(("epoch", head, epoch, epochs, scores, ends))

    def say(self, line: str) -> None:
        emit(("say", line))


class RunProgress:
    """The progress of a run. Use as a context manager.

    Args:
        total: epochs of the whole run, all folds and stages.
        quiet: print nothing.
    """

    def __init__(self, total: int, quiet: bool = False) -> None:
        self.total = total
        self.quiet = quiet or not distributed.is_first()
        self.done = 0
        self.skipped = 0
        self.started = self._printed_at = time.monotonic()
        self._shares: dict[str, float] = {}
        self._lines: set[str] = set()
        self._tasks: dict[str, TaskID] = {}
        console = Console(stderr=True, quiet=self.quiet)
        # Names of folds and speakers may contain brackets, which are no markup.
        head = TextColumn("{task.description}", markup=False)
        note = TextColumn("{task.fields[note]}", markup=False)
        columns = (head, BarColumn(16), MofNCompleteColumn(), note)
        self._bars = Progress(*columns, console=console, transient=True)
        self._run_task = self._bars.add_task("all epochs", total=total, note="")

    def __enter__(self) -> Self:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def skip(self, epochs: int) -> None:
        """Count epochs that an earlier run has done."""
        self.done += epochs
        self.skipped += epochs

    def step(self, head: str, epoch: int, epochs: int, share: float) -> None:
        """Report that a part of an epoch is over.

        Args:
            head: fold and stage.
            epoch: the current one, from 1.
            epochs: epochs of this stage.
            share: share of this epoch that is done.
        """
        self._shares[head] = share
        self._bars.update(self._run_task, note=self._estimate_time())
        if not self._live and self._is_line_due():
            self._print(f"{head}  epoch {epoch} of {epochs}, {share:.0%}  {self._estimate_time()}")

    def epoch(self, head: str, epoch: int, epochs: int, scores: dict[str, float], ends: bool) -> None:
        """Report that an epoch is over.

        Args:
            head: fold and stage.
            epoch: number, from 1.
            epochs: epochs of this stage.
            scores: scores to show, by name.
            ends: True where the stage is over, which may be before its last epoch.
        """
        self.done += 1
        if ends:
            self.skip(epochs - epoch)
        self._shares.pop(head, None)  # the whole epoch counts now
        time_left = self._estimate_time()
        shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
        if self._live:
            self._show_bar(head, epoch, epochs, shown, ends)
            self._bars.update(self._run_task, completed=self.done, note=time_left)
        # The end of a stage always leaves a line, also in a terminal, where bars disappear.
        if ends:
            count = (
                format_count(epochs, "epoch") if epoch == epochs else f"ended after epoch {epoch} of {epochs}"
            )
            self._print(f"{head}  {count}  {shown}  {time_left}")
        elif not self._live and self._is_line_due():
            self._print(f"{head}  epoch {epoch} of {epochs}  {shown}  {time_left}")

    def _show_bar(self, head: str, epoch: int, epochs: int, note: str, ends: bool) -> None:
        if head not in self._tasks:
            self._tasks[head] = self._bars.add_task(escape_control(head), total=epochs, note="")
        self._bars.update(self._tasks[head], completed=epoch, note=note)
        if ends:
            self._bars.remove_task(self._tasks.pop(head))

    def say(self, line: str) -> None:
        """Print a line; a line that several folds report is printed once."""
        if line not in self._lines:
            self._lines.add(line)
            self._print(line)

    def _estimate_time(self) -> str:
        """Return the remaining time, from the epochs and parts of epochs that this process has trained."""
        parts = sum(self._shares.values())
        spent = time.monotonic() - self.started
        # Skipped epochs took no time, so they say nothing about the speed.
        trained = self.done - self.skipped + parts
        remaining = self.total - self.done - parts
        return f"{format_duration(spent / trained * remaining)} left"

    def _is_line_due(self) -> bool:
        return time.monotonic() - self._printed_at >= EVERY_S

    @property
    def _live(self) -> bool:
        return self._bars.console.is_terminal and not self.quiet

    def _print(self, line: str) -> None:
        self._printed_at = time.monotonic()
        if self._live:
            self._bars.console.print(escape_control(line), highlight=False, markup=False)
        elif not self.quiet:
            print_status(line)


class LabelledProgress:
    """A progress that writes a label in front of every line.

    Args:
        inner: receives the lines.
        label: such as the cell of a study; may be empty.
    """

    def __init__(self, inner: RunProgress | ProgressRelay, label: str) -> None:
        self.inner = inner
        self.label = label

    def skip(self, epochs: int) -> None:
        self.inner.skip(epochs)

    def step(self, head: str, epoch: int, epochs: int, share: float) -> None:
        self.inner.step(self.label + head, epoch, epochs, share)

    def epoch(self, head: str, epoch: int, epochs: int, scores: dict[str, float], ends: bool) -> None:
        self.inner.epoch(self.label + head, epoch, epochs, scores, ends)

    def say(self, line: str) -> None:
        self.inner.say(self.label + line)


ProgressReporter = RunProgress | ProgressRelay | LabelledProgress
