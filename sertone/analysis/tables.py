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

from sertone import intervals
from sertone.analysis.rows import counts_of, read_rows
from sertone.analysis.study import SCORES, Place, Study

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
    published = study.published.rows.get(row, {}).get(column, {}) if study.published else {}
    found = [
        json.loads((run / "results.json").read_text(encoding="utf-8"))["pooled"]
        for own in runs
        for run in own
    ]
    bounds, differences = _evidence(runs, base if row != study.first else [[]])
    cell = {}
    for name in study.scores:
        values = [value for pooled in found if (value := _score(pooled, name)) is not None]
        cell[name] = {
            "value": float(np.mean(values)) if values else None,
            "spread": float(np.std(values, ddof=1)) if len(values) > 1 and column != MEAN else None,
            "interval": bounds.get(name),
            "difference": differences.get(name),
            "published": published.get(name),
        }
    return {"scores": cell}


def _score(pooled: dict, name: str) -> float | None:
    """A score of SCORES in the pooled results of a run, None where the run has no such task."""
    task, _, score = name.rpartition(".")
    return pooled.get(task or "emotion", {}).get(score)


def _evidence(runs: list[list[Path]], base: list[list[Path]]) -> tuple[dict, dict]:
    """Intervals of the emotion scores, and their differences from those of the base."""
    if not all(runs):
        return {}, {}
    counts = _counts(runs)
    bounds = intervals.interval(counts)
    if bounds is None or any(len(there) != len(runs[0]) for there in base):
        return bounds or {}, {}
    against = intervals.difference(_counts(base), counts)
    return bounds, {name: difference.to_json() for name, difference in against.items()}


def _counts(runs: list[list[Path]]) -> np.ndarray:
    """Of each column the same number of runs: (C, S, U, K, K)."""
    counts = counts_of([read_rows(run) for own in runs for run in own])
    return counts.reshape(len(runs), -1, *counts.shape[1:])


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
    return row["cells"].get(column, {}).get("scores", {}).get(score)


def _shown(score: dict | None, plus_minus: str) -> str:
    """`71.2 ± 1.3 (paper 76.64)`."""
    if not score or (score["value"] is None and score["published"] is None):
        return ""
    text = "-" if score["value"] is None else f"{score['value'] * 100:.1f}"
    if score["spread"] is not None:
        text += f" {plus_minus} {score['spread'] * 100:.1f}"
    return text if score["published"] is None else f"{text} (paper {score['published']:g})"


def markdown(found: dict[str, Any]) -> str:
    """The table for GitHub, with what its figures mean."""
    header, names, cells = _lines(found)
    rows = [[*name, *(_shown(cell, "±") for cell in line)] for name, line in zip(names, cells, strict=True)]
    ruler = ["---"] * len(header)
    lines = [f"| {' | '.join(row)} |" for row in (header, ruler, *rows)]
    parts = [f"# {found['title']}", caption(found), "\n".join(lines)]
    if found["reference"]:
        parts.append("\n".join(_reference(found)))
    if differences := _differences(found):
        parts += [f"Differences from {found['compared_to']}, in points:", "\n".join(differences)]
    return "\n\n".join(parts) + "\n"


def caption(found: dict[str, Any]) -> str:
    """What the figures of the table are."""
    seeds = found["seeds"]
    mean = (
        f"mean ± standard deviation over seeds {', '.join(map(str, seeds))}"
        if len(seeds) > 1
        else (f"seed {seeds[0]}")
    )
    corpus, split = found["corpus"], found["split"]["split"].replace("_", " ")
    state = "" if found["done"] == found["cells"] else f" {found['done']} of {found['cells']} runs are done."
    paper = f" In parentheses the paper's figures ({found['published']})." if found["published"] else ""
    note = f" {found['note']}" if found["note"] else ""
    return (
        f"Percent, pooled over {found['folds']} folds ({split}) of {corpus['title']}, "
        f"{corpus['utterances_used']} utterances of {corpus['speakers']} speakers; "
        f"{mean}.{paper}{note}{state}"
    )


def _reference(found: dict[str, Any]) -> list[str]:
    lines = ["| other work, as published | " + " | ".join(found["scores"].values()) + " |"]
    lines.append("| --- " * (1 + len(found["scores"])) + "|")
    for reference in found["reference"]:
        figures = [f"{reference['figures'].get(name, '-')}" for name in found["scores"]]
        name = f"{reference['name']} ({reference['source']})" if reference["source"] else reference["name"]
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return lines


def _differences(found: dict[str, Any]) -> list[str]:
    """A line for every row and column whose difference in the first score is known."""
    lines = ["| | | | difference | 95 % interval | p |", "| --- | --- | --- | --- | --- | --- |"]
    name, label = next(iter(found["scores"].items()))
    for column in found["columns"]:
        for row in found["rows"]:
            difference = (_get(row, column, name) or {}).get("difference")
            if difference:
                value, low, high = (100 * difference[key] for key in ("value", "low", "high"))
                span = f"{low:+.1f} to {high:+.1f}"
                p = f"{difference['p']:.3f}"
                lines.append(f"| {column} | {row['name']} | {label} | {value:+.1f} | {span} | {p} |")
    return lines if len(lines) > 2 else []


def as_csv(found: dict[str, Any]) -> str:
    """One line per cell and score, for spreadsheets."""
    text = io.StringIO()
    writer = csv.writer(text)
    known = ("value", "spread", "low", "high", "difference", "difference_low", "difference_high", "p")
    writer.writerow(["row", "column", "score", *known, "published_percent", "runs"])
    for row in found["rows"]:
        for column, cell in row["cells"].items():
            for name, score in cell["scores"].items():
                low, high = score["interval"] or (None, None)
                apart = score["difference"] or {}
                figures = [score["value"], score["spread"], low, high]
                figures += [apart.get(key) for key in ("value", "low", "high", "p")]
                writer.writerow(
                    [row["name"], column, name, *figures, score["published"], " ".join(cell["runs"])]
                )
    return text.getvalue()


def latex(found: dict[str, Any]) -> str:
    """The table for a paper, with booktabs."""
    header, names, cells = _lines(found)
    lines = [f"% {found['title']}. {caption(found)}", rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}"]
    lines += [r"\toprule", " & ".join(map(_escape, header)) + r" \\", r"\midrule"]
    for name, line in zip(names, cells, strict=True):
        shown = [_shown(cell, r"$\pm$") for cell in line]
        lines.append(" & ".join([*map(_escape, name), *shown]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _escape(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text


FORMS: dict[str, Callable[[dict[str, Any]], str]] = {"md": markdown, "csv": as_csv, "tex": latex}
"""Suffix -> how the table is printed."""
