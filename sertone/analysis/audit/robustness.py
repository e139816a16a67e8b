"""Scores of a model under perturbations, by their strength, with intervals over speakers.

Axis letters: N utterances, U speakers, R draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sertone.analysis.audit.answers import NO_LABEL, Answers
from sertone.analysis.audit.verdicts import ROUNDING
from sertone.scoring.intervals import compute_intervals, draw_units, summarise_draws
from sertone.scoring.sufficient_statistics import SufficientStatistics

TOLERATED_LOSS = 0.05
"""Loss of UA whose strength is reported: five points."""


@dataclass(frozen=True)
class Share:
    """A share of utterances, with its 95 % interval over speakers.

    Attributes:
        value: share; NaN where there is nothing to count.
        low: lower bound; NaN for fewer than two speakers.
        high: upper bound.
    """

    value: float
    low: float = np.nan
    high: float = np.nan


@dataclass(frozen=True)
class Point:
    """The model at one strength of a perturbation.

    Attributes:
        strength: in the unit of the perturbation.
        ua: unweighted accuracy. An utterance without a label counts as wrong.
        unchanged: share of the utterances whose label is that without the perturbation.
        sure: share of the utterances with a sure label.
        wrong_sure: share of the sure labels that are wrong.
        unanswered: share of the utterances without a label.
    """

    strength: float
    ua: Share
    unchanged: Share
    sure: Share
    wrong_sure: Share
    unanswered: Share


def measure_point(
    strength: float,
    targets: Sequence[str],
    clean: Answers,
    perturbed: Answers,
    speakers: Sequence[str],
    classes: Sequence[str],
) -> Point:
    """Compare the answers under a perturbation with the labels and with the answers without it.

    Args:
        strength: in the unit of the perturbation.
        targets: class of each utterance, (N,).
        clean: answers to the recordings as they are.
        perturbed: answers to the perturbed ones, in the same order.
        speakers: speaker of each utterance, (N,).
        classes: names of the classes.
    """
    labels, clean_labels, wanted = (np.asarray(x) for x in (perturbed.labels, clean.labels, targets))
    everything = np.ones(len(wanted))
    return Point(
        strength,
        measure_accuracy(targets, perturbed.labels, speakers, classes),
        measure_share(labels == clean_labels, everything, speakers),
        measure_share(perturbed.sure, everything, speakers),
        measure_share(perturbed.sure & (labels != wanted), perturbed.sure, speakers),
        measure_share(labels == NO_LABEL, everything, speakers),
    )


def measure_accuracy(
    targets: Sequence[str], labels: Sequence[str], speakers: Sequence[str], classes: Sequence[str]
) -> Share:
    """Return the unweighted accuracy with its interval over speakers."""
    rows = [
        {"target": target, "prediction": label, "speaker": speaker}
        for target, label, speaker in zip(targets, labels, speakers, strict=True)
    ]
    statistics = SufficientStatistics.from_rows(rows, "emotion", [*classes, NO_LABEL], speakers)
    bounds = compute_intervals(statistics)
    value = statistics.compute_scores()["ua"]
    return Share(value, *bounds["ua"]) if bounds else Share(value)


def measure_share(counted: np.ndarray, of: np.ndarray, speakers: Sequence[str]) -> Share:
    """Return a ratio of two sums over utterances with its interval over speakers.

    Args:
        counted: utterances of the numerator, (N,).
        of: utterances of the denominator, (N,).
        speakers: speaker of each utterance, (N,).
    """
    names, unit = np.unique(np.asarray(speakers), return_inverse=True)
    sums = np.stack([np.bincount(unit, x.astype(float), len(names)) for x in (counted, of)], 1)  # (U, 2)
    total = sums.sum(0)
    if not total[1]:
        return Share(np.nan)
    value = float(total[0] / total[1])
    if len(names) < 2:
        return Share(value)
    numerator, denominator = (draw_units(len(names)) @ sums).T  # (R,)
    # A draw of speakers without any utterance of the denominator has no share.
    draws = np.divide(numerator, denominator, out=np.full(len(numerator), value), where=denominator > 0)
    interval = summarise_draws(draws, value, len(names))
    return Share(value, max(interval.low, 0.0), min(interval.high, 1.0))


def find_tolerated_strength(clean_ua: float, points: Sequence[Point]) -> float | None:
    """Return the strength at which UA has lost `TOLERATED_LOSS`, linear between two; None if it has not.

    Below the mildest strength nothing was measured, so a loss there gives the mildest strength.

    Args:
        clean_ua: UA of the recordings as they are.
        points: from mild to strong.
    """
    losses = [clean_ua - point.ua.value for point in points]
    first = next((number for number, loss in enumerate(losses) if loss > TOLERATED_LOSS + ROUNDING), None)
    if not first:
        return None if first is None else points[0].strength
    before, after = points[first - 1].strength, points[first].strength
    share = (TOLERATED_LOSS - losses[first - 1]) / (losses[first] - losses[first - 1])
    return before + share * (after - before)
