"""Accuracy against cost, of the rows of a study: a plot whose colours come from the page."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from sertone.report import plots
from sertone.report.plots import BOTTOM, LEFT, RIGHT, WIDTH, Axis

LINE, PLOT = 15, 190
"""Heights of a name above the plot, and of the plot itself."""
APART = 7
"""Between the scores of one system."""


@dataclass(frozen=True)
class System:
    """One row of a study.

    Attributes:
        name: of the row.
        cost: on the horizontal axis, above zero.
        scores: label -> low, value, high.
    """

    name: str
    cost: float
    scores: Mapping[str, tuple[float, float, float]]


def plot_cost(systems: Sequence[System], x_label: str, y_label: str, alt: str) -> str:
    """A dot with an interval for every score of every system, over its cost on a logarithmic axis.

    Args:
        systems: with the same scores.
        x_label: below the horizontal axis.
        y_label: above the vertical axis.
        alt: what the plot shows, in words.
    """
    top = LINE * len(systems) + 14
    height = top + PLOT + BOTTOM + LINE
    bounds = [bound for system in systems for score in system.scores.values() for bound in score]
    low, high = min([0.0, *bounds]), max(bounds)

    def down(value: float) -> float:
        return round(top + (high - value) / (high - low) * PLOT, 1)

    across = _logarithmic([system.cost for system in systems])
    body, reached = [_axes(low, high, down), _ticks(systems, across, top + PLOT)], 0.0
    for number, system in enumerate(sorted(systems, key=lambda system: system.cost)):
        reached = max(across(system.cost), reached + APART * (len(system.scores) + 1))  # beside, if not above
        body.append(_system(number, system, reached, top + PLOT, down))
    body.append(_legend(list(systems[0].scores), height))
    middle, below = (LEFT + WIDTH - RIGHT) / 2, height - LINE - 4
    body.append(
        f'<text class="axis" x="{middle}" y="{below}" text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="axis" x="4" y="10">{escape(y_label)}</text>'
    )
    return plots.render_svg(body, height, alt)


def _logarithmic(costs: Sequence[float]) -> Callable[[float], float]:
    """Cost -> horizontal position; the ends of the axis are half a step beyond the costs."""
    first, last = math.log10(min(costs)), math.log10(max(costs))
    margin = max(0.1, 0.15 * (last - first))
    first, last = first - margin, last + margin
    return lambda cost: round(LEFT + (math.log10(cost) - first) / (last - first) * (WIDTH - LEFT - RIGHT), 1)


def _axes(low: float, high: float, down: Callable[[float], float]) -> str:
    parts = []
    for tick in Axis("", low, high).compute_ticks():
        y = down(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
            f'<text class="axis" x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{tick:.3g}</text>'
        )
    return "".join(parts)


def _ticks(systems: Sequence[System], across: Callable[[float], float], bottom: int) -> str:
    """The costs themselves, where they do not lie on each other."""
    parts, reached = [], -math.inf
    for cost in sorted({system.cost for system in systems}):
        x = across(cost)
        if x - reached > 34:
            reached = x
            words = f"{cost:.3g}"
            parts.append(f'<text class="axis" x="{x}" y="{bottom + 14}" text-anchor="middle">{words}</text>')
    return "".join(parts)


def _system(number: int, system: System, x: float, bottom: int, down: Callable[[float], float]) -> str:
    """The name on a line of its own, a thin line down, and the scores side by side."""
    y, right = LINE * number + 24, x > WIDTH / 2
    anchor, beside = ("end", x - 5) if right else ("start", x + 5)
    parts = [
        f'<line class="grid" x1="{x}" x2="{x}" y1="{y - 8}" y2="{bottom}"/>',
        f'<text class="axis" x="{beside}" y="{y}" text-anchor="{anchor}">{escape(system.name)}</text>',
    ]
    first = x - APART * (len(system.scores) - 1) / 2
    for place, (label, (low, value, high)) in enumerate(system.scores.items()):
        at = first + APART * place
        words = f"{system.name}, {label}: {value:.3f} ({low:.3f} to {high:.3f})"
        parts.append(
            f'<g class="mark k{place}"><line x1="{at}" x2="{at}" y1="{down(low)}" y2="{down(high)}"/>'
            f'<circle cx="{at}" cy="{down(value)}" r="4"><title>{escape(words)}</title></circle></g>'
        )
    return "".join(parts)


def _legend(labels: Sequence[str], height: int) -> str:
    parts, x = [], float(LEFT)
    for place, label in enumerate(labels):
        parts.append(f'<g class="mark k{place}"><circle cx="{x}" cy="{height - 8}" r="4"/></g>')
        parts.append(f'<text class="axis" x="{x + 8}" y="{height - 4}">{escape(label)}</text>')
        x += 20 + 6.2 * len(label)
    return "".join(parts)
