"""Find the models that teach the folds of an experiment, and refuse unsuitable ones before training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sertone import audio
from sertone.errors import SertoneError
from sertone.labels import Scale
from sertone.protocol.splits import Fold
from sertone.recipe.train_parts import TeacherConfig
from sertone.sharing import model_folder as folders
from sertone.training.experiment import contamination
from sertone.training.experiment.contamination import HASH_LENGTH
from sertone.utils.wording import format_count


def find_teacher(source: str, number: int, folds: int) -> Path:
    """Return the folder of the model that teaches a fold.

    A cross-validated run teaches each fold with its fold of the same number.

    Raises:
        SertoneError: `not_a_checkpoint`, `teacher_mismatch`.
    """
    checkpoints = folders.find_checkpoints(source)
    # One model teaches all folds; for a training on all data, the whole run is the teacher.
    if len(checkpoints) == 1 or folds == 1:
        return folders.resolve_folder(source)
    if len(checkpoints) != folds:
        raise SertoneError(
            "teacher_mismatch",
            f"train.teacher: {source} has {format_count(len(checkpoints), 'fold')}, this run has {folds}",
            "a run with the same folds, or one model",
        )
    return Path(source) / f"fold_{number}"


def load_descriptions(config: TeacherConfig, number: int, folds: int) -> list[dict[str, Any]]:
    """Return the contents of `checkpoint.json` of the models that teach a fold.

    Raises:
        SertoneError: as `find_teacher`; `bad_weights`, `other_format`.
    """
    folder = find_teacher(config.source, number, folds)
    return [folders.read_about(path) for path in folders.find_checkpoints(folder)]


def require_compatible(
    config: TeacherConfig,
    folds: Sequence[Fold],
    card: Mapping,
    classes: Sequence[str],
    ratings: Mapping[str, Scale],
) -> dict[str, Any]:
    """Refuse teachers of other tasks, and teachers that were trained on the test set of the fold they teach.

    Args:
        config: `train.teacher` of a recipe.
        folds: folds of the experiment.
        card: protocol card with `file_hashes`.
        classes: classes to learn; none without emotions.
        ratings: ratings to learn.

    Returns:
        For the card: name, share in the targets, a hash of every model's weights, and how many of each
        fold's validation speakers it was trained on. `unknown_speakers` is there where some are unknown, as
        in `contamination.hash_training_data`.

    Raises:
        SertoneError: as `load_descriptions`; `teacher_mismatch`, `teacher_trained_on_test`.
    """
    weights, overlaps, all_records = [], [], []
    for number, fold in enumerate(folds):
        descriptions = load_descriptions(config, number, len(folds))
        for about in descriptions:
            find_common_ratings(about, classes, ratings)
            _require_unseen_test(about, fold, card)
        # A teacher may know the validation speakers, but the card says so.
        records = [about["card"]["heard"] for about in descriptions]
        all_records += records
        overlap = contamination.describe_validation_overlap(fold, card, records)
        if overlap:
            overlaps.append(overlap)
        paths = folders.find_checkpoints(find_teacher(config.source, number, len(folds)))
        weights += [audio.file_hash(path / folders.WEIGHTS)[:HASH_LENGTH] for path in paths]
    entry = {
        "source": Path(config.source).name,
        "weight": config.weight,
        "weights": weights,
        "validation_speakers": overlaps,
    }
    unknown = contamination.count_unknown_speakers(all_records)
    if unknown:
        entry["unknown_speakers"] = unknown
    return entry


def find_common_ratings(
    about: Mapping, classes: Sequence[str], ratings: Mapping[str, Scale]
) -> dict[str, Scale]:
    """Return the ratings that teacher and student both predict, on the student's scales.

    Args:
        about: the content of the teacher's `checkpoint.json`.
        classes: classes of the student; none without emotions.
        ratings: ratings of the student.

    Raises:
        SertoneError: `teacher_mismatch`, where their classes differ, or they have no task in common.
    """
    vocabulary = about["vocabulary"]
    teacher_classes = vocabulary["classes"].get("emotion", [])
    scales = vocabulary.get("ratings", {})
    if classes and teacher_classes and set(classes) != set(teacher_classes):
        raise SertoneError(
            "teacher_mismatch",
            f"train.teacher predicts {', '.join(teacher_classes)}",
            f"the classes of this run: {', '.join(classes)}",
        )
    common = {name: scale for name, scale in ratings.items() if name in scales}
    if not common and not (classes and teacher_classes):
        tasks = ["emotion", *ratings] if classes else list(ratings)
        raise SertoneError(
            "teacher_mismatch",
            f"train.teacher predicts {', '.join([*teacher_classes, *scales])}",
            f"at least one task of this run: {', '.join(tasks)}",
        )
    return common


def _require_unseen_test(about: Mapping, fold: Fold, card: Mapping) -> None:
    ids, speakers = contamination.find_overlap(fold.test, card, [about["card"]["heard"]])
    if ids or speakers:
        raise SertoneError(
            "teacher_trained_on_test",
            f"the teacher of fold {fold.name} was trained on {', '.join(speakers[:3] or ids[:3])}",
            "a teacher that was trained without the test set of this fold",
            "cross-validate the teacher with the same protocol and name its run",
        )
