"""What a model says about utterances, and how that scores."""

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


@dataclass
class Predictions:
    """What a model says about utterances.

    Attributes:
        predictions: task -> answer per utterance: a class, a text, or a rating on the corpus's scale.
        logits: of the emotion classes, (utterances, K); K is 0 where the model has none.
        probabilities: of the emotion classes, (utterances, K); not calibrated as `answer` gives them.
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
    """What a model says about utterances, each task; the mode of the model is restored.

    Args:
        model: on the device of `fabric`.
        vocabulary: of its outputs.
        utterances: which.
        loader: makes the batches.
        fabric: device and precision.
        withheld: `audio` or `text` that the model shall do without.

    Raises:
        SertoneError: `out_of_memory`, `diverged`.
    """
    was_training = model.training
    model.eval()
    predictions: dict[str, list] = {task: [None] * len(utterances) for task in model.heads}
    logits = np.zeros((len(utterances), len(vocabulary.classes["emotion"])))
    seconds = [loader.recordings.lengths[u.id] / SAMPLING_RATE for u in utterances]
    plan = plan_batches(seconds, batch_seconds=EVALUATION_SECONDS)
    rows = [[BatchItem(utterances[i], 1.0, withheld) for i in indices] for indices in plan]
    for indices, batch in zip(plan, loader.batches(rows, []), strict=True):
        outputs = _outputs(model, batch, fabric, [utterances[i] for i in indices])
        for task, head in model.heads.items():
            for i, value in zip(indices, head.decode(outputs[task]), strict=True):
                predictions[task][i] = value
        if "emotion" in outputs:
            logits[indices] = outputs["emotion"].logits.float().cpu().numpy()
    model.train(was_training)
    known = calibration.softmax(logits) if logits.size else logits
    return Predictions(predictions, logits, known)


def _outputs(
    model: EmotionModel, batch: Batch, fabric: Fabric, utterances: Sequence[Utterance]
) -> dict[str, HeadOutput]:
    """Answer a batch.

    Raises:
        SertoneError: `out_of_memory`; `diverged`, where an answer is no number.
    """
    with report_out_of_memory(utterances, batch.lengths), fabric.autocast():
        outputs = model(batch.to(fabric.device))
    for task, output in outputs.items():
        if not output.logits.isfinite().all():
            raise SertoneError(
                "diverged",
                f"the model's answer about {task} is no finite number, of one of "
                f"{', '.join(u.id for u in utterances[:5])}",
                "finite answers, or there is no score",
                f"{DIVERGENCE_ADVICE}, or look at these recordings",
            )
    return outputs


def score_tasks(
    answers: Predictions, labels: Mapping[str, Sequence[str | float | None]], kinds: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Scores of every task that has labels.

    Args:
        answers: of the model.
        labels: task -> true answer per utterance, None where it is missing.
        kinds: task -> name in `metrics.SCORES`.
    """
    scores = {}
    for task, kind in kinds.items():
        both = zip(labels[task], answers.by_task[task], strict=True)
        pairs: list[tuple[Any, Any]] = [(t, p) for t, p in both if t not in (None, "")]
        if pairs:
            scores[task] = metrics.SCORES[kind]([t for t, _ in pairs], [p for _, p in pairs])
    return scores
