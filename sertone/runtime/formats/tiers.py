"""A timeline as tiers: rows of segments that do not overlap, and the words that tell what is in them.

Most formats allow no overlap within a row. Each speaker has a tier; what overlaps with the speaker's own
segments goes to another one, so that no time is changed and nothing is left out. Times are in milliseconds.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count

from sertone.schema import Prediction, Segment

NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")
"""Control characters, line breaks and halves of characters: most formats have no way to write them."""
NAMELESS = "speech"
"""The tier of a speaker without a name."""
SHORTEST_S = 0.001


@dataclass(frozen=True)
class Tier:
    """A row of a timeline.

    Attributes:
        name: of the tier; no two tiers have the same, nor one that is in `values`.
        speaker: as it is printed, empty where nobody said.
        segments: in their order, none overlapping; times rounded to milliseconds.
        values: what else is told of the segments (`confidence`, `arousal`, ...) -> name of a tier for it.
    """

    name: str
    speaker: str
    segments: list[Segment]
    values: dict[str, str]


def build_tiers(segments: Iterable[Segment]) -> list[Tier]:
    """The tiers of a timeline: speakers in the order in which they are first heard."""
    taken: set[str] = set()
    made = []
    for speaker, layers in _layers(segments).items():
        for layer in layers:
            name = pick_free_name(make_printable(speaker) or NAMELESS, taken)
            told = dict.fromkeys(key for segment in layer for key in format_values(segment))
            named = {key: pick_free_name(f"{name} {key}", taken) for key in told}
            made.append(Tier(name, make_printable(speaker), layer, named))
    return made


def _layers(segments: Iterable[Segment]) -> dict[str, list[list[Segment]]]:
    """Speaker -> as few rows as hold its segments without overlap."""
    found: dict[str, list[list[Segment]]] = {}
    for segment in sort_segments(segments):
        layers = found.setdefault(segment.speaker, [])
        row = next((row for row in layers if row[-1].end_s <= segment.start_s), None)
        if row is None:
            layers.append([segment])
        else:
            row.append(segment)
    return found


def sort_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Segments by their times, which are rounded to milliseconds; none is shorter than one."""
    rounded = []
    for segment in segments:
        start = round(float(segment.start_s), 3)
        end = max(round(float(segment.end_s), 3), round(start + SHORTEST_S, 3))
        rounded.append(replace(segment, start_s=start, end_s=end))
    return sorted(rounded, key=lambda segment: (segment.start_s, segment.end_s))


def get_duration_s(prediction: Prediction) -> float:
    """Length of a timeline in seconds: of the recording, or to the end of a segment beyond it."""
    ends = [segment.end_s for segment in sort_segments(prediction.segments)]
    return max([float(prediction.duration_s or 0), SHORTEST_S, *ends])


def find_ranges(prediction: Prediction) -> dict[str, tuple[float, float]]:
    """Dimension -> lowest and highest value; its plot reaches from one to the other."""
    found: dict[str, list[float]] = {}
    for segment in prediction.segments:
        for name, value in segment.dimensions.items():
            found.setdefault(name, []).append(value)
    return {name: (min(values), max(values)) for name, values in found.items()}


def format_values(segment: Segment) -> dict[str, str]:
    """What is told of a segment beside its label: `confidence`, `unsure`, and its dimensions, as text."""
    told = {} if segment.confidence is None else {"confidence": f"{segment.confidence:.3f}"}
    told |= {"unsure": "unsure"} if segment.unsure else {}
    return told | {make_printable(name): f"{value:.3f}" for name, value in segment.dimensions.items()}


def format_caption(segment: Segment) -> str:
    """One line about a segment, such as `angry (82%)`, `angry? (41%)` where unsure, `valence 2.10`."""
    if segment.label is None:
        rated = ", ".join(f"{make_printable(name)} {value:.2f}" for name, value in segment.dimensions.items())
        return rated or "no answer"
    label = make_printable(segment.label) + ("?" if segment.unsure else "")
    return label if segment.confidence is None else f"{label} ({segment.confidence:.0%})"


def make_printable(text: str) -> str:
    """Text on one line: what cannot be printed becomes a space."""
    return NOT_PRINTED.sub(" ", text).strip()


def pick_free_name(wanted: str, taken: set[str], form: str = "{} ({})") -> str:
    """A name that is not taken yet, with a number where the wanted one is; it is taken from now on."""
    numbered = (form.format(wanted, number) for number in count(2))
    chosen = wanted if wanted not in taken else next(name for name in numbered if name not in taken)
    taken.add(chosen)
    return chosen
