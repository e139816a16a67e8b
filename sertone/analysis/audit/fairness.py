"""Differences between groups of speakers, compared with those of a model that does not know the groups.

The spread of a score is its highest value over the groups minus its lowest. A random model answers every
utterance with a class drawn from the audited model's own answers to that emotion, whatever the group. Groups
of these sizes have spreads by chance, so the threshold is a high quantile of the spreads of `SIMULATIONS`
random models. Source: Derington et al. (arXiv 2312.06270), whose random models draw all classes alike.

Speakers differ for many reasons, and the utterances of one resemble each other. So the groups are also dealt
out among the speakers anew, as often, and the higher of both thresholds counts. It needs `MIN_SPEAKERS` in
every group.

Axis letters: N utterances, G groups, K classes, M scores, R random models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

SIMULATIONS = 1000
ERROR = 0.05
"""Probability that a model without any bias fails a test of one attribute, over all its scores."""
MIN_UTTERANCES, MIN_SPEAKERS = 20, 5
"""Groups with fewer utterances or speakers are not compared."""


@dataclass(frozen=True)
class Spread:
    """One score by group.

    Attributes:
        score: name of the score.
        by_group: group -> value; NaN where it has none.
        value: highest minus lowest value.
        threshold: spread that a model without bias exceeds with probability `ERROR`, over all scores of the
            attribute together.
    """

    score: str
    by_group: Mapping[str, float]
    value: float
    threshold: float


def measure_spreads(
    targets: Sequence[str],
    labels: Sequence[str],
    groups: Sequence[str],
    speakers: Sequence[str],
    classes: Sequence[str],
    seed: int = 0,
) -> list[Spread]:
    """Compare the groups of one attribute.

    Args:
        targets: class of each utterance, (N,).
        labels: the model's answers; one that is no class counts as wrong.
        groups: group of each utterance, empty where it is not known.
        speakers: speaker of each utterance.
        classes: names of the classes.
        seed: seed of the random models.

    Returns:
        the spreads of UA, of the recall, precision and share of every class; empty where fewer than two
        groups have `MIN_UTTERANCES` and `MIN_SPEAKERS`.
    """
    names = _list_large_groups(groups, speakers)
    if len(names) < 2:
        return []
    index = {name: number for number, name in enumerate(classes)}
    kept = [n for n, group in enumerate(groups) if group in names]
    target = np.array([index[targets[n]] for n in kept])
    answer = np.array([index.get(labels[n], len(classes)) for n in kept])  # K: no label
    group = np.array([names.index(groups[n]) for n in kept])
    sizes = len(names), len(classes)
    observed = score_groups(_count(target, answer[None], group[None], *sizes))[0]  # (G, M)
    rng = np.random.default_rng(seed)
    random_answers = _draw_answers(target, answer, len(classes), rng)  # (R, N)
    dealt = _deal_groups(group, [speakers[n] for n in kept], rng)  # (R, N)
    simulated = [
        score_groups(_count(target, random_answers, group[None], *sizes)),
        score_groups(_count(target, answer[None], dealt, *sizes)),
    ]
    # Bonferroni: all scores of an attribute together exceed their thresholds with probability ERROR.
    level = 1 - ERROR / observed.shape[1]
    thresholds = np.max([_find_quantile(_spread(scores), level) for scores in simulated], axis=0)
    scores = ["ua", *(f"{kind}.{name}" for kind in ("recall", "precision", "share") for name in classes)]
    return [
        Spread(score, dict(zip(names, column.tolist(), strict=True)), float(spread), float(threshold))
        for score, column, spread, threshold in zip(
            scores, observed.T, _spread(observed), thresholds, strict=True
        )
    ]


def score_groups(counts: np.ndarray) -> np.ndarray:
    """Score the confusions of groups.

    Args:
        counts: by target and answer, the last answer being none, (R, G, K, K+1).

    Returns:
        UA, recalls, precisions, and the shares of answers minus those of the emotions, (R, G, M).
    """
    classes = counts.shape[-2]
    right = np.diagonal(counts[..., :classes], axis1=-2, axis2=-1)  # (R, G, K)
    of_target, of_answer = counts.sum(-1), counts.sum(-2)[..., :classes]
    total = of_target.sum(-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = right / of_target, right / of_answer
        share = (of_answer - of_target) / total
    known = of_target > 0
    ua = np.where(known, recall, 0).sum(-1, keepdims=True) / known.sum(-1, keepdims=True).clip(1)
    return np.concatenate([ua, recall, precision, share], -1)


def _draw_answers(
    target: np.ndarray, answer: np.ndarray, classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw the answers of random models: each is the audited model's to another utterance of its class."""
    drawn = np.empty((SIMULATIONS, len(target)), int)
    for number in range(classes):
        places = np.flatnonzero(target == number)
        if len(places):
            drawn[:, places] = rng.choice(answer[places], (SIMULATIONS, len(places)))
    return drawn


def _list_large_groups(groups: Sequence[str], speakers: Sequence[str]) -> list[str]:
    names = []
    for name in sorted(set(groups) - {""}):
        own = [speaker for speaker, group in zip(speakers, groups, strict=True) if group == name]
        if len(own) >= MIN_UTTERANCES and len(set(own)) >= MIN_SPEAKERS:
            names.append(name)
    return names


def _deal_groups(group: np.ndarray, speakers: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Deal the groups out among the speakers anew, as many speakers to each as before, (R, N).

    A speaker in several groups, such as of languages, counts for the first.
    """
    _, first, speaker = np.unique(np.asarray(speakers), return_index=True, return_inverse=True)
    by_speaker = np.tile(group[first], (SIMULATIONS, 1))
    return rng.permuted(by_speaker, axis=1)[:, speaker]


def _find_quantile(spreads: np.ndarray, level: float) -> np.ndarray:
    """Return the quantile over random models (R, M) -> (M,); NaN where no model has the score."""
    known = np.isfinite(spreads).any(0)
    quantiles = np.full(spreads.shape[1], np.nan)
    quantiles[known] = np.nanquantile(spreads[:, known], level, axis=0)
    return quantiles


def _count(
    target: np.ndarray, answers: np.ndarray, group: np.ndarray, groups: int, classes: int
) -> np.ndarray:
    """Count answers by group, target and answer: (R, N) or (1, N) for both -> (R, G, K, K+1)."""
    cell = (group * classes + target) * (classes + 1) + answers  # (R, N)
    cells = groups * classes * (classes + 1)
    flat = (np.arange(len(cell))[:, None] * cells + cell).ravel()
    counts = np.bincount(flat, minlength=len(cell) * cells)
    return counts.reshape(len(cell), groups, classes, classes + 1)


def _spread(scores: np.ndarray) -> np.ndarray:
    """Return highest minus lowest over groups: (..., G, M) -> (..., M); NaN without two groups."""
    known = np.isfinite(scores).sum(-2) >= 2
    low = np.where(np.isfinite(scores), scores, np.inf).min(-2)
    high = np.where(np.isfinite(scores), scores, -np.inf).max(-2)
    return np.where(known, high - low, np.nan)
