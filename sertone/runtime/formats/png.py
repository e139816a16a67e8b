"""A timeline as a picture (PNG, extra `png`), at twice the size that it is meant to be seen at.

Recordings longer than ROW_S seconds go on in a further row. The letters are those of Pillow's own
font: Latin.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sertone.runtime.formats.canvas import Canvas, measure_text
from sertone.runtime.formats.colours import UNLABELLED_COLOUR, assign_colours, choose_text_colour
from sertone.runtime.formats.html import list_labels
from sertone.runtime.formats.media import Media
from sertone.runtime.formats.tiers import (
    Tier,
    build_tiers,
    find_ranges,
    format_caption,
    get_duration_s,
    make_printable,
    sort_segments,
)
from sertone.schema import Prediction, Segment
from sertone.scoring.display import format_count, format_duration

WIDTH, LEFT, RIGHT = 1000, 118, 20
LANE, PLOT, AXIS, GAP = 32, 64, 24, 6
HEAD, LINE = 70, 22
ROW_S = 300.0
EMPTY, INK, SOFT, RULE = "#f3f1ed", "#1d2327", "#5c6770", "#e3e0da"
LINES = ("#0b6e6e", "#b3541e", "#5b4fa2", "#94752a", "#3d7a3d", "#a23b72")
"""Of the speakers' ratings; they go round."""
STEPS = (1, 2, 5, 10, 15, 30, 60)


