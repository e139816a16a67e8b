"""The table of a study as it is printed: Markdown, CSV, LaTeX."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sertone import figures
from sertone.analysis.study import SCORES
from sertone.analysis.tables import MEAN
from sertone.spreadsheet import guarded

Cells = list[dict | str | None]
"""Of a line: scores, and costs as printed."""


def _lines(found: dict[str, Any]) -> tuple[list[str], list[list[str]], list[Cells]]:
    """Header, names of the lines, and cells of the printed table.

    With up to two scores every row is one line and the columns stand side by side; with more, or with costs,
    the columns stand below each other, as papers print it.
    """
    scores = found["scores"]
    if len(scores) > 2 or found["costs"]:
        several = len(found["columns"]) > 1
        places = [(column, row) for column in found["columns"] for row in found["rows"]]
        names = [[column] * several + [row["name"]] for column, row in places]
        cells = [
            [_get(row, column, score) for score in scores] + _costs(found, row, column)
            for column, row in places
        ]
        return [""] * (1 + several) + [*scores.values(), *found["costs"].values()], names, cells
    header = ["", *(f"{column} {label}" for column in found["columns"] for label in scores.values())]
    cells: list[Cells] = [
        [_get(row, column, score) for column in found["columns"] for score in scores] for row in found["rows"]
    ]
    return header, [[row["name"]] for row in found["rows"]], cells


def _costs(found: dict[str, Any], row: dict, column: str) -> Cells:
    cell = row["cells"].get(column, {})
    return [figures.cost_text(cell.get("cost"), name) for name in found["costs"]]


def _get(row: dict, column: str, score: str) -> dict | None:
    cell = row["cells"].get(column)
    if cell is None:
        return None
    return cell["scores"][score] | {"name": score, "mark": "*" if cell["other_settings"] else ""}


def _shown(score: dict | str | None, plus_minus: str) -> str:
    """`71.2 ± 1.3 (paper 76.64)`, or `.731 ± .012 (paper .748)`; a cost as it is."""
    if isinstance(score, str):
        return score
    if not score or (score["value"] is None and score["published"] is None):
        return ""
    figure = figures.named(score["name"])
    text = "-" if score["value"] is None else f"{figure.bare(score['value'])}{score['mark']}"
    if score["spread"] is not None:
        text += f" {plus_minus} {figure.bare(score['spread'])}"
    paper = score["published"]
    if not paper:
        return text
    return f"{text} ({'inferred' if paper['inferred'] else 'paper'} {figure.published(paper['printed'])})"


def markdown(found: dict[str, Any], *, links: bool = True) -> str:
    """The table for GitHub, with what its figures mean.

    Args:
        found: what `results` gave.
        links: from every cell to its runs.
    """
    header, names, cells = _lines(found)
    rows = [[*name, *(_shown(cell, "±") for cell in line)] for name, line in zip(names, cells, strict=True)]
    parts = [f"# {found['title']}", caption(found), table([header, *rows])]
    if found["reference"]:
        parts.append(table(_reference(found)))
    if differences := _differences(found):
        parts += [f"{difference_words(found)}:", table(differences)]
    if links:
        parts.append(table(_links(found)))
    return "\n\n".join(parts) + "\n"


def table(rows: list[list[str]]) -> str:
    """Rows, the first one the header, as Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def caption(found: dict[str, Any]) -> str:
    """What the figures of the table are."""
    seeds = found["seeds"]
    mean = f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}"
    corpus, split = found["corpus"], found["split"]["split"].replace("_", " ")
    parts = [
        f"{figures.units_in_words(found['scores'])}, pooled over {found['folds']} folds ({split}) of "
        f"{corpus['title']}, {corpus['utterances_used']} utterances of {corpus['speakers']} speakers; "
        f"{mean if len(seeds) > 1 else f'seed {seeds[0]}'}.",
        f"In parentheses the paper's figures ({found['published']})." if found["published"] else "",
        found["note"],
        figures.costs_in_words(found["rows"]),
        "" if found["done"] == found["cells"] else f"{found['done']} of {found['cells']} runs are done.",
        "* trained with other settings than the study has now (--force)." if _forced(found) else "",
    ]
    return " ".join(part for part in parts if part)


def _forced(found: dict[str, Any]) -> bool:
    return any(cell["other_settings"] for row in found["rows"] for cell in row["cells"].values())


