"""What the models of a predictor, one or those of all folds, say about utterances together.

Axis letters: N utterances, K classes.
"""

from collections.abc import Sequence

import numpy as np
from lightning_fabric import Fabric

from sertone.labels import Scale, rescaled
from sertone.schema import Utterance
from sertone.training.answers import Answers, answer
from sertone.training.loader import Loader
from sertone.training.predict import Predictor
from sertone.training.recordings import Recordings


def answers_of(
    predictor: Predictor, utterances: Sequence[Utterance], recordings: Recordings, fabric: Fabric
) -> list[Answers]:
    """What each model says, in the order of the utterances."""
    made = []
    for model, vocabulary in zip(predictor.models, predictor.vocabularies, strict=True):
        loader = Loader(recordings, vocabulary, predictor.min_samples)
        made.append(answer(model.to(fabric.device), vocabulary, utterances, loader, fabric))
    return made


def mean_probabilities(predictor: Predictor, answers: Sequence[Answers]) -> np.ndarray:
    """Mean of the models' calibrated probabilities, in the order of the predictor's classes: (N, K)."""
    pairs = zip(predictor.calibrations, answers, strict=True)
    return np.mean([by.probabilities(own.logits) for by, own in pairs], axis=0)


def mean_ratings(predictor: Predictor, answers: Sequence[Answers], name: str, scale: Scale) -> list[float]:
    """Mean of the models' ratings, brought to another scale: (N,)."""
    mean = np.mean([own.predictions[name] for own in answers], axis=0)
    return [rescaled(value, predictor.scales[name], scale) for value in mean.tolist()]
