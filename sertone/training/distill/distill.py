"""Encoder distillation: from a recipe to an encoder that is smaller than its teacher.

out/recipe.yaml, protocol.json    the recipe, and the audio used
out/encoder/                      the student, see `sharing.encoder_origin`
out/distill.json                  losses, seconds, sizes; marks the folder complete
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sertone import licences
from sertone import recipe as recipes
from sertone.audio import SAMPLING_RATE, file_hash
from sertone.files import load_json, write_json, write_text
from sertone.nn.distillation import build_student, check_targets
from sertone.nn.encoders.base import Encoder
from sertone.nn.encoders.saved import save_encoder
from sertone.nn.vocabulary import Vocabulary
from sertone.protocol.splits import Fold
from sertone.schema import Utterance
from sertone.sharing import model_card
from sertone.sharing.encoder_origin import ENCODER, FORMAT, NOTHING_SEEN, find_origin
from sertone.sharing.model_folder import WEIGHTS
from sertone.training.data.caches import SharedCaches
from sertone.training.distill import unlabelled
from sertone.training.distill.distill_recipe import DistillRecipe
from sertone.training.distill.student import DistillationTrainer, StudentModel
from sertone.training.experiment import contamination
from sertone.training.fit import distributed
from sertone.training.fit.distributed import require_device
from sertone.training.fit.loggers import require_loggers
from sertone.training.fit.progress import RunProgress
from sertone.training.runs.run_folder import claim, fingerprint

RESULT = "distill.json"


def distill(
    recipe: DistillRecipe,
    out: str | Path,
    *,
    force: bool = False,
    fresh: bool = False,
    quiet: bool = False,
) -> Path:
    """Distil an encoder and write `out/encoder`.

    An interrupted distillation is resumed; a finished one is left as it is.

    Args:
        recipe: recipe of the distillation.
        out: its folder.
        force: go on although the recipe has changed.
        fresh: throw away what is in the folder.
        quiet: no progress lines.

    Returns:
        the encoder's folder.

    Raises:
        SertoneError: the recipe, the audio or the teacher cannot be used, or training fails; `bad_student`,
            `bad_targets`, `nothing_held_out`, `run_in_use`, `other_experiment`.
    """
    require_device(recipe.train.device, recipe.train.precision)
    require_loggers(recipe.train.log)
    distributed.init(recipe.train.device)
    out = Path(out)
    seed = recipe.train.seed
    torch.manual_seed(seed)  # the heads start from random weights
    teacher = recipe.teacher.build()
    check_targets(teacher, recipe.targets)
    student = build_student(teacher, recipe.student.layers)
    pieces = unlabelled.load_pieces(recipe.data, recipe.max_seconds)
    fold = unlabelled.hold_out(pieces, recipe.held_out, seed)
    card = unlabelled.build_card(recipe.data, fold, seed)
    about = _describe_encoder(recipe, teacher, student, pieces, card)
    say = RunProgress(0, quiet).say
    if teacher.unused:
        say(teacher.unused)
    with claim(out, recipes.dump(recipe), card, force=force, fresh=fresh, say=say):
        if not (out / RESULT).is_file():  # a finished distillation is left as it is
            with RunProgress(recipe.train.epochs, quiet) as progress:
                trainer = _make_trainer(recipe, teacher, student, fold, out, progress)
                trainer.experiment = fingerprint(recipe.model_dump(mode="json"), card)
                loss_before = trainer.compute_held_out_loss()
                trainer.train()
            if distributed.is_first():
                _write(student, about, _summarise(trainer, card, loss_before), out)
        distributed.barrier()  # until the first process has written the encoder
    return out / "encoder"


def _describe_encoder(
    recipe: DistillRecipe, teacher: Encoder, student: Encoder, pieces: Sequence[Utterance], card: dict
) -> dict[str, Any]:
    """Return the content of `encoder.json` without the result; `sharing.encoder_origin` reads it."""
    options = recipe.teacher.model_dump(mode="json")
    origin = find_origin(options)
    source = options.get("source")
    # The name of a folder alone, since its path says something about the machine.
    teacher_name = Path(source).name if source and Path(source).is_dir() else source or options["name"]
    unlabelled_data = contamination.hash_training_data(pieces, card)
    if origin:
        unlabelled_data = contamination.union(unlabelled_data, origin.seen_without_labels)
    return {
        "format": FORMAT,
        "encoder": student.describe(),
        "min_samples": student.min_samples,
        "teacher": teacher_name,
        "recipe": recipe.model_dump(mode="json", include={"student", "targets", "cosine"}),
        "corpus": card["corpus"],
        "parameters": {"teacher": _count_parameters(teacher), "student": _count_parameters(student)},
        "licences": licences.build_ledger(card["corpus"], {"encoder": options}, origin and origin.licences),
        "heard": origin.seen_with_labels if origin else NOTHING_SEEN,
        "listened": unlabelled_data,
    }


def _count_parameters(encoder: Encoder) -> int:
    return sum(parameter.numel() for parameter in encoder.parameters())


def _make_trainer(
    recipe: DistillRecipe, teacher: Encoder, student: Encoder, fold: Fold, out: Path, progress: RunProgress
) -> DistillationTrainer:
    """Decode the audio and return the trainer."""
    config = recipe.train.to_train_config()
    caches = SharedCaches.from_train_config(config)
    for line in caches.recordings.load_with_warnings([*fold.train, *fold.validation]):
        progress.say(line)
    model = StudentModel(student, recipe.student, teacher.width, recipe.targets, recipe.cosine)
    return DistillationTrainer(
        model=model,
        vocabulary=Vocabulary({}, {}, []),  # the audio has no labels
        fold=fold,
        fold_number=0,
        config=config,
        caches=caches,
        folder=out / "resume",
        progress=progress,
        teacher=teacher,
        targets=recipe.targets,
    )


def _summarise(trainer: DistillationTrainer, card: dict, loss_before: float | None) -> dict[str, Any]:
    """Return the result of the training: losses by epoch, seconds."""
    history = trainer.history
    scored = [entry for entry in history if "val_loss" in entry]
    best = min(scored, key=lambda entry: entry["val_loss"]) if scored else history[-1]
    recordings = trainer.caches.recordings
    return {
        "held_out": {"before": loss_before, "after": best.get("val_loss")},
        "epoch": best["epoch"] + 1,
        "seconds": sum(entry["seconds"] for entry in history),
        "audio_seconds": sum(recordings.lengths.values()) / SAMPLING_RATE,
        "versions": card["versions"],
        "experiment": trainer.experiment,
        "history": history,
    }


def _write(student: Encoder, about: dict, result: dict, out: Path) -> None:
    """Write the encoder, then the result; then remove what only the training needs."""
    run_keys = ("history", "experiment")  # about the run, not about the encoder
    about = about | {"result": {key: value for key, value in result.items() if key not in run_keys}}
    # The folder is complete before it gets its name: a crash leaves no half of an encoder.
    partial = out / ".encoder.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_encoder(student, partial)
    about["files"] = {WEIGHTS: file_hash(partial / WEIGHTS)}
    write_text(partial / "README.md", model_card.render_encoder(about))
    write_json(partial / ENCODER, about)
    shutil.rmtree(out / "encoder", ignore_errors=True)
    partial.replace(out / "encoder")
    write_json(out / RESULT, {"parameters": about["parameters"]} | result)  # marks the folder complete
    shutil.rmtree(out / "resume", ignore_errors=True)


def read_result(out: str | Path) -> dict[str, Any]:
    """Return the content of `distill.json`."""
    return load_json(Path(out) / RESULT, "not_a_run")
