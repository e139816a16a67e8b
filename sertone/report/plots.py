"""Small SVG plots for HTML pages: colours come from the page, so that they follow light and dark.

Every plot has a text alternative. Classes used: `axis`, `grid`, `line`, `dot`, `bar`, `band`, `spots`,
`mean`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sertone.scoring.display import format_axis_value

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 20, 12, 34


def plot_lines(series: Mapping[str, Sequence[float]], x_label: str, alt: str) -> str:
    """One line per series over 1, 2, 3, ...

    Args:
        series: name -> values.
        x_label: below the horizontal axis.
        alt: what the plot shows, in words.
    """
    values = [value for row in series.values() for value in row]
    steps = max(len(row) for row in series.values())
    low, high = min([0.0, *values]), max(values) * 1.05 or 1.0
    body = [_y_axis(low, high), _x_axis(steps), _label(x_label)]
    for number, (name, row) in enumerate(series.items()):
        points = " ".join(f"{_x(i, steps):.1f},{_y(value, low, high):.1f}" for i, value in enumerate(row))
        body.append(
            f'<polyline class="line c{number % 6}" points="{points}"><title>{escape(name)}</title></polyline>'
        )
        if len(row) == 1:
            body.append(f'<circle class="dot" cx="{LEFT}" cy="{_y(row[0], low, high):.1f}" r="3"/>')
    return render_svg(body, HEIGHT, alt)


def plot_intervals(rows: Sequence[tuple[str, float, float, float]], chance: float, alt: str) -> str:
    """A dot with an interval per row, on an axis from 0 to 100 %.

    Args:
        rows: name, low, value, high; all from 0 to 1.
        chance: where a dashed line stands.
        alt: what the plot shows, in words.
    """
    height = 26 * len(rows) + BOTTOM
    left = 110

    def place(value: float) -> float:
        return left + value * (WIDTH - left - RIGHT)

    body = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = place(tick)
        body.append(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height - BOTTOM}"/>')
        body.append(f'<text class="axis" x="{x}" y="{height - 14}" text-anchor="middle">{tick:.0%}</text>')
    x = place(chance)
    body.append(f'<line class="chance" x1="{x}" x2="{x}" y1="0" y2="{height - BOTTOM}"/>')
    body += [_interval_row(number, left, row, place) for number, row in enumerate(rows)]
    return render_svg(body, height, alt)


def plot_differences(rows: Sequence[tuple[str, float, float, float]], reach: float, alt: str) -> str:
    """A dot with an interval per row, on an axis of points about zero.

    Args:
        rows: name, low, value, high; in points.
        reach: where the axis ends on both sides.
        alt: what the plot shows, in words.
    """
    left = 20 + 6 * max(len(name) for name, *_ in rows)
    height = 26 * len(rows) + BOTTOM

    def place(value: float) -> float:
        return round(left + (value + reach) / (2 * reach) * (WIDTH - left - RIGHT), 1)

    body = []
    for tick in (-reach, -reach / 2, 0.0, reach / 2, reach):
        x, kind = place(tick), "grid" if tick else "chance"
        body.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="0" y2="{height - BOTTOM}"/>')
        words = f"{tick:+.3g}" if tick else "0"
        body.append(f'<text class="axis" x="{x}" y="{height - 14}" text-anchor="middle">{words}</text>')
    body += [_interval_row(number, left, row, place) for number, row in enumerate(rows)]
    return render_svg(body, height, alt)


def _interval_row(
    number: int, left: int, row: tuple[str, float, float, float], place: Callable[[float], float]
) -> str:
    name, low, value, high = row
    y = 26 * number + 13
    return (
        f'<text class="axis" x="{left - 8}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
        f'<line class="band" x1="{place(low)}" x2="{place(high)}" y1="{y}" y2="{y}"/>'
        f'<circle class="dot" cx="{place(value)}" cy="{y}" r="5"><title>{escape(name)}</title></circle>'
    )


def plot_diagonal(
    marks: Sequence[tuple[float, float, float, str]], x_label: str, y_label: str, alt: str
) -> str:
    """Dots beside the diagonal, both axes from 0 to 100 %.

    Args:
        marks: where (x, y), the share that a dot's area stands for, and its words.
        x_label: below the horizontal axis.
        y_label: above the vertical axis.
        alt: what the plot shows, in words.
    """
    body = [_percent_axes(1.0), _label(x_label), draw_y_label(y_label)]
    ends = f'x1="{_share_x(0)}" y1="{_y(0, 0, 1)}" x2="{_share_x(1)}" y2="{_y(1, 0, 1)}"'
    body.append(f'<line class="chance" {ends}/>')
    for x, y, share, words in marks:
        radius = 2 + 14 * share**0.5
        body.append(
            f'<circle class="dot" cx="{_share_x(x):.1f}" cy="{_y(y, 0, 1):.1f}" r="{radius:.1f}" '
            f'fill-opacity="0.7"><title>{escape(words)}</title></circle>'
        )
    return render_svg(body, HEIGHT, alt)


def plot_curve(points: Sequence[Sequence[float]], x_label: str, y_label: str, alt: str) -> str:
    """A line through points (x, y); x from 0 to 100 %, y from 0 to as high as it gets.

    Args:
        points: in order of x.
        x_label: below the horizontal axis.
        y_label: above the vertical axis.
        alt: what the plot shows, in words.
    """
    high = max(y for _, y in points) * 1.05 or 1.0
    line = " ".join(f"{_share_x(x):.1f},{_y(y, 0, high):.1f}" for x, y in points)
    body = [_percent_axes(high), _label(x_label), draw_y_label(y_label)]
    body.append(f'<polyline class="line c0" points="{line}"/>')
    return render_svg(body, HEIGHT, alt)


def _share_x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _percent_axes(high: float) -> str:
    return _y_axis(0.0, high) + "".join(
        f'<text class="axis" x="{_share_x(tick)}" y="{HEIGHT - 18}" text-anchor="middle">{tick:.0%}</text>'
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0)
    )


def draw_y_label(y_label: str) -> str:
    return f'<text class="axis" x="{LEFT}" y="{TOP - 2}">{escape(y_label)}</text>'


def _x(index: int, steps: int) -> float:
    return LEFT + index / max(1, steps - 1) * (WIDTH - LEFT - RIGHT)


def _y(value: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _y_axis(low: float, high: float) -> str:
    parts = []
    for step in range(5):
        value = low + step / 4 * (high - low)
        y, text = _y(value, low, high), format_axis_value(value, high)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return "".join(parts)


def _x_axis(steps: int) -> str:
    ticks = sorted({0, (steps - 1) // 2, steps - 1})
    return "".join(
        f'<text class="axis" x="{_x(i, steps):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{i + 1}</text>'
        for i in ticks
    )


def _label(x_label: str) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return f'<text class="axis" x="{middle}" y="{HEIGHT - 3}" text-anchor="middle">{escape(x_label)}</text>'


def render_svg(body: Sequence[str], height: int, alt: str) -> str:
    """Parts as one picture with its text alternative."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(alt)}">'
        f"<title>{escape(alt)}</title>{''.join(body)}</svg>"
    )


