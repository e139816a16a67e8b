"""Plot of the scores of a study's rows against their cost; the colours come from the page."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from sertone.report import plots
from sertone.report.plots import BOTTOM, LEFT, RIGHT, WIDTH, Axis

LINE = 15
"""Height of a line with a system's name above the plot."""
PLOT = 190
"""Height of the plot itself."""
SCORE_GAP = 7
"""Horizontal distance between the scores of one system."""
TICK_GAP = 34
"""Smallest distance between two labels of the cost axis."""
CHARACTER = 6.2
"""Average width of a character of the legend."""


@dataclass(frozen=True)
class System:
    """One row of a study.

    Attributes:
        name: name of the row.
        cost: value on the horizontal axis, above zero.
        scores: label -> low, value, high.
    """

    name: str
    cost: float
    scores: Mapping[str, tuple[float, float, float]]


def plot_cost(systems: Sequence[System], x_label: str, y_label: str, alt: str) -> str:
    """Draw a dot with an interval for every score of every system, over the cost on a logarithmic axis.

    Args:
        systems: systems with the same scores.
        x_label: below the horizontal axis.
        y_label: above the vertical axis.
        alt: text alternative that describes the plot.
    """
    top = LINE * len(systems) + 14
    height = top + PLOT + BOTTOM + LINE
    bounds = [bound for system in systems for score in system.scores.values() for bound in score]
    low = min([0.0, *bounds])
    high = max(bounds)

    def to_y(value: float) -> float:
        return round(top + (high - value) / (high - low) * PLOT, 1)

    to_x = _make_logarithmic_scale([system.cost for system in systems])
    body = [_draw_axis(low, high, to_y), _draw_costs(systems, to_x, top + PLOT)]
    x = 0.0
    for number, system in enumerate(sorted(systems, key=lambda system: system.cost)):
        # Systems of nearly equal cost are moved to the right, so that their intervals stay apart.
        x = max(to_x(system.cost), x + SCORE_GAP * (len(system.scores) + 1))
        body.append(_draw_system(number, system, x, top + PLOT, to_y))
    body.append(_draw_legend(list(systems[0].scores), height))
    middle = f'x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - LINE - 4}"'
    body.append(
        f'<text class="axis" {middle} text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="axis" x="4" y="10">{escape(y_label)}</text>'
    )
    return plots.render_svg(body, height, alt)


def _make_logarithmic_scale(costs: Sequence[float]) -> Callable[[float], float]:
    """Return a function from cost to horizontal position; the axis reaches a margin beyond the costs."""
    first = math.log10(min(costs))
    last = math.log10(max(costs))
    margin = max(0.1, 0.15 * (last - first))  # never zero, also where all costs are equal
    first -= margin
    last += margin
    return lambda cost: round(LEFT + (math.log10(cost) - first) / (last - first) * (WIDTH - LEFT - RIGHT), 1)


def _draw_axis(low: float, high: float, to_y: Callable[[float], float]) -> str:
    parts = []
    for tick in Axis("", low, high).compute_ticks():
        y = to_y(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text class="axis" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:.3g}</text>'
        )
    return "".join(parts)


def _draw_costs(systems: Sequence[System], to_x: Callable[[float], float], bottom: int) -> str:
    """Label the axis with the costs themselves, except costs whose label would overlap the one before."""
    parts = []
    last = -math.inf
    for cost in sorted({system.cost for system in systems}):
        x = to_x(cost)
        if x - last > TICK_GAP:
            last = x
            label = f"{cost:.3g}"
            parts.append(f'<text class="axis" x="{x}" y="{bottom + 14}" text-anchor="middle">{label}</text>')
    return "".join(parts)


def _draw_system(number: int, system: System, x: float, bottom: int, to_y: Callable[[float], float]) -> str:
    """Draw the name on its own line, a thin line down to the axis, and the scores side by side."""
    y = LINE * number + 24
    # In the right half the name is to the left of its line, so that it does not leave the plot.
    anchor, name_x = ("end", x - 5) if x > WIDTH / 2 else ("start", x + 5)
    parts = [
        f'<line class="grid" x1="{x}" x2="{x}" y1="{y - 8}" y2="{bottom}"/>',
        f'<text class="axis" x="{name_x}" y="{y}" text-anchor="{anchor}">{escape(system.name)}</text>',
    ]
    first = x - SCORE_GAP * (len(system.scores) - 1) / 2
    for index, (label, (low, value, high)) in enumerate(system.scores.items()):
        score_x = first + SCORE_GAP * index
        title = f"{system.name}, {label}: {value:.3f} ({low:.3f} to {high:.3f})"
        parts.append(
            f'<g class="mark k{index}">'
            f'<line x1="{score_x}" x2="{score_x}" y1="{to_y(low)}" y2="{to_y(high)}"/>'
            f'<circle cx="{score_x}" cy="{to_y(value)}" r="4"><title>{escape(title)}</title></circle></g>'
        )
    return "".join(parts)


def _draw_legend(labels: Sequence[str], height: int) -> str:
    parts = []
    x = float(LEFT)
    for index, label in enumerate(labels):
        parts.append(f'<g class="mark k{index}"><circle cx="{x}" cy="{height - 8}" r="4"/></g>')
        parts.append(f'<text class="axis" x="{x + 8}" y="{height - 4}">{escape(label)}</text>')
        x += 20 + CHARACTER * len(label)
    return "".join(parts)
