"""Calibration of a fold's model on its validation speakers, and what its confidence is worth on the others.

The validation speakers are not trained on, but they chose the epoch: on them a model is better than on
others, so the temperature may lower its confidence and never raise it. Without validation speakers the
temperature is 1 and nothing is unsure.
"""

from collections.abc import Sequence

import numpy as np

from sertone import calibration
from sertone.calibration import Calibration
from sertone.training.answers import answer
from sertone.training.loop import Trainer


def calibrate(trainer: Trainer) -> Calibration:
    """Temperature and threshold from the validation side, for the weights that the training ended with."""
    label = trainer.vocabulary.label
    if "emotion" not in trainer.model.heads:
        return Calibration()
    side = [u for u in trainer.fold.validation if label("emotion", u)]
    if not side:
        return Calibration()
    trainer.model.to(trainer.fabric.device)
    answers = answer(trainer.model, trainer.vocabulary, side, trainer.loader, trainer.fabric)
    classes = trainer.vocabulary.classes["emotion"]
    targets = np.array([classes.index(str(label("emotion", u))) for u in side])
    return calibration.fit(answers.logits, targets, trainer.config.coverage, [u.speaker for u in side])


def pooled_scores(rows: Sequence[dict], classes: Sequence[str], folds: Sequence[dict]) -> dict:
    """Confidence over the test sides of all folds, each with its own calibration.

    Args:
        rows: of predictions.csv.
        classes: names.
        folds: `confidence` of each, as `scored` gives it.
    """
    probabilities = [[row[f"p_{name}"] for name in classes] for row in rows]
    targets = [classes.index(row["target"]) for row in rows]
    sums = {key: sum(fold[key] for fold in folds) for key in ("sure", "sure_and_right")}
    return calibration.scores(probabilities, targets) | calibration.curves(probabilities, targets) | sums
