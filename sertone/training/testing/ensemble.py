"""Predictions of the models of all folds for utterances, and their mean.

A separate file, because it needs the training loop: a trained model alone predicts without it.
Axis letters: N utterances, K classes.
"""

from collections.abc import Sequence

import numpy as np
from lightning_fabric import Fabric

from sertone.labels import Scale, rescale
from sertone.schema import Utterance
from sertone.training.data.loader import Loader
from sertone.training.data.recordings import Recordings
from sertone.training.data.waveforms import Waveforms
from sertone.training.fit.inference import Predictions, predict_utterances
from sertone.training.testing.trained import TorchModel


def predict_per_model(
    trained: TorchModel, utterances: Sequence[Utterance], recordings: Recordings, fabric: Fabric
) -> list[Predictions]:
    """Return the predictions of each model, in the order of the utterances."""
    predictions = []
    for model, vocabulary in zip(trained.models, trained.vocabularies, strict=True):
        loader = Loader(Waveforms(recordings), vocabulary, trained.min_samples)
        model.to(fabric.device)
        predictions.append(predict_utterances(model, vocabulary, utterances, loader, fabric))
    return predictions


def average_probabilities(trained: TorchModel, predictions: Sequence[Predictions]) -> np.ndarray:
    """Average the models' calibrated probabilities, in the order of the model's classes: (N, K)."""
    pairs = zip(trained.calibrations, predictions, strict=True)
    calibrated = [calibration.to_probabilities(of_model.logits) for calibration, of_model in pairs]
    return np.mean(calibrated, axis=0)


def average_ratings(
    trained: TorchModel, predictions: Sequence[Predictions], name: str, scale: Scale
) -> list[float]:
    """Average the models' ratings and convert them to another scale: (N,)."""
    mean = np.mean([of_model.by_task[name] for of_model in predictions], axis=0)
    return [rescale(value, trained.scales[name], scale) for value in mean.tolist()]