@dataclass(frozen=True)
class _Scene:
    """What every row of the picture shares."""

    prediction: Prediction
    duration_s: float
    tiers: list[Tier]
    palette: dict[str, str]
    ranges: dict[str, tuple[float, float]]
    spoken: dict[str, dict[str, list[Segment]]]
    """Speaker -> dimension -> the segments that are rated."""

    @property
    def rows(self) -> list[float]:
        """Where rows start, in seconds."""
        count = max(1, -int(-self.duration_s // ROW_S))
        return [ROW_S * number for number in range(count)]

    @property
    def units_per_s(self) -> float:
        return (WIDTH - LEFT - RIGHT) / min(ROW_S, self.duration_s)

    @property
    def row_height(self) -> float:
        return AXIS + len(self.tiers) * (LANE + GAP) + len(self.ranges) * (PLOT + GAP) + 3 * GAP

    @property
    def lines(self) -> dict[str, str]:
        """Speaker -> colour of the line."""
        return {name: LINES[number % len(LINES)] for number, name in enumerate(self.spoken)}


def draw_picture(prediction: Prediction, _: Media | None = None) -> bytes:
    """A PNG file.

    Args:
        prediction: a recording with its segments.

    Raises:
        SertoneError: `missing_extra` without Pillow.
    """
    palette = assign_colours(list_labels(prediction))
    made = build_tiers(prediction.segments)
    spoken: dict[str, dict[str, list[Segment]]] = {tier.segments[0].speaker: {} for tier in made}
    for segment in sort_segments(prediction.segments):
        for name in segment.dimensions:
            spoken[segment.speaker].setdefault(name, []).append(segment)
    scene = _Scene(prediction, get_duration_s(prediction), made, palette, find_ranges(prediction), spoken)
    keys = list(_keys(scene))
    head = HEAD + LINE * (1 + max((line for line, *_ in keys), default=0))
    canvas = Canvas(WIDTH, head + len(scene.rows) * scene.row_height + GAP)
    _draw_head(canvas, scene)
    for line, x, name, colour in keys:
        _draw_key(canvas, x, HEAD + LINE * line, name, colour)
    for number, start_s in enumerate(scene.rows):
        _draw_row(canvas, scene, head + number * scene.row_height, start_s)
    return canvas.to_png()


def _draw_head(canvas: Canvas, scene: _Scene) -> None:
    told = scene.prediction
    name = make_printable(Path(told.file).name)
    canvas.draw_text(20, 26, canvas.shorten_text(name, 20, WIDTH - 40), 20, INK)
    whole = Segment(start_s=0, end_s=0, label=told.label, confidence=told.confidence)
    answer = f", on the whole {format_caption(whole)}" if told.label else ""
    about = f"{format_duration(scene.duration_s)}, {format_count(len(told.segments), 'segment')}{answer}"
    canvas.draw_text(20, 50, canvas.shorten_text(about, 13, WIDTH - 40), 13, SOFT)


def _keys(scene: _Scene) -> Iterator[tuple[int, float, str, str]]:
    """Line of the legend, x, name and colour of each label in use; the colour of `unsure` is empty."""
    used = {segment.label for segment in scene.prediction.segments}
    named = [(make_printable(name), colour) for name, colour in scene.palette.items() if name in used]
    unsure = [("unsure", "")] if any(segment.unsure for segment in scene.prediction.segments) else []
    line, x = 0, 20.0
    for name, colour in named + unsure:
        width = 38 + measure_text(name, 13)
        line, x = (line + 1, 20.0) if x > 20 and x + width > WIDTH - 20 else (line, x)
        yield line, x, name, colour
        x += width


def _draw_key(canvas: Canvas, x: float, y: float, name: str, colour: str) -> None:
    if colour:
        canvas.draw_box(x, y + 2, 13, 13, colour)
    else:
        canvas.draw_hatched_box(x, y + 2, 13, 13, SOFT)
    canvas.draw_text(x + 20, y + 9, name, 13, INK)


def _draw_row(canvas: Canvas, scene: _Scene, top: float, start_s: float) -> None:
    """A stretch of at most ROW_S seconds. What reaches beyond it is cut off by the edge of its area."""
    length_s = min(ROW_S, scene.duration_s - start_s)
    area = Canvas(length_s * scene.units_per_s, scene.row_height)
    _draw_axis(area, scene, start_s, length_s)
    y, named = float(AXIS), set()
    for tier in scene.tiers:
        if tier.segments[0].speaker not in named:
            _draw_name(canvas, scene, tier, top + y)
        named.add(tier.segments[0].speaker)
        area.draw_box(0, y, WIDTH, LANE, EMPTY)
        for segment in _near(tier.segments, start_s):
            _draw_segment(area, scene, segment, (segment.start_s - start_s) * scene.units_per_s, y)
        y += LANE + GAP
    for name in scene.ranges:
        _draw_plot(canvas, area, scene, name, top, y, start_s)
        y += PLOT + GAP
    canvas.paste(area, LEFT, top)


def _draw_axis(area: Canvas, scene: _Scene, start_s: float, length_s: float) -> None:
    step = next((step for step in STEPS if step * scene.units_per_s >= 62), STEPS[-1])
    for number in range(int(length_s // step) + 1):
        x = number * step * scene.units_per_s
        area.draw_box(x, 2, 0.5, AXIS - 4, RULE)
        words = format_duration(start_s + number * step)
        if x + 5 + measure_text(words, 11) <= length_s * scene.units_per_s:
            area.draw_text(x + 5, AXIS / 2, words, 11, SOFT)


def _draw_name(canvas: Canvas, scene: _Scene, tier: Tier, top: float) -> None:
    middle, room = top + LANE / 2, LEFT - 30
    canvas.draw_text(20, middle, canvas.shorten_text(tier.name, 13, room), 13, INK)
    if scene.ranges and len(scene.lines) > 1:
        canvas.draw_box(20, middle + 9, 28, 3, scene.lines[tier.segments[0].speaker])


def _draw_segment(area: Canvas, scene: _Scene, segment: Segment, x: float, y: float) -> None:
    """A box, hatched where unsure, with its label where that fits."""
    width = max(0.5, (segment.end_s - segment.start_s) * scene.units_per_s - 0.5)
    colour = scene.palette[segment.label] if segment.label is not None else UNLABELLED_COLOUR
    label = make_printable(segment.label or "")
    (area.draw_hatched_box if segment.unsure else area.draw_box)(x, y + 3, width, LANE - 6, colour)
    room = measure_text(label, 11)
    if room > width - 4:
        return
    if segment.unsure:
        area.draw_box(x + (width - room) / 2 - 2, y + 9, room + 4, LANE - 18, "#ffffff")
    area.draw_text(
        x + width / 2, y + LANE / 2, label, 11, INK if segment.unsure else choose_text_colour(colour), "mm"
    )


def _draw_plot(
    canvas: Canvas, area: Canvas, scene: _Scene, name: str, top: float, y: float, start_s: float
) -> None:
    """A rating over time: a stroke per segment, thin lines between those of a speaker."""
    low, high = scene.ranges[name]
    for edge in (y, y + PLOT):
        area.draw_box(0, edge, WIDTH, 0.5, RULE)
    canvas.draw_text(
        20, top + y + PLOT / 2, canvas.shorten_text(make_printable(name), 13, LEFT - 30), 13, INK
    )
    canvas.draw_text(LEFT - 8, top + y + 8, f"{high:.2f}", 11, SOFT, "rm")
    canvas.draw_text(LEFT - 8, top + y + PLOT - 8, f"{low:.2f}", 11, SOFT, "rm")
    for speaker, colour in scene.lines.items():
        spans = [
            ((s.start_s - start_s) * scene.units_per_s, (s.end_s - start_s) * scene.units_per_s,
             y + 6 + (high - s.dimensions[name]) / (high - low or 1) * (PLOT - 12))
            for s in _near(scene.spoken[speaker].get(name, []), start_s)
        ]  # fmt: skip
        area.draw_line([((left + right) / 2, level) for left, right, level in spans], colour, 0.5)
        for left, right, level in spans:
            area.draw_box(left, level - 1.5, right - left, 3, colour)


def _near(segments: Sequence[Segment], start_s: float) -> Sequence[Segment]:
    """Those that reach into the row from `start_s` on, and one on either side, to which lines lead."""
    end_s = start_s + ROW_S
    first = next((n for n, segment in enumerate(segments) if segment.end_s >= start_s), len(segments))
    last = bisect_right(segments, end_s, key=lambda segment: segment.start_s)
    return segments[max(0, first - 1) : last + 1]
