"""Confidence that can be believed: a model's temperature, how far its confidence is off, when not to answer.

Conventions: N utterances, K classes; logits and probabilities are (N, K), targets (N,) class indices. The
answer is the most probable class and its probability the confidence. No torch here, so that probabilities
are calibrated where it is not installed, too.

    nll             mean negative log-likelihood of the targets, in nats
    brier           mean squared distance of probabilities and target, summed over the classes: 0 to 2
    ece             expected calibration error: |accuracy - mean confidence| in each of BINS bins of equal
                    width, weighted by utterances (Guo et al., On Calibration of Modern Neural Networks, 2017)
    classwise_ece   the same for the probability of each class, mean over the classes (Kull et al. 2019)
    aurc            area under the risk-coverage curve: mean over all coverages of the share of wrong
                    answers among the most confident (Geifman, Uziel, El-Yaniv 2019)

One temperature divides all logits. It moves confidence and never the answer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sertone.utils.json_shape import find_misfits

BINS = 15
POINTS = 50
"""Of the risk-coverage curve, for a plot."""
TEMPERATURE_BOUNDS = (0.05, 20.0)
"""Between which temperatures are looked for."""
CHOSE_EPOCH = "fitted on the validation speakers, who also chose the epoch"
HELD_OUT = "fitted on the held-out answers of a cross-validation of the same recipe"
NOT_FITTED = "not fitted: no validation speakers"
DEFINITIONS = {
    "nll": "mean negative log-likelihood, in nats",
    "brier": "squared distance of probabilities and target, summed over classes, mean over utterances",
    "ece": f"expected calibration error of the top label, {BINS} bins of equal width",
    "classwise_ece": f"the same for each class's probability, {BINS} bins, mean over classes",
    "aurc": "area under the risk-coverage curve, most confident answers first",
}


CALIBRATION_SHAPE = {
    "temperature": lambda value: not find_misfits(value, float, "it") and value > 0,
    "coverage": (float, None),
    "threshold": (float, None),
    "fitted_on": dict,
    "note": str,
}
"""Of `Calibration.to_json`, see `shape`."""


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities, and from which confidence on they make an answer.

    Attributes:
        temperature: divides the logits.
        coverage: share of recordings that shall get an answer; None: all.
        threshold: confidence below which an answer is unsure; None: none is.
        fitted_on: `speakers` and number of `utterances`; empty where nothing was fitted.
        note: what to keep in mind.
    """

    temperature: float = 1.0
    coverage: float | None = None
    threshold: float | None = None
    fitted_on: dict = field(default_factory=dict)
    note: str = NOT_FITTED

    def to_json(self) -> dict:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_json` gave."""
        return cls(**{key.name: values[key.name] for key in fields(cls)})

    def to_probabilities(self, logits: ArrayLike) -> np.ndarray:
        """Logits (..., K) -> calibrated probabilities (..., K)."""
        return softmax(logits, self.temperature)


def softmax(logits: ArrayLike, temperature: float = 1.0) -> np.ndarray:
    """Softmax of logits (..., K) at a temperature."""
    scaled = np.asarray(logits, float) / temperature
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def fit_calibration(
    logits: ArrayLike,
    targets: ArrayLike,
    coverage: float | None = None,
    speakers: Sequence[str] = (),
    *,
    chose_epoch: bool = True,
) -> Calibration:
    """Temperature, and the threshold for a coverage, from utterances that the model was not trained on.

    Args:
        logits: (N, K).
        targets: (N,).
        coverage: share of utterances that shall get an answer.
        speakers: who spoke them.
        chose_epoch: whether these utterances chose the epoch. Then the temperature is never below 1: they are
            answered better than others will be, and a temperature that sharpens on them makes the model too
            sure of everybody else. So they can only lower its confidence.
    """
    logits, targets = np.asarray(logits, float), np.asarray(targets)
    best = fit_temperature(logits, targets)
    temperature = max(1.0, best) if chose_epoch else best
    confidence = softmax(logits, temperature).max(1)
    return Calibration(
        temperature=temperature,
        coverage=coverage,
        threshold=None if coverage is None else find_threshold(confidence, coverage),
        fitted_on={"speakers": sorted(set(speakers)), "utterances": len(targets)},
        note=(CHOSE_EPOCH if chose_epoch else HELD_OUT) + _doubt(best, temperature),
    )


def _doubt(best: float, temperature: float) -> str:
    if best < temperature:
        return f"; the temperature is kept from falling to the {best:.2f} that fits them best"
    return "; the temperature is at its bound" if best > 0.999 * TEMPERATURE_BOUNDS[1] else ""


def fit_temperature(logits: ArrayLike, targets: ArrayLike) -> float:
    """The temperature of the lowest negative log-likelihood within BOUNDS; 1 where no other is better."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return nll(softmax(logits, math.exp(log_temperature)), targets)

    low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return math.exp(found.x) if found.fun < loss(0.0) else 1.0


def nll(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Mean negative log-likelihood in nats."""
    own = np.take_along_axis(np.asarray(probabilities, float), np.asarray(targets)[:, None], 1)
    return float(-np.log(np.maximum(own, np.finfo(float).tiny)).mean())


def brier(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Brier score over all classes, from 0 to 2."""
    p = np.asarray(probabilities, float)
    return float(((p - _one_hot(targets, p.shape[1])) ** 2).sum(1).mean())


def compute_reliability(confidence: ArrayLike, correct: ArrayLike) -> list[dict[str, float]]:
    """The bins that are not empty: bounds (low, high], utterances, mean confidence, share of correct."""
    confidence, correct = np.asarray(confidence, float), np.asarray(correct, float)
    edges = np.arange(BINS + 1) / BINS
    where = np.searchsorted(edges[1:-1], confidence)
    return [
        {
            "low": float(edges[number]),
            "high": float(edges[number + 1]),
            "utterances": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(correct[inside].mean()),
        }
        for number in range(BINS)
        if (inside := where == number).any()
    ]


def ece(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Expected calibration error, from 0 to 1."""
    bins = compute_reliability(confidence, correct)
    gaps = [each["utterances"] * abs(each["accuracy"] - each["confidence"]) for each in bins]
    return float(sum(gaps) / sum(each["utterances"] for each in bins))


def classwise_ece(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Expected calibration error of each class's probability, mean over the classes."""
    p = np.asarray(probabilities, float)
    hits = _one_hot(targets, p.shape[1])
    return float(np.mean([ece(p[:, k], hits[:, k]) for k in range(p.shape[1])]))


def compute_selective_risks(confidence: ArrayLike, correct: ArrayLike) -> np.ndarray:
    """Share of wrong answers among the n most confident, for n = 1 to N; equal ones in random order: (N,)."""
    confidence, wrong = np.asarray(confidence, float), 1 - np.asarray(correct, float)
    _, group = np.unique(-confidence, return_inverse=True)
    expected = np.bincount(group, wrong) / np.bincount(group)
    return np.cumsum(expected[np.sort(group)]) / np.arange(1, len(wrong) + 1)


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under the risk-coverage curve, from 0 to 1."""
    return float(compute_selective_risks(confidence, correct).mean())


def find_threshold(confidence: ArrayLike, coverage: float) -> float:
    """The highest threshold that at least this share of the confidences reaches."""
    ordered = np.sort(np.asarray(confidence, float))[::-1]
    return float(ordered[math.ceil(coverage * len(ordered) - 1e-9) - 1])


def compute_calibration_scores(probabilities: ArrayLike, targets: ArrayLike) -> dict[str, float]:
    """All scores of DEFINITIONS."""
    p = np.asarray(probabilities, float)
    confidence, correct = p.max(1), p.argmax(1) == np.asarray(targets)
    return {
        "nll": nll(p, targets),
        "brier": brier(p, targets),
        "ece": ece(confidence, correct),
        "classwise_ece": classwise_ece(p, targets),
        "aurc": aurc(confidence, correct),
    }


def compute_calibration_curves(probabilities: ArrayLike, targets: ArrayLike) -> dict[str, list]:
    """What is drawn: the bins of `reliability`, and points (coverage, risk) of the risk-coverage curve."""
    p = np.asarray(probabilities, float)
    confidence, correct = p.max(1), p.argmax(1) == np.asarray(targets)
    risk = compute_selective_risks(confidence, correct)
    counts = np.unique(np.ceil(np.arange(1, POINTS + 1) / POINTS * len(risk)).astype(int))
    points = [[float(count / len(risk)), float(risk[count - 1])] for count in counts]
    return {"reliability": compute_reliability(confidence, correct), "risk_coverage": points}


def _one_hot(targets: ArrayLike, classes: int) -> np.ndarray:
    return np.eye(classes)[np.asarray(targets)]
