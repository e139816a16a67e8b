"""The test side of a fold: what the trained model says about it, how that scores, what is written down."""

from collections.abc import Sequence
from typing import Any

from sertone import metrics
from sertone.schema import Utterance
from sertone.training.answers import Answers, answer, score_tasks
from sertone.training.experiment import Experiment
from sertone.training.loop import Trainer
from sertone.training.scored import scored

SPEAKER_NOTE = "not defined: speakers are disjoint"


def tested(trainer: Trainer, experiment: Experiment, number: int) -> dict[str, Any]:
    """Scores of every task, and what `scored` gives.

    Args:
        trainer: whose model is trained and on its device.
        experiment: of which it is a fold.
        number: of the fold.

    Returns:
        `metrics`; `auxiliary`, targets and answers of the tasks that the model is not for; and what `scored`
        gives, `rows` among it.
    """
    test, heads = experiment.scored(experiment.folds[number].test), trainer.model.heads
    answers = answer(trainer.model, trainer.vocabulary, test, trainer.loader, trainer.fabric)
    labels = {task: [trainer.vocabulary.label(task, u) for u in test] for task in heads}
    kinds = {task: head.metric for task, head in heads.items() if task != "speaker"}
    scores: dict[str, dict[str, Any]] = dict(score_tasks(answers, labels, kinds))
    auxiliary = {
        task: {"targets": labels[task], "predictions": answers.predictions[task], "metric": kinds[task]}
        for task in scores
        if task not in experiment.answers
    }
    if "speaker" in heads:
        scores["speaker"] = {"note": SPEAKER_NOTE}
    return {"metrics": scores, "auxiliary": auxiliary} | written(trainer, experiment, test, answers, number)


def written(
    trainer: Trainer, experiment: Experiment, test: Sequence[Utterance], answers: Answers, number: int
) -> dict[str, Any]:
    """Answers as `scored` writes them down, with the trained model's calibration."""
    classes = experiment.classes
    calibrated = trainer.calibration.probabilities(answers.logits) if classes else None
    return scored(
        test,
        experiment.class_map,
        classes,
        calibrated,
        answers.probabilities,
        trainer.calibration,
        ratings={task: answers.predictions[task] for task in experiment.ratings},
        fold=number,
        with_votes=any(u.votes for u in experiment.utterances),
    )


def in_words(experiment: Experiment, scores: dict[str, dict[str, float]]) -> str:
    """The main score of every task that the model is for, in one line."""
    words = []
    for task in experiment.answers:
        if task in scores:
            score = metrics.MAIN["emotion" if task == "emotion" else "ratings"]
            name = "UA" if task == "emotion" else f"CCC {task}"
            words.append(f"{name} {scores[task][score]:.3f}")
    return ", ".join(words)
