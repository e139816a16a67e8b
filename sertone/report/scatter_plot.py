"""Scatter plots of ratings; CSS classes used beside those of `plots`: `spots`, `mean`, `name`."""

from collections.abc import Callable, Mapping
from html import escape

import numpy as np
from numpy.typing import ArrayLike

from sertone.report import plots
from sertone.report.plots import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Axis


def plot_scatter(
    groups: Mapping[str, np.ndarray],
    x: Axis,
    y: Axis,
    alt: str,
    *,
    diagonal: bool = False,
    marked: Mapping[str, np.ndarray] | None = None,
) -> str:
    """Draw dots with one colour per named group; a group without a name is grey beside named ones.

    Args:
        groups: name -> points, (N, 2).
        x: the horizontal axis.
        y: the vertical axis.
        alt: text alternative that describes the plot.
        diagonal: draw the line of equal values.
        marked: name -> a point to mark, in the colour of its group.
    """
    height = WIDTH - 96  # low enough for two rows of plots on a printed page

    def to_position(point: ArrayLike) -> tuple[float, float]:
        share_x, share_y = (np.asarray(point) - (x.low, y.low)) / (x.high - x.low, y.high - y.low)
        return plots.share_to_x(share_x), height - BOTTOM - share_y * (height - TOP - BOTTOM)

    body = [_draw_scatter_axes(x, y, height, to_position)]
    if diagonal:
        ends = [max(x.low, y.low)] * 2, [min(x.high, y.high)] * 2
        (x1, y1), (x2, y2) = map(to_position, ends)
        body.append(f'<line class="chance" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    # The page defines six colours.
    colours = {name: number % 6 for number, name in enumerate(name for name in groups if name)}
    for name, points in groups.items():
        colour = f"k{colours[name]}" if name else "soft" if colours else "k0"
        # Whole numbers keep a page with hundreds of dots small.
        dots = "".join(
            f'<circle cx="{px:.0f}" cy="{py:.0f}" r="2.5"/>' for px, py in map(to_position, points)
        )
        body.append(f'<g class="spots {colour}">{dots}</g>')
    positions = {name: to_position(point) for name, point in (marked or {}).items()}
    body += [
        f'<circle class="mean k{colours[name]}" cx="{px:.1f}" cy="{py:.1f}" r="6"/>'
        for name, (px, py) in positions.items()
    ]
    return plots.render_svg([*body, *_draw_names(positions)], height, alt)


def _draw_scatter_axes(x: Axis, y: Axis, height: int, to_position: Callable) -> str:
    parts = []
    bottom = height - BOTTOM
    for tick in x.compute_ticks():
        tick_x, _ = to_position((tick, y.low))
        parts.append(
            f'<line class="grid" x1="{tick_x:.1f}" x2="{tick_x:.1f}" y1="{TOP}" y2="{bottom}"/>'
            f'<text class="axis" x="{tick_x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>'
        )
    for tick in y.compute_ticks():
        _, tick_y = to_position((x.low, tick))
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{tick_y:.1f}" y2="{tick_y:.1f}"/>'
            f'<text class="axis" x="{LEFT - 6}" y="{tick_y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    middle = (TOP + bottom) / 2
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 3}" text-anchor="middle">'
        f"{escape(x.label)}</text>"
        f'<text class="axis" transform="rotate(-90 12 {middle})" x="12" y="{middle}" text-anchor="middle">'
        f"{escape(y.label)}</text>"
    )
    return "".join(parts)


def _draw_names(positions: Mapping[str, tuple[float, float]]) -> list[str]:
    """Draw names beside marks, moved down where they would overlap."""
    names = []
    lowest = 0.0
    for name, (x, y) in sorted(positions.items(), key=lambda item: item[1][1]):
        lowest = max(y + 4, lowest + 14)
        side, anchor = (10, "start") if x < WIDTH * 0.75 else (-10, "end")
        names.append(
            f'<text class="axis name" x="{x + side:.1f}" y="{lowest:.1f}" text-anchor="{anchor}">'
            f"{escape(name)}</text>"
        )
    return names
