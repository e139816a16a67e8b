"""What a trained model, one or those of all folds, say about utterances together.

Axis letters: N utterances, K classes.
"""

from collections.abc import Sequence

import numpy as np
from lightning_fabric import Fabric

from sertone.labels import Scale, rescale
from sertone.schema import Utterance
from sertone.training.data.loader import Loader
from sertone.training.data.recordings import Recordings
from sertone.training.fit.inference import Predictions, predict_utterances
from sertone.training.testing.trained import TorchModel


def predict_per_model(
    trained: TorchModel, utterances: Sequence[Utterance], recordings: Recordings, fabric: Fabric
) -> list[Predictions]:
    """What each model says, in the order of the utterances."""
    made = []
    for model, vocabulary in zip(trained.models, trained.vocabularies, strict=True):
        loader = Loader(recordings, vocabulary, trained.min_samples)
        made.append(predict_utterances(model.to(fabric.device), vocabulary, utterances, loader, fabric))
    return made


def average_probabilities(trained: TorchModel, answers: Sequence[Predictions]) -> np.ndarray:
    """Mean of the models' calibrated probabilities, in the order of the model's classes: (N, K)."""
    pairs = zip(trained.calibrations, answers, strict=True)
    return np.mean([by.to_probabilities(own.logits) for by, own in pairs], axis=0)


def average_ratings(
    trained: TorchModel, answers: Sequence[Predictions], name: str, scale: Scale
) -> list[float]:
    """Mean of the models' ratings, brought to another scale: (N,)."""
    mean = np.mean([own.by_task[name] for own in answers], axis=0)
    return [rescale(value, trained.scales[name], scale) for value in mean.tolist()]
