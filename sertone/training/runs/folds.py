"""One fold of an experiment: train and test it, and write the results.

fold_0/checkpoint/    the trained model
fold_0/result.json    scores and predictions; marks the fold complete
"""

import gc
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sertone import licences, models
from sertone import recipe as recipes
from sertone.files import write_json
from sertone.sharing.card_scores import Scores
from sertone.sharing.model_folder import FORMAT
from sertone.training.data import duplicates
from sertone.training.data.augmentation import require_uncropped_transcripts
from sertone.training.data.caches import SharedCaches
from sertone.training.data.perturber import Perturber
from sertone.training.experiment import contamination
from sertone.training.experiment.experiment import Experiment
from sertone.training.fit import checkpoint, distributed
from sertone.training.fit.first_stages import FirstStages
from sertone.training.fit.inference import predict_utterances
from sertone.training.fit.memory import require_memory
from sertone.training.fit.preparation import check_plan, freeze
from sertone.training.fit.progress import ProgressReporter
from sertone.training.fit.trainer import Trainer
from sertone.training.runs import run_folder
from sertone.training.runs.teacher_targets import apply_teacher
from sertone.training.testing.calibrate import calibrate
from sertone.training.testing.fold_test import describe_scores, predict_by_condition, score_fold, score_stage

PER_FILE = ("file_hashes", "segments")
"""Parts of the protocol card that grow with the corpus. A checkpoint leaves them out. Of the texts that
training and test set share it states the number only: the texts are not ours to pass on."""

TRIED_UTTERANCES = 8
"""Number of training utterances on which a trained model has to give finite predictions."""


def build_checked_model(experiment: Experiment) -> Any:
    """Build the model of the first fold, and check that its training plan can be carried out.

    Raises:
        SertoneError: the model cannot be built; see `check_plan`.
    """
    vocabulary = experiment.build_vocabulary(0)
    model = models.build(experiment.recipe.model, vocabulary)
    check_plan(model, experiment.recipe.train)
    require_uncropped_transcripts(model, experiment.recipe.train.augmentation)
    return model


def prepare_data(
    experiment: Experiment, progress: ProgressReporter, caches: SharedCaches | None = None, jobs: int = 1
) -> SharedCaches:
    """Decode the audio of all folds, and check that the memory and caches asked for are available.

    Args:
        experiment: its folds are prepared.
        progress: where to report.
        caches: those of an earlier experiment with the same encoder and settings, to be used again.
        jobs: folds at a time, which share the memory of the machine.

    Raises:
        SertoneError: `unreadable_audio`, `audio_leak`, `not_cacheable`, `cache_too_small`,
            `too_long_for_memory`; as the building and `check_plan`.
    """
    recipe = experiment.recipe
    model = build_checked_model(experiment)
    for encoder in filter(None, (model.encoder, model.text)):
        if encoder.unused:
            progress.say(encoder.unused)
    if restriction := licences.describe_restriction(experiment.ledger(0)):
        progress.say(restriction)
    caches = caches or SharedCaches.from_train_config(recipe.train)
    Perturber(recipe.train.perturb, [])  # folders of noises that cannot be read end the run here
    for line in caches.recordings.load_with_warnings(experiment.utterances):
        progress.say(line)
    caches.recordings.likely_copies = duplicates.check_copies(
        experiment.folds, caches.recordings, progress.say
    )
    fabric = distributed.make_fabric(recipe.train)
    require_memory(model, experiment.folds, caches.recordings.lengths, recipe.train, fabric.device.type, jobs)
    for stage in model.stages():
        freeze(model.train(), stage)  # the length of the prefix that can be cached depends on what is frozen
        caches.prefixes.choose_layers(model.encoder, stage.needs, caches.recordings, fabric, progress.say)
    return caches


