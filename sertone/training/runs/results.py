"""All folds of a run together: scores, predictions, report.

run/results.json, predictions.csv, report.html
run/modalities.csv    where the model was also tested with less of its input, or a poorer one
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sertone.files import read_json, write_json, write_text
from sertone.report import run as report
from sertone.scoring import display, intervals, metrics, sufficient_statistics
from sertone.training.testing import votes
from sertone.training.testing.calibrate import score_confidence
from sertone.training.experiment.experiment import Experiment
from sertone.training.runs.folds import fingerprint
from sertone.utils.spreadsheet import guard_formula


def collect_results(experiment: Experiment, out: Path) -> None:
    """Writes what a run whose folds are all done has to say.

    Args:
        experiment: of the run.
        out: its folder.
    """
    folds = [
        read_json(out / f"fold_{number}" / "result.json", "not_a_run")
        for number in range(len(experiment.folds))
    ]
    recipe, own = experiment.recipe, fingerprint(experiment)
    about = {
        "corpus": recipe.data.corpus,
        "model": recipe.model["name"],
        "encoder": describe_encoders(recipe.model),
        "classes": experiment.classes,
        "ratings": {name: asdict(scale) for name, scale in experiment.ratings.items()},
        "folds_of_other_settings": [fold["name"] for fold in folds if fold["experiment"] != own],
    }
    write_results(out, folds, about, seed=recipe.train.seed)


def describe_encoders(model: dict[str, Any]) -> str:
    """The encoders of the `model` part of a recipe, or of a checkpoint."""
    named = {part: model[part] for part in ("encoder", "text") if model.get(part)}
    names = [config.get("source", config["name"]) for config in named.values()]
    return " and ".join(map(str, names))


def write_results(out: Path, folds: list[dict], about: dict[str, Any], *, seed: int = 0) -> None:
    """Writes results.json, predictions.csv and report.html, and modalities.csv where there are any.

    Args:
        out: a folder with protocol.json.
        folds: of each, `name`, `metrics`, `train`, `validation`, `history`, `auxiliary` (of tasks other than
            emotion and ratings) and what `scored` gives; perhaps `modalities`, condition -> rows like those
            of predictions.csv, and `after_stages`, stage -> `metrics` and `auxiliary` after it.
        about: `corpus`, `model`, `encoder`, `classes`, `folds_of_other_settings`, and `ratings`, each with
            its scale (`low`, `high`, `unit`).
        seed: of the intervals' draws.
    """
    rows = [row for fold in folds for row in fold.pop("rows")]
    auxiliary = [fold.pop("auxiliary") for fold in folds]
    stages = [fold.pop("after_stages", {}) for fold in folds]
    conditions = _conditions([fold.pop("modalities", {}) for fold in folds])
    _write_table(out / "predictions.csv", rows)
    classes, ratings = about["classes"], about["ratings"]
    pooled = _pooled(rows, classes, ratings, seed) | _pooled_auxiliary(auxiliary)
    if "emotion" in pooled:
        pooled["emotion"] |= _pooled_emotions(rows, classes, folds)
    results = about | {
        "folds": folds,
        "mean": _mean([fold["metrics"] for fold in folds]),
        "pooled": pooled,
    }
    if after := _after_stages(stages):
        results["after_stages"] = after
        for fold, own in zip(folds, stages, strict=True):
            fold["after_stages"] = {name: scored["metrics"] for name, scored in own.items()}
    if conditions:
        found = {name: _pooled(own, classes, ratings, seed) for name, own in conditions.items()}
        results["modalities"] = found
        _write_table(out / "modalities.csv", [_line(*item, classes, ratings) for item in found.items()])
    write_json(out / "results.json", results)
    report.write(out)


def _write_table(path: Path, rows: list[dict]) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows({name: guard_formula(value) for name, value in row.items()} for row in rows)
    write_text(path, table.getvalue())


def _conditions(folds: list[dict[str, list[dict]]]) -> dict[str, list[dict]]:
    """Condition -> rows of all folds, in the order of the first fold."""
    names = dict.fromkeys(name for fold in folds for name in fold)
    return {name: [row for fold in folds for row in fold.get(name, [])] for name in names}


def _pooled(rows: list[dict], classes: list[str], ratings: Iterable[str], seed: int) -> dict[str, dict]:
    """Scores and their intervals over the test sides of all folds together, by task that has targets."""
    pooled = {}
    for task in [*(["emotion"] if classes else []), *ratings]:
        known = sufficient_statistics.select_labelled(rows, task)
        if known:
            columns = sufficient_statistics.get_task_columns(task)
            targets, predictions = ([row[name] for row in known] for name in columns)
            score = metrics.SCORES["emotion" if task == "emotion" else "ratings"]
            pooled[task] = score(targets, predictions) | {
                "utterances": len(known),
                "intervals": intervals.compute_intervals_by_unit(known, task, classes, seed=seed),
            }
    return pooled


def _pooled_emotions(rows: list[dict], classes: list[str], folds: list[dict]) -> dict[str, Any]:
    """What there is of emotions besides scores."""
    known = sufficient_statistics.select_labelled(rows, "emotion")
    targets, predictions = ([row[name] for row in known] for name in sufficient_statistics.get_task_columns("emotion"))
    confidence = [fold["confidence"] for fold in folds if "confidence" in fold]
    return {
        "confusion": metrics.count_confusions(targets, predictions, classes).tolist(),
        "soft": votes.score_against_votes(known, classes),
        "confidence": score_confidence(known, classes, confidence),
    }


def _line(
    condition: str, pooled: dict[str, dict], classes: list[str], ratings: Iterable[str]
) -> dict[str, Any]:
    """A condition as a row of modalities.csv: every score with its interval over the speakers."""
    line: dict[str, Any] = {"condition": condition}
    for name in display.list_score_names(classes, ratings):
        task, score = display.parse_score_name(name)
        found = pooled.get(task, {})
        _, bounds = display.find_speaker_interval(found.get("intervals", {})) or ("", {})
        low, high = bounds.get(score, ("", ""))
        line |= {name: found.get(score, ""), f"{name}_low": low, f"{name}_high": high}
    return line


def _pooled_auxiliary(folds: list[dict[str, dict]]) -> dict[str, dict[str, float]]:
    """Scores of the auxiliary tasks over the test sides of all folds together."""
    pooled = {}
    for task in dict.fromkeys(task for fold in folds for task in fold):
        own = [fold[task] for fold in folds if task in fold]
        pairs = [
            pair
            for part in own
            for pair in zip(part["targets"], part["predictions"], strict=True)
            if pair[0] is not None
        ]
        pooled[task] = metrics.SCORES[own[0]["metric"]](*map(list, zip(*pairs, strict=True)))
    return pooled


def _after_stages(folds: list[dict[str, dict]]) -> dict[str, dict]:
    """Return `mean` and `pooled` after each stage that every fold has scores of, in order."""
    shared = [name for name in folds[0] if all(fold.get(name, {}).get("metrics") for fold in folds)]
    return {
        name: {
            "mean": _mean([fold[name]["metrics"] for fold in folds]),
            "pooled": _pooled_auxiliary([fold[name]["auxiliary"] for fold in folds]),
        }
        for name in shared
    }


def _mean(scores: list[dict[str, dict]]) -> dict[str, dict]:
    """Mean over folds of every score; notes are kept."""
    means: dict[str, dict] = {}
    for task in dict.fromkeys(task for fold in scores for task in fold):
        folds = [fold[task] for fold in scores if task in fold]
        if "note" in folds[0]:
            means[task] = folds[0]
        else:
            means[task] = {k: float(np.mean([fold[k] for fold in folds])) for k in folds[0]}
    return means
