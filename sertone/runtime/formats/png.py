"""A timeline as a picture (PNG, extra `png`), at twice the size at which it is meant to be seen.

Recordings longer than ROW_S seconds continue in further rows. The text is set in Pillow's built-in font,
which covers Latin scripts.
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
from sertone.utils.wording import format_count, format_duration

WIDTH, LEFT, RIGHT = 1000, 118, 20
LANE, PLOT, AXIS, GAP = 32, 64, 24, 6
HEAD, LINE = 70, 22
ROW_S = 300.0
EMPTY, INK, SOFT, RULE = "#f3f1ed", "#1d2327", "#5c6770", "#e3e0da"
LINES = ("#0b6e6e", "#b3541e", "#5b4fa2", "#94752a", "#3d7a3d", "#a23b72")
"""Colours of the speakers' ratings; they repeat from the seventh speaker on."""
STEPS = (1, 2, 5, 10, 15, 30, 60)
"""Distances between the ticks of the time axis, in seconds."""
MIN_TICK_WIDTH = 62
"""Least distance between two ticks, in units, so that their times do not touch."""


@dataclass(frozen=True)
class _Scene:
    """The content that all rows of the picture share."""

    prediction: Prediction
    duration_s: float
    tiers: list[Tier]
    palette: dict[str, str]
    ranges: dict[str, tuple[float, float]]
    rated_segments: dict[str, dict[str, list[Segment]]]
    """Speaker -> dimension -> the segments with a rating."""

    @property
    def rows(self) -> list[float]:
        """Start of each row, in seconds."""
        count = max(1, -int(-self.duration_s // ROW_S))  # rounded up
        return [ROW_S * number for number in range(count)]

    @property
    def units_per_s(self) -> float:
        return (WIDTH - LEFT - RIGHT) / min(ROW_S, self.duration_s)

    @property
    def row_height(self) -> float:
        return AXIS + len(self.tiers) * (LANE + GAP) + len(self.ranges) * (PLOT + GAP) + 3 * GAP

    @property
    def line_colours(self) -> dict[str, str]:
        """Speaker -> colour of the line."""
        return {name: LINES[number % len(LINES)] for number, name in enumerate(self.rated_segments)}


def draw_picture(prediction: Prediction, _: Media | None = None) -> bytes:
    """Return a PNG file.

    Args:
        prediction: a recording with its segments.

    Raises:
        SertoneError: `missing_extra`, without Pillow.
    """
    scene = _build_scene(prediction)
    keys = list(_place_keys(scene))
    head = HEAD + LINE * (1 + max((line for line, *_ in keys), default=0))
    canvas = Canvas(WIDTH, head + len(scene.rows) * scene.row_height + GAP)
    _draw_head(canvas, scene)
    for line, x, name, colour in keys:
        _draw_key(canvas, x, HEAD + LINE * line, name, colour)
    for number, start_s in enumerate(scene.rows):
        _draw_row(canvas, scene, head + number * scene.row_height, start_s)
    return canvas.to_png()


def _build_scene(prediction: Prediction) -> _Scene:
    palette = assign_colours(list_labels(prediction))
    tiers = build_tiers(prediction.segments)
    rated: dict[str, dict[str, list[Segment]]] = {tier.segments[0].speaker: {} for tier in tiers}
    for segment in sort_segments(prediction.segments):
        for name in segment.dimensions:
            rated[segment.speaker].setdefault(name, []).append(segment)
    duration_s, ranges = get_duration_s(prediction), find_ranges(prediction)
    return _Scene(prediction, duration_s, tiers, palette, ranges, rated)


def _draw_head(canvas: Canvas, scene: _Scene) -> None:
    """Draw the name of the recording, its length, and the prediction for the whole."""
    prediction = scene.prediction
    name = make_printable(Path(prediction.file).name)
    canvas.draw_text(20, 26, canvas.shorten_text(name, 20, WIDTH - 40), 20, INK)
    summary = Segment(start_s=0, end_s=0, label=prediction.label, confidence=prediction.confidence)
    answer = f", overall {format_caption(summary)}" if prediction.label else ""
    about = (
        f"{format_duration(scene.duration_s)}, {format_count(len(prediction.segments), 'segment')}{answer}"
    )
    canvas.draw_text(20, 50, canvas.shorten_text(about, 13, WIDTH - 40), 13, SOFT)


def _place_keys(scene: _Scene) -> Iterator[tuple[int, float, str, str]]:
    """Yield line, x, name and colour of each entry of the legend; the colour of `unsure` is empty."""
    present = {segment.label for segment in scene.prediction.segments}
    entries = [(make_printable(name), colour) for name, colour in scene.palette.items() if name in present]
    if any(segment.unsure for segment in scene.prediction.segments):
        entries.append(("unsure", ""))
    line, x = 0, 20.0
    for name, colour in entries:
        width = 38 + measure_text(name, 13)
        if x > 20 and x + width > WIDTH - 20:  # the entry does not fit into this line
            line, x = line + 1, 20.0
        yield line, x, name, colour
        x += width


def _draw_key(canvas: Canvas, x: float, y: float, name: str, colour: str) -> None:
    if colour:
        canvas.draw_box(x, y + 2, 13, 13, colour)
    else:
        canvas.draw_hatched_box(x, y + 2, 13, 13, SOFT)
    canvas.draw_text(x + 20, y + 9, name, 13, INK)


def _draw_row(canvas: Canvas, scene: _Scene, top: float, start_s: float) -> None:
    """Draw at most ROW_S seconds; the edge of the area cuts off what reaches beyond it."""
    length_s = min(ROW_S, scene.duration_s - start_s)
    area = Canvas(length_s * scene.units_per_s, scene.row_height)
    _draw_axis(area, scene, start_s, length_s)
    y = float(AXIS)
    named_speakers = set()
    for tier in scene.tiers:
        speaker = tier.segments[0].speaker
        if speaker not in named_speakers:  # further tiers of a speaker carry no name
            _draw_name(canvas, scene, tier, top + y)
        named_speakers.add(speaker)
        area.draw_box(0, y, WIDTH, LANE, EMPTY)
        for segment in _select_near(tier.segments, start_s):
            _draw_segment(area, scene, segment, (segment.start_s - start_s) * scene.units_per_s, y)
        y += LANE + GAP
    for name in scene.ranges:
        _draw_plot(canvas, area, scene, name, top, y, start_s)
        y += PLOT + GAP
    canvas.paste(area, LEFT, top)


def _draw_axis(area: Canvas, scene: _Scene, start_s: float, length_s: float) -> None:
    step = next((step for step in STEPS if step * scene.units_per_s >= MIN_TICK_WIDTH), STEPS[-1])
    for number in range(int(length_s // step) + 1):
        x = number * step * scene.units_per_s
        area.draw_box(x, 2, 0.5, AXIS - 4, RULE)
        time = format_duration(start_s + number * step)
        if x + 5 + measure_text(time, 11) <= length_s * scene.units_per_s:
            area.draw_text(x + 5, AXIS / 2, time, 11, SOFT)


def _draw_name(canvas: Canvas, scene: _Scene, tier: Tier, top: float) -> None:
    """Draw the name of a tier, and the colour of its lines where several speakers are rated."""
    middle = top + LANE / 2
    canvas.draw_text(20, middle, canvas.shorten_text(tier.name, 13, LEFT - 30), 13, INK)
    if scene.ranges and len(scene.line_colours) > 1:
        canvas.draw_box(20, middle + 9, 28, 3, scene.line_colours[tier.segments[0].speaker])


def _draw_segment(area: Canvas, scene: _Scene, segment: Segment, x: float, y: float) -> None:
    """Draw a box, hatched where unsure, with its label where the label fits."""
    width = max(0.5, (segment.end_s - segment.start_s) * scene.units_per_s - 0.5)
    colour = scene.palette[segment.label] if segment.label is not None else UNLABELLED_COLOUR
    draw = area.draw_hatched_box if segment.unsure else area.draw_box
    draw(x, y + 3, width, LANE - 6, colour)
    label = make_printable(segment.label or "")
    label_width = measure_text(label, 11)
    if label_width > width - 4:
        return
    if segment.unsure:  # a label on hatching is hard to read without a background
        area.draw_box(x + (width - label_width) / 2 - 2, y + 9, label_width + 4, LANE - 18, "#ffffff")
    text_colour = INK if segment.unsure else choose_text_colour(colour)
    area.draw_text(x + width / 2, y + LANE / 2, label, 11, text_colour, "mm")


def _draw_plot(
    canvas: Canvas, area: Canvas, scene: _Scene, name: str, top: float, y: float, start_s: float
) -> None:
    """Draw a rating over time: a stroke per segment, and thin lines between the strokes of a speaker."""
    low, high = scene.ranges[name]
    for edge in (y, y + PLOT):
        area.draw_box(0, edge, WIDTH, 0.5, RULE)
    title = canvas.shorten_text(make_printable(name), 13, LEFT - 30)
    canvas.draw_text(20, top + y + PLOT / 2, title, 13, INK)
    canvas.draw_text(LEFT - 8, top + y + 8, f"{high:.2f}", 11, SOFT, "rm")
    canvas.draw_text(LEFT - 8, top + y + PLOT - 8, f"{low:.2f}", 11, SOFT, "rm")
    for speaker, colour in scene.line_colours.items():
        strokes = [
            ((s.start_s - start_s) * scene.units_per_s, (s.end_s - start_s) * scene.units_per_s,
             y + 6 + (high - s.dimensions[name]) / (high - low or 1) * (PLOT - 12))
            for s in _select_near(scene.rated_segments[speaker].get(name, []), start_s)
        ]  # fmt: skip
        area.draw_line([((start + end) / 2, level) for start, end, level in strokes], colour, 0.5)
        for start, end, level in strokes:
            area.draw_box(start, level - 1.5, end - start, 3, colour)


def _select_near(segments: Sequence[Segment], start_s: float) -> Sequence[Segment]:
    """Return the segments in the row that starts at `start_s`, and one on either side.

    The lines between strokes lead to those neighbours.
    """
    end_s = start_s + ROW_S
    first = next((n for n, segment in enumerate(segments) if segment.end_s >= start_s), len(segments))
    last = bisect_right(segments, end_s, key=lambda segment: segment.start_s)
    return segments[max(0, first - 1) : last + 1]
