"""Calibration of a model: on a fold's validation speakers, or on the held-out predictions of a run.

The model is not trained on the validation speakers, but they choose the epoch, so it is better on them than
on others. The temperature may therefore lower the confidence and never raise it. Without validation speakers
the temperature is 1 and no prediction is unsure.

Axis letters: N utterances, K classes.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sertone.files import load_json
from sertone.schema import Utterance
from sertone.scoring import calibration
from sertone.scoring.calibration import Calibration
from sertone.sharing.model_folder import find_checkpoints
from sertone.training.fit.inference import predict_utterances
from sertone.training.fit.trainer import Trainer


def calibrate(trainer: Trainer) -> Calibration:
    """Fit temperature and threshold on the validation set, for the weights at the end of training."""
    find_label = trainer.vocabulary.find_label
    if "emotion" not in trainer.model.heads:
        return Calibration()
    labelled = [u for u in trainer.fold.validation if find_label("emotion", u)]
    if not labelled:
        return Calibration()
    trainer.model.to(trainer.fabric.device)  # training ends with the model on the CPU
    predictions = predict_utterances(
        trainer.model, trainer.vocabulary, labelled, trainer.loader, trainer.fabric
    )
    classes = trainer.vocabulary.classes["emotion"]
    targets = np.array([classes.index(str(find_label("emotion", u))) for u in labelled])
    speakers = _list_known_speakers(labelled)
    return calibration.fit_calibration(predictions.logits, targets, trainer.config.coverage, speakers)


def _list_known_speakers(utterances: Sequence[Utterance]) -> list[str]:
    return [u.speaker for u in utterances if u.known_speaker]


def calibrate_on_held_out(run: Path, coverage: float | None) -> Calibration:
    """Fit the calibration of a model trained on all data, on the test predictions of a cross-validation.

    With several folds the note states the expected calibration error before and after. For the error after,
    each fold is calibrated on the others.

    Args:
        run: a finished cross-validation of the same recipe.
        coverage: share of recordings that should get a sure prediction.
    """
    results = [load_json(folder.parent / "result.json", "not_a_run") for folder in find_checkpoints(run)]
    rows = [row | _recover_logits(row, fold) for fold in results for row in fold["rows"] if row["target"]]
    logits = np.array([row["logits"] for row in rows])  # (N, K)
    folds = np.array([row["fold"] for row in rows])
    targets = np.array([row["index"] for row in rows])
    speakers = [row["speaker"] for row in rows if row["speaker"]]
    fitted = calibration.fit_calibration(logits, targets, coverage, speakers, chose_epoch=False)
    if len(np.unique(folds)) < 2:  # there is no other fold to measure the calibration on
        return fitted
    calibrated = calibration.softmax(logits)
    before = calibration.compute_calibration_scores(calibrated, targets)["ece"]
    for fold in np.unique(folds):
        outside = folds != fold
        from_others = calibration.fit_calibration(logits[outside], targets[outside], chose_epoch=False)
        calibrated[~outside] = from_others.to_probabilities(logits[~outside])
    after = calibration.compute_calibration_scores(calibrated, targets)["ece"]
    error = f"expected calibration error {before:.3f} before, {after:.3f} after, each fold by the others"
    return replace(fitted, note=f"{fitted.note}; {error}")


def _recover_logits(row: dict, fold: dict) -> dict:
    """Return the logits of a row before the temperature of its fold, and its target as an index.

    Args:
        row: a row of predictions.csv with probabilities `p_CLASS`.
        fold: its `result.json`, which states the temperature.
    """
    probabilities = {name.removeprefix("p_"): value for name, value in row.items() if name.startswith("p_")}
    # A probability that underflowed to zero has no logarithm.
    smallest = np.finfo(np.float32).tiny
    temperature = fold["confidence"]["calibration"]["temperature"]
    logits = temperature * np.log(np.maximum([*probabilities.values()], smallest))
    return {"logits": logits, "index": list(probabilities).index(row["target"])}


def score_confidence(rows: Sequence[dict], classes: Sequence[str], folds: Sequence[dict]) -> dict:
    """Score the confidence on the test sets of all folds, each fold with its own calibration.

    Args:
        rows: rows of predictions.csv.
        classes: names.
        folds: `confidence` of each, as `score_predictions` gives it.
    """
    probabilities = [[row[f"p_{name}"] for name in classes] for row in rows]
    targets = [classes.index(row["target"]) for row in rows]
    sums = {key: sum(fold[key] for fold in folds) for key in ("sure", "sure_and_right")}
    scores = calibration.compute_calibration_scores(probabilities, targets)
    return scores | calibration.compute_calibration_curves(probabilities, targets) | sums
