"""What is printed: names of files, labels and texts are of others, and must not act on a terminal."""

import re
import sys

ACTS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line breaks of all kinds, and what reverses the direction of writing."""


def escape_control(text: str, keep: str = "") -> str:
    r"""Return a text with every character that could act written as `\u001b`, which JSON reads as the same.

    Args:
        text: of others.
        keep: characters that stay.
    """
    return ACTS.sub(lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text)


def print_text(text: object, *, error: bool = False) -> None:
    """Print lines on stdout, or on stderr, and nothing that acts on a terminal."""
    print(escape_control(str(text), keep="\n\t"), file=sys.stderr if error else sys.stdout, flush=True)


def print_status(text: object) -> None:
    """Print one line on stderr: line breaks within it are escaped as well."""
    print(escape_control(str(text)), file=sys.stderr, flush=True)
