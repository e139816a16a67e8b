"""Calibration of a fold's model on its validation speakers, and what its confidence is worth on the others.

The validation speakers are not trained on, but they chose the epoch: on them a model is better than on
others, so the temperature may lower its confidence and never raise it. Without validation speakers the
temperature is 1 and nothing is unsure.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sertone.files import read_json
from sertone.schema import Utterance
from sertone.scoring import calibration
from sertone.scoring.calibration import Calibration
from sertone.sharing.model_folder import find_checkpoints
from sertone.training.fit.inference import predict_utterances
from sertone.training.fit.trainer import Trainer


def calibrate(trainer: Trainer) -> Calibration:
    """Temperature and threshold from the validation side, for the weights that the training ended with."""
    label = trainer.vocabulary.find_label
    if "emotion" not in trainer.model.heads:
        return Calibration()
    side = [u for u in trainer.fold.validation if label("emotion", u)]
    if not side:
        return Calibration()
    trainer.model.to(trainer.fabric.device)
    answers = predict_utterances(trainer.model, trainer.vocabulary, side, trainer.loader, trainer.fabric)
    classes = trainer.vocabulary.classes["emotion"]
    targets = np.array([classes.index(str(label("emotion", u))) for u in side])
    return calibration.fit_calibration(answers.logits, targets, trainer.config.coverage, _known(side))


def _known(side: Sequence[Utterance]) -> list[str]:
    return [u.speaker for u in side if u.known_speaker]


def calibrate_on_held_out(run: Path, coverage: float | None) -> Calibration:
    """What calibrates a model that was trained on all data: the held-out answers of a cross-validation.

    Of several folds the note says what that is worth: the expected calibration error, each fold calibrated on
    the others.

    Args:
        run: a finished cross-validation of the same recipe.
        coverage: share of recordings that shall get an answer.
    """
    results = [read_json(folder.parent / "result.json", "not_a_run") for folder in find_checkpoints(run)]
    rows = [row | _raw(row, fold) for fold in results for row in fold["rows"] if row["target"]]
    logits, folds = np.array([row["logits"] for row in rows]), np.array([row["fold"] for row in rows])
    targets, speakers = (
        np.array([row["index"] for row in rows]),
        [row["speaker"] for row in rows if row["speaker"]],
    )
    own = calibration.fit_calibration(logits, targets, coverage, speakers, chose_epoch=False)
    if len(np.unique(folds)) < 2:
        return own
    calibrated = calibration.softmax(logits)
    before = calibration.compute_calibration_scores(calibrated, targets)["ece"]
    for fold in np.unique(folds):
        others = calibration.fit_calibration(logits[folds != fold], targets[folds != fold], chose_epoch=False)
        calibrated[folds == fold] = others.to_probabilities(logits[folds == fold])
    after = calibration.compute_calibration_scores(calibrated, targets)["ece"]
    worth = f"expected calibration error {before:.3f} before, {after:.3f} after, each fold by the others"
    return replace(own, note=f"{own.note}; {worth}")


def _raw(row: dict, fold: dict) -> dict:
    """Logits of a row, before its own fold's temperature, and its target as an index."""
    shares = {name.removeprefix("p_"): share for name, share in row.items() if name.startswith("p_")}
    tiny = np.finfo(np.float32).tiny
    logits = fold["confidence"]["calibration"]["temperature"] * np.log(np.maximum([*shares.values()], tiny))
    return {"logits": logits, "index": list(shares).index(row["target"])}


def score_confidence(rows: Sequence[dict], classes: Sequence[str], folds: Sequence[dict]) -> dict:
    """Confidence over the test sides of all folds, each with its own calibration.

    Args:
        rows: of predictions.csv.
        classes: names.
        folds: `confidence` of each, as `scored` gives it.
    """
    probabilities = [[row[f"p_{name}"] for name in classes] for row in rows]
    targets = [classes.index(row["target"]) for row in rows]
    sums = {key: sum(fold[key] for fold in folds) for key in ("sure", "sure_and_right")}
    return (
        calibration.compute_calibration_scores(probabilities, targets)
        | calibration.compute_calibration_curves(probabilities, targets)
        | sums
    )
