"""The report of the corpus check: counts, and problems of one kind in one line."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from sertone.schema import Problem
from sertone.utils.wording import format_count

UNKNOWN_SPEAKER = "(unknown)"
MANY_SPEAKERS = 100
"""From this number of speakers on, the text summarises the utterances per speaker and lists no speakers."""
MAX_LINES = 5
"""Most lines of the text for problems of one code; the JSON object lists all problems."""


@dataclass(frozen=True)
class CorpusReport:
    """Counts and problems of a corpus.

    Attributes:
        corpus: name.
        root: folder or file that was read.
        release: the release that it looks like, and why; empty if the data sheet cannot guess it.
        utterances: number of utterances.
        voted: number of utterances with annotators' votes.
        texts: number of utterances with a transcript that has at least one word.
        rated: rating -> number of utterances that have it.
        hours: hours of speech.
        speakers: number of known speakers.
        unknown_speakers: number of utterances whose speaker the corpus does not name.
        by_label: raw label -> utterances.
        by_class: class -> utterances.
        in_no_class: emotion -> utterances, for emotions that belong to none of the classes.
        by_session: session -> class -> utterances.
        by_speaker: speaker -> utterances in classes; UNKNOWN_SPEAKER stands for all unknown speakers.
        by_style: style -> utterances.
        checked_for: description of the classes and the split that were tried; empty if no split was tried.
        problems: all problems.
    """

    corpus: str
    root: str
    release: str
    utterances: int
    voted: int
    texts: int
    rated: dict[str, int]
    hours: float
    speakers: int
    unknown_speakers: int
    by_label: dict[str, int]
    by_class: dict[str, int]
    in_no_class: dict[str, int]
    by_session: dict[str, dict[str, int]]
    by_speaker: dict[str, int]
    by_style: dict[str, int]
    checked_for: str
    problems: list[Problem]

    @property
    def is_sound(self) -> bool:
        """True if no problem would change a result."""
        return all(problem.severity == "note" for problem in self.problems)

    def to_json(self) -> dict:
        """Return the report as a JSON object."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the report as text for the terminal."""
        size = f"{format_count(self.utterances, 'utterance')}, {self.hours:.2f} h"
        lines = [f"{self.corpus} at {self.root}", f"{size}, {format_count(self.speakers, 'speaker')}"]
        if self.release:
            lines.append(f"release  {self.release}")
        lines += self._format_counts()
        if self.by_speaker:
            lines.append("by speaker (in classes)\n" + _format_speakers(self.by_speaker))
        for session, counts in self.by_session.items():
            lines.append(f"{session}\n" + _format_columns(counts))
        if self.checked_for:
            lines.append(f"checked for  {self.checked_for}")
        lines += format_problems(self.problems)
        lines.append("nothing that would change a result" if self.is_sound else self._format_verdict())
        return "\n".join(lines)

    def _format_counts(self) -> list[str]:
        lines = []
        for number, description in (
            (self.unknown_speakers, "of unknown speakers"),
            (self.voted, "with annotators' votes"),
            (self.texts, "with a transcript"),
        ):
            if number:
                lines.append(f"{format_count(number, 'utterance')} {description}")
        for name, counts in (
            ("label", self.by_label),
            ("class", self.by_class),
            ("emotion in no class", self.in_no_class),
            ("style", self.by_style),
            ("rating", self.rated),
        ):
            if counts:
                lines.append(f"by {name}\n" + _format_columns(counts))
        return lines

    def _format_verdict(self) -> str:
        errors = sum(problem.severity == "error" for problem in self.problems)
        return f"{format_count(errors, 'error')}; fix {'it' if errors == 1 else 'them'} first"


def _format_columns(counts: dict[str, int]) -> str:
    return "  " + "  ".join(f"{name} {count}" for name, count in counts.items())


def _format_speakers(counts: dict[str, int]) -> str:
    if len(counts) < MANY_SPEAKERS:
        return _format_columns(counts)
    sizes = [count for name, count in counts.items() if name != UNKNOWN_SPEAKER]
    spread = f"{min(sizes)} to {max(sizes)} utterances each, median {median(sizes):g}"
    return f"  {format_count(len(sizes), 'known speaker')} with {spread}"


def format_problems(problems: Sequence[Problem]) -> list[str]:
    """Return problems as lines: equal messages in one line with an example, and few lines for each code."""
    kinds: dict[tuple[str, str], dict[str, list[Problem]]] = defaultdict(lambda: defaultdict(list))
    for problem in problems:
        kinds[problem.severity, problem.code][problem.message].append(problem)
    lines = []
    for (severity, code), by_message in kinds.items():
        # The most frequent message comes first.
        groups = sorted(by_message.values(), key=len, reverse=True)
        lines += [f"{severity} [{code}] {_format_example(group)}" for group in groups[:MAX_LINES]]
        if hidden := sum(len(group) for group in groups[MAX_LINES:]):
            lines.append(f"{severity} [{code}] and {hidden} more of this kind; --json lists them all")
    return lines


def _format_example(equal: Sequence[Problem]) -> str:
    first = equal[0]
    times = f"{len(equal)} times, such as " if len(equal) > 1 else ""
    return f"{times}{first.path}: {first.message}"
