"""Plots over the layers of an encoder: one line per target, with its interval, name and own marks.

The colours come from the page. The marks and the names tell the lines apart for readers who do not see the
colours.
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
CHARACTER = 7.4
"""Average width of a character, in units of the plot."""
Point = tuple[float, float, float]
"""Lower bound, value, upper bound."""


def plot_layers(series: Mapping[str, Sequence[Point]], y_label: str, alt: str, *, first: int = 0) -> str:
    """Draw a line with a band for every series.

    Args:
        series: name -> a point for every layer.
        y_label: above the vertical axis.
        alt: text alternative that describes the plot.
        first: number of the first layer.
    """
    bounds = [bound for points in series.values() for point in points for bound in point]
    last = first + max(map(len, series.values())) - 1
    x = Axis("layer", first, max(last, first + 1))
    y = Axis(y_label, min(0.0, *bounds), max(bounds) * 1.05 or 1.0)
    plot_right = WIDTH - 16 - CHARACTER * max(map(len, series))  # the names stand behind the lines
    body = [_draw_axes(x, y, plot_right)]
    for number, points in enumerate(series.values()):
        body.append(_draw_series(number % len(MARKS), points, x, y, plot_right))
    ends = {name: _to_y(points[-1][1], y) for name, points in series.items()}
    return plots.render_svg([*body, *_draw_names(ends, plot_right)], HEIGHT, alt)


def _to_x(layer: float, x: Axis, plot_right: float) -> float:
    return LEFT + (layer - x.low) / (x.high - x.low) * (plot_right - LEFT)


def _to_y(value: float, y: Axis) -> float:
    return HEIGHT - BOTTOM - (value - y.low) / (y.high - y.low) * (HEIGHT - TOP - BOTTOM)


def _draw_axes(x: Axis, y: Axis, plot_right: float) -> str:
    parts = [plots.draw_y_label(y.label)]
    for tick in y.compute_ticks():
        tick_y = f"{_to_y(tick, y):.1f}"
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{plot_right:.1f}" y1="{tick_y}" y2="{tick_y}"/>')
        parts.append(
            f'<text class="axis" x="{LEFT - 6}" y="{tick_y}" dy="4" text-anchor="end">{tick:.3g}</text>'
        )
    # There are no half layers, so only ticks at whole numbers are drawn.
    for tick in (tick for tick in x.compute_ticks() if tick == round(tick)):
        position = f'x="{_to_x(tick, x, plot_right):.1f}" y="{HEIGHT - 18}"'
        parts.append(f'<text class="axis" {position} text-anchor="middle">{tick:g}</text>')
    middle = f'x="{(LEFT + plot_right) / 2:.1f}" y="{HEIGHT - 3}"'
    return "".join([*parts, f'<text class="axis" {middle} text-anchor="middle">layer</text>'])


def _draw_series(number: int, points: Sequence[Point], x: Axis, y: Axis, plot_right: float) -> str:
    """Draw the band, the line and the marks of one target."""
    positions = [f"{_to_x(x.low + index, x, plot_right):.1f}" for index in range(len(points))]
    lows, values, highs = (
        [f"{_to_y(value, y):.1f}" for value in column] for column in zip(*points, strict=True)
    )
    # The band runs along the upper bounds and back along the lower ones.
    edge = [*zip(positions, highs, strict=True), *reversed([*zip(positions, lows, strict=True)])]
    band = " ".join(f"{px},{py}" for px, py in edge)
    line = " ".join(f"{px},{py}" for px, py in zip(positions, values, strict=True))
    marks = "".join(MARKS[number].format(x=px, y=py) for px, py in zip(positions, values, strict=True))
    return (
        f'<polygon class="k{number}" fill="currentColor" fill-opacity="0.13" points="{band}"/>'
        f'<polyline class="line c{number}" points="{line}"/>'
        f'<g class="k{number}" fill="currentColor">{marks}</g>'
    )


def _draw_names(ends: Mapping[str, float], plot_right: float) -> list[str]:
    """Draw the names behind the ends of the lines, moved down where they would overlap."""
    names = []
    lowest = 0.0
    for name, y in sorted(ends.items(), key=lambda item: item[1]):
        lowest = max(y + 4, lowest + 14)
        number = list(ends).index(name) % len(MARKS)
        names.append(
            f'<text class="axis name k{number}" style="fill: currentColor" x="{plot_right + 9:.1f}" '
            f'y="{lowest:.1f}">{escape(name)}</text>'
        )
    return names
