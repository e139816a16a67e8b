"""Printed table of a study: Markdown and LaTeX. The CSV table is in `table_csv`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sertone.analysis.study.study import TABLE_SCORES
from sertone.analysis.study.table import MEAN_COLUMN
from sertone.analysis.study.table_csv import format_csv
from sertone.scoring import display

POOLED = "pooled"
FOLDS = "mean over folds"
PAPER = "paper"
"""The kinds of scores. Each has a line of its own in a row of the table."""


class Layout(NamedTuple):
    """Table before its lines are printed.

    Attributes:
        name_header: header of the names of rows, and of columns below each other.
        cell_header: header of the cells.
        rows: names, and cells: scores, or costs as printed.
    """

    name_header: list[str]
    cell_header: list[str]
    rows: Sequence[tuple[list[str], Sequence[dict | str | None]]]


def _build_lines(results: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the printed table, the header first.

    Up to two scores stand side by side for all columns. With more scores, or with costs, the columns stand
    below each other, as papers print them. A row has a line for each kind of scores that it has.
    """
    layout = _lay_out_side_by_side(results) if _is_narrow(results) else _lay_out_below(results)
    kinds = _list_kinds(results)
    has_kinds = len(kinds) > 1
    lines = [[*layout.name_header, *([""] if has_kinds else []), *layout.cell_header]]
    for names, cells in layout.rows:
        for kind in kinds:
            texts = [_format_cell(cell, kind) for cell in cells]
            if kind != POOLED and not any(texts):
                continue
            # The names stand in the first line of a row only.
            line_names = names if kind == POOLED else [""] * len(names)
            kind_name = [_describe_kind(results, kind)] if has_kinds else []
            lines.append([*line_names, *kind_name, *texts])
    return lines


def _is_narrow(results: dict[str, Any]) -> bool:
    return len(results["scores"]) <= 2 and not results["costs"]


def _lay_out_side_by_side(results: dict[str, Any]) -> Layout:
    """Lay out one line of cells per row, for all columns and scores."""
    places = [(column, score) for column in results["columns"] for score in results["scores"]]
    header = [f"{column} {results['scores'][score]}" for column, score in places]
    rows = [([row["name"]], [_get_score(row, *place) for place in places]) for row in results["rows"]]
    return Layout([""], header, rows)


def _lay_out_below(results: dict[str, Any]) -> Layout:
    """Lay out the columns below each other. A single column is not named."""
    has_columns = len(results["columns"]) > 1
    scores = results["scores"]
    rows = []
    for column in results["columns"]:
        for row in results["rows"]:
            names = [column, row["name"]] if has_columns else [row["name"]]
            cells = [_get_score(row, column, score) for score in scores]
            rows.append((names, cells + _format_costs(results, row, column)))
    name_header = ["", ""] if has_columns else [""]
    return Layout(name_header, [*scores.values(), *results["costs"].values()], rows)


def _list_kinds(results: dict[str, Any]) -> list[str]:
    """Return the kinds of scores in the order of their lines.

    The paper's scores stand next to the kind that follows the same convention.
    """
    kinds = [POOLED, FOLDS] if results["folds"] > 1 else [POOLED]
    if results["published"]:
        kinds.insert(1 if results["published_convention"] == POOLED else len(kinds), PAPER)
    return kinds


def _describe_kind(results: dict[str, Any], kind: str) -> str:
    """Return the name of a line. That of the paper says which convention the paper followed."""
    if kind != PAPER:
        return kind
    convention = results["published_convention"]
    return f"paper ({'convention not stated' if convention == 'not stated' else convention})"


def _format_costs(results: dict[str, Any], row: dict, column: str) -> list[dict | str | None]:
    cell = row["cells"].get(column, {})
    return [display.format_cost(cell.get("cost"), name) for name in results["costs"]]


def _get_score(row: dict, column: str, score: str) -> dict | None:
    """Return a score of a row with its name, and a mark where other settings were forced."""
    cell = row["cells"].get(column)
    if cell is None:
        return None
    return cell["scores"][score] | {"name": score, "mark": "*" if cell["other_settings"] else ""}


def _format_cell(score: dict | str | None, kind: str) -> str:
    """Format a score: `71.2 ± 1.3`, `.731 ± .012`, or the paper's `76.64` or `76.6 (inferred)`.

    A cost is formatted already, and stands in the first line of its row.
    """
    if isinstance(score, str):
        return score if kind == POOLED else ""
    if not score:
        return ""
    score_format = display.get_score_format(score["name"])
    if kind == PAPER:
        return _format_published(score)
    values = score if kind == POOLED else score["mean_over_folds"]
    if values["value"] is None:
        return ""
    spread = "" if values["spread"] is None else f" ± {score_format.format_number(values['spread'])}"
    return f"{score_format.format_number(values['value'])}{score['mark']}{spread}"


def _format_published(score: dict) -> str:
    published = score["published"]
    if not published:
        return ""
    text = display.get_score_format(score["name"]).format_published(published["printed"])
    return f"{text} (inferred)" if published["inferred"] else text


def format_markdown(results: dict[str, Any], *, links: bool = True) -> str:
    """Format the table as Markdown, with an explanation of its scores.

    Args:
        results: result of `table.build_results`.
        links: true for links from every cell to its runs.
    """
    parts = [f"# {results['title']}", format_caption(results), format_markdown_table(_build_lines(results))]
    if results["reference"]:
        parts.append(format_markdown_table(_build_reference_rows(results)))
    if differences := _build_difference_rows(results):
        parts += [f"{describe_differences(results)}:", format_markdown_table(differences)]
    if links:
        parts.append(format_markdown_table(_build_link_rows(results)))
    return "\n\n".join(parts) + "\n"


