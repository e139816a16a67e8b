"""Module docstrings as Markdown: indented parts become lists or code blocks."""

import inspect
import textwrap
from itertools import groupby

import griffe


def markdown(docstring: str) -> str:
    """Return a module's docstring as Markdown: indented lists become lists, other indented lines code."""
    parts = []
    for indented, lines in groupby(_indent_blank_lines(docstring), lambda line: line.startswith(" ")):
        text = textwrap.dedent("\n".join(lines)).strip("\n")
        # A list is Markdown already; trees and tables of files keep their form only as code.
        plain = not indented or text.startswith("- ")
        parts.append(text if plain else f"```text\n{text}\n```")
    return "\n\n".join(parts)


def _indent_blank_lines(docstring: str) -> list[str]:
    """Return the lines; a blank line after an indented line is indented too, so blocks stay whole."""
    lines: list[str] = []
    for line in inspect.cleandoc(docstring).splitlines():
        lines.append(line or ("  " if lines and lines[-1].startswith(" ") else ""))
    return lines


class ModuleDocstrings(griffe.Extension):
    """Extension that makes mkdocstrings show module docstrings as Markdown."""

    def on_module(self, *, mod: griffe.Module, **_: object) -> None:
        """Rewrite the docstring of one module."""
        if mod.docstring:
            mod.docstring.value = markdown(mod.docstring.value)
