"""A line per target over the layers of an encoder, with its interval, its name at its end and its own marks.

Colours are those of the page; whoever does not see them tells the lines apart by marks and names.
"""

from collections.abc import Mapping, Sequence
from html import escape

from sertone.report import plots
from sertone.report.plots import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, Axis

MARKS = (
    '<circle cx="{x}" cy="{y}" r="3.4"/>',
    '<rect x="{x}" y="{y}" width="6" height="6" transform="translate(-3 -3)"/>',
    '<path d="M{x} {y}m0 -4l4 7h-8z"/>',
    '<path d="M{x} {y}m0 -4.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z"/>',
    '<path d="M{x} {y}m-3.5 -3.5l7 7m0 -7l-7 7" stroke="currentColor" stroke-width="2"/>',
    '<path d="M{x} {y}m0 4l4 -7h-8z"/>',
)
LETTER = 7.4
"""Width of one, in units of the plot."""
Point = tuple[float, float, float]
"""Lower bound, value, upper bound."""


def plot_layers(series: Mapping[str, Sequence[Point]], y_label: str, alt: str, *, first: int = 0) -> str:
    """The plot.

    Args:
        series: name -> a point for every layer.
        y_label: above the vertical axis.
        alt: what the plot shows, in words.
        first: number of the first layer.
    """
    bounds = [bound for points in series.values() for point in points for bound in point]
    last = first + max(map(len, series.values())) - 1
    x = Axis("layer", first, max(last, first + 1))
    y = Axis(y_label, min(0.0, *bounds), max(bounds) * 1.05 or 1.0)
    right = WIDTH - 16 - LETTER * max(map(len, series))
    body = [_axes(x, y, right)]
    for number, points in enumerate(series.values()):
        body.append(_line(number % len(MARKS), points, x, y, right))
    ends = {name: _up(points[-1][1], y) for name, points in series.items()}
    return plots.render_svg([*body, *_names(ends, right)], HEIGHT, alt)


def _across(layer: float, x: Axis, right: float) -> float:
    return LEFT + (layer - x.low) / (x.high - x.low) * (right - LEFT)


def _up(value: float, y: Axis) -> float:
    return HEIGHT - BOTTOM - (value - y.low) / (y.high - y.low) * (HEIGHT - TOP - BOTTOM)


def _axes(x: Axis, y: Axis, right: float) -> str:
    parts = [plots.draw_y_label(y.label)]
    for tick in y.compute_ticks():
        up = f"{_up(tick, y):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right:.1f}" y1="{up}" y2="{up}"/>')
        parts.append(f'<text class="axis" x="{LEFT - 6}" y="{up}" dy="4" text-anchor="end">{tick:.3g}</text>')
    for tick in (tick for tick in x.compute_ticks() if tick == round(tick)):
        across = f'x="{_across(tick, x, right):.1f}" y="{HEIGHT - 18}"'
        parts.append(f'<text class="axis" {across} text-anchor="middle">{tick:g}</text>')
    middle = f'x="{(LEFT + right) / 2:.1f}" y="{HEIGHT - 3}"'
    return "".join([*parts, f'<text class="axis" {middle} text-anchor="middle">layer</text>'])


def _line(number: int, points: Sequence[Point], x: Axis, y: Axis, right: float) -> str:
    """Band, line and marks of one target."""
    across = [f"{_across(x.low + index, x, right):.1f}" for index in range(len(points))]
    lows, values, highs = ([f"{_up(value, y):.1f}" for value in each] for each in zip(*points, strict=True))
    edge = [*zip(across, highs, strict=True), *reversed([*zip(across, lows, strict=True)])]
    band = " ".join(f"{px},{py}" for px, py in edge)
    line = " ".join(f"{px},{py}" for px, py in zip(across, values, strict=True))
    marks = "".join(MARKS[number].format(x=px, y=py) for px, py in zip(across, values, strict=True))
    return (
        f'<polygon class="k{number}" fill="currentColor" fill-opacity="0.13" points="{band}"/>'
        f'<polyline class="line c{number}" points="{line}"/>'
        f'<g class="k{number}" fill="currentColor">{marks}</g>'
    )


def _names(ends: Mapping[str, float], right: float) -> list[str]:
    """Names behind the ends of the lines, moved down where they would lie on each other."""
    made, lowest = [], 0.0
    for name, up in sorted(ends.items(), key=lambda item: item[1]):
        lowest = max(up + 4, lowest + 14)
        number = list(ends).index(name) % len(MARKS)
        made.append(
            f'<text class="axis name k{number}" style="fill: currentColor" x="{right + 9:.1f}" '
            f'y="{lowest:.1f}">{escape(name)}</text>'
        )
    return made
