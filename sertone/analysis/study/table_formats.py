"""The table of a study as it is printed: Markdown, CSV, LaTeX."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sertone.analysis.study.study import TABLE_SCORES
from sertone.analysis.study.table import MEAN_COLUMN
from sertone.scoring import display
from sertone.utils.spreadsheet import guard_formula

POOLED, FOLDS, PAPER = "pooled", "mean over folds", "paper"
"""Kinds of figures, each with a line of its own."""
Cells = list[dict | str | None]
"""Of a row of the table: scores, and costs as printed."""


def _lines(found: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the printed table, the header first.

    With up to two scores the columns stand side by side; with more, or with costs, they stand below each
    other, as papers print it. A row has a line for each kind of figures that it has.
    """
    header, rows = _side_by_side(found) if _is_narrow(found) else _below_each_other(found)
    kinds = _kinds(found)
    several = len(kinds) > 1
    lines = [[*header[0], *[""] * several, *header[1]]]
    for names, cells in rows:
        for kind in kinds:
            shown = [_shown(cell, kind) for cell in cells]
            if kind == POOLED or any(shown):
                head = names if kind == POOLED else [""] * len(names)
                lines.append([*head, *[_kind_in_words(found, kind)] * several, *shown])
    return lines


def _is_narrow(found: dict[str, Any]) -> bool:
    return len(found["scores"]) <= 2 and not found["costs"]


Table = tuple[tuple[list[str], list[str]], Sequence[tuple[list[str], Sequence[dict | str | None]]]]
"""Header of the names and of the cells; names and cells of each row."""


def _side_by_side(found: dict[str, Any]) -> Table:
    places = [(column, score) for column in found["columns"] for score in found["scores"]]
    header = [f"{column} {found['scores'][score]}" for column, score in places]
    rows = [([row["name"]], [_get(row, *place) for place in places]) for row in found["rows"]]
    return ([""], header), rows


def _below_each_other(found: dict[str, Any]) -> Table:
    several, scores = len(found["columns"]) > 1, found["scores"]
    header = ([""] * (1 + several), [*scores.values(), *found["costs"].values()])
    rows = [
        (
            [column] * several + [row["name"]],
            [_get(row, column, s) for s in scores] + _costs(found, row, column),
        )
        for column in found["columns"]
        for row in found["rows"]
    ]
    return header, rows


def _kinds(found: dict[str, Any]) -> list[str]:
    """Return the kinds of figures in the order of their lines: the paper's beside those that it is like."""
    kinds = [POOLED, FOLDS] if found["folds"] > 1 else [POOLED]
    if found["published"]:
        kinds.insert(1 if found["published_convention"] == POOLED else len(kinds), PAPER)
    return kinds


def _kind_in_words(found: dict[str, Any], kind: str) -> str:
    """Return the name of a line; the paper's says which convention the paper followed."""
    convention = found["published_convention"]
    stated = "convention not stated" if convention == "not stated" else convention
    return f"paper ({stated})" if kind == PAPER else kind


def _costs(found: dict[str, Any], row: dict, column: str) -> Cells:
    cell = row["cells"].get(column, {})
    return [display.format_cost(cell.get("cost"), name) for name in found["costs"]]


def _get(row: dict, column: str, score: str) -> dict | None:
    cell = row["cells"].get(column)
    if cell is None:
        return None
    return cell["scores"][score] | {"name": score, "mark": "*" if cell["other_settings"] else ""}


def _shown(score: dict | str | None, kind: str) -> str:
    """Return `71.2 ± 1.3` or `.731 ± .012`, the paper's `76.64` or `76.6 (inferred)`; a cost as it is."""
    if isinstance(score, str):
        return score if kind == POOLED else ""
    if not score:
        return ""
    figure = display.get_score_format(score["name"])
    if kind == PAPER:
        paper = score["published"]
        return (
            f"{figure.format_published(paper['printed'])}{' (inferred)' * paper['inferred']}" if paper else ""
        )
    own = score if kind == POOLED else score["mean_over_folds"]
    if own["value"] is None:
        return ""
    spread = "" if own["spread"] is None else f" ± {figure.format_number(own['spread'])}"
    return f"{figure.format_number(own['value'])}{score['mark']}{spread}"


def format_markdown(found: dict[str, Any], *, links: bool = True) -> str:
    """The table for GitHub, with what its figures mean.

    Args:
        found: what `results` gave.
        links: from every cell to its runs.
    """
    parts = [f"# {found['title']}", caption(found), format_markdown_table(_lines(found))]
    if found["reference"]:
        parts.append(format_markdown_table(_reference(found)))
    if differences := _differences(found):
        parts += [f"{difference_words(found)}:", format_markdown_table(differences)]
    if links:
        parts.append(format_markdown_table(_links(found)))
    return "\n\n".join(parts) + "\n"


