"""The results of a run over all its folds: scores, predictions, report.

run/results.json, predictions.csv, report.html
run/modalities.csv    where the model was also tested with less of its input, or with poorer text
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sertone.files import load_json, write_json, write_text
from sertone.report import run as report
from sertone.scoring import display, intervals, metrics, sufficient_statistics
from sertone.training.experiment.experiment import Experiment
from sertone.training.runs.folds import fingerprint
from sertone.training.testing.calibrate import score_confidence
from sertone.training.testing.prediction_rows import score_against_votes
from sertone.utils.spreadsheet import guard_formula


def collect_results(experiment: Experiment, out: Path) -> None:
    """Write the results of a run whose folds are all done.

    Args:
        experiment: experiment of the run.
        out: its folder.
    """
    folds = [
        load_json(out / f"fold_{number}" / "result.json", "not_a_run")
        for number in range(len(experiment.folds))
    ]
    recipe = experiment.recipe
    expected = fingerprint(experiment)
    about = {
        "corpus": recipe.data.corpus,
        "model": recipe.model["name"],
        "encoder": describe_encoders(recipe.model),
        "classes": experiment.classes,
        "ratings": {name: asdict(scale) for name, scale in experiment.ratings.items()},
        "folds_of_other_settings": [fold["name"] for fold in folds if fold["experiment"] != expected],
    }
    write_results(out, folds, about, seed=recipe.train.seed)


def describe_encoders(model: dict[str, Any]) -> str:
    """Return the names of the encoders in the `model` part of a recipe, or of a checkpoint."""
    configs = [model[part] for part in ("encoder", "text") if model.get(part)]
    return " and ".join(str(config.get("source", config["name"])) for config in configs)


def write_results(out: Path, folds: list[dict], about: dict[str, Any], *, seed: int = 0) -> None:
    """Write results.json, predictions.csv and report.html, and modalities.csv where there are conditions.

    Args:
        out: a folder with protocol.json.
        folds: a record per fold: `name`, `metrics`, `train`, `validation`, `history`, `auxiliary` (of tasks
            other than emotion and ratings) and the results of `score_predictions`; optional: `modalities`,
            condition -> rows like those of predictions.csv, and `after_stages`, stage -> `metrics` and
            `auxiliary` after it.
        about: `corpus`, `model`, `encoder`, `classes`, `folds_of_other_settings`, and `ratings`, each with
            its scale (`low`, `high`, `unit`).
        seed: seed of the intervals' draws.
    """
    # Rows and auxiliary predictions are large, and the scores replace them in results.json.
    rows = [row for fold in folds for row in fold.pop("rows")]
    auxiliary = [fold.pop("auxiliary") for fold in folds]
    stages = [fold.pop("after_stages", {}) for fold in folds]
    conditions = _join_conditions([fold.pop("modalities", {}) for fold in folds])
    _write_table(out / "predictions.csv", rows)
    classes, ratings = about["classes"], about["ratings"]
    pooled = _pool_scores(rows, classes, ratings, seed) | _pool_auxiliary(auxiliary)
    if "emotion" in pooled:
        pooled["emotion"] |= _describe_emotions(rows, classes, folds)
    results = about | {
        "folds": folds,
        "mean": _average_scores([fold["metrics"] for fold in folds]),
        "pooled": pooled,
    }
    if after_stages := _score_stages(stages):
        results["after_stages"] = after_stages
        for fold, fold_stages in zip(folds, stages, strict=True):
            fold["after_stages"] = {name: stage["metrics"] for name, stage in fold_stages.items()}
    if conditions:
        scores = {
            name: _pool_scores(condition_rows, classes, ratings, seed)
            for name, condition_rows in conditions.items()
        }
        results["modalities"] = scores
        table = [_build_condition_row(name, by_task, classes, ratings) for name, by_task in scores.items()]
        _write_table(out / "modalities.csv", table)
    write_json(out / "results.json", results)
    report.write(out)


def _write_table(path: Path, rows: list[dict]) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    # A spreadsheet would run a cell such as "=1+1", which the id of an utterance can be.
    writer.writerows({name: guard_formula(value) for name, value in row.items()} for row in rows)
    write_text(path, table.getvalue())


def _join_conditions(folds: list[dict[str, list[dict]]]) -> dict[str, list[dict]]:
    """Return condition -> rows of all folds, in the order of the first fold."""
    names = dict.fromkeys(name for fold in folds for name in fold)
    return {name: [row for fold in folds for row in fold.get(name, [])] for name in names}


def _pool_scores(rows: list[dict], classes: list[str], ratings: Iterable[str], seed: int) -> dict[str, dict]:
    """Score the test sets of all folds together, with intervals, by task that has targets."""
    pooled = {}
    for task in [*(["emotion"] if classes else []), *ratings]:
        labelled = sufficient_statistics.select_labelled(rows, task)
        if labelled:
            columns = sufficient_statistics.get_task_columns(task)
            targets, predictions = ([row[name] for row in labelled] for name in columns)
            score = metrics.SCORES["emotion" if task == "emotion" else "ratings"]
            pooled[task] = score(targets, predictions) | {
                "utterances": len(labelled),
                "intervals": intervals.compute_intervals_by_unit(labelled, task, classes, seed=seed),
            }
    return pooled


def _describe_emotions(rows: list[dict], classes: list[str], folds: list[dict]) -> dict[str, Any]:
    """Return the confusions, the soft scores and the confidence, which only emotions have."""
    labelled = sufficient_statistics.select_labelled(rows, "emotion")
    columns = sufficient_statistics.get_task_columns("emotion")
    targets, predictions = ([row[name] for row in labelled] for name in columns)
    confidence = [fold["confidence"] for fold in folds if "confidence" in fold]
    return {
        "confusion": metrics.count_confusions(targets, predictions, classes).tolist(),
        "soft": score_against_votes(labelled, classes),
        "confidence": score_confidence(labelled, classes, confidence),
    }


def _build_condition_row(
    condition: str, pooled: dict[str, dict], classes: list[str], ratings: Iterable[str]
) -> dict[str, Any]:
    """Return a condition as a row of modalities.csv: every score with its interval over the speakers."""
    row: dict[str, Any] = {"condition": condition}
    for name in display.list_score_names(classes, ratings):
        task, score = display.parse_score_name(name)
        scores = pooled.get(task, {})
        _, bounds = display.find_speaker_interval(scores.get("intervals", {})) or ("", {})
        low, high = bounds.get(score, ("", ""))
        row |= {name: scores.get(score, ""), f"{name}_low": low, f"{name}_high": high}
    return row


def _pool_auxiliary(folds: list[dict[str, dict]]) -> dict[str, dict[str, float]]:
    """Score the auxiliary tasks on the test sets of all folds together."""
    pooled = {}
    for task in dict.fromkeys(task for fold in folds for task in fold):
        parts = [fold[task] for fold in folds if task in fold]
        pairs = [
            (target, prediction)
            for part in parts
            for target, prediction in zip(part["targets"], part["predictions"], strict=True)
            if target is not None  # not every utterance has a label of every task
        ]
        targets = [target for target, _ in pairs]
        predictions = [prediction for _, prediction in pairs]
        pooled[task] = metrics.SCORES[parts[0]["metric"]](targets, predictions)
    return pooled


def _score_stages(folds: list[dict[str, dict]]) -> dict[str, dict]:
    """Return `mean` and `pooled` after each stage that every fold has scores of, in order."""
    names = [name for name in folds[0] if all(fold.get(name, {}).get("metrics") for fold in folds)]
    return {
        name: {
            "mean": _average_scores([fold[name]["metrics"] for fold in folds]),
            "pooled": _pool_auxiliary([fold[name]["auxiliary"] for fold in folds]),
        }
        for name in names
    }


def _average_scores(scores: list[dict[str, dict]]) -> dict[str, dict]:
    """Return the mean over folds of every score; notes are kept."""
    means: dict[str, dict] = {}
    for task in dict.fromkeys(task for fold in scores for task in fold):
        folds = [fold[task] for fold in scores if task in fold]
        if "note" in folds[0]:  # instead of scores, why there are none
            means[task] = folds[0]
        else:
            means[task] = {name: float(np.mean([fold[name] for fold in folds])) for name in folds[0]}
    return means
