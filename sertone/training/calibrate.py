"""Calibration of a fold's model on its validation speakers, and what its confidence is worth on the others.

The validation speakers are not trained on, but they chose the epoch: on them a model is better than on
others, so the temperature may lower its confidence and never raise it. Without validation speakers the
temperature is 1 and nothing is unsure.
"""

from collections.abc import Sequence

import numpy as np

from sertone import calibration
from sertone.calibration import Calibration
from sertone.nn.vocabulary import Vocabulary
from sertone.schema import Utterance
from sertone.training.answers import Answers, answer
from sertone.training.loop import Trainer


def calibrate(trainer: Trainer) -> Calibration:
    """Temperature and threshold from the validation side, for the weights that the training ended with."""
    label = trainer.vocabulary.label
    side = [u for u in trainer.fold.validation if label("emotion", u)]
    if not side:
        return Calibration()
    trainer.model.to(trainer.fabric.device)
    answers = answer(trainer.model, trainer.vocabulary, side, trainer.loader, trainer.fabric)
    targets = _targets(trainer.vocabulary, side)
    return calibration.fit(answers.logits, targets, trainer.config.coverage, [u.speaker for u in side])


def fold_scores(answers: Answers, by: Calibration, vocabulary: Vocabulary, test: Sequence[Utterance]) -> dict:
    """Confidence of one fold's test side.

    Args:
        answers: with calibrated probabilities.
        by: that calibration.
        vocabulary: of the answers.
        test: utterances.

    Returns:
        the calibration; scores `before` and `after` it; of the answers that are not unsure, how many
        there are and how many are right.
    """
    targets, after = _targets(vocabulary, test), answers.probabilities
    sure = after.max(1) >= (by.threshold or 0.0)
    return {
        "calibration": by.to_json(),
        "before": calibration.scores(calibration.probabilities(answers.logits), targets),
        "after": calibration.scores(after, targets),
        "sure": int(sure.sum()),
        "sure_and_right": int((sure & (after.argmax(1) == targets)).sum()),
    }


def pooled_scores(rows: Sequence[dict], classes: Sequence[str], folds: Sequence[dict]) -> dict:
    """Confidence over the test sides of all folds, each with its own calibration.

    Args:
        rows: of predictions.csv.
        classes: names.
        folds: what `fold_scores` gave.
    """
    probabilities = [[row[f"p_{name}"] for name in classes] for row in rows]
    targets = [classes.index(row["target"]) for row in rows]
    sums = {key: sum(fold[key] for fold in folds) for key in ("sure", "sure_and_right")}
    return calibration.scores(probabilities, targets) | calibration.curves(probabilities, targets) | sums


def _targets(vocabulary: Vocabulary, utterances: Sequence[Utterance]) -> np.ndarray:
    classes = vocabulary.classes["emotion"]
    return np.array([classes.index(str(vocabulary.label("emotion", u))) for u in utterances])
