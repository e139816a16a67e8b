"""One fold of an experiment: train, test, and write down what came out.

fold_0/checkpoint/    the trained model        fold_0/result.json marks the fold complete
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sertone import models
from sertone import recipe as recipes
from sertone.files import write_json
from sertone.sharing.model_folder import FORMAT
from sertone.sharing.card_scores import Scores
from sertone.training.fit import checkpoint, distributed
from sertone.training.data import duplicates
from sertone.training.experiment import contamination
from sertone.training.runs import run_folder
from sertone.training.fit.inference import predict_utterances
from sertone.training.data.augmentation import require_uncropped_transcripts
from sertone.training.testing.calibrate import calibrate
from sertone.training.experiment.experiment import Experiment
from sertone.training.fit.first_stages import FirstStages
from sertone.training.fit.trainer import Trainer
from sertone.training.data.material import SharedCaches
from sertone.training.fit.memory import require_memory
from sertone.training.testing.modalities import rows_by_condition
from sertone.training.fit.progress import ProgressReporter
from sertone.training.fit.step import check_plan, freeze
from sertone.training.runs.teacher_targets import apply_teacher
from sertone.training.testing.fold_test import describe_scores, score_fold, score_stage

PER_FILE = ("file_hashes", "segments")
"""Parts of the protocol card that grow with the corpus; a checkpoint leaves them out, and of the texts that
training and test have in common it only has the number: they are not ours to pass on."""

ANSWERED = 8
"""Training utterances that a trained model has to answer."""


def build_checked_model(experiment: Experiment) -> Any:
    """A model as the first fold would have it, after a look at whether its plan can be carried out.

    Raises:
        SertoneError: as the building and `check_plan`.
    """
    vocabulary = experiment.build_vocabulary(0)
    model = models.build(experiment.recipe.model, vocabulary)
    check_plan(model, experiment.recipe.train)
    require_uncropped_transcripts(model, experiment.recipe.train.augmentation)
    return model


def prepare_data(
    experiment: Experiment, progress: ProgressReporter, material: SharedCaches | None = None, jobs: int = 1
) -> SharedCaches:
    """Decodes the audio of all folds, after a look at whether cache and memory asked for can be had.

    Args:
        experiment: of whose folds.
        progress: where to report.
        material: to go on with, where an experiment before had the same encoder and settings.
        jobs: folds at a time, which share the memory of the machine.

    Raises:
        SertoneError: `unreadable_audio`, `audio_leak`, `not_cacheable`, `cache_too_small`,
            `too_long_for_memory`; as the building and `check_plan`.
    """
    recipe, model = experiment.recipe, build_checked_model(experiment)
    for encoder in filter(None, (model.encoder, model.text)):
        if encoder.unused:
            progress.say(encoder.unused)
    material = material or SharedCaches.from_config(recipe.train)
    for line in material.recordings.load_with_warnings(experiment.utterances):
        progress.say(line)
    material.recordings.likely_copies = duplicates.check_copies(experiment.folds, material.recordings, progress.say)
    fabric = distributed.make_fabric(recipe.train)
    lengths, device = material.recordings.lengths, fabric.device.type
    require_memory(model, experiment.folds, lengths, recipe.train, device, jobs)
    for stage in model.stages():
        freeze(model.train(), stage)
        material.prefixes.choose_layers(model.encoder, stage.needs, material.recordings, fabric, progress.say)
    return material


def train_fold(
    experiment: Experiment,
    number: int,
    folder: Path,
    material: SharedCaches,
    progress: ProgressReporter,
    first_stages: FirstStages | None = None,
) -> Trainer:
    """Trains one fold and writes its checkpoint.

    Args:
        experiment: of which it is a fold.
        number: of the fold.
        folder: of the fold.
        material: of the run.
        progress: where to report.
        first_stages: shared with other runs, or None.

    Raises:
        SertoneError: as the building and the training of the model.
    """
    recipe, fold = experiment.recipe, apply_teacher(experiment, number, material.recordings)
    torch.manual_seed(recipe.train.seed * 1000 + number)
    vocabulary = experiment.build_vocabulary(number)
    model = models.build(recipe.model, vocabulary)
    trainer = Trainer(
        model,
        vocabulary,
        fold,
        number,
        recipe.train,
        material,
        folder / "resume",
        progress,
        first_stages,
        _about(experiment, number),
        experiment=fingerprint(experiment),
    )
    if fold.test:
        trainer.score_stage = partial(score_stage, trainer, experiment, number)
    for task in model.heads:
        if len({vocabulary.find_label(task, u) for u in fold.train} - {None}) < 2:
            progress.say(f"fold {number} ({fold.name})  {task}: fewer than two labels, nothing to learn")
    trainer.train()
    _require_answers(trainer)
    trainer.calibration = calibrate(trainer)
    card = {key: value for key, value in experiment.card.items() if key not in PER_FILE}
    card["leaks"] = [leak | {"scripted_texts": len(leak["scripted_texts"])} for leak in card["leaks"]]
    if distributed.is_first():
        settings = recipes.drop_neutral(recipe.model_dump(mode="json"))["train"]
        known = contamination.hash_training_data(fold.train + fold.validation, experiment.card)
        past = contamination.trace_lineage(known, experiment.origin, experiment.describe_teachers(number))
        about, target = card | {"fold": fold.name, "train": settings, **past}, folder / "checkpoint"
        calibration, ledger = trainer.calibration, experiment.ledger(number)
        checkpoint.save_model(target, model, recipe.model, vocabulary, about, calibration, ledger)
    distributed.barrier()
    return trainer


def _require_answers(trainer: Trainer) -> None:
    """Refuse a trained model that does not even answer what it was trained on, with `diverged`."""
    model, side = trainer.model.to(trainer.fabric.device), trainer.fold.train[:ANSWERED]
    predict_utterances(model, trainer.vocabulary, side, trainer.loader, trainer.fabric)


def _about(experiment: Experiment, number: int) -> dict:
    """Return what a trained stage and its scores depend on beside recipe, model and utterances."""
    hashes = experiment.card["file_hashes"]
    fold = experiment.folds[number]
    recordings = {u.id: hashes[u.id] for u in fold.train + fold.test}
    return {
        "fold": number,
        "recordings": recordings,
        "versions": experiment.card["versions"],
        "format": FORMAT,
    }


def run_fold(
    experiment: Experiment,
    number: int,
    out: Path,
    material: SharedCaches,
    progress: ProgressReporter,
    *,
    first_stages: FirstStages | None = None,
    keep_checkpoint: bool = True,
) -> None:
    """Trains and tests one fold; `result.json` comes last.

    Args:
        experiment: of which it is a fold.
        number: of the fold.
        out: run folder.
        material: of the run.
        progress: where to report.
        first_stages: shared with other runs, or None.
        keep_checkpoint: or else it goes once the fold is tested.

    Raises:
        SertoneError: as `fit`.
    """
    folder, fold = out / f"fold_{number}", experiment.folds[number]
    trainer = train_fold(experiment, number, folder, material, progress, first_stages)
    trainer.model.to(trainer.fabric.device)
    result: dict[str, Any] = {
        "name": fold.name,
        **score_fold(trainer, experiment, number),
        "after_stages": trainer.after_stages,
        "experiment": fingerprint(experiment),
        "modalities": rows_by_condition(trainer, experiment, number) if trainer.model.text else {},
        "train": len(fold.train),
        "validation": len(fold.validation),
        "history": trainer.history,
        "alike": duplicates.select_across_subsets(fold, material.recordings.likely_copies),
    }
    if distributed.is_first():
        checkpoint.update_model_card(folder / "checkpoint", Scores.from_fold(result))
        write_json(folder / "result.json", result)
        for done in ("resume",) if keep_checkpoint else ("resume", "checkpoint"):
            shutil.rmtree(folder / done, ignore_errors=True)
    words = describe_scores(experiment, result["metrics"])
    progress.say(f"fold {number} ({fold.name})  test {words}")


def fingerprint(experiment: Experiment) -> str:
    """Of recipe and protocol: tells folds that `--force` kept from before a change."""
    return run_folder.fingerprint(experiment.recipe.model_dump(mode="json"), experiment.card)
