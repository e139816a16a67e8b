"""Table of a study: pooled scores, means over folds, spread, intervals, the paper's scores, costs.

`build_results` collects them in one JSON object, and `table_formats` prints it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sertone.analysis.run_predictions import load_predictions, sum_statistics
from sertone.analysis.study.study import SCORES_WITH_INTERVALS, TABLE_SCORES, Study, TableCell
from sertone.scoring import display, intervals

MEAN_COLUMN = "mean"
"""Name of the column that averages over the others."""
StudyCosts = dict[tuple[str, str], dict[str, Any]]
"""Row and column -> result of `cost.measure_cost`."""


def build_results(
    study: Study,
    finished: Mapping[TableCell, Path],
    out: Path,
    card: dict,
    costs: StudyCosts | None = None,
) -> dict[str, Any]:
    """Build the results of a study so far.

    Args:
        study: the study.
        finished: run folders of its cells that have results.
        out: folder of the study.
        card: protocol card of its cells.
        costs: costs of its models, where they are known.
    """
    return {
        "title": study.title,
        "note": study.note,
        "seeds": study.seeds,
        "scores": {name: TABLE_SCORES[name] for name in study.scores},
        "columns": [*study.columns, *([MEAN_COLUMN] if len(study.columns) > 1 else [])],
        "rows": [_build_row(study, name, finished, out, costs or {}) for name in study.rows],
        "costs": display.COST_LABELS if costs else {},
        "compared_to": study.base_row,
        "main_score": study.main_score,
        "published": study.published.source if study.published else None,
        "published_convention": study.published.convention if study.published else None,
        "reference": [reference.model_dump() for reference in study.reference],
        "cells": len(study.rows) * len(study.columns) * len(study.seeds),
        "done": len(finished),
        "corpus": card["corpus"],
        "tested": display.count_test_speakers(card),
        "split": card["split"],
        "folds": len(card["folds"]),
        "versions": card["versions"],
    }


def _build_row(
    study: Study, name: str, finished: Mapping[TableCell, Path], out: Path, costs: StudyCosts
) -> dict[str, Any]:
    """Return one row of the table: its cells by column, and their mean where all seeds are finished."""
    cells = {}
    row_runs = [_find_runs(name, column, finished) for column in study.columns]
    base_runs = [_find_runs(study.base_row, column, finished) for column in study.columns]
    for column, runs, base in zip(study.columns, row_runs, base_runs, strict=True):
        paths = [run.relative_to(out).as_posix() for run in runs]
        extras = {"runs": paths, "cost": costs.get((name, column))}
        cells[column] = _build_cell(study, name, column, [runs], [base]) | extras
    if len(row_runs) > 1 and all(len(runs) == len(study.seeds) for runs in row_runs):
        # The mean over columns has no runs of its own.
        cells[MEAN_COLUMN] = _build_cell(study, name, MEAN_COLUMN, row_runs, base_runs) | {"runs": []}
    return {"name": name, "cells": cells}


def _find_runs(row: str, column: str, finished: Mapping[TableCell, Path]) -> list[Path]:
    """Return the run folders of one row and column, in the order of the seeds."""
    return [run for cell, run in finished.items() if (cell.row, cell.column) == (row, column)]


def _build_cell(
    study: Study, row: str, column: str, runs: list[list[Path]], base: list[list[Path]]
) -> dict[str, Any]:
    """Return the scores of one column's runs, or of several columns', with intervals and differences."""
    paths = [run / "results.json" for column_runs in runs for run in column_runs]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    # The base row has no difference from itself.
    bounds, differences = compute_evidence(study.scores, runs, base if row != study.base_row else [[]])
    scores = {}
    for name in study.scores:
        scores[name] = _average_runs(results, name, "pooled", column) | {
            "mean_over_folds": _average_runs(results, name, "mean", column),
            "interval": bounds.get(name),
            "difference": differences.get(name),
            "published": study.published.find_score(row, column, name) if study.published else None,
        }
    return {"scores": scores, "other_settings": any(run["folds_of_other_settings"] for run in results)}


def _average_runs(results: list[dict], name: str, kind: str, column: str) -> dict[str, float | None]:
    """Return the mean of a score over runs, and its spread over seeds. Both are None without any run."""
    values = [value for run in results if (value := _get_score(run, name, kind)) is not None]
    # The values of the mean column differ by column too, so their spread is not that of the seeds.
    spread = float(np.std(values, ddof=1)) if len(values) > 1 and column != MEAN_COLUMN else None
    return {"value": float(np.mean(values)) if values else None, "spread": spread}


def _get_score(run: dict, name: str, kind: str) -> float | None:
    """Return a score of TABLE_SCORES from the results of a run.

    Args:
        run: results.json.
        name: name of the score; `auxiliary/` before it names the stage after which it was measured.
        kind: `pooled`, or `mean` over the folds.
    """
    stage, _, name = name.rpartition("/")
    task, score = display.parse_score_name(name)
    results = run.get("after_stages", {}).get(stage, {}) if stage else run
    return results.get(kind, {}).get(task, {}).get(score)


def compute_evidence(scores: list[str], runs: list[list[Path]], base: list[list[Path]]) -> tuple[dict, dict]:
    """Compute the intervals of emotion and rating scores, and their differences from those of the base.

    Args:
        scores: names; scores of other tasks have no interval.
        runs: runs of one system, a list for each column, with a run for each seed.
        base: runs to compare with, in the same form; without as many runs there are no differences.

    Returns:
        score -> [low, high], and score -> `low`, `value`, `high`, `p`.
    """
    bounds = {}
    differences = {}
    predictions = [[load_predictions(run) for run in column] for column in runs]
    base_predictions = [[load_predictions(run) for run in column] for column in base]
    tasks = [display.parse_score_name(name)[0] for name in scores if name in SCORES_WITH_INTERVALS]
    has_base = all(len(column) == len(predictions[0]) for column in base_predictions)
    # Each task once, in the order of the scores.
    for task in dict.fromkeys(tasks):
        sums = sum_statistics(predictions, task) if all(predictions) else None
        task_bounds = intervals.compute_intervals(sums) if sums else None
        if sums is None or task_bounds is None:
            continue
        bounds |= {display.build_score_name(task, score): pair for score, pair in task_bounds.items()}
        base_sums = sum_statistics(base_predictions, task) if has_base else None
        if base_sums is not None:
            task_differences = intervals.compute_differences(base_sums, sums)
            differences |= {
                display.build_score_name(task, score): difference.to_json()
                for score, difference in task_differences.items()
            }
    return bounds, differences
