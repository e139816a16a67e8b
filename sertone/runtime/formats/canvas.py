"""A small drawing surface over Pillow. All lengths are in units of the picture at its intended size."""

import io
from collections.abc import Sequence
from functools import cache
from typing import Any, Self

from sertone.errors import SertoneError
from sertone.runtime.formats.colours import parse_colour
from sertone.utils.extras import install_command

SCALE = 2
"""Pixels per unit, for high-resolution screens and for print."""
BACKGROUND = "#ffffff"
HATCH = 5
"""Distance between hatching lines, in units."""


class Canvas:
    """An area to draw on.

    Args:
        width: width in units.
        height: height in units.

    Raises:
        SertoneError: `missing_extra`, without Pillow.
    """

    def __init__(self, width: float, height: float) -> None:
        image, draw, _ = require_pillow()
        size = (max(1, round(width * SCALE)), max(1, round(height * SCALE)))
        self.image = image.new("RGB", size, BACKGROUND)
        self.draw = draw.Draw(self.image)

    def draw_box(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        """Draw a filled rectangle, at least one pixel wide."""
        x_start, y_start = round(left * SCALE), round(top * SCALE)
        # Pillow includes the last pixel of a rectangle, hence the - 1.
        x_end, y_end = round((left + width) * SCALE) - 1, round((top + height) * SCALE) - 1
        self.draw.rectangle((x_start, y_start, max(x_start, x_end), max(y_start, y_end)), fill=colour)

    def draw_hatched_box(self, left: float, top: float, width: float, height: float, colour: str) -> None:
        """Draw a light rectangle with slanted lines in the colour."""
        # The lines are drawn on a separate canvas, whose edges cut them off.
        part = type(self)(width, height)
        part.draw_box(0, 0, width, height, lighten(colour, 0.22))
        for x in range(-int(height), int(width) + HATCH, HATCH):
            part.draw_line([(x, height), (x + height, 0)], lighten(colour, 0.7), 1.5)
        self.paste(part, left, top)

    def draw_line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> None:
        """Draw straight lines from point to point."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self.draw.line(scaled, fill=colour, width=round(width * SCALE))

    def draw_text(self, x: float, y: float, text: str, size: float, colour: str, anchor: str = "lm") -> None:
        """Draw one line of text.

        `anchor` is Pillow's: left, middle or right, then ascender or middle.
        """
        self.draw.text((x * SCALE, y * SCALE), text, fill=colour, font=_load_font(size), anchor=anchor)

    def shorten_text(self, text: str, size: float, width: float) -> str:
        """Cut the end of a text until it fits the width."""
        if measure_text(text, size) <= width:
            return text
        shorter = text[:-1]
        while shorter and measure_text(f"{shorter}…", size) > width:
            shorter = shorter[:-1]
        return f"{shorter}…"

    def paste(self, part: Self, left: float, top: float) -> None:
        """Paste another area onto this one."""
        self.image.paste(part.image, (round(left * SCALE), round(top * SCALE)))

    def to_png(self) -> bytes:
        """Return the area as a PNG file."""
        buffer = io.BytesIO()
        # 72 units per inch: viewers then show the picture at its intended size.
        self.image.save(buffer, "PNG", optimize=True, dpi=(72 * SCALE, 72 * SCALE))
        return buffer.getvalue()


def measure_text(text: str, size: float) -> float:
    """Return the width of a line of text, in units."""
    return _load_font(size).getlength(text) / SCALE


def lighten(colour: str, share: float) -> str:
    """Mix a colour with the background; `share` is the share of the colour."""
    pairs = zip(parse_colour(colour), parse_colour(BACKGROUND), strict=True)
    return "#" + "".join(f"{round(share * value + (1 - share) * paper):02x}" for value, paper in pairs)


@cache
def _load_font(size: float) -> Any:
    return require_pillow()[2].load_default(size * SCALE)


def require_pillow() -> tuple[Any, Any, Any]:
    """Return the modules Image, ImageDraw and ImageFont.

    Raises:
        SertoneError: `missing_extra`.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise SertoneError(
            "missing_extra",
            "a picture requires Pillow, which is not installed",
            way_out=f"{install_command('png')}; .html requires nothing",
        ) from None
    return Image, ImageDraw, ImageFont
