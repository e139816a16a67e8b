"""CSV cells that spreadsheets do not run as formulas.

In the CSV files of Sertone, a text that begins with = + - @, a tab or a line break, and is not a number, gets
an apostrophe in front. So does a text that begins like this after apostrophes. Removing the first apostrophe
restores the text.
"""

import csv
import re
from pathlib import Path

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
GUARDED = re.compile(r"'+[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def guard_formula(value: object) -> object:
    """Return a cell's value with an apostrophe in front if a spreadsheet could take it for a formula."""
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def unguard_formula(text: str) -> str:
    """Return the original text of a cell written by `guard_formula`."""
    return text[1:] if GUARDED.match(text) else text


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file written by Sertone, column -> text."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: unguard_formula(text) for name, text in row.items()} for row in csv.DictReader(file)]
