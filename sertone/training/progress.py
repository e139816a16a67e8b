"""Progress on stderr: one line per fold and stage, rewritten in place on a terminal."""

import sys
import time
from dataclasses import dataclass, field


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


@dataclass
class Progress:
    """Prints how a run is getting on.

    Args:
        total: epochs of the whole run, all folds and stages.
        quiet: print nothing.
    """

    total: int
    quiet: bool = False
    done: int = 0
    skipped: int = 0
    started: float = field(default_factory=time.monotonic)

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
        left = spent / (self.done - self.skipped) * (self.total - self.done)
        shown = "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
        last = epoch == epochs
        line = f"{head}  epoch {epoch}/{epochs}  {shown}  {_clock(left)} left"
        self._print(line, last)

    def say(self, line: str) -> None:
        """A line of its own."""
        self._print(line, True)

    def _print(self, line: str, last: bool) -> None:
        if self.quiet:
            return
        if sys.stderr.isatty():
            print(f"\r\033[K{line}", end="\n" if last else "", file=sys.stderr, flush=True)
        elif last:
            print(line, file=sys.stderr, flush=True)
