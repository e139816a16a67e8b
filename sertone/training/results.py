"""All folds of a run together: scores, predictions, report.

run/results.json, predictions.csv, report.html
"""

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from sertone import intervals, metrics
from sertone.files import write_json, write_text
from sertone.report import run as report
from sertone.training import votes
from sertone.training.calibrate import pooled_scores
from sertone.training.experiment import Experiment
from sertone.training.folds import fingerprint


def collect(experiment: Experiment, out: Path) -> None:
    """Writes what a run whose folds are all done has to say.

    Args:
        experiment: of the run.
        out: its folder.
    """
    folds = [
        json.loads((out / f"fold_{number}" / "result.json").read_text(encoding="utf-8"))
        for number in range(len(experiment.folds))
    ]
    recipe, own = experiment.recipe, fingerprint(experiment)
    encoder = recipe.model["encoder"]
    about = {
        "corpus": recipe.data.corpus,
        "model": recipe.model["name"],
        "encoder": encoder.get("source", encoder["name"]),
        "classes": experiment.classes,
        "ratings": {name: asdict(scale) for name, scale in experiment.ratings.items()},
        "folds_of_other_settings": [fold["name"] for fold in folds if fold["experiment"] != own],
    }
    write(out, folds, about, seed=recipe.train.seed)


def write(out: Path, folds: list[dict], about: dict[str, Any], *, seed: int = 0) -> None:
    """Writes results.json, predictions.csv and report.html.

    Args:
        out: a folder with protocol.json.
        folds: of each, `name`, `metrics`, `train`, `validation`, `history`, `auxiliary` and what `scored`
            gives.
        about: `corpus`, `model`, `encoder`, `classes`, `folds_of_other_settings`.
        seed: of the intervals' draws.
    """
    rows = [row for fold in folds for row in fold.pop("rows")]
    auxiliary = [fold.pop("auxiliary") for fold in folds]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "predictions.csv", table.getvalue())
    pooled = {"emotion": _pooled(rows, about["classes"], folds, seed)} | _pooled_auxiliary(auxiliary)
    results = about | {
        "folds": folds,
        "mean": _mean([fold["metrics"] for fold in folds]),
        "pooled": pooled,
    }
    write_json(out / "results.json", results)
    report.write(out)


def _pooled(rows: list[dict], classes: list[str], folds: list[dict], seed: int) -> dict[str, Any]:
    """Scores of emotion over the test sides of all folds together."""
    targets, predictions = ([row[key] for row in rows] for key in ("target", "prediction"))
    return metrics.emotion_scores(targets, predictions) | {
        "intervals": intervals.by_unit(rows, classes, seed=seed),
        "confusion": metrics.confusion(targets, predictions, classes).tolist(),
        "soft": votes.scores(rows, classes),
        "confidence": pooled_scores(rows, classes, [fold["confidence"] for fold in folds]),
    }


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
