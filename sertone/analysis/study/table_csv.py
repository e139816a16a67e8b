"""Table of a study as CSV, for spreadsheets and statistics programs."""

import csv
import io
from typing import Any

from sertone.utils.spreadsheet import guard_formula

SCORE_COLUMNS = (
    *("value", "spread", "low", "high", "difference", "difference_low", "difference_high", "p"),
    *("mean_over_folds", "mean_over_folds_spread"),
)
PUBLISHED_COLUMNS = ("published_as_printed", "inferred", "published_convention")


def format_csv(results: dict[str, Any]) -> str:
    """Format the table as CSV, with one line per cell and score."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["row", "column", "score", *SCORE_COLUMNS, *PUBLISHED_COLUMNS, "runs"])
    for line in _build_csv_lines(results):
        # A name that begins with `=` would be a formula in a spreadsheet.
        writer.writerow(map(guard_formula, line))
    return text.getvalue()


def _build_csv_lines(results: dict[str, Any]) -> list[list[Any]]:
    """Return the lines of table.csv: scores and costs by cell, then the scores of other work."""
    lines: list[list[Any]] = []
    for row in results["rows"]:
        for column, cell in row["cells"].items():
            for name, score in cell["scores"].items():
                values = _list_csv_values(results, cell, score)
                lines.append([row["name"], column, name, *values])
            for name in results["costs"] if cell.get("cost") else ():
                empty = [None] * (len(SCORE_COLUMNS) + len(PUBLISHED_COLUMNS))
                lines.append([row["name"], column, name, cell["cost"][name], *empty])
    for work in results["reference"]:
        for name, printed in work["figures"].items():
            lines.append([work["name"], "", name, *[None] * len(SCORE_COLUMNS), printed, False, None, ""])
    return lines


def _list_csv_values(results: dict[str, Any], cell: dict[str, Any], score: dict[str, Any]) -> list[Any]:
    """Return the values of SCORE_COLUMNS and PUBLISHED_COLUMNS of one score, and its runs."""
    low, high = score["interval"] or (None, None)
    difference = score["difference"] or {}
    published = score["published"] or {}
    convention = results["published_convention"] if published else None
    values = [score["value"], score["spread"], low, high]
    values += [difference.get(key) for key in ("value", "low", "high", "p")]
    values += score["mean_over_folds"].values()
    values += [published.get("printed"), published.get("inferred"), convention]
    return [*values, " ".join(cell["runs"])]
