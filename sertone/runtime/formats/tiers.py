"""A timeline as tiers (rows of segments that do not overlap), and the texts that describe its segments.

Most formats allow no overlap within a row. Each speaker has a tier. Segments that overlap with the speaker's
other segments go to a further tier, so no time is changed and no segment is lost. Times are rounded to
milliseconds.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count

from sertone.schema import Prediction, Segment

NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]+")
"""Control characters, line breaks and lone surrogates, which most formats cannot represent."""
NAMELESS = "speech"
"""Tier name of a speaker without a name."""
SHORTEST_S = 0.001


@dataclass(frozen=True)
class Tier:
    """A row of a timeline.

    Attributes:
        name: name of the tier; unique among all tier names, those in `values` included.
        speaker: as printed; empty where the speaker is not known.
        segments: segments in order of time, without overlap; times are rounded to milliseconds.
        values: other value of the segments (`confidence`, `arousal`, ...) -> name of its tier.
    """

    name: str
    speaker: str
    segments: list[Segment]
    values: dict[str, str]


def build_tiers(segments: Iterable[Segment]) -> list[Tier]:
    """Return the tiers of a timeline; speakers are in the order in which they first speak."""
    used_names: set[str] = set()
    tiers = []
    for speaker, rows in _stack_rows(segments).items():
        for row in rows:
            name = pick_free_name(make_printable(speaker) or NAMELESS, used_names)
            keys = dict.fromkeys(key for segment in row for key in format_values(segment))
            value_tiers = {key: pick_free_name(f"{name} {key}", used_names) for key in keys}
            tiers.append(Tier(name, make_printable(speaker), row, value_tiers))
    return tiers


def _stack_rows(segments: Iterable[Segment]) -> dict[str, list[list[Segment]]]:
    """Return the rows of each speaker: as few as hold the segments without overlap."""
    rows_by_speaker: dict[str, list[list[Segment]]] = {}
    for segment in sort_segments(segments):
        rows = rows_by_speaker.setdefault(segment.speaker, [])
        # Segments come in order of time, so the first row that is free again always fits.
        row = next((row for row in rows if row[-1].end_s <= segment.start_s), None)
        if row is None:
            rows.append([segment])
        else:
            row.append(segment)
    return rows_by_speaker


def sort_segments(segments: Iterable[Segment]) -> list[Segment]:
    """Return the segments in order of time; times are rounded to milliseconds, none is shorter than one."""
    rounded = []
    for segment in segments:
        start = round(float(segment.start_s), 3)
        end = max(round(float(segment.end_s), 3), round(start + SHORTEST_S, 3))
        rounded.append(replace(segment, start_s=start, end_s=end))
    return sorted(rounded, key=lambda segment: (segment.start_s, segment.end_s))


def get_duration_s(prediction: Prediction) -> float:
    """Return the length of a timeline in seconds: of the recording, or up to the end of a later segment."""
    ends = [segment.end_s for segment in sort_segments(prediction.segments)]
    return max([float(prediction.duration_s or 0), SHORTEST_S, *ends])


def find_ranges(prediction: Prediction) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value of each dimension, the limits of its plot."""
    values: dict[str, list[float]] = {}
    for segment in prediction.segments:
        for name, value in segment.dimensions.items():
            values.setdefault(name, []).append(value)
    return {name: (min(rated), max(rated)) for name, rated in values.items()}


def format_values(segment: Segment) -> dict[str, str]:
    """Return the values of a segment beside its label as text: `confidence`, `unsure`, and dimensions."""
    texts = {} if segment.confidence is None else {"confidence": f"{segment.confidence:.3f}"}
    if segment.unsure:
        texts["unsure"] = "unsure"
    return texts | {make_printable(name): f"{value:.3f}" for name, value in segment.dimensions.items()}


def format_caption(segment: Segment) -> str:
    """Return one line about a segment, such as `angry (82%)`, `angry? (41%)` if unsure, `valence 2.10`."""
    if segment.label is None:
        rated = ", ".join(f"{make_printable(name)} {value:.2f}" for name, value in segment.dimensions.items())
        return rated or "no answer"
    label = make_printable(segment.label) + ("?" if segment.unsure else "")
    return label if segment.confidence is None else f"{label} ({segment.confidence:.0%})"


def make_printable(text: str) -> str:
    """Return the text on one line; characters that cannot be printed become a space."""
    return NOT_PRINTED.sub(" ", text).strip()


def pick_free_name(wanted: str, used_names: set[str], form: str = "{} ({})") -> str:
    """Return a name that is not used yet, and add it to `used_names`. A number follows where needed."""
    numbered = (form.format(wanted, number) for number in count(2))
    name = wanted if wanted not in used_names else next(name for name in numbered if name not in used_names)
    used_names.add(name)
    return name