@dataclass(frozen=True)
class Axis:
    """An axis of a scatter plot, as long as the scale and whatever lies beyond it.

    Attributes:
        label: what it shows.
        low: where it begins.
        high: where it ends.
    """

    label: str
    low: float
    high: float

    @classmethod
    def from_scale(cls, label: str, scale: Mapping[str, Any], values: np.ndarray) -> Self:
        """For values that should lie on a scale with a `low` and a `high`."""
        return cls(label, min(scale["low"], values.min()), max(scale["high"], values.max()))

    def compute_ticks(self) -> list[float]:
        """Round values, at most seven."""
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / 6))
        step = next(s * power for s in (1, 2, 5, 10) if s * power * 6 >= (self.high - self.low) * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def plot_scatter(
    groups: Mapping[str, np.ndarray],
    x: Axis,
    y: Axis,
    alt: str,
    *,
    diagonal: bool = False,
    marked: Mapping[str, np.ndarray] | None = None,
) -> str:
    """Dots; one colour per named group, grey for the one without a name beside others.

    Args:
        groups: name -> points, (N, 2).
        x: the horizontal axis.
        y: the vertical axis.
        alt: what the plot shows, in words.
        diagonal: draw the line of equal values.
        marked: name -> a point to be marked, in the colour of its group.
    """
    height = WIDTH - 96  # two rows of plots on a printed page

    def place(point: ArrayLike) -> tuple[float, float]:
        across, up = (np.asarray(point) - (x.low, y.low)) / (x.high - x.low, y.high - y.low)
        return _share_x(across), height - BOTTOM - up * (height - TOP - BOTTOM)

    body = [_scatter_axes(x, y, height, place)]
    if diagonal:
        ends = [max(x.low, y.low)] * 2, [min(x.high, y.high)] * 2
        (x1, y1), (x2, y2) = map(place, ends)
        body.append(f'<line class="chance" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    colours = {name: number % 6 for number, name in enumerate(name for name in groups if name)}
    for name, points in groups.items():
        colour = f"k{colours[name]}" if name else "soft" if colours else "k0"
        dots = "".join(f'<circle cx="{px:.0f}" cy="{py:.0f}" r="2.5"/>' for px, py in map(place, points))
        body.append(f'<g class="spots {colour}">{dots}</g>')
    places = {name: place(point) for name, point in (marked or {}).items()}
    body += [
        f'<circle class="mean k{colours[name]}" cx="{px:.1f}" cy="{py:.1f}" r="6"/>'
        for name, (px, py) in places.items()
    ]
    return render_svg([*body, *_names(places)], height, alt)


def _scatter_axes(x: Axis, y: Axis, height: int, place: Callable) -> str:
    parts, bottom = [], height - BOTTOM
    for tick in x.compute_ticks():
        across, _ = place((tick, y.low))
        parts.append(
            f'<line class="grid" x1="{across:.1f}" x2="{across:.1f}" y1="{TOP}" y2="{bottom}"/>'
            f'<text class="axis" x="{across:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>'
        )
    for tick in y.compute_ticks():
        _, up = place((x.low, tick))
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up:.1f}" y2="{up:.1f}"/>'
            f'<text class="axis" x="{LEFT - 6}" y="{up + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 3}" text-anchor="middle">'
        f"{escape(x.label)}</text>"
        f'<text class="axis" transform="rotate(-90 12 {middle})" x="12" y="{middle}" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )
    return "".join(parts)


def _names(places: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names beside marks, moved down where they would lie on each other."""
    made, lowest = [], 0.0
    for name, (x, y) in sorted(places.items(), key=lambda item: item[1][1]):
        lowest = max(y + 4, lowest + 14)
        side, anchor = (10, "start") if x < WIDTH * 0.75 else (-10, "end")
        made.append(
            f'<text class="axis name" x="{x + side:.1f}" y="{lowest:.1f}" text-anchor="{anchor}">'
            f"{escape(name)}</text>"
        )
    return made
