"""Praat's TextGrid, in the long text format.

The format: https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
"""

from collections.abc import Callable, Iterable, Iterator

from sertone.runtime.formats.media import Media
from sertone.runtime.formats.tiers import (
    NAMELESS,
    Tier,
    build_tiers,
    format_values,
    get_duration_s,
    make_printable,
)
from sertone.schema import Prediction, Segment

Interval = tuple[float, float, str]
"""Start and end in seconds, text."""


def format_textgrid(prediction: Prediction, _: Media | None = None) -> str:
    """A TextGrid: per speaker a tier of labels and one for each of its values.

    Args:
        prediction: a recording with its segments.
    """
    end_s = get_duration_s(prediction)
    rows = [row for tier in build_tiers(prediction.segments) for row in _rows(tier)] or [(NAMELESS, [])]
    head = ['File type = "ooTextFile"', 'Object class = "TextGrid"', ""]
    head += ["xmin = 0", f"xmax = {end_s!r}", "tiers? <exists>", f"size = {len(rows)}", "item []:"]
    body = [
        line
        for number, (name, intervals) in enumerate(rows, 1)
        for line in _tier(number, name, list(_filled(intervals, end_s)), end_s)
    ]
    return "\n".join([*head, *body, ""])


def _rows(tier: Tier) -> Iterator[tuple[str, list[Interval]]]:
    """Name and intervals of a tier of labels, then of those of its values."""
    yield tier.name, _intervals(tier, lambda segment: make_printable(segment.label or ""))
    for key, name in tier.values.items():
        yield name, _intervals(tier, lambda segment, key=key: format_values(segment).get(key, ""))


def _intervals(tier: Tier, text: Callable[[Segment], str]) -> list[Interval]:
    return [(segment.start_s, segment.end_s, text(segment)) for segment in tier.segments]


def _filled(intervals: Iterable[Interval], end_s: float) -> Iterator[Interval]:
    """Intervals with empty ones between them: a tier covers the whole time."""
    reached = 0.0
    for start, end, text in intervals:
        if start > reached:
            yield reached, start, ""
        yield start, end, text
        reached = end
    if reached < end_s:
        yield reached, end_s, ""


def _tier(number: int, name: str, intervals: list[Interval], end_s: float) -> Iterator[str]:
    yield from (f"    item [{number}]:", '        class = "IntervalTier"', f"        name = {_quoted(name)}")
    yield from ("        xmin = 0", f"        xmax = {end_s!r}")
    yield f"        intervals: size = {len(intervals)}"
    for place, (start, end, text) in enumerate(intervals, 1):
        yield f"        intervals [{place}]:"
        yield from (f"            xmin = {start!r}", f"            xmax = {end!r}")
        yield f"            text = {_quoted(text)}"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
