"""A distillation: from a recipe to an encoder that is smaller than its teacher.

out/recipe.yaml, protocol.json    the recipe, and what was listened to
out/encoder/                      the student, as `sharing.origins` says
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
from sertone.files import read_json, write_json, write_text
from sertone.nn.distillation import build_student, check_targets
from sertone.nn.encoders.base import Encoder
from sertone.nn.encoders.saved import save_encoder
from sertone.nn.vocabulary import Vocabulary
from sertone.protocol.splits import Fold
from sertone.schema import Utterance
from sertone.sharing import encoder_card
from sertone.sharing.encoder_origin import ENCODER, FORMAT, NOTHING_SEEN, find_origin
from sertone.sharing.model_folder import WEIGHTS
from sertone.training.data.material import SharedCaches
from sertone.training.distill import unlabelled
from sertone.training.distill.distill_recipe import DistillRecipe
from sertone.training.distill.student import DistillationTrainer, StudentModel
from sertone.training.experiment import contamination
from sertone.training.experiment.experiment import require_device
from sertone.training.fit import distributed
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
    """Distils an encoder and writes `out/encoder`; an interrupted distillation goes on, a finished one stays.

    Args:
        recipe: of the distillation.
        out: its folder.
        force: go on although the recipe has changed.
        fresh: throw away what is in the folder.
        quiet: no progress lines.

    Returns:
        the encoder's folder.

    Raises:
        SertoneError: of the recipe, the audio, the teacher, or the training; `bad_student`, `bad_targets`,
            `nothing_held_out`, `run_in_use`, `other_experiment`.
    """
    require_device(recipe.train.device)
    distributed.init(recipe.train.device)
    out, seed = Path(out), recipe.train.seed
    torch.manual_seed(seed)
    teacher = recipe.teacher.build()
    check_targets(teacher, recipe.targets)
    student = build_student(teacher, recipe.student.layers)
    found = unlabelled.load_pieces(recipe.data, recipe.max_seconds)
    fold = unlabelled.hold_out(found, recipe.held_out, seed)
    card = unlabelled.build_card(recipe.data, fold, seed)
    about = _about(recipe, teacher, student, found, card)
    say = RunProgress(0, quiet).say
    if teacher.unused:
        say(teacher.unused)
    with claim(out, recipes.dump(recipe), card, force=force, fresh=fresh, say=say):
        if not (out / RESULT).is_file():
            with RunProgress(recipe.train.epochs, quiet) as progress:
                distiller = _distiller(recipe, teacher, student, fold, out, progress)
                distiller.experiment = fingerprint(recipe.model_dump(mode="json"), card)
                before = distiller.compute_held_out_loss()
                distiller.train()
            if distributed.is_first():
                _write(student, about, _result(distiller, card, before), out)
        distributed.barrier()
    return out / "encoder"


def _about(
    recipe: DistillRecipe, teacher: Encoder, student: Encoder, found: Sequence[Utterance], card: dict
) -> dict[str, Any]:
    """What `encoder.json` holds, by which `sharing.origins` knows the encoder, but for the result."""
    options = recipe.teacher.model_dump(mode="json")
    origin, source = find_origin(options), options.get("source")
    own = contamination.hash_training_data(found, card)
    return {
        "format": FORMAT,
        "encoder": student.describe(),
        "min_samples": student.min_samples,
        "teacher": Path(source).name if source and Path(source).is_dir() else source or options["name"],
        "recipe": recipe.model_dump(mode="json", include={"student", "targets", "cosine"}),
        "corpus": card["corpus"],
        "parameters": {"teacher": _parameters(teacher), "student": _parameters(student)},
        "licences": licences.build_ledger(card["corpus"], {"encoder": options}, origin and origin.licences),
        "heard": origin.seen_with_labels if origin else NOTHING_SEEN,
        "listened": contamination.union(own, origin.seen_without_labels) if origin else own,
    }


def _parameters(encoder: Encoder) -> int:
    return sum(parameter.numel() for parameter in encoder.parameters())


def _distiller(
    recipe: DistillRecipe, teacher: Encoder, student: Encoder, fold: Fold, out: Path, progress: RunProgress
) -> DistillationTrainer:
    """Everything that the training needs, the audio decoded."""
    config = recipe.train.to_train_config()
    material = SharedCaches.from_config(config)
    for line in material.recordings.load_with_warnings([*fold.train, *fold.validation]):
        progress.say(line)
    model = StudentModel(student, recipe.student, teacher.width, recipe.targets, recipe.cosine)
    return DistillationTrainer(
        model,
        Vocabulary({}, {}, []),
        fold,
        0,
        config,
        material,
        out / "resume",
        progress,
        teacher=teacher,
        targets=recipe.targets,
    )


def _result(distiller: DistillationTrainer, card: dict, before: float | None) -> dict[str, Any]:
    """What came out: losses by epoch, seconds."""
    history = distiller.history
    scored = [entry for entry in history if "val_loss" in entry]
    chosen = min(scored, key=lambda entry: entry["val_loss"]) if scored else history[-1]
    recordings = distiller.caches.recordings
    return {
        "held_out": {"before": before, "after": chosen.get("val_loss")},
        "epoch": chosen["epoch"] + 1,
        "seconds": sum(entry["seconds"] for entry in history),
        "audio_seconds": sum(recordings.lengths.values()) / SAMPLING_RATE,
        "versions": card["versions"],
        "experiment": distiller.experiment,
        "history": history,
    }


def _write(student: Encoder, about: dict, result: dict, out: Path) -> None:
    """The encoder, then what became of it; then what only a training needs goes."""
    own = ("history", "experiment")  # of the run, not of the encoder
    about = about | {"result": {key: value for key, value in result.items() if key not in own}}
    aside = out / ".encoder.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    save_encoder(student, aside)
    about["files"] = {WEIGHTS: file_hash(aside / WEIGHTS)}
    write_text(aside / "README.md", encoder_card.render_encoder(about))
    write_json(aside / ENCODER, about)
    shutil.rmtree(out / "encoder", ignore_errors=True)
    aside.replace(out / "encoder")
    write_json(out / RESULT, {"parameters": about["parameters"]} | result)
    shutil.rmtree(out / "resume", ignore_errors=True)


def read_result(out: str | Path) -> dict[str, Any]:
    """What `distill.json` holds."""
    return read_json(Path(out) / RESULT, "not_a_run")
