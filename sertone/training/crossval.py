"""Cross-validation: from a recipe to a run folder with scores, predictions and a checkpoint per fold.

run/recipe.yaml, protocol.json, results.json, predictions.csv, report.html
run/fold_0/               as `folds` says
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sertone import metrics
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.isolation import ChildDiedError, cores, side_by_side
from sertone.recipe import Recipe
from sertone.training import checkpoint, ranks
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
        SertoneError: as `prepare` and the training; `run_in_use`, `other_experiment`, `fold_died`.
    """
    from sertone import report

    ranks.join(recipe.train.device)
    out = Path(out)
    experiment = prepare(recipe)
    epochs, folds = sum(recipe.train.epochs), len(experiment.folds)
    with (
        claim(out, recipes.dump(recipe), experiment.card, force=force, fresh=fresh),
        Progress(epochs * folds, quiet) as progress,
    ):
        left = [n for n in range(folds) if not (out / f"fold_{n}" / "result.json").is_file()]
        progress.skip(epochs * (folds - len(left)))
        if left:
            _run(experiment, left, out, jobs or _fitting_jobs(recipe.train.device), progress)
        ranks.wait()  # for the last fold's result
        if ranks.first():
            checkpoint.write_json(out / "results.json", _collect(experiment, out))
            report.write(out)
        ranks.wait()
    return out


def _fitting_jobs(device: str) -> int:
    """One fold per card; without a card one per core; one where several ranks train each."""
    if ranks.world() > 1:
        return 1
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.device_count()
    return 1 if device == "mps" else cores()


def _run(experiment: Experiment, numbers: list[int], out: Path, jobs: int, progress: Progress) -> None:
    """Runs folds, `jobs` at a time; the first that fails ends all."""
    material = gather(experiment, progress)
    jobs = min(jobs, len(numbers))
    if jobs == 1:
        for number in numbers:
            run_fold(experiment, number, out, material, progress)
        return
    threads = str(max(1, cores() // jobs))
    calls = [(experiment, number, out, material) for number in numbers]
    children = side_by_side(
        jobs,
        run_fold_in_child,
        calls,
        environment={"OMP_NUM_THREADS": threads},
        on_event=lambda event: getattr(progress, event[0])(*event[1:]),
    )
    for (_, number, *_), future in children:
        try:
            future.result()
        except ChildDiedError as error:
            raise SertoneError(
                "fold_died",
                f"fold {number}: {error.found}",
                "a fold that ends",
                "was memory short? run fewer side by side with --jobs; what is done is kept",
            ) from None


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
