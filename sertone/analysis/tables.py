"""The table of a study: mean over seeds with spread, interval, the paper's figure beside it.

`results` makes one JSON object; `markdown`, `csv` and `latex` print it.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sertone import figures, intervals
from sertone.analysis.rows import read_rows, sums_of
from sertone.analysis.study import EVIDENT, SCORES, Place, Study

MEAN = "mean"
"""Name of the column that averages over the others."""


def results(study: Study, done: Mapping[Place, Path], out: Path, card: dict) -> dict[str, Any]:
    """Everything that the study has found so far.

    Args:
        study: of which.
        done: the run folders of its cells that have results.
        out: the study's folder.
        card: protocol card of its cells.
    """
    return {
        "title": study.title,
        "note": study.note,
        "seeds": study.seeds,
        "scores": {name: SCORES[name] for name in study.scores},
        "columns": [*study.columns, *([MEAN] if len(study.columns) > 1 else [])],
        "rows": [_row(study, name, done, out) for name in study.rows],
        "compared_to": study.first,
        "main_score": study.main_score,
        "published": study.published.source if study.published else None,
        "reference": [reference.model_dump() for reference in study.reference],
        "cells": len(study.rows) * len(study.columns) * len(study.seeds),
        "done": len(done),
        "corpus": card["corpus"],
        "split": card["split"],
        "folds": len(card["folds"]),
        "versions": card["versions"],
    }


def _row(study: Study, name: str, done: Mapping[Place, Path], out: Path) -> dict[str, Any]:
    """One row of the table: its cells by column, and the mean over the columns where all are there."""
    cells = {}
    own, base = ([_runs(row, column, done) for column in study.columns] for row in (name, study.first))
    for column, runs, compared in zip(study.columns, own, base, strict=True):
        paths = [run.relative_to(out).as_posix() for run in runs]
        cells[column] = _cell(study, name, column, [runs], [compared]) | {"runs": paths}
    if len(own) > 1 and all(len(runs) == len(study.seeds) for runs in own):
        cells[MEAN] = _cell(study, name, MEAN, own, base) | {"runs": []}
    return {"name": name, "cells": cells}


def _runs(row: str, column: str, done: Mapping[Place, Path]) -> list[Path]:
    """Run folders of one cell, in the order of the seeds."""
    return [run for place, run in done.items() if (place.row, place.column) == (row, column)]


def _cell(
    study: Study, row: str, column: str, runs: list[list[Path]], base: list[list[Path]]
) -> dict[str, Any]:
    """Scores of one column's runs, or of several columns', each with what is known about it."""
    paths = [run / "results.json" for own in runs for run in own]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    bounds, differences = _evidence(study.scores, runs, base if row != study.first else [[]])
    cell = {}
    for name in study.scores:
        values = [value for run in found if (value := _score(run["pooled"], name)) is not None]
        cell[name] = {
            "value": float(np.mean(values)) if values else None,
            "spread": float(np.std(values, ddof=1)) if len(values) > 1 and column != MEAN else None,
            "interval": bounds.get(name),
            "difference": differences.get(name),
            "published": study.published.figure(row, column, name) if study.published else None,
        }
    return {"scores": cell, "other_settings": any(run["folds_of_other_settings"] for run in found)}


def _score(pooled: dict, name: str) -> float | None:
    """A score of SCORES in the pooled results of a run, None where the run has no such task."""
    task, score = figures.parts(name)
    return pooled.get(task, {}).get(score)


def _evidence(scores: list[str], runs: list[list[Path]], base: list[list[Path]]) -> tuple[dict, dict]:
    """Intervals of the scores of emotion and of ratings, and their differences from those of the base."""
    bounds, differences = {}, {}
    own, against = ([[read_rows(run) for run in column] for column in side] for side in (runs, base))
    for task in dict.fromkeys(figures.parts(name)[0] for name in scores if name in EVIDENT):
        sums = sums_of(own, task) if all(own) else None
        found = intervals.interval(sums) if sums else None
        if sums is None or found is None:
            continue
        bounds |= {figures.key(task, score): each for score, each in found.items()}
        other = sums_of(against, task) if all(len(there) == len(own[0]) for there in against) else None
        if other is not None:
            apart = intervals.difference(other, sums)
            differences |= {figures.key(task, score): each.to_json() for score, each in apart.items()}
    return bounds, differences


def _lines(found: dict[str, Any]) -> tuple[list[str], list[list[str]], list[list[dict | None]]]:
    """Header, names of the lines, and cells of the printed table.

    With up to two scores every row is one line and the columns stand side by side; with more the columns
    stand below each other, as papers print it.
    """
    scores = found["scores"]
    if len(scores) > 2:
        names = [[column, row["name"]] for column in found["columns"] for row in found["rows"]]
        cells = [
            [_get(row, column, score) for score in scores]
            for column in found["columns"]
            for row in found["rows"]
        ]
        return ["", "", *scores.values()], names, cells
    header = ["", *(f"{column} {label}" for column in found["columns"] for label in scores.values())]
    cells = [
        [_get(row, column, score) for column in found["columns"] for score in scores] for row in found["rows"]
    ]
    return header, [[row["name"]] for row in found["rows"]], cells


def _get(row: dict, column: str, score: str) -> dict | None:
    cell = row["cells"].get(column)
    if cell is None:
        return None
    return cell["scores"][score] | {"name": score, "mark": "*" if cell["other_settings"] else ""}


def _shown(score: dict | None, plus_minus: str) -> str:
    """`71.2 ± 1.3 (paper 76.64)`, or `.731 ± .012 (paper .748)`."""
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
    parts = [f"# {found['title']}", caption(found), _table([header, *rows])]
    if found["reference"]:
        parts.append(_table(_reference(found)))
    if differences := _differences(found):
        parts += [f"{difference_words(found)}:", _table(differences)]
    if links:
        parts.append(_table(_links(found)))
    return "\n\n".join(parts) + "\n"


def _table(rows: list[list[str]]) -> str:
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
                writer.writerow([row["name"], column, name, *figures])
    for work in found["reference"]:
        for name, printed in work["figures"].items():
            writer.writerow([work["name"], "", name, *[None] * len(known), printed, False, ""])
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
    return "\n".join([*lines, *(f"% {line}" for line in _table(_links(found)).splitlines()), ""])


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
