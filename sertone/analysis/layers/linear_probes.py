"""What one layer tells: linear probes, trained on some speakers and tested on others.

Of each fold the training side standardises the features and chooses a penalty: each of its parts is
answered by a probe of the others, and the penalty with the best score over all parts is taken. Ratings are
answered by ridge regression and scored by concordance, classes by logistic regression. Classes count the
same however rare: the logarithm of a class's share in training is taken from its logit (but not where
speakers are told apart, whose score is the share of right answers).

Axis letters: N utterances, D features, T targets, K classes, P penalties, U speakers, F sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

from sertone.analysis.layers import solvers
from sertone.analysis.layers.targets import Target
from sertone.scoring import metrics
from sertone.scoring.sufficient_statistics import SufficientStatistics, count_confusions_by_unit

PENALTIES = (0.01, 0.1, 1.0, 10.0)
"""Among which one is chosen; of standardised features, see `solvers`."""
ROUGH = 1e-2
"""Norm of the gradient at which logistic regression stops while a penalty is chosen: half of the time, and
one answer in a hundred changes at the smallest penalty, fewer at larger ones."""


@dataclass(frozen=True)
class ProbeOutput:
    """What the probes of one target answered.

    Attributes:
        answers: ratings or numbers of classes, (N,); those that no fold tests mean nothing.
        penalties: chosen by each fold.
    """

    predictions: np.ndarray
    penalties: list[float]


def probe(features: np.ndarray, targets: Sequence[Target]) -> dict[str, ProbeOutput]:
    """Probes one layer for some targets; those with the same utterances and folds share their products.

    Args:
        features: of all utterances, (N, D).
        targets: questions about them.

    Returns:
        by name of the target.
    """
    groups: dict[bytes, list[Target]] = {}
    for target in targets:
        groups.setdefault(target.fold_layout, []).append(target)
    return {name: found for group in groups.values() for name, found in _probe(features, group).items()}


def sum_by_speaker(target: Target, probed: ProbeOutput) -> np.ndarray:
    """What adds up over the speakers whom some fold tests, in the order of their names: (U, F).

    Of many speakers' names only right and wrong are counted.
    """
    scored = target.test_folds >= 0
    truth, answers, speakers = target.labels[scored], probed.predictions[scored], target.speakers[scored]
    if target.score == "ccc":
        names, unit = np.unique(speakers, return_inverse=True)
        values = np.zeros((len(names), len(metrics.MOMENTS)))
        np.add.at(values, unit, metrics.compute_moments(truth, answers))
        return values
    if target.score == "wa":
        truth, answers = np.zeros_like(truth), (truth != answers).astype(int)
    count = 2 if target.score == "wa" else len(target.classes)
    names = [str(number) for number in range(count)]
    counts = count_confusions_by_unit(truth.astype(str), answers.astype(str), speakers, names)[1]
    return counts.reshape(len(counts), -1)


def build_statistics(target: Target, values: np.ndarray) -> SufficientStatistics:
    """What `tallied` gave for every layer, (L+1, U, F), to be scored."""
    if target.score == "ccc":
        return SufficientStatistics.from_moments(values[:, None])
    kinds = isqrt(values.shape[-1])
    return SufficientStatistics.from_counts(values.reshape(len(values), 1, -1, kinds, kinds))


def _probe(features: np.ndarray, group: Sequence[Target]) -> dict[str, ProbeOutput]:
    """Targets that have the same utterances and folds."""
    first, own = group[0], features[group[0].rows]
    ratings = [target for target in group if not target.classes]
    kinds = [target for target in group if target.classes]
    found = {
        target.name: ProbeOutput(np.zeros(len(target.labels), target.labels.dtype), []) for target in group
    }
    for fold, parts in enumerate(first.parts):
        testing = first.test_folds == fold
        scaled = _standardised(own, parts >= 0)
        if ratings:
            _keep(found, ratings, testing, _rate(scaled, ratings, parts))
        if kinds:
            turned, squares = solvers.rotate_features(scaled, parts >= 0)
            _keep(found, kinds, testing, [_classify(turned, squares, each, parts) for each in kinds])
    return found


def _keep(
    found: dict[str, ProbeOutput],
    targets: Sequence[Target],
    testing: np.ndarray,
    made: Sequence[tuple[np.ndarray, float]],
) -> None:
    for target, (answers, penalty) in zip(targets, made, strict=True):
        found[target.name].predictions[testing] = answers[testing]
        found[target.name].penalties.append(penalty)


def _standardised(features: np.ndarray, training: np.ndarray) -> np.ndarray:
    """With mean zero and deviation one over the training side; constant features are zero there."""
    mean, deviation = features[training].mean(0), features[training].std(0)
    return (features - mean) / np.where(deviation > 1e-6 * np.abs(mean), deviation, np.inf)


def _rate(
    features: np.ndarray, targets: Sequence[Target], parts: np.ndarray
) -> list[tuple[np.ndarray, float]]:
    """Answers about ratings, (N,), and penalty, of one fold.

    The products of a training side are the sum over its parts; without one of them they are a difference.
    """
    truth = np.stack([target.labels for target in targets], 1)
    centred = (truth - truth[parts >= 0].mean(0)).astype(features.dtype)
    inner, count = range(parts.max() + 1), len(targets)
    products = [
        solvers.compute_gram_matrix(features[parts == part], centred[parts == part]) for part in inner
    ]
    whole = np.sum(products, axis=0)
    guesses = np.zeros((len(features), len(PENALTIES), count))
    for part in inner:
        weights = solvers.solve_ridge(whole - products[part], count, PENALTIES)
        guesses[parts == part] = _predict(features[parts == part], weights)
    made = []
    for number in range(count):
        penalty = _best(_concordance(centred[parts >= 0, number], guesses[parts >= 0, :, number]))
        weights = solvers.solve_ridge(whole, count, [penalty])
        answers = _predict(features, weights)[:, 0, number] + truth[parts >= 0, number].mean()
        made.append((answers, penalty))
    return made


def _predict(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, D) by (1 + D, P, T) -> (N, P, T)."""
    flat = weights[1:].reshape(features.shape[1], -1).astype(features.dtype)
    return (features @ flat).reshape(len(features), *weights.shape[1:]) + weights[0]


