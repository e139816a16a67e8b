"""Predict utterances with a model in training, and score the predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.models.contract import EmotionModel
from sertone.nn.batch import Batch
from sertone.nn.heads import HeadOutput
from sertone.nn.vocabulary import Vocabulary
from sertone.schema import Utterance
from sertone.scoring import calibration, metrics
from sertone.training.data.batches import plan_batches
from sertone.training.data.loader import BatchItem, Loader
from sertone.training.fit.epoch_statistics import DIVERGENCE_ADVICE
from sertone.training.fit.step import report_out_of_memory

EVALUATION_SECONDS = 60.0
"""The seconds of audio in a batch without gradients."""


@dataclass
class Predictions:
    """The predictions of a model for some utterances.

    Attributes:
        by_task: task -> prediction per utterance: a class, a text, or a rating on the corpus's scale.
        logits: logits of the emotion classes, (utterances, K); K is 0 for a model without emotions.
        probabilities: probabilities of the emotion classes, (utterances, K); not calibrated by
            `predict_utterances`.
    """

    by_task: dict[str, list]
    logits: np.ndarray
    probabilities: np.ndarray


@torch.no_grad()
def predict_utterances(
    model: EmotionModel,
    vocabulary: Vocabulary,
    utterances: Sequence[Utterance],
    loader: Loader,
    fabric: Fabric,
    withheld: str = "",
) -> Predictions:
    """Predict utterances for all tasks, in eval mode; the mode of the model is restored.

    Args:
        model: model on the device of `fabric`.
        vocabulary: vocabulary of its outputs.
        utterances: utterances to predict.
        loader: makes the batches.
        fabric: device and precision.
        withheld: the modality that the model does not get, `audio` or `text`; empty: none.

    Raises:
        SertoneError: `out_of_memory`, `diverged`.
    """
    was_training = model.training
    model.eval()
    by_task: dict[str, list] = {task: [None] * len(utterances) for task in model.heads}
    # Batches come in another order than the utterances, so results go to their index.
    logits = np.zeros((len(utterances), len(vocabulary.classes["emotion"])))
    seconds = [loader.waveforms.recordings.lengths[u.id] / SAMPLING_RATE for u in utterances]
    # Without a random generator the batches come in order of length, which pads least.
    plan = plan_batches(seconds, batch_seconds=EVALUATION_SECONDS)
    items = [[BatchItem(utterances[i], 1.0, withheld) for i in indices] for indices in plan]
    for indices, batch in zip(plan, loader.batches(items, []), strict=True):
        outputs = _run_model(model, batch, fabric, [utterances[i] for i in indices])
        for task, head in model.heads.items():
            for i, value in zip(indices, head.decode(outputs[task]), strict=True):
                by_task[task][i] = value
        if "emotion" in outputs:
            logits[indices] = outputs["emotion"].logits.float().cpu().numpy()
    model.train(was_training)
    probabilities = calibration.softmax(logits) if logits.size else logits
    return Predictions(by_task, logits, probabilities)


def _run_model(
    model: EmotionModel, batch: Batch, fabric: Fabric, utterances: Sequence[Utterance]
) -> dict[str, HeadOutput]:
    """Return the outputs of a model for a batch.

    Raises:
        SertoneError: `out_of_memory`; `diverged`, where an output is not finite.
    """
    with report_out_of_memory(utterances, batch.lengths), fabric.autocast():
        outputs = model(batch.to(fabric.device))
    for task, output in outputs.items():
        if not output.logits.isfinite().all():
            raise SertoneError(
                "diverged",
                f"the model's output for {task} is not finite, for one of "
                f"{', '.join(u.id for u in utterances[:5])}",
                "finite outputs, which scores require",
                f"{DIVERGENCE_ADVICE}, or look at these recordings",
            )
    return outputs


def score_tasks(
    predictions: Predictions, labels: Mapping[str, Sequence[str | float | None]], kinds: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Score every task that has labels.

    Args:
        predictions: predictions of the model.
        labels: task -> true label per utterance, None where it is missing.
        kinds: task -> name in `metrics.SCORES`.
    """
    scores = {}
    for task, kind in kinds.items():
        # An utterance without a label of this task does not count, also where it has others.
        both = zip(labels[task], predictions.by_task[task], strict=True)
        pairs: list[tuple[Any, Any]] = [(label, value) for label, value in both if label not in (None, "")]
        if pairs:
            targets = [label for label, _ in pairs]
            scores[task] = metrics.SCORES[kind](targets, [value for _, value in pairs])
    return scores


def score_main_tasks(
    model: EmotionModel,
    vocabulary: Vocabulary,
    utterances: Sequence[Utterance],
    loader: Loader,
    fabric: Fabric,
) -> dict[str, float]:
    """Return the main score of each task that the model is for, where the utterances have labels.

    The arguments and errors are those of `predict_utterances`.
    """
    predictions = predict_utterances(model, vocabulary, utterances, loader, fabric)
    kinds = {task: model.heads[task].metric for task in model.config.main_tasks}
    labels = {task: [vocabulary.find_label(task, u) for u in utterances] for task in kinds}
    scores = score_tasks(predictions, labels, kinds)
    return {task: values[metrics.MAIN_SCORES[kinds[task]]] for task, values in scores.items()}