def format_markdown_table(rows: list[list[str]]) -> str:
    """Rows, the first one the header, as Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def caption(found: dict[str, Any]) -> str:
    """What the figures of the table are."""
    seeds = found["seeds"]
    mean = f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}"
    corpus, split = found["corpus"], found["split"]["split"].replace("_", " ")
    parts = [
        f"{display.describe_units(found['scores'])}, {folds_in_words(found)} ({split}) of "
        f"{corpus['title']}, {corpus['utterances_used']} utterances of {display.describe_speakers(corpus)}; "
        f"{mean if len(seeds) > 1 else f'seed {seeds[0]}'}.",
        display.describe_published_scores(found),
        display.describe_unknown_speakers(found),
        found["note"],
        display.describe_costs(found["rows"]),
        "" if found["done"] == found["cells"] else f"{found['done']} of {found['cells']} runs are done.",
        "* trained with other settings than the study has now (--force)." if _forced(found) else "",
    ]
    return " ".join(part for part in parts if part)


def folds_in_words(found: dict[str, Any]) -> str:
    """Return how several folds become one score."""
    if found["folds"] == 1:
        return "one fold"
    return f"pooled (all test utterances together) and as the mean over {found['folds']} folds"


def _forced(found: dict[str, Any]) -> bool:
    return any(cell["other_settings"] for row in found["rows"] for cell in row["cells"].values())


def difference_words(found: dict[str, Any]) -> str:
    """What the differences are, and what their intervals hold."""
    several, score = len(found["seeds"]) > 1, found["main_score"]
    count = len(_differences(found)) - 1
    points = ", in points" if display.get_score_format(score).is_percent else ""
    return (
        f"Differences from {found['compared_to']} in {TABLE_SCORES[score]}{points}, with 95 % "
        f"intervals over {display.count_drawn_units(found['tested'])}{' and the seeds' if several else ''}, paired"
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
    return display.get_score_format(score).format_published(of_paper[score]) if score in of_paper else "-"


def _differences(found: dict[str, Any]) -> list[list[str]]:
    """A row for every difference in the main score that is known; no rows, not even a header, without any."""
    rows, figure = [], display.get_score_format(found["main_score"])
    for column in found["columns"]:
        for row in found["rows"]:
            difference = (_get(row, column, found["main_score"]) or {}).get("difference")
            if difference:
                value, low, high = (
                    figure.format_number(difference[key], "+") for key in ("value", "low", "high")
                )
                rows.append([column, row["name"], value, f"{low} to {high}", f"{difference['p']:.3f}"])
    return [["", "", "difference", "95 % interval", "p"], *rows] if rows else []


def _links(found: dict[str, Any]) -> list[list[str]]:
    """The run folders of every cell."""
    columns = [column for column in found["columns"] if column != MEAN_COLUMN]
    rows = [["runs", *columns]]
    for row in found["rows"]:
        runs = [row["cells"].get(column, {}).get("runs", []) for column in columns]
        rows.append(
            [row["name"], *(" ".join(f"[{Path(r).name}]({r}/report.html)" for r in own) for own in runs)]
        )
    return rows


def format_csv(found: dict[str, Any]) -> str:
    """One line per cell and score, for spreadsheets."""
    text = io.StringIO()
    writer = csv.writer(text)
    known = ("value", "spread", "low", "high", "difference", "difference_low", "difference_high", "p")
    known += ("mean_over_folds", "mean_over_folds_spread")
    published = ("published_as_printed", "inferred", "published_convention")
    writer.writerow(["row", "column", "score", *known, *published, "runs"])
    for row in found["rows"]:
        for column, cell in row["cells"].items():
            for name, score in cell["scores"].items():
                low, high = score["interval"] or (None, None)
                apart, paper = score["difference"] or {}, score["published"] or {}
                figures = [score["value"], score["spread"], low, high]
                figures += [apart.get(key) for key in ("value", "low", "high", "p")]
                figures += score["mean_over_folds"].values()
                figures += [paper.get("printed"), paper.get("inferred")]
                figures += [found["published_convention"] if paper else None, " ".join(cell["runs"])]
                writer.writerow(map(guard_formula, [row["name"], column, name, *figures]))
            for name in found["costs"] if cell.get("cost") else ():
                empty = [None] * (len(known) + len(published))
                writer.writerow(map(guard_formula, [row["name"], column, name, cell["cost"][name], *empty]))
    for work in found["reference"]:
        for name, printed in work["figures"].items():
            own = [*[None] * len(known), printed, False, None, ""]
            writer.writerow(map(guard_formula, [work["name"], "", name, *own]))
    return text.getvalue()


def format_latex(found: dict[str, Any]) -> str:
    """The table for a paper, with booktabs."""
    own = [[_escape(text).replace("±", r"$\pm$") for text in line] for line in _lines(found)]
    lines = [f"% {found['title']}. {caption(found)}", *_tabular(own)]
    if found["reference"]:
        lines += _tabular([[_escape(text) for text in row] for row in _reference(found)])
    return "\n".join(
        [*lines, *(f"% {line}" for line in format_markdown_table(_links(found)).splitlines()), ""]
    )


def _tabular(rows: list[list[str]]) -> list[str]:
    """Rows of escaped text, the first one the header, as lines of LaTeX."""
    header, *body = (" & ".join(row) + r" \\" for row in rows)
    begin = rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
    return [begin, r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]


def _escape(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text


FORMS: dict[str, Callable[[dict[str, Any]], str]] = {
    "md": format_markdown,
    "csv": format_csv,
    "tex": format_latex,
}
"""Suffix -> how the table is printed."""
