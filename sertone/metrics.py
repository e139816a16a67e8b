"""Scores of categorical emotion, of classes and of transcripts; `intervals` says how far to believe them.

Conventions: targets and predictions are equally long sequences of class names or texts; scores lie in
[0, 1] (error rates may exceed 1). A class that does not occur among the targets has no recall and
does not count.

    ua          unweighted accuracy: mean of the classes' recalls
    wa          weighted accuracy: share of correct utterances
    macro_f1    mean of the classes' F1
    accuracy    share of correct utterances
    cer, wer    edits per character and per word of the references
    jsd         Jensen-Shannon divergence of the annotators' votes and the probabilities, in bits: 0 equal, 1
                nothing in common (Uma et al., Learning from Disagreement, JAIR 72, 2021)
    cosine      cosine of the two as vectors: 1 equal (Geng, Label Distribution Learning, TKDE 28, 2016)
"""

from collections.abc import Callable, Sequence, Sized

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


SCORES: dict[str, Callable[[Sequence[str], Sequence[str]], dict[str, float]]] = {
    "emotion": emotion_scores,
    "accuracy": class_scores,
    "error_rates": transcript_scores,
}

DEFINITIONS = {
    "ua": "unweighted accuracy: mean of the classes' recalls",
    "wa": "weighted accuracy: share of correct utterances",
    "macro_f1": "mean of the classes' F1",
    "intervals": "95 %, expanded percentile bootstrap: whole speakers, or whole folds, are drawn",
    "cer": "character edits per reference character, best-path decoding",
    "wer": "word edits per reference word, best-path decoding",
    "jsd": "Jensen-Shannon divergence of annotators' votes and probabilities, in bits; mean over utterances",
    "cosine": "cosine of annotators' votes and probabilities; mean over utterances",
}


def confusion(targets: ArrayLike, predictions: ArrayLike, classes: Sequence[str]) -> np.ndarray:
    """Counts, rows by target, columns by prediction: (K, K)."""
    return confusion_matrix(targets, predictions, labels=list(classes))


def scores_of_confusion(tables: np.ndarray) -> dict[str, np.ndarray]:
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


def _require(targets: Sized) -> None:
    if not len(targets):
        raise SertoneError("no_targets", "no utterance has a label", "at least one, to score")