def _classify(
    features: np.ndarray, squares: np.ndarray, target: Target, parts: np.ndarray
) -> tuple[np.ndarray, float]:
    """Numbers of classes answered, (N,), and penalty, of one fold.

    Args:
        features: as `solvers.rotate_features` gives, (N, 1 + D).
        squares: likewise.
        target: of classes.
        parts: of the training side; -1 on the test side.
    """
    training = parts >= 0
    answer = _answerer(features, squares, target)
    guesses = np.zeros((len(features), len(PENALTIES)), int)
    for part in range(parts.max() + 1):
        guesses[parts == part] = answer(training & (parts != part), parts == part, PENALTIES, ROUGH)
    penalty = _best(_recall(target, training, guesses))
    return answer(training, np.ones_like(training), [penalty], solvers.TOLERANCE)[:, 0], penalty


def _answerer(features: np.ndarray, squares: np.ndarray, target: Target) -> Callable[..., np.ndarray]:
    """Trains on some rows and answers about others: (rows, P)."""
    hot = np.eye(len(target.classes), dtype=features.dtype)[target.labels]

    def answer(
        learn: np.ndarray, ask: np.ndarray, penalties: Sequence[float], tolerance: float
    ) -> np.ndarray:
        weights = solvers.solve_logistic(features[learn], hot[learn], squares, penalties, tolerance)
        logits = (features[ask] @ weights.reshape(features.shape[1], -1)).reshape(-1, *weights.shape[1:])
        share = hot[learn].mean(0)
        known = share if target.score == "ua" else np.ones_like(share)
        with np.errstate(divide="ignore"):
            return np.where(share > 0, logits - np.log(known), -np.inf).argmax(2)

    return answer


def _concordance(truth: np.ndarray, guesses: np.ndarray) -> np.ndarray:
    """(N,) and (N, P) -> (P,)."""
    moments = np.stack([metrics.compute_moments(truth, own).sum(0) for own in guesses.T])
    return metrics.score_moments(moments)["ccc"]


def _recall(target: Target, rows: np.ndarray, guesses: np.ndarray) -> np.ndarray:
    """The target's score of each penalty, over the rows, (P,)."""
    count, truth = len(target.classes), target.labels[rows]
    counts = np.zeros((guesses.shape[1], count, count), int)
    for table, own in zip(counts, guesses[rows].T, strict=True):
        np.add.at(table, (truth, own), 1)
    return metrics.score_confusions(counts)[target.score]


def _best(scores: np.ndarray) -> float:
    """The penalty with the best score; of equals the largest."""
    return PENALTIES[len(scores) - 1 - int(scores[::-1].argmax())]