def train_fold(
    experiment: Experiment,
    number: int,
    folder: Path,
    caches: SharedCaches,
    progress: ProgressReporter,
    first_stages: FirstStages | None = None,
) -> Trainer:
    """Train one fold and write its checkpoint.

    Args:
        experiment: the experiment that the fold belongs to.
        number: number of the fold.
        folder: folder of the fold.
        caches: caches of the run.
        progress: where to report.
        first_stages: shared with other runs, or None.

    Returns:
        the trainer, its model trained and calibrated.

    Raises:
        SertoneError: the model cannot be built or trained.
    """
    # Fabric and its modules refer to each other, so the last fold's model stays in memory until a collection.
    gc.collect()
    recipe = experiment.recipe
    fold = apply_teacher(experiment, number, caches.recordings)
    torch.manual_seed(recipe.train.seed * 1000 + number)  # folds start from different weights
    vocabulary = experiment.build_vocabulary(number)
    model = models.build(recipe.model, vocabulary)
    trainer = Trainer(
        model=model,
        vocabulary=vocabulary,
        fold=fold,
        fold_number=number,
        config=recipe.train,
        caches=caches,
        folder=folder / "resume",
        progress=progress,
        first_stages=first_stages,
        about=_describe_dependencies(experiment, number),
        experiment=fingerprint(experiment),
        # A model of the whole corpus has no test set.
        score_stage=partial(score_stage, experiment, number) if fold.test else None,
    )
    # A task with one label is trained all the same, but the user should know.
    for task in model.heads:
        if len({vocabulary.find_label(task, u) for u in fold.train} - {None}) < 2:
            progress.say(f"fold {number} ({fold.name})  {task}: fewer than two labels, nothing to learn")
    trainer.train()
    _require_predictions(trainer)
    trainer.calibration = calibrate(trainer)
    if distributed.is_first():
        _save_checkpoint(experiment, number, trainer, folder / "checkpoint")
    distributed.barrier()  # until the checkpoint is complete
    return trainer


def _require_predictions(trainer: Trainer) -> None:
    """Refuse with `diverged` a trained model without finite predictions on its own training utterances."""
    model = trainer.model.to(trainer.fabric.device)
    utterances = trainer.fold.train[:TRIED_UTTERANCES]
    predict_utterances(model, trainer.vocabulary, utterances, trainer.loader, trainer.fabric)


def _save_checkpoint(experiment: Experiment, number: int, trainer: Trainer, folder: Path) -> None:
    recipe, fold = experiment.recipe, trainer.fold
    training_data = contamination.hash_training_data(fold.train + fold.validation, experiment.card)
    lineage = contamination.trace_lineage(
        training_data, experiment.origin, experiment.describe_teachers(number)
    )
    card = {key: value for key, value in experiment.card.items() if key not in PER_FILE}
    card["leaks"] = [leak | {"scripted_texts": len(leak["scripted_texts"])} for leak in card["leaks"]]
    card["fold"] = fold.name
    card["train"] = recipes.drop_neutral(recipe.model_dump(mode="json"))["train"]
    checkpoint.save_model(
        folder,
        trainer.model,
        recipe.model,
        trainer.vocabulary,
        card | lineage,
        trainer.calibration,
        experiment.ledger(number),
    )


def _describe_dependencies(experiment: Experiment, number: int) -> dict:
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
    caches: SharedCaches,
    progress: ProgressReporter,
    *,
    first_stages: FirstStages | None = None,
    keep_checkpoint: bool = True,
) -> None:
    """Train and test one fold; `result.json` comes last.

    Args:
        experiment: the experiment that the fold belongs to.
        number: number of the fold.
        out: run folder.
        caches: caches of the run.
        progress: where to report.
        first_stages: shared with other runs, or None.
        keep_checkpoint: False removes the checkpoint once the fold is tested.

    Raises:
        SertoneError: as `train_fold`.
    """
    folder = out / f"fold_{number}"
    fold = experiment.folds[number]
    trainer = train_fold(experiment, number, folder, caches, progress, first_stages)
    trainer.model.to(trainer.fabric.device)
    result: dict[str, Any] = {
        "name": fold.name,
        **score_fold(trainer, experiment, number),
        "after_stages": trainer.after_stages,
        "experiment": fingerprint(experiment),
        "modalities": predict_by_condition(trainer, experiment, number) if trainer.model.text else {},
        "train": len(fold.train),
        "validation": len(fold.validation),
        "history": trainer.history,
        "alike": duplicates.select_across_subsets(fold, caches.recordings.likely_copies),
    }
    if distributed.is_first():
        checkpoint.update_model_card(folder / "checkpoint", Scores.from_fold(result))
        write_json(folder / "result.json", result)
        # Only now: until the fold counts as complete, a restart needs the saved training state.
        shutil.rmtree(folder / "resume", ignore_errors=True)
        if not keep_checkpoint:
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    progress.say(f"fold {number} ({fold.name})  test {describe_scores(experiment, result['metrics'])}")


def fingerprint(experiment: Experiment) -> str:
    """Return the hash of recipe and protocol. It tells which folds `--force` kept from before a change."""
    return run_folder.fingerprint(experiment.recipe.model_dump(mode="json"), experiment.card)
