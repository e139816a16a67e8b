"""The models that teach the folds of an experiment: found, and refused, before anything is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sertone import audio
from sertone.errors import SertoneError
from sertone.labels import Scale
from sertone.protocol.splits import Fold
from sertone.recipe.train_config import TeacherConfig
from sertone.scoring.display import format_count
from sertone.sharing import model_folder as folders
from sertone.training.experiment import contamination

LETTERS = 16
"""Of the hash of a teacher's weights."""


def find_teacher(source: str, number: int, folds: int) -> Path:
    """Where the model is that teaches a fold: of a cross-validated run its fold of the same number.

    Raises:
        SertoneError: `not_a_checkpoint`, `teacher_mismatch`.
    """
    found = folders.find_checkpoints(source)
    if len(found) == 1 or folds == 1:
        return folders.resolve_folder(source)
    if len(found) != folds:
        raise SertoneError(
            "teacher_mismatch",
            f"train.teacher: {source} has {format_count(len(found), 'fold')}, this run has {folds}",
            "a run of the same folds, or one model",
        )
    return Path(source) / f"fold_{number}"


def load_descriptions(config: TeacherConfig, number: int, folds: int) -> list[dict[str, Any]]:
    """What the models that teach a fold say of themselves.

    Raises:
        SertoneError: as `find`; `bad_weights`, `other_format`.
    """
    return [
        folders.read_about(path)
        for path in folders.find_checkpoints(find_teacher(config.source, number, folds))
    ]


def require_compatible(
    config: TeacherConfig,
    folds: Sequence[Fold],
    card: Mapping,
    classes: Sequence[str],
    ratings: Mapping[str, Scale],
) -> dict[str, Any]:
    """Refuses teachers of something else, and those that have heard whom they prepare for.

    Args:
        config: `train.teacher` of a recipe.
        folds: of the experiment.
        card: protocol card with `file_hashes`.
        classes: that are to be learnt; none without emotions.
        ratings: that are to be learnt.

    Returns:
        for the card: name, share in the targets, a hash of the weights of every model, and how many of each
        fold's validation speakers it has heard; `unknown_speakers`, as `heard.names`, where there are some.

    Raises:
        SertoneError: as `abouts`; `teacher_mismatch`, `teacher_trained_on_test`.
    """
    weights, chosen_by, pasts = [], [], []
    for number, fold in enumerate(folds):
        for about in load_descriptions(config, number, len(folds)):
            find_common_ratings(about, classes, ratings)
            _require_unheard(about, fold, card)
        past = [about["card"]["heard"] for about in load_descriptions(config, number, len(folds))]
        pasts += past
        chosen_by += [said] if (said := contamination.describe_validation_overlap(fold, card, past)) else []
        paths = folders.find_checkpoints(find_teacher(config.source, number, len(folds)))
        weights += [audio.file_hash(path / folders.WEIGHTS)[:LETTERS] for path in paths]
    unknown = contamination.count_unknown_speakers(pasts)
    return {
        "source": Path(config.source).name,
        "weight": config.weight,
        "weights": weights,
        "validation_speakers": chosen_by,
        **({"unknown_speakers": unknown} if unknown else {}),
    }


def find_common_ratings(
    about: Mapping, classes: Sequence[str], ratings: Mapping[str, Scale]
) -> dict[str, Scale]:
    """The ratings that a teacher and its student both answer, on the student's scales.

    Raises:
        SertoneError: `teacher_mismatch`, where they answer other classes, or nothing in common.
    """
    vocabulary = about["vocabulary"]
    other, scales = vocabulary["classes"].get("emotion", []), vocabulary.get("ratings", {})
    if classes and other and set(classes) != set(other):
        raise SertoneError(
            "teacher_mismatch",
            f"train.teacher answers {', '.join(other)}",
            f"the classes of this run: {', '.join(classes)}",
        )
    both = {name: scale for name, scale in ratings.items() if name in scales}
    if not both and not (classes and other):
        raise SertoneError(
            "teacher_mismatch",
            f"train.teacher answers {', '.join([*other, *scales])}",
            f"something of what is to be learnt: {', '.join(['emotion'] * bool(classes) + list(ratings))}",
        )
    return both


def _require_unheard(about: Mapping, fold: Fold, card: Mapping) -> None:
    ids, speakers = contamination.find_overlap(fold.test, card, [about["card"]["heard"]])
    if ids or speakers:
        raise SertoneError(
            "teacher_trained_on_test",
            f"the teacher of fold {fold.name} was trained on {', '.join(speakers[:3] or ids[:3])}",
            "a teacher that has heard none of the test side",
            "cross-validate the teacher with the same protocol and name its run",
        )
