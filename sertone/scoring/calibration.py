"""Temperature scaling, calibration scores, and the confidence threshold of unsure predictions.

Conventions: N utterances, K classes. Logits and probabilities are (N, K), targets are (N,) class indices.
The prediction is the most probable class, and its probability is the confidence. This module needs no torch,
so probabilities are calibrated where torch is not installed, too.

    nll             mean negative log-likelihood of the targets, in nats
    brier           mean squared distance of probabilities and target, summed over the classes: 0 to 2
    ece             expected calibration error: |accuracy - mean confidence| in each of BINS bins of equal
                    width, weighted by utterances (Guo et al., On Calibration of Modern Neural Networks, 2017)
    classwise_ece   the same for the probability of each class, mean over the classes (Kull et al. 2019)
    aurc            area under the risk-coverage curve: mean over all coverages of the share of wrong
                    predictions among the most confident (Geifman, Uziel, El-Yaniv 2019)

One temperature divides all logits. It changes the confidence and never the predicted class.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from sertone.utils.json_shape import find_misfits

BINS = 15
CURVE_POINTS = 50
"""Number of points of a plotted risk-coverage curve."""
TEMPERATURE_BOUNDS = (0.05, 20.0)
"""Range in which a temperature is searched."""
# These notes and definitions are written to checkpoints and protocol cards, so saved files hold them too.
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
"""Shape of `Calibration.to_json`, see `utils.json_shape`."""


@dataclass(frozen=True)
class Calibration:
    """Calibration of a model: its temperature, and the confidence below which a prediction is unsure.

    Attributes:
        temperature: divides the logits.
        coverage: share of recordings that are to get a sure prediction; None: all.
        threshold: confidence below which a prediction is unsure; None: no prediction is.
        fitted_on: `speakers` and number of `utterances`; empty where nothing was fitted.
        note: how the temperature was fitted.
    """

    temperature: float = 1.0
    coverage: float | None = None
    threshold: float | None = None
    fitted_on: dict = field(default_factory=dict)
    note: str = NOT_FITTED

    def to_json(self) -> dict:
        """Return the calibration as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build a calibration from the result of `to_json`."""
        return cls(**{key.name: values[key.name] for key in fields(cls)})

    def to_probabilities(self, logits: ArrayLike) -> np.ndarray:
        """Return the calibrated probabilities of logits: (..., K) -> (..., K)."""
        return softmax(logits, self.temperature)


def softmax(logits: ArrayLike, temperature: float = 1.0) -> np.ndarray:
    """Return the softmax of logits at a temperature: (..., K) -> (..., K)."""
    scaled = np.asarray(logits, float) / temperature
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))  # the largest exponent is 0: no overflow
    return powers / powers.sum(-1, keepdims=True)


def fit_calibration(
    logits: ArrayLike,
    targets: ArrayLike,
    coverage: float | None = None,
    speakers: Sequence[str] = (),
    *,
    chose_epoch: bool = True,
) -> Calibration:
    """Fit a temperature, and a threshold for a coverage, on utterances that were not used in training.

    Args:
        logits: (N, K).
        targets: (N,).
        coverage: share of utterances that are to get a sure prediction.
        speakers: speakers of the utterances.
        chose_epoch: true where these utterances also chose the epoch. Then the temperature is at least 1.
    """
    logits = np.asarray(logits, float)
    targets = np.asarray(targets)
    best = fit_temperature(logits, targets)
    # Utterances that chose the epoch are predicted better than new ones will be. A temperature below 1 would
    # fit them and make the model too confident about everybody else, so they can only lower its confidence.
    temperature = max(1.0, best) if chose_epoch else best
    confidence = softmax(logits, temperature).max(1)
    return Calibration(
        temperature=temperature,
        coverage=coverage,
        threshold=None if coverage is None else find_threshold(confidence, coverage),
        fitted_on={"speakers": sorted(set(speakers)), "utterances": len(targets)},
        note=(CHOSE_EPOCH if chose_epoch else HELD_OUT) + _describe_limits(best, temperature),
    )


def _describe_limits(best: float, temperature: float) -> str:
    """Return the part of a note that says where a limit decided the temperature."""
    if best < temperature:
        return f"; the temperature is kept from falling to the {best:.2f} that fits them best"
    return "; the temperature is at its bound" if best > 0.999 * TEMPERATURE_BOUNDS[1] else ""


def fit_temperature(logits: ArrayLike, targets: ArrayLike) -> float:
    """Return the temperature with the lowest negative log-likelihood within TEMPERATURE_BOUNDS.

    Return 1 where no other temperature is better.
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return nll(softmax(logits, math.exp(log_temperature)), targets)

    # The logarithm makes temperatures t and 1 / t equally far from 1.
    low, high = (math.log(bound) for bound in TEMPERATURE_BOUNDS)
    optimum = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return math.exp(optimum.x) if optimum.fun < loss(0.0) else 1.0


