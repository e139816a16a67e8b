"""Formulas as MathML, which browsers show without a script: ```` ```math ```` blocks and $`...`$.

GitHub reads the same notation.
"""

import re
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert, convert_to_element
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor


def block(source: str, *_: Any, **__: Any) -> str:
    """Return a displayed formula as HTML; SuperFences calls it for a `math` fence."""
    return f'<div class="formula">{convert(source, display="block")}</div>'


class _Inline(InlineProcessor):
    """Processor of a formula between $` and `$."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[ElementTree.Element, int, int]:  # noqa: N802
        return convert_to_element(m[1]), m.start(0), m.end(0)


class Formulas(Extension):
    """Markdown extension for formulas within a line."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Register the processor."""
        # Code spans have priority 190. Formulas contain backticks, so they must come before them.
        md.inlinePatterns.register(_Inline(r"\$`(.+?)`\$", md), "formula", 195)
