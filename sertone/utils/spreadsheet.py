"""Cells of CSV files that no spreadsheet takes for a formula.

A text that begins with = + - @ or a tab or line break, and is no number, has an apostrophe in front of it in
every CSV file that Sertone writes; so has one that begins so behind apostrophes. Taking the first apostrophe
away gives the text.
"""

import csv
import re
from pathlib import Path

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
GUARDED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def guard_formula(value: object) -> object:
    """Return a cell's value as it is written: a text that may be a formula with an apostrophe in front."""
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def unguard_formula(text: str) -> str:
    """Return the text of a cell that `guarded` made."""
    return text[1:] if GUARDED.match(text) else text


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file that Sertone wrote, column -> text."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: unguard_formula(text) for name, text in row.items()} for row in csv.DictReader(file)]
