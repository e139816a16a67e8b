"""Module docstrings as Markdown: what they indent is a list or is set as it stands."""

import inspect
import textwrap
from itertools import groupby

import griffe


def markdown(docstring: str) -> str:
    """A module's docstring as Markdown: indented lists become lists, other indented lines code."""
    parts = []
    for indented, lines in groupby(_joined(inspect.cleandoc(docstring)), lambda line: line.startswith(" ")):
        text = textwrap.dedent("\n".join(lines)).strip("\n")
        plain = not indented or text.startswith("- ")
        parts.append(text if plain else f"```text\n{text}\n```")
    return "\n\n".join(parts)


def _joined(text: str) -> list[str]:
    """Its lines; an empty one belongs to what stands before it."""
    lines: list[str] = []
    for line in text.splitlines():
        lines.append(line or ("  " if lines and lines[-1].startswith(" ") else ""))
    return lines


class ModuleDocstrings(griffe.Extension):
    """Lets mkdocstrings show module docstrings in that form."""

    def on_module(self, *, mod: griffe.Module, **_: object) -> None:
        """Rewrites one docstring."""
        if mod.docstring:
            mod.docstring.value = markdown(mod.docstring.value)
