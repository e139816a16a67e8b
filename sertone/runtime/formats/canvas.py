"""A small drawing surface over Pillow: lengths are in units of a picture seen at its intended size."""

import io
from collections.abc import Sequence
from functools import cache
from typing import Any, Self

from sertone.errors import SertoneError
from sertone.runtime.formats.colours import parse_colour
from sertone.utils.extras import install_command

SCALE = 2
"""Pixels per unit, for screens with fine pixels and for print."""
BACKGROUND = "#ffffff"
HATCH = 5
"""Distance of hatching lines."""


class Canvas:
    """An area to draw on.

    Args:
        width: in units.
        height: in units.

    Raises:
        SertoneError: `missing_extra` without Pillow.
    """

    def __init__(self, width: float, height: float) -> None:
        image, draw, _ = require_pillow()
        size = (max(1, round(width * SCALE)), max(1, round(height * SCALE)))
        self.image = image.new("RGB", size, BACKGROUND)
        self.draw = draw.Draw(self.image)

    def draw_box(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle, at least one pixel wide."""
        x, y = round(left * SCALE), round(top * SCALE)
        right, bottom = round((left + width) * SCALE) - 1, round((top + height) * SCALE) - 1
        self.draw.rectangle((x, y, max(x, right), max(y, bottom)), fill=colour)

    def draw_hatched_box(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        """A light rectangle with slanting lines of the colour."""
        part = type(self)(width, height)
        part.draw_box(0, 0, width, height, lighter(colour, 0.22))
        for x in range(-int(height), int(width) + HATCH, HATCH):
            part.draw_line([(x, height), (x + height, 0)], lighter(colour, 0.7), 1.5)
        self.paste(part, left, top)

    def draw_line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> None:
        """Straight lines from point to point."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self.draw.line(scaled, fill=colour, width=round(width * SCALE))

    def draw_text(self, x: float, y: float, words: str, size: float, colour: str, anchor: str = "lm") -> None:
        """One line of text; `anchor` is Pillow's: left, middle or right, then ascender or middle."""
        self.draw.text((x * SCALE, y * SCALE), words, fill=colour, font=_font(size), anchor=anchor)

    def shorten_text(self, words: str, size: float, room: float) -> str:
        """Text with its end left out as far as it needs to fit."""
        kept = words
        while kept and measure_text(kept if kept == words else f"{kept}…", size) > room:
            kept = kept[:-1]
        return words if kept == words else f"{kept}…"

    def paste(self, part: Self, left: float, top: float) -> None:
        """Puts another area onto this one."""
        self.image.paste(part.image, (round(left * SCALE), round(top * SCALE)))

    def to_png(self) -> bytes:
        """The area as a PNG file."""
        made = io.BytesIO()
        self.image.save(made, "PNG", optimize=True, dpi=(72 * SCALE, 72 * SCALE))
        return made.getvalue()


def measure_text(words: str, size: float) -> float:
    """Width of a line of text, in units."""
    return _font(size).getlength(words) / SCALE


def lighter(colour: str, share: float) -> str:
    """A colour mixed with the background: `share` of the colour."""
    mixed = zip(parse_colour(colour), parse_colour(BACKGROUND), strict=True)
    return "#" + "".join(f"{round(share * own + (1 - share) * paper):02x}" for own, paper in mixed)


@cache
def _font(size: float) -> Any:
    return require_pillow()[2].load_default(size * SCALE)


def require_pillow() -> tuple[Any, Any, Any]:
    """The modules Image, ImageDraw, ImageFont.

    Raises:
        SertoneError: `missing_extra`.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise SertoneError(
            "missing_extra",
            "a picture needs Pillow, which is not installed",
            way_out=f"{install_command('png')}; .html needs nothing",
        ) from None
    return Image, ImageDraw, ImageFont
