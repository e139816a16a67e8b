"""The table of a study: pooled scores, means over folds, spread, intervals, the paper's figures, costs.

`results` makes one JSON object; `analysis.forms` prints it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sertone.analysis.run_predictions import load_predictions, sum_statistics
from sertone.analysis.study.costs import StudyCosts
from sertone.analysis.study.study import SCORES_WITH_INTERVALS, TABLE_SCORES, Study, TableCell
from sertone.scoring import display, intervals

MEAN_COLUMN = "mean"
"""Name of the column that averages over the others."""


def build_results(
    study: Study, done: Mapping[TableCell, Path], out: Path, card: dict, costs: StudyCosts | None = None
) -> dict[str, Any]:
    """Everything that the study has found so far.

    Args:
        study: of which.
        done: the run folders of its cells that have results.
        out: the study's folder.
        card: protocol card of its cells.
        costs: of its models, where they are known.
    """
    return {
        "title": study.title,
        "note": study.note,
        "seeds": study.seeds,
        "scores": {name: TABLE_SCORES[name] for name in study.scores},
        "columns": [*study.columns, *([MEAN_COLUMN] if len(study.columns) > 1 else [])],
        "rows": [_row(study, name, done, out, costs or {}) for name in study.rows],
        "costs": display.COST_LABELS if costs else {},
        "compared_to": study.base_row,
        "main_score": study.main_score,
        "published": study.published.source if study.published else None,
        "published_convention": study.published.convention if study.published else None,
        "reference": [reference.model_dump() for reference in study.reference],
        "cells": len(study.rows) * len(study.columns) * len(study.seeds),
        "done": len(done),
        "corpus": card["corpus"],
        "tested": display.count_test_speakers(card),
        "split": card["split"],
        "folds": len(card["folds"]),
        "versions": card["versions"],
    }


def _row(
    study: Study, name: str, done: Mapping[TableCell, Path], out: Path, costs: StudyCosts
) -> dict[str, Any]:
    """One row of the table: its cells by column, and the mean over the columns where all are there."""
    cells = {}
    own, base = ([_runs(row, column, done) for column in study.columns] for row in (name, study.base_row))
    for column, runs, compared in zip(study.columns, own, base, strict=True):
        paths = [run.relative_to(out).as_posix() for run in runs]
        own_cost = {"runs": paths, "cost": costs.get((name, column))}
        cells[column] = _cell(study, name, column, [runs], [compared]) | own_cost
    if len(own) > 1 and all(len(runs) == len(study.seeds) for runs in own):
        cells[MEAN_COLUMN] = _cell(study, name, MEAN_COLUMN, own, base) | {"runs": []}
    return {"name": name, "cells": cells}


def _runs(row: str, column: str, done: Mapping[TableCell, Path]) -> list[Path]:
    """Run folders of one cell, in the order of the seeds."""
    return [run for place, run in done.items() if (place.row, place.column) == (row, column)]


def _cell(
    study: Study, row: str, column: str, runs: list[list[Path]], base: list[list[Path]]
) -> dict[str, Any]:
    """Scores of one column's runs, or of several columns', each with what is known about it."""
    paths = [run / "results.json" for own in runs for run in own]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    bounds, differences = compute_evidence(study.scores, runs, base if row != study.base_row else [[]])
    cell = {}
    for name in study.scores:
        cell[name] = _over_runs(found, name, "pooled", column) | {
            "mean_over_folds": _over_runs(found, name, "mean", column),
            "interval": bounds.get(name),
            "difference": differences.get(name),
            "published": study.published.find_score(row, column, name) if study.published else None,
        }
    return {"scores": cell, "other_settings": any(run["folds_of_other_settings"] for run in found)}


def _over_runs(found: list[dict], name: str, kind: str, column: str) -> dict[str, float | None]:
    """Return the mean of a score over runs, and its spread over seeds; None where there is none."""
    values = [value for run in found if (value := _score(run, name, kind)) is not None]
    spread = float(np.std(values, ddof=1)) if len(values) > 1 and column != MEAN_COLUMN else None
    return {"value": float(np.mean(values)) if values else None, "spread": spread}


def _score(run: dict, name: str, kind: str) -> float | None:
    """Return a score of SCORES from the results of a run, `pooled` or the `mean` over its folds."""
    stage, _, name = name.rpartition("/")
    task, score = display.parse_score_name(name)
    scored = run.get("after_stages", {}).get(stage, {}) if stage else run
    return scored.get(kind, {}).get(task, {}).get(score)


def compute_evidence(scores: list[str], runs: list[list[Path]], base: list[list[Path]]) -> tuple[dict, dict]:
    """Intervals of the scores of emotion and of ratings, and their differences from those of the base.

    Args:
        scores: names; those of other tasks have none.
        runs: of one system, a list for each column, and in it a run for each seed.
        base: likewise; without as many runs there are no differences.

    Returns:
        score -> [low, high], and score -> `low`, `value`, `high`, `p`.
    """
    bounds, differences = {}, {}
    own, against = ([[load_predictions(run) for run in column] for column in side] for side in (runs, base))
    for task in dict.fromkeys(
        display.parse_score_name(name)[0] for name in scores if name in SCORES_WITH_INTERVALS
    ):
        sums = sum_statistics(own, task) if all(own) else None
        found = intervals.compute_intervals(sums) if sums else None
        if sums is None or found is None:
            continue
        bounds |= {display.build_score_name(task, score): each for score, each in found.items()}
        other = sum_statistics(against, task) if all(len(there) == len(own[0]) for there in against) else None
        if other is not None:
            apart = intervals.compute_differences(other, sums)
            differences |= {
                display.build_score_name(task, score): each.to_json() for score, each in apart.items()
            }
    return bounds, differences
