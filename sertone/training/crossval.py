"""Cross-validation: from a recipe to a run folder with scores, predictions and a checkpoint per fold.

run/recipe.yaml, protocol.json, results.json, predictions.csv, report.html
run/fold_0/               as `folds` says
"""

import contextlib
import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sertone import metrics
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.isolation import ChildDiedError, cores, side_by_side
from sertone.recipe import Recipe
from sertone.training import checkpoint, ranks, votes
from sertone.training.calibrate import pooled_scores
from sertone.training.experiment import Experiment, prepare
from sertone.training.folds import confusion, fingerprint, gather, run_fold, run_fold_in_child
from sertone.training.progress import Progress
from sertone.training.run_folder import claim


def cross_validate(
    recipe: Recipe,
    out: str | Path,
    *,
    jobs: int | None = None,
    force: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Trains and tests every fold; goes on with a run that was interrupted.

    Args:
        recipe: the experiment.
        out: run folder.
        jobs: folds at a time, in processes of their own that share the machine's cores or cards; None:
            one per card, or one per core. The results do not depend on it.
        force: go on although recipe or protocol have changed.
        fresh: throw away what is in the folder.
        quiet: no progress lines.

    Returns:
        the run folder.

    Raises:
        SertoneError: as `prepare` and the training; `run_in_use`, `other_experiment`, `fold_died`,
            `jobs_and_ranks`.
    """
    from sertone.report import run as report

    ranks.join(recipe.train.device)
    out, jobs = Path(out), _jobs(jobs, recipe.train.device)
    experiment = prepare(recipe)
    epochs, folds = sum(recipe.train.epochs), len(experiment.folds)
    with (
        claim(out, recipes.dump(recipe), experiment.card, force=force, fresh=fresh),
        Progress(epochs * folds, quiet) as progress,
    ):
        left = [n for n in range(folds) if not (out / f"fold_{n}" / "result.json").is_file()]
        progress.skip(epochs * (folds - len(left)))
        if left:
            _run(experiment, left, out, jobs, progress)
        ranks.wait()  # for the last fold's result
        if ranks.first():
            checkpoint.write_json(out / "results.json", _collect(experiment, out))
            report.write(out)
        ranks.wait()
    return out


def _jobs(wanted: int | None, device: str) -> int:
    """Folds at a time: one per card; without a card one per core; one where several ranks train each."""
    if ranks.world() > 1:
        if wanted not in (None, 1):
            raise SertoneError(
                "jobs_and_ranks",
                f"--jobs {wanted} in one of {ranks.world()} ranks",
                "either folds side by side or several ranks for each fold",
                "leave --jobs out, or start without torchrun",
            )
        return 1
    if wanted:
        return wanted
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return torch.cuda.device_count()
    return 1 if device in ("auto", "mps") and torch.backends.mps.is_available() else cores()


def _environments(jobs: int) -> list[dict[str, str]]:
    """What each child sees: its share of the cores, and one card, in turn."""
    shared = {"OMP_NUM_THREADS": str(max(1, cores() // jobs))}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = visible.split(",") if visible else [str(card) for card in range(torch.cuda.device_count())]
    if not cards:
        return [shared] * jobs
    return [shared | {"CUDA_VISIBLE_DEVICES": cards[job % len(cards)]} for job in range(jobs)]


def _run(experiment: Experiment, numbers: list[int], out: Path, jobs: int, progress: Progress) -> None:
    """Runs folds, `jobs` at a time; the first that fails ends all."""
    material = gather(experiment, progress)
    jobs = min(jobs, len(numbers))
    if jobs == 1:
        for number in numbers:
            run_fold(experiment, number, out, material, progress)
        return
    calls = [(experiment, number, out, material) for number in numbers]

    def tell(event: tuple) -> None:
        getattr(progress, event[0])(*event[1:])

    running = side_by_side(_environments(jobs), run_fold_in_child, calls, tell)
    with contextlib.closing(running) as folds:
        for (_, number, *_), future in folds:
            error = future.exception()
            if isinstance(error, ChildDiedError):
                raise SertoneError(
                    "fold_died",
                    f"fold {number}: {error.found}",
                    "a fold that ends",
                    "was memory short? run fewer side by side with --jobs; what is done is kept",
                )
            if isinstance(error, SertoneError):
                found = f"fold {number}: {error.found}"
                raise SertoneError(error.code, found, error.expected, error.way_out)
            future.result()


def _collect(experiment: Experiment, out: Path) -> dict:
    """All folds together: mean over folds, and pooled with intervals. Writes predictions.csv."""
    folds = [
        json.loads((out / f"fold_{number}" / "result.json").read_text(encoding="utf-8"))
        for number in range(len(experiment.folds))
    ]
    rows = [row for fold in folds for row in fold.pop("rows")]
    auxiliary = [fold.pop("auxiliary") for fold in folds]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    checkpoint.write_text(out / "predictions.csv", table.getvalue())
    targets, predictions, speakers = ([row[k] for row in rows] for k in ("target", "prediction", "speaker"))
    pooled: dict[str, Any] = dict(metrics.emotion_scores(targets, predictions))
    seed = experiment.recipe.train.seed
    pooled["ci95"] = metrics.speaker_interval(targets, predictions, speakers, seed=seed)
    pooled["confusion"] = confusion(rows, experiment.classes)
    pooled["soft"] = votes.scores(rows, experiment.classes)
    pooled["confidence"] = pooled_scores(rows, experiment.classes, [fold["confidence"] for fold in folds])
    own = fingerprint(experiment)
    encoder = experiment.recipe.model["encoder"]
    return {
        "corpus": experiment.recipe.data.corpus,
        "model": experiment.recipe.model["name"],
        "encoder": encoder.get("source", encoder["name"]),
        "classes": experiment.classes,
        "folds": folds,
        "mean": _mean([fold["metrics"] for fold in folds]),
        "pooled": {"emotion": pooled} | _pooled_auxiliary(auxiliary),
        "folds_of_other_settings": [fold["name"] for fold in folds if fold["experiment"] != own],
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
