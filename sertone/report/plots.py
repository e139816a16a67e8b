"""Small SVG plots for HTML pages. The colours come from the page, so that they follow light and dark mode.

Every plot has a text alternative. CSS classes used: `axis`, `grid`, `line`, `dot`, `bar`, `band`, `chance`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Self

import numpy as np

from sertone.utils.wording import format_axis_value

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 20, 12, 34


def plot_lines(series: Mapping[str, Sequence[float]], x_label: str, alt: str) -> str:
    """Draw one line per series over 1, 2, 3, ...

    Args:
        series: name -> values.
        x_label: below the horizontal axis.
        alt: text alternative that describes the plot.
    """
    values = [value for row in series.values() for value in row]
    steps = max(len(row) for row in series.values())
    low = min([0.0, *values])
    high = max(values) * 1.05 or 1.0  # an axis from 0 to 0 would have no length
    body = [_draw_y_axis(low, high), _draw_steps(steps), _draw_x_label(x_label)]
    for number, (name, row) in enumerate(series.items()):  # the page defines six colours
        points = " ".join(
            f"{_step_to_x(i, steps):.1f},{_to_y(value, low, high):.1f}" for i, value in enumerate(row)
        )
        body.append(
            f'<polyline class="line c{number % 6}" points="{points}"><title>{escape(name)}</title></polyline>'
        )
        if len(row) == 1:  # a line through one point is invisible
            body.append(f'<circle class="dot" cx="{LEFT}" cy="{_to_y(row[0], low, high):.1f}" r="3"/>')
    return render_svg(body, HEIGHT, alt)


def plot_intervals(rows: Sequence[tuple[str, float, float, float]], chance: float, alt: str) -> str:
    """Draw a dot with an interval per row, on an axis from 0 to 100 %.

    Args:
        rows: name, low, value, high; all from 0 to 1.
        chance: position of the dashed line.
        alt: text alternative that describes the plot.
    """
    height = 26 * len(rows) + BOTTOM
    plot_left = 110

    def to_x(value: float) -> float:
        return plot_left + value * (WIDTH - plot_left - RIGHT)

    body = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = to_x(tick)
        body.append(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height - BOTTOM}"/>')
        body.append(f'<text class="axis" x="{x}" y="{height - 14}" text-anchor="middle">{tick:.0%}</text>')
    x = to_x(chance)
    body.append(f'<line class="chance" x1="{x}" x2="{x}" y1="0" y2="{height - BOTTOM}"/>')
    body += [_draw_interval(number, plot_left, row, to_x) for number, row in enumerate(rows)]
    return render_svg(body, height, alt)


def plot_differences(rows: Sequence[tuple[str, float, float, float]], reach: float, alt: str) -> str:
    """Draw a dot with an interval per row, on an axis of points about zero.

    Args:
        rows: name, low, value, high; in points.
        reach: end of the axis on both sides of zero.
        alt: text alternative that describes the plot.
    """
    plot_left = 20 + 6 * max(len(name) for name, *_ in rows)  # about 6 units per character
    height = 26 * len(rows) + BOTTOM

    def to_x(value: float) -> float:
        return round(plot_left + (value + reach) / (2 * reach) * (WIDTH - plot_left - RIGHT), 1)

    body = []
    for tick in (-reach, -reach / 2, 0.0, reach / 2, reach):
        x = to_x(tick)
        kind = "grid" if tick else "chance"  # the line at zero is dashed
        body.append(f'<line class="{kind}" x1="{x}" x2="{x}" y1="0" y2="{height - BOTTOM}"/>')
        label = f"{tick:+.3g}" if tick else "0"
        body.append(f'<text class="axis" x="{x}" y="{height - 14}" text-anchor="middle">{label}</text>')
    body += [_draw_interval(number, plot_left, row, to_x) for number, row in enumerate(rows)]
    return render_svg(body, height, alt)


def _draw_interval(
    number: int, plot_left: int, row: tuple[str, float, float, float], to_x: Callable[[float], float]
) -> str:
    name, low, value, high = row
    y = 26 * number + 13
    return (
        f'<text class="axis" x="{plot_left - 8}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
        f'<line class="band" x1="{to_x(low)}" x2="{to_x(high)}" y1="{y}" y2="{y}"/>'
        f'<circle class="dot" cx="{to_x(value)}" cy="{y}" r="5"><title>{escape(name)}</title></circle>'
    )


def plot_diagonal(
    marks: Sequence[tuple[float, float, float, str]], x_label: str, y_label: str, alt: str
) -> str:
    """Draw dots and the diagonal, with both axes from 0 to 100 %.

    Args:
        marks: x, y, the share that the dot's area shows, and its tooltip.
        x_label: below the horizontal axis.
        y_label: above the vertical axis.
        alt: text alternative that describes the plot.
    """
    body = [_draw_percent_axes(1.0), _draw_x_label(x_label), draw_y_label(y_label)]
    ends = f'x1="{share_to_x(0)}" y1="{_to_y(0, 0, 1)}" x2="{share_to_x(1)}" y2="{_to_y(1, 0, 1)}"'
    body.append(f'<line class="chance" {ends}/>')
    for x, y, share, title in marks:
        radius = 2 + 14 * share**0.5  # so that the area grows with the share
        body.append(
            f'<circle class="dot" cx="{share_to_x(x):.1f}" cy="{_to_y(y, 0, 1):.1f}" r="{radius:.1f}" '
            f'fill-opacity="0.7"><title>{escape(title)}</title></circle>'
        )
    return render_svg(body, HEIGHT, alt)


def plot_curve(points: Sequence[Sequence[float]], x_label: str, y_label: str, alt: str) -> str:
    """Draw a line through points (x, y): x from 0 to 100 %, y from 0 to slightly above the highest value.

    Args:
        points: points in order of x.
        x_label: below the horizontal axis.
        y_label: above the vertical axis.
        alt: text alternative that describes the plot.
    """
    high = max(y for _, y in points) * 1.05 or 1.0
    line = " ".join(f"{share_to_x(x):.1f},{_to_y(y, 0, high):.1f}" for x, y in points)
    body = [_draw_percent_axes(high), _draw_x_label(x_label), draw_y_label(y_label)]
    body.append(f'<polyline class="line c0" points="{line}"/>')
    return render_svg(body, HEIGHT, alt)


def share_to_x(share: float) -> float:
    """Return the horizontal position of a share from 0 to 1 of the axis."""
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _draw_percent_axes(high: float) -> str:
    return _draw_y_axis(0.0, high) + "".join(
        f'<text class="axis" x="{share_to_x(tick)}" y="{HEIGHT - 18}" text-anchor="middle">{tick:.0%}</text>'
        for tick in (0.0, 0.25, 0.5, 0.75, 1.0)
    )


def draw_y_label(y_label: str) -> str:
    """Draw the label of the vertical axis above it."""
    return f'<text class="axis" x="{LEFT}" y="{TOP - 2}">{escape(y_label)}</text>'


def _step_to_x(index: int, steps: int) -> float:
    return LEFT + index / max(1, steps - 1) * (WIDTH - LEFT - RIGHT)


def _to_y(value: float, low: float, high: float) -> float:
    return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def _draw_y_axis(low: float, high: float) -> str:
    parts = []
    for step in range(5):
        value = low + step / 4 * (high - low)
        y, text = _to_y(value, low, high), format_axis_value(value, high)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    return "".join(parts)


def _draw_steps(steps: int) -> str:
    ticks = sorted({0, (steps - 1) // 2, steps - 1})
    return "".join(
        f'<text class="axis" x="{_step_to_x(index, steps):.1f}" y="{HEIGHT - 18}" text-anchor="middle">'
        f"{index + 1}</text>"
        for index in ticks
    )


def _draw_x_label(x_label: str) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return f'<text class="axis" x="{middle}" y="{HEIGHT - 3}" text-anchor="middle">{escape(x_label)}</text>'


def render_svg(body: Sequence[str], height: int, alt: str) -> str:
    """Return the parts as one SVG picture with its text alternative."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(alt)}">'
        f"<title>{escape(alt)}</title>{''.join(body)}</svg>"
    )


@dataclass(frozen=True)
class Axis:
    """An axis that covers a scale and all values beyond it.

    Attributes:
        label: its text.
        low: its lower end.
        high: its upper end.
    """

    label: str
    low: float
    high: float

    @classmethod
    def from_scale(cls, label: str, scale: Mapping[str, Any], values: np.ndarray) -> Self:
        """Return an axis for values that should lie on a scale with a `low` and a `high`."""
        return cls(label, min(scale["low"], values.min()), max(scale["high"], values.max()))

    def compute_ticks(self) -> list[float]:
        """Return round values on the axis, at most seven of them."""
        # The smallest step of 1, 2, 5 or 10 times a power of ten that needs no more than six steps.
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / 6))
        step = next(s * power for s in (1, 2, 5, 10) if s * power * 6 >= (self.high - self.low) * 0.999)
        # The tolerance keeps ends that rounding has moved slightly off a tick.
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]