def nll(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Return the mean negative log-likelihood in nats."""
    likelihoods = np.take_along_axis(np.asarray(probabilities, float), np.asarray(targets)[:, None], 1)
    return float(-np.log(np.maximum(likelihoods, np.finfo(float).tiny)).mean())  # log(0) is infinite


def brier(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Return the Brier score over all classes, from 0 to 2."""
    p = np.asarray(probabilities, float)
    return float(((p - _one_hot(targets, p.shape[1])) ** 2).sum(1).mean())


def compute_reliability(confidence: ArrayLike, correct: ArrayLike) -> list[dict[str, float]]:
    """Return the reliability diagram: one entry for each bin of confidence that is not empty.

    Args:
        confidence: (N,).
        correct: true where the prediction is right, (N,).

    Returns:
        bounds of each bin, `low` (excluded) and `high` (included), its number of `utterances`, their mean
        `confidence` and their `accuracy`.
    """
    confidence = np.asarray(confidence, float)
    correct = np.asarray(correct, float)
    edges = np.arange(BINS + 1) / BINS
    bin_of = np.searchsorted(edges[1:-1], confidence)
    return [
        {
            "low": float(edges[number]),
            "high": float(edges[number + 1]),
            "utterances": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(correct[inside].mean()),
        }
        for number in range(BINS)
        if (inside := bin_of == number).any()
    ]


def ece(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the expected calibration error, from 0 to 1."""
    bins = compute_reliability(confidence, correct)
    gaps = [b["utterances"] * abs(b["accuracy"] - b["confidence"]) for b in bins]
    return float(sum(gaps) / sum(b["utterances"] for b in bins))


def classwise_ece(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Return the expected calibration error of each class's probability, as the mean over the classes."""
    p = np.asarray(probabilities, float)
    hits = _one_hot(targets, p.shape[1])
    return float(np.mean([ece(p[:, k], hits[:, k]) for k in range(p.shape[1])]))


def compute_selective_risks(confidence: ArrayLike, correct: ArrayLike) -> np.ndarray:
    """Return the share of wrong predictions among the n most confident, for n = 1 to N: (N,).

    Args:
        confidence: (N,).
        correct: true where the prediction is right, (N,).
    """
    confidence = np.asarray(confidence, float)
    wrong = 1 - np.asarray(correct, float)
    # Equally confident predictions have no order. Each counts with the mean error of its group, which is the
    # expectation over random orders.
    _, group = np.unique(-confidence, return_inverse=True)
    expected = np.bincount(group, wrong) / np.bincount(group)
    return np.cumsum(expected[np.sort(group)]) / np.arange(1, len(wrong) + 1)


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Return the area under the risk-coverage curve, from 0 to 1."""
    return float(compute_selective_risks(confidence, correct).mean())


def find_threshold(confidence: ArrayLike, coverage: float) -> float:
    """Return the highest threshold that at least this share of the confidences reaches."""
    # Descending, so that the first n are the n most confident.
    ordered = np.sort(np.asarray(confidence, float))[::-1]
    # 0.07 * 100 is 7.000000000000001 in floating point. Without 1e-9 it would become 8.
    return float(ordered[math.ceil(coverage * len(ordered) - 1e-9) - 1])


def compute_calibration_scores(probabilities: ArrayLike, targets: ArrayLike) -> dict[str, float]:
    """Return all scores of DEFINITIONS."""
    p = np.asarray(probabilities, float)
    confidence = p.max(1)
    correct = p.argmax(1) == np.asarray(targets)
    return {
        "nll": nll(p, targets),
        "brier": brier(p, targets),
        "ece": ece(confidence, correct),
        "classwise_ece": classwise_ece(p, targets),
        "aurc": aurc(confidence, correct),
    }


def compute_calibration_curves(probabilities: ArrayLike, targets: ArrayLike) -> dict[str, list]:
    """Return the plotted curves: bins of `reliability`, and points (coverage, risk) of `risk_coverage`."""
    p = np.asarray(probabilities, float)
    confidence = p.max(1)
    correct = p.argmax(1) == np.asarray(targets)
    risk = compute_selective_risks(confidence, correct)
    counts = np.unique(np.ceil(np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS * len(risk)).astype(int))
    points = [[float(count / len(risk)), float(risk[count - 1])] for count in counts]
    return {"reliability": compute_reliability(confidence, correct), "risk_coverage": points}


def _one_hot(targets: ArrayLike, classes: int) -> np.ndarray:
    return np.eye(classes)[np.asarray(targets)]
