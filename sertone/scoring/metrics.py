"""Scores of emotions, of ratings, of classes and of transcripts; `intervals` says how far to believe them.

Conventions: targets and predictions are equally long sequences of class names, texts or ratings; scores lie
in [0, 1] (error rates may exceed 1, correlations may be negative). A class that does not occur among the
targets has no recall and does not count.

    ua          unweighted accuracy: mean of the classes' recalls
    wa          weighted accuracy: share of correct utterances
    macro_f1    mean of the classes' F1
    accuracy    share of correct utterances
    cer, wer    edits per character and per word of the references
    ccc         concordance correlation coefficient of ratings: 1 equal, 0 no better than a constant (Lin, A
                Concordance Correlation Coefficient to Evaluate Reproducibility, Biometrics 45, 1989)
    pearson     Pearson's correlation of ratings: whatever scale and offset the answers have
    rmse        root mean square error of ratings, in the units of their scale
    jsd         Jensen-Shannon divergence of the annotators' votes and the probabilities, in bits: 0 equal, 1
                nothing in common (Uma et al., Learning from Disagreement, JAIR 72, 2021)
    cosine      cosine of the two as vectors: 1 equal (Geng, Label Distribution Learning, TKDE 28, 2016)
"""

from collections.abc import Callable, Sequence, Sized
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from sertone.errors import SertoneError


def emotion_scores(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Unweighted accuracy, weighted accuracy and macro-F1.

    Raises:
        SertoneError: `no_targets`.
    """
    _require(targets)
    present = sorted(set(targets))
    options = {"labels": present, "average": "macro", "zero_division": 0}
    return {
        "ua": float(recall_score(targets, predictions, **options)),
        "wa": float(accuracy_score(targets, predictions)),
        "macro_f1": float(f1_score(targets, predictions, **options)),
    }


def class_scores(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Accuracy.

    Raises:
        SertoneError: `no_targets`.
    """
    _require(targets)
    return {"accuracy": float(accuracy_score(targets, predictions))}


def transcript_scores(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Character and word error rate over all texts together.

    Raises:
        SertoneError: `no_targets`.
    """
    import jiwer

    pairs = [(t, p) for t, p in zip(targets, predictions, strict=True) if t]
    _require(pairs)
    texts, answers = [t for t, _ in pairs], [p for _, p in pairs]
    return {"cer": float(jiwer.cer(texts, answers)), "wer": float(jiwer.wer(texts, answers))}


def rating_scores(targets: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """CCC, Pearson's correlation and RMSE, with the moments of the utterances as they are (over N).

    Where targets or answers do not vary, as with one utterance, both correlations are 0.

    Args:
        targets: on the scale of the corpus.
        predictions: on the same scale.

    Raises:
        SertoneError: `no_targets`.
    """
    _require(targets)
    whole = compute_moments(targets, predictions).sum(0, keepdims=True)
    return {name: float(values[0]) for name, values in score_moments(whole).items()}


def soft_scores(votes: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Jensen-Shannon divergence and cosine of two sets of distributions, both (N, K); means over N.

    Raises:
        SertoneError: `no_targets`.
    """
    p, q = np.asarray(votes, float), np.asarray(probabilities, float)
    _require(p)
    lengths = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
    divergences = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return {"jsd": float(divergences.mean()), "cosine": float(((p * q).sum(1) / lengths).mean())}


def _entropy(distributions: np.ndarray) -> np.ndarray:
    """In bits: (N, K) -> (N,)."""
    return -(distributions * np.log2(np.where(distributions > 0, distributions, 1))).sum(1)


SCORES: dict[str, Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]] = {
    "emotion": emotion_scores,
    "ratings": rating_scores,
    "accuracy": class_scores,
    "error_rates": transcript_scores,
}

MAIN_SCORES = {"emotion": "ua", "ratings": "ccc"}
"""The score by which an epoch is chosen."""

DEFINITIONS = {
    "ua": "unweighted accuracy: mean of the classes' recalls",
    "wa": "weighted accuracy: share of correct utterances",
    "macro_f1": "mean of the classes' F1",
    "intervals": "95 %, expanded percentile bootstrap: whole speakers (of unknown ones, single utterances) "
    "or whole folds are drawn",
    "ccc": "concordance correlation coefficient (Lin 1989) on the corpus's scale, moments over N",
    "pearson": "Pearson's correlation",
    "rmse": "root mean square error, in the units of the corpus's scale",
    "cer": "character edits per reference character, best-path decoding",
    "wer": "word edits per reference word, best-path decoding",
    "jsd": "Jensen-Shannon divergence of annotators' votes and probabilities, in bits; mean over utterances",
    "cosine": "cosine of annotators' votes and probabilities; mean over utterances",
}


def count_confusions(targets: ArrayLike, predictions: ArrayLike, classes: Sequence[str]) -> np.ndarray:
    """Counts, rows by target, columns by prediction: (K, K)."""
    return confusion_matrix(targets, predictions, labels=list(classes))


def score_confusions(tables: np.ndarray) -> dict[str, np.ndarray]:
    """The emotion scores of many confusion matrices: (R, K, K) -> score -> (R,)."""
    hits = np.diagonal(tables, axis1=1, axis2=2).astype(float)
    targets, predictions = tables.sum(2), tables.sum(1)
    present = targets > 0
    recalls = np.where(present, hits / np.maximum(targets, 1), 0.0)
    f1 = np.where(present, 2 * hits / np.maximum(targets + predictions, 1), 0.0)
    return {
        "ua": recalls.sum(1) / present.sum(1),
        "wa": hits.sum(1) / targets.sum(1),
        "macro_f1": f1.sum(1) / present.sum(1),
    }


MOMENTS = ("count", "target", "answer", "target squared", "answer squared", "product")
"""What `scores_of_moments` needs of every utterance, summed."""
CONSTANT = 1e-12
"""Share of the mean square below which a variance is rounding error."""


def compute_moments(targets: ArrayLike, predictions: ArrayLike) -> np.ndarray:
    """Of each utterance what adds up, (N, F), in the order of MOMENTS.

    Both sides are taken about the mean of the targets, which leaves all scores as they are and keeps digits.
    """
    targets, predictions = np.asarray(targets, float), np.asarray(predictions, float)
    t, p = targets - targets.mean(), predictions - targets.mean()
    return np.stack([np.ones_like(t), t, p, t * t, p * p, t * p], axis=1)


def score_moments(sums: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of ratings of many sums of moments: (R, F) -> score -> (R,)."""
    count, t, p, tt, pp, tp = np.moveaxis(sums, -1, 0)
    mean_t, mean_p = t / count, p / count
    var_t, var_p = _variance(tt / count, mean_t), _variance(pp / count, mean_p)
    vary = (var_t > 0) & (var_p > 0)
    covariance = np.where(vary, tp / count - mean_t * mean_p, 0.0)
    apart = np.where(vary, var_t + var_p + (mean_p - mean_t) ** 2, 1.0)
    deviations = np.where(vary, np.sqrt(var_t) * np.sqrt(var_p), 1.0)
    return {
        "ccc": np.clip(2 * covariance / apart, -1.0, 1.0),
        "pearson": np.clip(covariance / deviations, -1.0, 1.0),
        "rmse": np.sqrt(np.maximum((tt - 2 * tp + pp) / count, 0.0)),
    }


def _variance(square: np.ndarray, mean: np.ndarray) -> np.ndarray:
    variance = square - mean**2
    return np.where(variance > CONSTANT * square, variance, 0.0)


def _require(targets: Sized) -> None:
    if not len(targets):
        raise SertoneError("no_targets", "no utterance has a label", "at least one, to score")
