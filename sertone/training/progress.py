"""Progress on stderr: a row per fold that is running and one for the whole, or plain lines in a log."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Rows

from sertone.child import emit
from sertone.figures import clock, counted
from sertone.terminal import escaped, tell
from sertone.training import ranks


class Relay:
    """A `Progress` in another process: passes everything on to the caller's."""

    def skip(self, epochs: int) -> None:
        emit(("skip", epochs))

    def epoch(self, head: str, epoch: int, epochs: int, scores: dict[str, float]) -> None:
        emit(("epoch", head, epoch, epochs, scores))

    def say(self, line: str) -> None:
        emit(("say", line))


class Progress:
    """How a run is getting on. Use as a context manager.

    Args:
        total: epochs of the whole run, all folds and stages.
        quiet: print nothing.
    """

    def __init__(self, total: int, quiet: bool = False) -> None:
        self.total, self.quiet = total, quiet or not ranks.first()
        self.done = self.skipped = 0
        self.started = time.monotonic()
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

    def epoch(self, head: str, epoch: int, epochs: int, scores: dict[str, float]) -> None:
        """One epoch is over.

        Args:
            head: fold and stage.
            epoch: number, from 1.
            epochs: of this stage.
            scores: what to show, by name.
        """
        self.done += 1
        spent = time.monotonic() - self.started
        left = f"{clock(spent / (self.done - self.skipped) * (self.total - self.done))} left"
        shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
        if self._live:
            if head not in self._tasks:
                self._tasks[head] = self._rows.add_task(escaped(head), total=epochs, note="")
            self._rows.update(self._tasks[head], completed=epoch, note=shown)
            self._rows.update(self._all, completed=self.done, note=left)
            if epoch == epochs:
                self._rows.remove_task(self._tasks.pop(head))
        if epoch == epochs:
            self._print(f"{head}  {counted(epochs, 'epoch')}  {shown}  {left}")

    def say(self, line: str) -> None:
        """A line of its own; said once, however many folds say it."""
        if line not in self._said:
            self._said.add(line)
            self._print(line)

    @property
    def _live(self) -> bool:
        return self._rows.console.is_terminal and not self.quiet

    def _print(self, line: str) -> None:
        if self._live:
            self._rows.console.print(escaped(line), highlight=False, markup=False)
        elif not self.quiet:
            tell(line)


class Labelled:
    """Passes everything on, with a label in front of every line.

    Args:
        inner: where to.
        label: such as the cell of a study; may be empty.
    """

    def __init__(self, inner: Progress | Relay, label: str) -> None:
        self.inner, self.label = inner, label

    def skip(self, epochs: int) -> None:
        self.inner.skip(epochs)

    def epoch(self, head: str, epoch: int, epochs: int, scores: dict[str, float]) -> None:
        self.inner.epoch(self.label + head, epoch, epochs, scores)

    def say(self, line: str) -> None:
        self.inner.say(self.label + line)


Reporter = Progress | Relay | Labelled
