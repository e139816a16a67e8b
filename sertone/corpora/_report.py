"""What the corpus doctor found: counts, and problems of one kind in one line."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

from sertone.schema import Problem
from sertone.scoring.display import format_count

UNKNOWN_SPEAKER = "(unknown)"
MANY_SPEAKERS = 100
"""From here on the text says how utterances spread over speakers, not how many each has."""
MAX_LINES = 5
"""Lines that the text gives to problems of one code; the JSON object lists them all."""


@dataclass(frozen=True)
class CorpusReport:
    """What `check` found.

    Attributes:
        corpus: name.
        root: where it was read.
        release: which release it looks like, and by what; empty where the data sheet does not tell.
        utterances: how many there are.
        voted: how many of them have annotators' votes.
        texts: how many have a transcript with a word in it.
        rated: rating -> utterances that have it.
        hours: of speech.
        speakers: how many are known.
        unknown_speakers: utterances of which the corpus does not say who speaks.
        by_label: raw label -> utterances.
        by_class: class -> utterances.
        in_no_class: emotion -> utterances, of the emotions in none of the classes.
        by_session: session -> class -> utterances.
        by_speaker: speaker -> utterances in classes; UNKNOWN_SPEAKER for those of unknown ones.
        by_style: style -> utterances.
        checked_for: the classes and the split that were tried; empty where no split was tried.
        problems: everything that was found.
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
        """Whether nothing was found that would change a result."""
        return all(problem.severity == "note" for problem in self.problems)

    def to_json(self) -> dict:
        """As a JSON object."""
        return asdict(self)

    def to_text(self) -> str:
        """For people."""
        title = f"{self.corpus} at {self.root}"
        size = f"{format_count(self.utterances, 'utterance')}, {self.hours:.2f} h"
        parts = [f"{title}\n{size}, {format_count(self.speakers, 'speaker')}"]
        parts += [f"release  {self.release}"] if self.release else []
        for number, what in (
            (self.unknown_speakers, "of unknown speakers"),
            (self.voted, "with annotators' votes"),
            (self.texts, "with a transcript"),
        ):
            parts += [f"{format_count(number, 'utterance')} {what}"] if number else []
        for name, counts in (
            ("label", self.by_label),
            ("class", self.by_class),
            ("emotion in no class", self.in_no_class),
            ("style", self.by_style),
            ("rating", self.rated),
        ):
            if counts:
                parts.append(f"by {name}\n" + _columns(counts))
        parts += ["by speaker (in classes)\n" + _speakers(self.by_speaker)] if self.by_speaker else []
        for session, counts in self.by_session.items():
            parts.append(f"{session}\n" + _columns(counts))
        parts += [f"checked for  {self.checked_for}"] if self.checked_for else []
        parts += format_problems(self.problems)
        parts.append("nothing that would change a result" if self.is_sound else self._verdict())
        return "\n".join(parts)

    def _verdict(self) -> str:
        errors = sum(problem.severity == "error" for problem in self.problems)
        return f"{format_count(errors, 'error')}; mend {'it' if errors == 1 else 'them'} first"


def _columns(counts: dict[str, int]) -> str:
    return "  " + "  ".join(f"{name} {count}" for name, count in counts.items())


def _speakers(counts: dict[str, int]) -> str:
    if len(counts) < MANY_SPEAKERS:
        return _columns(counts)
    known = [count for name, count in counts.items() if name != UNKNOWN_SPEAKER]
    spread = f"{min(known)} to {max(known)} utterances each, median {median(known):g}"
    return f"  {format_count(len(known), 'known speaker')} with {spread}"


def format_problems(problems: Sequence[Problem]) -> list[str]:
    """Return problems as text: equal ones in one line with an example, and few lines for every code."""
    kinds: dict[tuple[str, str], dict[str, list[Problem]]] = defaultdict(lambda: defaultdict(list))
    for problem in problems:
        kinds[problem.severity, problem.code][problem.message].append(problem)
    lines = []
    for (severity, code), by_message in kinds.items():
        same = sorted(by_message.values(), key=len, reverse=True)
        lines += [f"{severity} [{code}] {_example(equal)}" for equal in same[:MAX_LINES]]
        if left := sum(len(equal) for equal in same[MAX_LINES:]):
            lines.append(f"{severity} [{code}] and {left} more of this kind; --json lists them all")
    return lines


def _example(equal: Sequence[Problem]) -> str:
    first = equal[0]
    times = f"{len(equal)} times, such as " if len(equal) > 1 else ""
    return f"{times}{first.path}: {first.message}"
