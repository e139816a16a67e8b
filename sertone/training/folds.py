"""One fold of an experiment: train, test, and write down what came out.

fold_0/checkpoint/    the trained model        fold_0/result.json marks the fold complete
"""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sertone import metrics, models
from sertone import recipe as recipes
from sertone.nn.vocabulary import Vocabulary
from sertone.training import checkpoint, ranks, votes
from sertone.training.answers import Answers, answer, score_tasks
from sertone.training.calibrate import calibrate, fold_scores
from sertone.training.experiment import Experiment
from sertone.training.loop import Trainer, check_plan
from sertone.training.material import Material
from sertone.training.progress import Relay, Reporter
from sertone.training.step import freeze

PER_FILE = ("file_hashes", "segments")
"""Parts of the protocol card that grow with the corpus; a checkpoint leaves them out."""
SPEAKER_NOTE = "not defined: speakers are disjoint"


def gather(experiment: Experiment, progress: Reporter) -> Material:
    """Decodes the audio of all folds, after a look at whether the plan can be carried out.

    Raises:
        SertoneError: `unreadable_audio`, `not_cacheable`, `cache_too_small`; as the building and
            `check_plan`.
    """
    recipe = experiment.recipe
    vocabulary = Vocabulary.of(experiment.folds[0].train, experiment.class_map)
    model = models.build(recipe.model, vocabulary)
    check_plan(model, recipe.train)
    material = Material.of(recipe.train)
    for code, ids in material.recordings.load(experiment.utterances).items():
        progress.say(f"{len(ids)} recordings are {code.replace('_', ' ')}, such as {ids[0]}")
    fabric = ranks.fabric(recipe.train)
    for stage in model.stages():
        freeze(model.train(), stage)
        material.prefixes.choose(model.encoder, stage.needs, material.recordings, fabric, progress.say)
    return material


def fit(experiment: Experiment, number: int, folder: Path, material: Material, progress: Reporter) -> Trainer:
    """Trains one fold and writes its checkpoint.

    Raises:
        SertoneError: as the building and the training of the model.
    """
    recipe, fold = experiment.recipe, experiment.folds[number]
    torch.manual_seed(recipe.train.seed * 1000 + number)
    vocabulary = Vocabulary.of(fold.train, experiment.class_map)
    model = models.build(recipe.model, vocabulary)
    trainer = Trainer(model, vocabulary, fold, number, recipe.train, material, folder / "resume", progress)
    for task in model.heads:
        if len({vocabulary.label(task, u) for u in fold.train} - {None}) < 2:
            progress.say(f"fold {number} ({fold.name})  {task}: fewer than two labels, nothing to learn")
    trainer.train()
    trainer.calibration = calibrate(trainer)
    card = {key: value for key, value in experiment.card.items() if key not in PER_FILE}
    if ranks.first():
        about = card | {"fold": fold.name}
        calibration = trainer.calibration
        checkpoint.save_model(folder / "checkpoint", model, recipe.model, vocabulary, about, calibration)
    ranks.wait()
    return trainer


def run_fold(experiment: Experiment, number: int, out: Path, material: Material, progress: Reporter) -> None:
    """Trains and tests one fold; `result.json` comes last.

    Args:
        experiment: of which it is a fold.
        number: of the fold.
        out: run folder.
        material: of the run.
        progress: where to report.

    Raises:
        SertoneError: as `fit`.
    """
    folder, fold = out / f"fold_{number}", experiment.folds[number]
    trainer = fit(experiment, number, folder, material, progress)
    vocabulary, heads = trainer.vocabulary, trainer.model.heads
    test = [u for u in fold.test if u.labels.get("emotion")]
    trainer.model.to(trainer.fabric.device)
    answers = answer(trainer.model, vocabulary, test, trainer.loader, trainer.fabric)
    answers = replace(answers, probabilities=trainer.calibration.probabilities(answers.logits))
    labels = {task: [vocabulary.label(task, u) for u in test] for task in heads}
    kinds = {task: head.metric for task, head in heads.items() if task != "speaker"}
    scores: dict[str, dict[str, Any]] = dict(score_tasks(answers, labels, kinds))
    auxiliary = {
        task: {"targets": labels[task], "predictions": answers.predictions[task], "metric": kinds[task]}
        for task in scores
        if task != "emotion"
    }
    if "speaker" in heads:
        scores["speaker"] = {"note": SPEAKER_NOTE}
    rows = _rows(experiment, number, labels["emotion"], answers)
    rows = [row | own for row, own in zip(rows, votes.columns(experiment, test), strict=True)]
    result = {
        "name": fold.name,
        "metrics": scores,
        "soft": votes.scores(rows, experiment.classes),
        "confidence": fold_scores(answers, trainer.calibration, vocabulary, test),
        "experiment": fingerprint(experiment),
        "confusion": confusion(rows, experiment.classes),
        "auxiliary": auxiliary,
        "train": len(fold.train),
        "validation": len(fold.validation),
        "test": len(test),
        "history": trainer.history,
        "rows": rows,
    }
    if ranks.first():
        checkpoint.write_json(folder / "result.json", result)
        shutil.rmtree(folder / "resume", ignore_errors=True)
    progress.say(f"fold {number} ({fold.name})  test UA {scores['emotion']['ua']:.3f}")


def run_fold_in_child(experiment: Experiment, number: int, out: Path, material: Material) -> None:
    """`run_fold` in a child process, whose caller is told of the progress."""
    run_fold(experiment, number, out, material, Relay())


def _rows(experiment: Experiment, number: int, targets: list[str | None], answers: Answers) -> list[dict]:
    """One row per test utterance."""
    test = [u for u in experiment.folds[number].test if u.labels.get("emotion")]
    predictions = answers.predictions["emotion"]
    return [
        {"id": u.id, "fold": number, "speaker": u.speaker, "target": target, "prediction": prediction}
        | {f"p_{name}": float(f"{p:.6g}") for name, p in zip(experiment.classes, row, strict=True)}
        for u, target, prediction, row in zip(test, targets, predictions, answers.probabilities, strict=True)
    ]


def confusion(rows: list[dict], classes: list[str]) -> list[list[int]]:
    """Counts of target and prediction over rows."""
    targets, predictions = ([row[key] for row in rows] for key in ("target", "prediction"))
    return metrics.confusion(targets, predictions, classes).tolist()


def fingerprint(experiment: Experiment) -> str:
    """Of recipe and protocol: tells folds that `--force` kept from before a change."""
    deciding = recipes.deciding(experiment.recipe.model_dump(mode="json"))
    text = json.dumps(deciding, sort_keys=True) + json.dumps(experiment.card, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
