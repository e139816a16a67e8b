"""Linear probes of one layer, trained on some speakers and tested on others.

For each fold, the training set standardises the features and chooses a penalty. Each inner part of the
training set is predicted by a probe that is trained on the other parts. The penalty with the best score over
all parts is taken. Ratings are predicted by ridge regression and scored by concordance, classes are
predicted by logistic regression. Classes count equally, however rare they are: the logarithm of a class's
share in training is subtracted from its logit. Speaker probes do without it, because their score is the share
of correct predictions.

Axis letters: N utterances, D features, T targets, K classes, P penalties, U speakers, F sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

from sertone.analysis.layers import solvers
from sertone.analysis.layers.targets import Target
from sertone.scoring import metrics
from sertone.scoring.sufficient_statistics import SufficientStatistics, count_confusions_by_unit

PENALTIES = (0.01, 0.1, 1.0, 10.0)
"""Candidate penalties, for standardised features (see `solvers`)."""
COARSE_TOLERANCE = 1e-2
"""Norm of the gradient at which logistic regression stops while a penalty is chosen. This halves the time.
One prediction in a hundred changes at the smallest penalty, fewer at larger ones."""

FoldOutput = tuple[np.ndarray, float]
"""Predictions of one fold's probe for all utterances, (N,), and its penalty."""


@dataclass(frozen=True)
class ProbeOutput:
    """Predictions of the probes of one target.

    Attributes:
        predictions: ratings or class indices, (N,); those that no fold tests have no meaning.
        penalties: chosen penalty of each fold.
    """

    predictions: np.ndarray
    penalties: list[float]


def probe(features: np.ndarray, targets: Sequence[Target]) -> dict[str, ProbeOutput]:
    """Probe one layer for some targets.

    Args:
        features: features of all utterances, (N, D).
        targets: targets to probe.

    Returns:
        name of the target -> output.
    """
    # Targets with the same utterances and folds share standardisation and products.
    groups: dict[bytes, list[Target]] = {}
    for target in targets:
        groups.setdefault(target.fold_layout, []).append(target)
    outputs: dict[str, ProbeOutput] = {}
    for group in groups.values():
        outputs |= _probe_group(features, group)
    return outputs


def sum_by_speaker(target: Target, output: ProbeOutput) -> np.ndarray:
    """Sum the statistics of each tested speaker, in the order of their names: (U, F).

    Args:
        target: the probed target.
        output: array for the results of its probes.
    """
    is_tested = target.test_folds >= 0
    labels = target.labels[is_tested]
    predictions = output.predictions[is_tested]
    speakers = target.speakers[is_tested]
    if target.score == "ccc":
        names, unit = np.unique(speakers, return_inverse=True)
        values = np.zeros((len(names), len(metrics.MOMENTS)))
        # Plain indexing would keep only the last row of each speaker.
        np.add.at(values, unit, metrics.compute_moments(labels, predictions))
        return values
    class_count = len(target.classes)
    if target.score == "wa":
        # With many speakers a full confusion matrix is large. Only correct (0) and wrong (1) are counted.
        class_count = 2
        predictions = (labels != predictions).astype(int)
        labels = np.zeros_like(labels)
    names = [str(number) for number in range(class_count)]
    counts = count_confusions_by_unit(labels.astype(str), predictions.astype(str), speakers, names)[1]
    return counts.reshape(len(counts), -1)


def build_statistics(target: Target, values: np.ndarray) -> SufficientStatistics:
    """Build the statistics to score from the results of `sum_by_speaker` for every layer, (L+1, U, F)."""
    if target.score == "ccc":
        return SufficientStatistics.from_moments(values[:, None])
    class_count = isqrt(values.shape[-1])
    counts = values.reshape(len(values), 1, -1, class_count, class_count)
    return SufficientStatistics.from_counts(counts)


def _probe_group(features: np.ndarray, group: Sequence[Target]) -> dict[str, ProbeOutput]:
    """Probe targets that have the same utterances and folds."""
    first = group[0]
    features = features[first.rows]
    ratings = [target for target in group if not target.classes]
    class_targets = [target for target in group if target.classes]
    outputs = {
        target.name: ProbeOutput(np.zeros(len(target.labels), target.labels.dtype), []) for target in group
    }
    for fold, parts in enumerate(first.parts):
        is_test = first.test_folds == fold
        scaled = _standardise(features, parts >= 0)
        if ratings:
            _store_outputs(outputs, ratings, is_test, _probe_ratings(scaled, ratings, parts))
        if class_targets:
            rotated, squares = solvers.rotate_features(scaled, parts >= 0)
            fold_outputs = [_probe_classes(rotated, squares, target, parts) for target in class_targets]
            _store_outputs(outputs, class_targets, is_test, fold_outputs)
    return outputs


def _store_outputs(
    outputs: dict[str, ProbeOutput],
    targets: Sequence[Target],
    is_test: np.ndarray,
    fold_outputs: Sequence[FoldOutput],
) -> None:
    """Store the predictions of one fold for its test set."""
    for target, (predictions, penalty) in zip(targets, fold_outputs, strict=True):
        outputs[target.name].predictions[is_test] = predictions[is_test]
        outputs[target.name].penalties.append(penalty)


