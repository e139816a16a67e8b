"""Safe printing: file names, labels and texts come from other people and must not control the terminal."""

import re
import sys

CONTROL_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line breaks of all kinds, and marks that reverse the writing direction."""


def escape_control(text: str, keep: str = "") -> str:
    r"""Return a text with control characters escaped as `\u001b`, which JSON reads as the same character.

    Args:
        text: any text.
        keep: characters that stay.
    """
    return CONTROL_CHARACTERS.sub(
        lambda match: match[0] if match[0] in keep else f"\\u{ord(match[0]):04x}", text
    )


def print_text(text: object, *, error: bool = False) -> None:
    """Print lines on stdout or stderr, with control characters escaped."""
    print(escape_control(str(text), keep="\n\t"), file=sys.stderr if error else sys.stdout, flush=True)


def print_status(text: object) -> None:
    """Print one line on stderr; line breaks inside it are escaped, too."""
    print(escape_control(str(text)), file=sys.stderr, flush=True)
