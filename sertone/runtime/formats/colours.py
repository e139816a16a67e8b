"""Colours of emotions: fixed, so that an emotion looks the same in every picture.

Two emotions differ by at least 19 in CIELAB to everybody: to people with usual colour vision and to those
without red, green or blue cones (as simulated by Machado et al., 2009, doi:10.1109/TVCG.2009.113).
"""

from collections.abc import Iterable
from itertools import cycle

from sertone.labels import SYNONYMS

PALETTE = {
    "neutral": "#979888",
    "calm": "#b0ebc9",
    "happy": "#f29e02",
    "excited": "#f8f03c",
    "angry": "#dc1c0c",
    "frustrated": "#781652",
    "sad": "#01458d",
    "fearful": "#7f44e0",
    "disgusted": "#63a24c",
    "surprised": "#29b0ff",
    "bored": "#744f3d",
    "contempt": "#d7a0cb",
}
UNLABELLED_COLOUR = "#c3c7ca"
"""Of a segment without a label."""


def assign_colours(labels: Iterable[str]) -> dict[str, str]:
    """Label -> colour, as `#rrggbb`.

    Args:
        labels: those of PALETTE and their synonyms have their own colour, others take in this order
            the colours that are left over.
    """
    labels = list(labels)
    known = {
        name: PALETTE[SYNONYMS.get(name, name)] for name in labels if SYNONYMS.get(name, name) in PALETTE
    }
    spare = cycle([colour for colour in PALETTE.values() if colour not in known.values()] or PALETTE.values())
    return {name: known[name] if name in known else next(spare) for name in dict.fromkeys(labels)}


def parse_colour(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of `#rrggbb`, each from 0 to 255."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def choose_text_colour(colour: str) -> str:
    """Black or white, whichever has the higher contrast on a colour (WCAG 2: at least 4.5 to 1)."""
    red, green, blue = (_linear(value / 255) for value in parse_colour(colour))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def _linear(value: float) -> float:
    """An sRGB channel as linear light."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