def _standardise(features: np.ndarray, is_training: np.ndarray) -> np.ndarray:
    """Scale features to mean zero and deviation one over the training set. Constant features become zero."""
    mean = features[is_training].mean(0)
    deviation = features[is_training].std(0)
    # A deviation of rounding errors is none. Dividing by infinity gives zero.
    return (features - mean) / np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf)


def _probe_ratings(features: np.ndarray, targets: Sequence[Target], parts: np.ndarray) -> list[FoldOutput]:
    """Train the rating probes of one fold and return predictions and penalty of each target.

    The products of a training set are the sum over its parts. Without one part they are a difference, so no
    product is computed twice.
    """
    is_training = parts >= 0
    labels = np.stack([target.labels for target in targets], 1)
    centred = (labels - labels[is_training].mean(0)).astype(features.dtype)
    part_numbers = range(parts.max() + 1)
    count = len(targets)
    products = [
        solvers.compute_gram_matrix(features[parts == part], centred[parts == part]) for part in part_numbers
    ]
    total = np.sum(products, axis=0)
    inner_predictions = np.zeros((len(features), len(PENALTIES), count))
    for part in part_numbers:
        # Products of all other parts, so the part is predicted by a probe that has not seen it.
        weights = solvers.solve_ridge(total - products[part], count, PENALTIES)
        inner_predictions[parts == part] = _predict(features[parts == part], weights)
    outputs = []
    for number in range(count):
        scores = _score_concordance(centred[is_training, number], inner_predictions[is_training, :, number])
        penalty = _choose_penalty(scores)
        weights = solvers.solve_ridge(total, count, [penalty])
        predictions = _predict(features, weights)[:, 0, number] + labels[is_training, number].mean()
        outputs.append((predictions, penalty))
    return outputs


def _predict(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Apply intercepts and weights: (N, D), (1 + D, P, T) -> (N, P, T)."""
    flat = weights[1:].reshape(features.shape[1], -1).astype(features.dtype)
    return (features @ flat).reshape(len(features), *weights.shape[1:]) + weights[0]


def _probe_classes(
    features: np.ndarray, squares: np.ndarray, target: Target, parts: np.ndarray
) -> FoldOutput:
    """Train the class probe of one fold and return the predicted class indices and the penalty.

    Args:
        features: first result of `solvers.rotate_features`, (N, 1 + D).
        squares: second result of the same call.
        target: target with classes.
        parts: inner part of each training utterance; -1 in the test set.
    """
    is_training = parts >= 0
    inner_predictions = np.zeros((len(features), len(PENALTIES)), int)
    for part in range(parts.max() + 1):
        is_held_out = parts == part
        inner_predictions[is_held_out] = _train_and_predict(
            features, squares, target, is_training & ~is_held_out, is_held_out, PENALTIES, COARSE_TOLERANCE
        )
    penalty = _choose_penalty(_score_classes(target, is_training, inner_predictions))
    every_row = np.ones_like(is_training)
    predictions = _train_and_predict(
        features, squares, target, is_training, every_row, [penalty], solvers.TOLERANCE
    )
    return predictions[:, 0], penalty


def _train_and_predict(
    features: np.ndarray,
    squares: np.ndarray,
    target: Target,
    is_training: np.ndarray,
    is_predicted: np.ndarray,
    penalties: Sequence[float],
    tolerance: float,
) -> np.ndarray:
    """Train a class probe on some rows and predict others: (rows, P)."""
    one_hot = np.eye(len(target.classes), dtype=features.dtype)[target.labels]
    weights = solvers.solve_logistic(
        features[is_training], one_hot[is_training], squares, penalties, tolerance
    )
    logits = features[is_predicted] @ weights.reshape(features.shape[1], -1)
    logits = logits.reshape(-1, *weights.shape[1:])
    share = one_hot[is_training].mean(0)
    # The unweighted accuracy counts classes equally, so their shares in training must not help or hurt.
    prior = share if target.score == "ua" else np.ones_like(share)
    with np.errstate(divide="ignore"):
        # A class that does not occur in training is never predicted.
        return np.where(share > 0, logits - np.log(prior), -np.inf).argmax(2)


def _score_concordance(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return the CCC of each penalty: (N,), (N, P) -> (P,)."""
    sums = np.stack([metrics.compute_moments(labels, column).sum(0) for column in predictions.T])
    return metrics.score_moments(sums)["ccc"]


def _score_classes(target: Target, rows: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Return the target's score of each penalty over some rows, (P,)."""
    class_count = len(target.classes)
    labels = target.labels[rows]
    counts = np.zeros((predictions.shape[1], class_count, class_count), int)
    for table, column in zip(counts, predictions[rows].T, strict=True):
        np.add.at(table, (labels, column), 1)
    return metrics.score_confusions(counts)[target.score]


def _choose_penalty(scores: np.ndarray) -> float:
    """Return the penalty with the best score. Among equals the largest is taken."""
    # `argmax` returns the first maximum, so the scores are reversed.
    return PENALTIES[len(scores) - 1 - int(scores[::-1].argmax())]
