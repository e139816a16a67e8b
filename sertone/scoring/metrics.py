"""Scores of emotions, ratings, classes and transcripts. Their intervals are in `intervals`.

Conventions: targets and predictions are equally long sequences of class names, texts or ratings. Scores lie
in [0, 1] (error rates may exceed 1, correlations may be negative). A class that does not occur among the
targets has no recall and does not count.

    ua          unweighted accuracy: mean of the classes' recalls
    wa          weighted accuracy: share of correct utterances
    macro_f1    mean of the classes' F1
    accuracy    share of correct utterances
    cer, wer    edits per character and per word of the references
    ccc         concordance correlation coefficient of ratings: 1 equal, 0 no better than a constant (Lin, A
                Concordance Correlation Coefficient to Evaluate Reproducibility, Biometrics 45, 1989)
    pearson     Pearson's correlation of ratings, which ignores scale and offset of the predictions
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
    """Compute unweighted accuracy, weighted accuracy and macro-F1.

    Raises:
        SertoneError: `no_targets`.
    """
    _require_targets(targets)
    present = sorted(set(targets))
    # A class that is never predicted has no precision. Its F1 counts as 0.
    options = {"labels": present, "average": "macro", "zero_division": 0}
    return {
        "ua": float(recall_score(targets, predictions, **options)),
        "wa": float(accuracy_score(targets, predictions)),
        "macro_f1": float(f1_score(targets, predictions, **options)),
    }


def class_scores(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Compute the accuracy.

    Raises:
        SertoneError: `no_targets`.
    """
    _require_targets(targets)
    return {"accuracy": float(accuracy_score(targets, predictions))}


def transcript_scores(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Compute character and word error rate over all texts together. Empty references do not count.

    Raises:
        SertoneError: `no_targets`.
    """
    import jiwer

    pairs = [(t, p) for t, p in zip(targets, predictions, strict=True) if t]
    _require_targets(pairs)
    references = [t for t, _ in pairs]
    hypotheses = [p for _, p in pairs]
    return {"cer": float(jiwer.cer(references, hypotheses)), "wer": float(jiwer.wer(references, hypotheses))}


def rating_scores(targets: Sequence[float], predictions: Sequence[float]) -> dict[str, float]:
    """Compute CCC, Pearson's correlation and RMSE, with moments over N (not N - 1).

    Where targets or predictions do not vary, as with one utterance, both correlations are 0.

    Args:
        targets: targets on the scale of the corpus.
        predictions: predictions on the same scale.

    Raises:
        SertoneError: `no_targets`.
    """
    _require_targets(targets)
    sums = compute_moments(targets, predictions).sum(0, keepdims=True)
    return {name: float(values[0]) for name, values in score_moments(sums).items()}


def soft_scores(votes: ArrayLike, probabilities: ArrayLike) -> dict[str, float]:
    """Compute Jensen-Shannon divergence and cosine of two sets of distributions.

    Args:
        votes: distributions of the annotators' votes, (N, K).
        probabilities: probabilities of the model, (N, K).

    Returns:
        the means over N.

    Raises:
        SertoneError: `no_targets`.
    """
    p = np.asarray(votes, float)
    q = np.asarray(probabilities, float)
    _require_targets(p)
    lengths = np.linalg.norm(p, axis=1) * np.linalg.norm(q, axis=1)
    divergences = _compute_entropy((p + q) / 2) - (_compute_entropy(p) + _compute_entropy(q)) / 2
    return {"jsd": float(divergences.mean()), "cosine": float(((p * q).sum(1) / lengths).mean())}


def _compute_entropy(distributions: np.ndarray) -> np.ndarray:
    """Return the entropy of each distribution in bits: (N, K) -> (N,)."""
    # 0 log 0 counts as 0. The inner `where` avoids the logarithm of zero.
    return -(distributions * np.log2(np.where(distributions > 0, distributions, 1))).sum(1)


SCORES: dict[str, Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]] = {
    "emotion": emotion_scores,
    "ratings": rating_scores,
    "accuracy": class_scores,
    "error_rates": transcript_scores,
}

MAIN_SCORES = {"emotion": "ua", "ratings": "ccc"}
"""Score that chooses the epoch, by kind of task."""

# Protocol cards hold these definitions, so saved runs do too.
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
    """Count predictions by target: rows are targets, columns predictions, (K, K)."""
    return confusion_matrix(targets, predictions, labels=list(classes))


def score_confusions(tables: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the emotion scores of many confusion matrices: (R, K, K) -> score -> (R,)."""
    hits = np.diagonal(tables, axis1=1, axis2=2).astype(float)
    targets = tables.sum(2)
    predictions = tables.sum(1)
    present = targets > 0
    # A draw of speakers may lack a class. Such a class has no recall and is left out of both means.
    recalls = np.where(present, hits / np.maximum(targets, 1), 0.0)
    f1 = np.where(present, 2 * hits / np.maximum(targets + predictions, 1), 0.0)
    return {
        "ua": recalls.sum(1) / present.sum(1),
        "wa": hits.sum(1) / targets.sum(1),
        "macro_f1": f1.sum(1) / present.sum(1),
    }


MOMENTS = ("count", "target", "prediction", "target squared", "prediction squared", "product")
"""Terms of every utterance whose sums `score_moments` needs."""
ROUNDING_SHARE = 1e-12
"""Share of the mean square below which a variance is rounding error."""


def compute_moments(targets: ArrayLike, predictions: ArrayLike) -> np.ndarray:
    """Compute the terms of each utterance that add up, in the order of MOMENTS: (N, F)."""
    targets = np.asarray(targets, float)
    predictions = np.asarray(predictions, float)
    # Shifting both by the mean of the targets changes no score. It avoids the cancellation of large squares.
    t = targets - targets.mean()
    p = predictions - targets.mean()
    return np.stack([np.ones_like(t), t, p, t * t, p * p, t * p], axis=1)


def score_moments(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the rating scores of many sums of moments: (R, F) -> score -> (R,)."""
    # The last axis of the sums has the order of MOMENTS.
    count, t, p, tt, pp, tp = np.moveaxis(sums, -1, 0)
    mean_t = t / count
    mean_p = p / count
    var_t = _compute_variance(tt / count, mean_t)
    var_p = _compute_variance(pp / count, mean_p)
    vary = (var_t > 0) & (var_p > 0)
    # Where one side is constant, the covariance is 0 and the denominators are 1, so both correlations are 0.
    covariance = np.where(vary, tp / count - mean_t * mean_p, 0.0)
    ccc_denominator = np.where(vary, var_t + var_p + (mean_p - mean_t) ** 2, 1.0)
    deviations = np.where(vary, np.sqrt(var_t) * np.sqrt(var_p), 1.0)
    return {
        "ccc": np.clip(2 * covariance / ccc_denominator, -1.0, 1.0),
        "pearson": np.clip(covariance / deviations, -1.0, 1.0),
        "rmse": np.sqrt(np.maximum((tt - 2 * tp + pp) / count, 0.0)),
    }


def _compute_variance(square: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the variance from the mean square and the mean. Return 0 where it is rounding error."""
    variance = square - mean**2
    return np.where(variance > ROUNDING_SHARE * square, variance, 0.0)


def _require_targets(targets: Sized) -> None:
    if not len(targets):
        raise SertoneError("no_targets", "no utterance has a label", "at least one labelled utterance")