def difference_words(found: dict[str, Any]) -> str:
    """What the differences are, and what their intervals hold."""
    several, score = len(found["seeds"]) > 1, found["main_score"]
    count = len(_differences(found)) - 1
    points = ", in points" if figures.named(score).percent else ""
    return (
        f"Differences from {found['compared_to']} in {SCORES[score]}{points}, with 95 % "
        f"intervals over {found['corpus']['speakers']} speakers{' and the seeds' if several else ''}, paired"
        + ("" if several else "; one training each, so another seed may turn them")
        + (f". Of {count} differences about {count * 0.05:.1f} leave out zero by chance" if count > 1 else "")
    )


def _reference(found: dict[str, Any]) -> list[list[str]]:
    rows = [["other work, as published", *found["scores"].values()]]
    for work in found["reference"]:
        name = f"{work['name']} ({work['source']})" if work["source"] else work["name"]
        rows.append([name, *(_as_printed(work["figures"], score) for score in found["scores"])])
    return rows


def _as_printed(of_paper: dict[str, float], score: str) -> str:
    return figures.named(score).published(of_paper[score]) if score in of_paper else "-"


def _differences(found: dict[str, Any]) -> list[list[str]]:
    """A row for every difference in the main score that is known; no rows, not even a header, without any."""
    rows, figure = [], figures.named(found["main_score"])
    for column in found["columns"]:
        for row in found["rows"]:
            difference = (_get(row, column, found["main_score"]) or {}).get("difference")
            if difference:
                value, low, high = (figure.bare(difference[key], "+") for key in ("value", "low", "high"))
                rows.append([column, row["name"], value, f"{low} to {high}", f"{difference['p']:.3f}"])
    return [["", "", "difference", "95 % interval", "p"], *rows] if rows else []


def _links(found: dict[str, Any]) -> list[list[str]]:
    """The run folders of every cell."""
    columns = [column for column in found["columns"] if column != MEAN]
    rows = [["runs", *columns]]
    for row in found["rows"]:
        runs = [row["cells"].get(column, {}).get("runs", []) for column in columns]
        rows.append(
            [row["name"], *(" ".join(f"[{Path(r).name}]({r}/report.html)" for r in own) for own in runs)]
        )
    return rows


def as_csv(found: dict[str, Any]) -> str:
    """One line per cell and score, for spreadsheets."""
    text = io.StringIO()
    writer = csv.writer(text)
    known = ("value", "spread", "low", "high", "difference", "difference_low", "difference_high", "p")
    writer.writerow(["row", "column", "score", *known, "published_as_printed", "inferred", "runs"])
    for row in found["rows"]:
        for column, cell in row["cells"].items():
            for name, score in cell["scores"].items():
                low, high = score["interval"] or (None, None)
                apart, paper = score["difference"] or {}, score["published"] or {}
                figures = [score["value"], score["spread"], low, high]
                figures += [apart.get(key) for key in ("value", "low", "high", "p")]
                figures += [paper.get("printed"), paper.get("inferred"), " ".join(cell["runs"])]
                writer.writerow(map(guarded, [row["name"], column, name, *figures]))
            for name in found["costs"] if cell.get("cost") else ():
                empty = [None] * (len(known) + 2)
                writer.writerow(map(guarded, [row["name"], column, name, cell["cost"][name], *empty]))
    for work in found["reference"]:
        for name, printed in work["figures"].items():
            writer.writerow(map(guarded, [work["name"], "", name, *[None] * len(known), printed, False, ""]))
    return text.getvalue()


def latex(found: dict[str, Any]) -> str:
    """The table for a paper, with booktabs."""
    header, names, cells = _lines(found)
    own = [
        [*map(_escape, name), *(_shown(cell, r"$\pm$") for cell in line)]
        for name, line in zip(names, cells, strict=True)
    ]
    lines = [f"% {found['title']}. {caption(found)}", *_tabular([[*map(_escape, header)], *own])]
    if found["reference"]:
        lines += _tabular([[_escape(text) for text in row] for row in _reference(found)])
    return "\n".join([*lines, *(f"% {line}" for line in table(_links(found)).splitlines()), ""])


def _tabular(rows: list[list[str]]) -> list[str]:
    """Rows of escaped text, the first one the header, as lines of LaTeX."""
    header, *body = (" & ".join(row) + r" \\" for row in rows)
    begin = rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
    return [begin, r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]


def _escape(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text


FORMS: dict[str, Callable[[dict[str, Any]], str]] = {"md": markdown, "csv": as_csv, "tex": latex}
"""Suffix -> how the table is printed."""
