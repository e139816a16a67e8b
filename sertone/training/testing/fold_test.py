"""The test of a fold: what the trained model predicts on the test set, and how that scores.

A model that uses text is also tested with less of its input (`predict_by_condition`). Under every condition
it predicts the same test utterances, those that have text. Errors of speech recognition are simulated: words
are replaced at a given rate by other words of the training set (`transcripts.noise`).
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sertone.errors import SertoneError
from sertone.labels import has_words
from sertone.models.stage import Stage
from sertone.schema import Utterance
from sertone.scoring import metrics
from sertone.training.experiment.experiment import Experiment
from sertone.training.fit.inference import Predictions, predict_utterances, score_tasks
from sertone.training.fit.trainer import Trainer
from sertone.training.testing.prediction_rows import PROBABILITY_PREFIX, score_predictions
from sertone.transcripts.noise import add_word_errors, list_words

WITHHELD = {"audio and text": "", "audio alone": "text", "text alone": "audio"}
"""Condition -> modality that is withheld."""
WITHHELD_FROM_TEXT_MODEL = {"text": ""}
"""Condition -> modality that is withheld, for a model that uses no audio."""


def score_fold(trainer: Trainer, experiment: Experiment, number: int) -> dict[str, Any]:
    """Score every task on the test set of a fold.

    Args:
        trainer: its model is trained and on its device.
        experiment: the experiment that the fold belongs to.
        number: number of the fold.

    Returns:
        `metrics`; `auxiliary`, targets and predictions of the auxiliary tasks; and what `score_predictions`
        returns, `rows` among it.
    """
    test = experiment.select_labelled(experiment.folds[number].test)
    predictions = predict_utterances(trainer.model, trainer.vocabulary, test, trainer.loader, trainer.fabric)
    scores = _score_tasks(trainer, experiment, test, predictions, list(trainer.model.heads))
    return scores | _build_rows(trainer, experiment, test, predictions, number)


def score_stage(experiment: Experiment, number: int, trainer: Trainer, stage: Stage) -> dict[str, Any]:
    """Score the tasks of a stage that has just ended; nothing random is drawn, and no weight changes.

    Args:
        experiment: the experiment that the fold belongs to.
        number: number of the fold.
        trainer: trainer at the end of the stage, its model on its device.
        stage: the stage.

    Returns:
        `metrics` and `auxiliary`, as `score_fold` returns them. Both are empty where the model cannot predict
        the test set, since that must not end a training.
    """
    test = experiment.select_labelled(experiment.folds[number].test)
    try:
        predictions = predict_utterances(
            trainer.model, trainer.vocabulary, test, trainer.loader, trainer.fabric
        )
    except SertoneError as error:
        trainer.progress.say(f"fold {number}  no scores after stage {stage.name}: {error}")
        return {"metrics": {}, "auxiliary": {}}
    return _score_tasks(trainer, experiment, test, predictions, stage.weights)


def _score_tasks(
    trainer: Trainer,
    experiment: Experiment,
    test: Sequence[Utterance],
    predictions: Predictions,
    tasks: Collection[str],
) -> dict[str, Any]:
    """Return `metrics` of these tasks, and `auxiliary`: targets and predictions of the auxiliary ones."""
    heads, vocabulary = trainer.model.heads, trainer.vocabulary
    kinds = {task: heads[task].metric for task in tasks if task != "speaker"}
    labels = {task: [vocabulary.find_label(task, u) for u in test] for task in kinds}
    scores: dict[str, dict[str, Any]] = dict(score_tasks(predictions, labels, kinds))
    auxiliary = {
        task: {"targets": labels[task], "predictions": predictions.by_task[task], "metric": kinds[task]}
        for task in scores
        if task not in experiment.tasks
    }
    if "speaker" in tasks:  # a test speaker is no class that the head has learned
        qualifier = "known " if experiment.card["corpus"]["unknown_speakers"] else ""
        scores["speaker"] = {"note": f"not defined: {qualifier}speakers are disjoint"}
    return {"metrics": scores, "auxiliary": auxiliary}


def _build_rows(
    trainer: Trainer, experiment: Experiment, test: Sequence[Utterance], predictions: Predictions, number: int
) -> dict[str, Any]:
    """Return what `score_predictions` makes of the predictions, with the trained model's calibration."""
    classes = experiment.classes
    calibrated = trainer.calibration.to_probabilities(predictions.logits) if classes else None
    return score_predictions(
        test,
        experiment.class_map,
        classes,
        calibrated,
        predictions.probabilities,
        trainer.calibration,
        ratings={task: predictions.by_task[task] for task in experiment.ratings},
        fold=number,
        with_votes=any(u.votes for u in experiment.utterances),
    )


def describe_scores(experiment: Experiment, scores: dict[str, dict[str, float]]) -> str:
    """Return the main score of every task that the model is for, in one line."""
    texts = []
    for task in experiment.tasks:
        if task in scores:
            score = metrics.MAIN_SCORES["emotion" if task == "emotion" else "ratings"]
            name = "UA" if task == "emotion" else f"CCC {task}"
            texts.append(f"{name} {scores[task][score]:.3f}")
    return ", ".join(texts)


def predict_by_condition(trainer: Trainer, experiment: Experiment, number: int) -> dict[str, list[dict]]:
    """Predict under every condition; return rows of predictions.csv by condition.

    The result is empty where no test utterance has text.

    Args:
        trainer: its model is trained and on its device.
        experiment: the experiment that the fold belongs to.
        number: number of the fold.
    """
    test = experiment.select_labelled(experiment.folds[number].test)
    spoken = [u for u in test if has_words(u.text)]
    if not spoken:
        return {}
    conditions = WITHHELD if trainer.model.encoder.width else WITHHELD_FROM_TEXT_MODEL
    rows = {
        name: _predict_condition(trainer, experiment, spoken, number, withheld)
        for name, withheld in conditions.items()
    }
    words = list_words(u.text for u in trainer.fold.train if u.text)
    # An error replaces a word by another one, so it takes at least two.
    rates = experiment.recipe.data.text.error_rates if len(words) > 1 else []
    for rate in rates:
        name = f"{next(iter(conditions))} of {rate:.0%} WER"
        noisy = [
            replace(u, text=add_word_errors(u.text or "", rate, words, trainer.config.seed)) for u in spoken
        ]
        rows[name] = _predict_condition(trainer, experiment, noisy, number, "")
    return rows


def _predict_condition(
    trainer: Trainer, experiment: Experiment, test: Sequence[Utterance], number: int, withheld: str
) -> list[dict]:
    """Return the rows of predictions.csv without the probabilities, which no score of a condition needs."""
    predictions = predict_utterances(
        trainer.model, trainer.vocabulary, test, trainer.loader, trainer.fabric, withheld
    )
    rows = _build_rows(trainer, experiment, test, predictions, number)["rows"]
    return [
        {key: value for key, value in row.items() if not key.startswith(PROBABILITY_PREFIX)} for row in rows
    ]