def format_markdown_table(rows: list[list[str]]) -> str:
    """Format rows as a Markdown table. The first row is the header."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def format_caption(results: dict[str, Any]) -> str:
    """Return the caption of the table: units, folds, corpus, seeds, notes."""
    seeds = results["seeds"]
    seed_text = f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}"
    if len(seeds) == 1:
        seed_text = f"seed {seeds[0]}"
    corpus = results["corpus"]
    split = results["split"]["split"].replace("_", " ")
    progress = f"{results['done']} of {results['cells']} runs are finished."
    sentences = [
        f"{display.describe_units(results['scores'])}, {describe_folds(results)} ({split}) of "
        f"{corpus['title']}, {corpus['utterances_used']} utterances of {display.describe_speakers(corpus)}; "
        f"{seed_text}.",
        display.describe_published_scores(results),
        display.describe_unknown_speakers(results),
        results["note"],
        display.describe_costs(results["rows"]),
        "" if results["done"] == results["cells"] else progress,
        "* trained with other settings than the study has now (--force)." if _has_forced(results) else "",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def describe_folds(results: dict[str, Any]) -> str:
    """Describe how several folds become one score."""
    if results["folds"] == 1:
        return "one fold"
    return f"pooled (all test utterances together) and as the mean over {results['folds']} folds"


def _has_forced(results: dict[str, Any]) -> bool:
    return any(cell["other_settings"] for row in results["rows"] for cell in row["cells"].values())


def describe_differences(results: dict[str, Any]) -> str:
    """Describe the differences and their intervals."""
    score = results["main_score"]
    has_seeds = len(results["seeds"]) > 1
    count = len(_build_difference_rows(results)) - 1
    points = ", in points" if display.get_score_format(score).is_percent else ""
    drawn_units = display.count_drawn_units(results["tested"]) + (" and the seeds" if has_seeds else "")
    text = (
        f"Differences from {results['compared_to']} in {TABLE_SCORES[score]}{points}, with 95 % intervals "
        f"over {drawn_units}, paired"
    )
    if not has_seeds:
        text += "; one training each, so another seed may reverse them"
    if count > 1:
        # 5 % of the intervals of equal systems exclude zero.
        text += f". Of {count} differences, about {count * 0.05:.1f} exclude zero by chance"
    return text


def _build_reference_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return the scores of other work, with the header first."""
    rows = [["other work, as published", *results["scores"].values()]]
    for work in results["reference"]:
        name = f"{work['name']} ({work['source']})" if work["source"] else work["name"]
        rows.append([name, *(_format_reference(work["figures"], score) for score in results["scores"])])
    return rows


def _format_reference(scores: dict[str, float], score: str) -> str:
    return display.get_score_format(score).format_published(scores[score]) if score in scores else "-"


def _build_difference_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return the known differences in the main score, with the header first.

    Return no rows, not even a header, where there is no difference.
    """
    rows = []
    score_format = display.get_score_format(results["main_score"])
    for column in results["columns"]:
        for row in results["rows"]:
            difference = (_get_score(row, column, results["main_score"]) or {}).get("difference")
            if difference:
                value, low, high = (
                    score_format.format_number(difference[key], "+") for key in ("value", "low", "high")
                )
                rows.append([column, row["name"], value, f"{low} to {high}", f"{difference['p']:.3f}"])
    return [["", "", "difference", "95 % interval", "p"], *rows] if rows else []


def _build_link_rows(results: dict[str, Any]) -> list[list[str]]:
    """Return links to the runs of every cell, with the header first."""
    columns = [column for column in results["columns"] if column != MEAN_COLUMN]
    rows = [["runs", *columns]]
    for row in results["rows"]:
        runs_by_column = [row["cells"].get(column, {}).get("runs", []) for column in columns]
        links = [
            " ".join(f"[{Path(run).name}]({run}/report.html)" for run in runs) for runs in runs_by_column
        ]
        rows.append([row["name"], *links])
    return rows


def format_latex(results: dict[str, Any]) -> str:
    """Format the table as LaTeX with booktabs, for a paper."""
    # The command for ± holds dollar signs, so it comes after escaping.
    rows = [[_escape(text).replace("±", r"$\pm$") for text in line] for line in _build_lines(results)]
    lines = [f"% {results['title']}. {format_caption(results)}", *_build_tabular(rows)]
    if results["reference"]:
        reference = _build_reference_rows(results)
        lines += _build_tabular([[_escape(text) for text in row] for row in reference])
    # Caption and links stand beside the table as comments, for the authors of the paper.
    links = format_markdown_table(_build_link_rows(results)).splitlines()
    return "\n".join([*lines, *(f"% {line}" for line in links), ""])


def _build_tabular(rows: list[list[str]]) -> list[str]:
    """Return rows of escaped text as lines of a LaTeX table. The first row is the header."""
    header, *body = (" & ".join(row) + r" \\" for row in rows)
    begin = rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
    return [begin, r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]


def _escape(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text


TABLE_FORMATS: dict[str, Callable[[dict[str, Any]], str]] = {
    "md": format_markdown,
    "csv": format_csv,
    "tex": format_latex,
}
"""File suffix -> function that formats the table."""
