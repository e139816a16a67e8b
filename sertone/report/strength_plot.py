"""Curves over the strengths of a perturbation, with bands of intervals."""

from collections.abc import Mapping, Sequence
from html import escape

from sertone.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, render_svg

Curve = Sequence[Mapping[str, float | None]]
"""`value`, `low` and `high` at each strength, from 0 to 1; None where not known."""


def plot_strengths(ticks: Sequence[str], curves: Mapping[str, Curve], x_label: str, alt: str) -> str:
    """Draw one curve per score over strengths at equal distances, on an axis from 0 to 100 %.

    Args:
        ticks: strengths as text.
        curves: name -> values; the first curve has its band of intervals.
        x_label: below the horizontal axis.
        alt: text alternative that describes the plot.
    """
    body = [_draw_grid(), *_draw_ticks(ticks)]
    middle = (LEFT + WIDTH - RIGHT) / 2
    body.append(
        f'<text class="axis" x="{middle}" y="{HEIGHT - 2}" text-anchor="middle">{escape(x_label)}</text>'
    )
    numbered = list(enumerate(curves.items()))
    body.append(_draw_band(numbered[0][1][1], len(ticks)))
    for number, (name, curve) in reversed(numbered):  # the first curve lies above the others
        body += _draw_curve(name, curve, number, len(ticks))
    return render_svg(body, HEIGHT, alt)


def _to_x(step: int, steps: int) -> float:
    return LEFT + 12 + step / max(1, steps - 1) * (WIDTH - LEFT - RIGHT - 24)


def _to_y(share: float) -> float:
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)


def _draw_grid() -> str:
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _to_y(share)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="axis" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>'
        )
    return "".join(parts)


def _draw_ticks(ticks: Sequence[str]) -> list[str]:
    y = HEIGHT - BOTTOM + 14
    return [
        f'<text class="axis" x="{x:.1f}" y="{y}" text-anchor="middle">{escape(tick)}</text>'
        for x, tick in ((_to_x(n, len(ticks)), tick) for n, tick in enumerate(ticks))
    ]


def _draw_band(curve: Curve, steps: int) -> str:
    known = [(n, p) for n, p in enumerate(curve) if p["low"] is not None and p["high"] is not None]
    upper = [f"{_to_x(n, steps):.1f},{_to_y(p['high'] or 0):.1f}" for n, p in known]
    lower = [f"{_to_x(n, steps):.1f},{_to_y(p['low'] or 0):.1f}" for n, p in reversed(known)]
    return f'<polygon class="area" points="{" ".join([*upper, *lower])}"/>'


def _draw_curve(name: str, curve: Curve, number: int, steps: int) -> list[str]:
    points = [(_to_x(n, steps), p["value"]) for n, p in enumerate(curve) if p["value"] is not None]
    places = [(x, _to_y(value)) for x, value in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = [f'<circle class="c{number} end" cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in places]
    return [
        f'<polyline class="line c{number}" points="{line}"><title>{escape(name)}</title></polyline>',
        *dots,
    ]
