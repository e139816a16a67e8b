"""The test side of a fold: what the trained model says about it, how that scores, what is written down."""

from collections.abc import Collection, Sequence
from typing import Any

from sertone.errors import SertoneError
from sertone.models.stage import Stage
from sertone.schema import Utterance
from sertone.scoring import metrics
from sertone.training.experiment.experiment import Experiment
from sertone.training.fit.inference import Predictions, predict_utterances, score_tasks
from sertone.training.fit.trainer import Trainer
from sertone.training.testing.prediction_rows import score_predictions


def score_fold(trainer: Trainer, experiment: Experiment, number: int) -> dict[str, Any]:
    """Scores of every task, and what `scored` gives.

    Args:
        trainer: whose model is trained and on its device.
        experiment: of which it is a fold.
        number: of the fold.

    Returns:
        `metrics`; `auxiliary`, targets and answers of the tasks that the model is not for; and what `scored`
        gives, `rows` among it.
    """
    test = experiment.select_labelled(experiment.folds[number].test)
    answers = predict_utterances(trainer.model, trainer.vocabulary, test, trainer.loader, trainer.fabric)
    scores = _scores(trainer, experiment, test, answers, list(trainer.model.heads))
    return scores | build_predictions(trainer, experiment, test, answers, number)


def score_stage(trainer: Trainer, experiment: Experiment, number: int, stage: Stage) -> dict[str, Any]:
    """Score the tasks of a stage that has just ended; nothing random is drawn, and no weight changes.

    Args:
        trainer: at the end of the stage, its model on its device.
        experiment: of which it is a fold.
        number: of the fold.
        stage: the stage.

    Returns:
        `metrics` and `auxiliary`, as `tested` returns them; both are empty where the test side cannot be
        answered, since that must not end a training.
    """
    test = experiment.select_labelled(experiment.folds[number].test)
    try:
        answers = predict_utterances(trainer.model, trainer.vocabulary, test, trainer.loader, trainer.fabric)
    except SertoneError as error:
        trainer.progress.say(f"fold {number}  no scores after stage {stage.name}: {error}")
        return {"metrics": {}, "auxiliary": {}}
    return _scores(trainer, experiment, test, answers, stage.weights)


def _scores(
    trainer: Trainer,
    experiment: Experiment,
    test: Sequence[Utterance],
    answers: Predictions,
    tasks: Collection[str],
) -> dict[str, Any]:
    """Return `metrics` of these tasks, and `auxiliary`: targets and answers of those not asked for."""
    heads, vocabulary = trainer.model.heads, trainer.vocabulary
    kinds = {task: heads[task].metric for task in tasks if task != "speaker"}
    labels = {task: [vocabulary.find_label(task, u) for u in test] for task in kinds}
    scores: dict[str, dict[str, Any]] = dict(score_tasks(answers, labels, kinds))
    auxiliary = {
        task: {"targets": labels[task], "predictions": answers.by_task[task], "metric": kinds[task]}
        for task in scores
        if task not in experiment.tasks
    }
    if "speaker" in tasks:
        known = "known " if experiment.card["corpus"]["unknown_speakers"] else ""
        scores["speaker"] = {"note": f"not defined: {known}speakers are disjoint"}
    return {"metrics": scores, "auxiliary": auxiliary}


def build_predictions(
    trainer: Trainer, experiment: Experiment, test: Sequence[Utterance], answers: Predictions, number: int
) -> dict[str, Any]:
    """Answers as `scored` writes them down, with the trained model's calibration."""
    classes = experiment.classes
    calibrated = trainer.calibration.to_probabilities(answers.logits) if classes else None
    return score_predictions(
        test,
        experiment.class_map,
        classes,
        calibrated,
        answers.probabilities,
        trainer.calibration,
        ratings={task: answers.by_task[task] for task in experiment.ratings},
        fold=number,
        with_votes=any(u.votes for u in experiment.utterances),
    )


def describe_scores(experiment: Experiment, scores: dict[str, dict[str, float]]) -> str:
    """The main score of every task that the model is for, in one line."""
    words = []
    for task in experiment.tasks:
        if task in scores:
            score = metrics.MAIN_SCORES["emotion" if task == "emotion" else "ratings"]
            name = "UA" if task == "emotion" else f"CCC {task}"
            words.append(f"{name} {scores[task][score]:.3f}")
    return ", ".join(words)
