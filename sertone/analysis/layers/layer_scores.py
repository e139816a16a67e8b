"""Scores of layers with intervals, the best layer, and the centre of each target.

The **centre** of a target is the mean layer. Each layer is weighted by how much its score exceeds that of the
worst layer (after the centre of gravity of Tenney et al. 2019, arXiv 1905.05950). Shifting or scaling all
scores does not change it, so the centre of a CCC and that of an accuracy can be compared. Noise in the scores
draws it to the middle. Noise alone has a centre near the middle, too. A target therefore has a centre only
where the mean of its layers' scores is above chance, by its interval. Intervals draw whole speakers, for all
layers and for two targets at once: a paired difference.

The noise of a draw comes on top of that of the data and draws the centre to the middle once more. Plain
quantiles of the draws then miss the truth where layers peak. Reversed quantiles assume that the draws differ
from the centre as the centre differs from the truth (the "basic" bootstrap, Davison and Hinkley 1997, 5.2).
They find differences between flat profiles where there are none. So an interval reaches from the lower of
both lower bounds to the higher of both upper bounds, and p is the larger of both.

In simulations (7 layers, 10 and 40 speakers) equal profiles differ in at most 6 % of the cases. For two peaks
on either side of the middle, the true distance lies beyond the interval in 16 to 30 %. The value itself stays
drawn to the middle.

Axis letters: C layers, U speakers, F sums, R draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from sertone.analysis.layers import linear_probes
from sertone.analysis.layers.targets import Target
from sertone.scoring import intervals
from sertone.scoring.sufficient_statistics import SufficientStatistics

REPORTED_SCORES = {"ccc": ("ccc", "pearson", "rmse"), "ua": ("ua", "wa"), "wa": ("wa",)}
"""Main score -> all reported scores."""
LayerResults = Sequence[dict[str, Any]]
"""`values` and `penalties` of every layer, for one target."""


def score_target(target: Target, results: LayerResults) -> dict[str, Any]:
    """Compute the scores of all layers, the best layer and the centre of one target.

    Args:
        target: the probed target.
        results: results of its probes, by layer.
    """
    sums = linear_probes.build_statistics(target, np.array([layer["values"] for layer in results]))
    layers = [
        _score_layer(number, sums, target.score) | {"penalties": result["penalties"]}
        for number, result in enumerate(results)
    ]
    scores, draws = _score_layers(sums, target.score)
    return {
        "score": target.score,
        "chance": target.chance,
        "classes": target.classes,
        "utterances": int((target.test_folds >= 0).sum()),
        "speakers": sums.unit_count,
        "layers": layers,
        "best": _find_best_layer(scores, draws),
        "centre": _estimate_centre(target, scores, draws, sums.unit_count),
    }


def compare_centres(targets: Sequence[Target], results: Mapping[str, LayerResults]) -> list[dict[str, Any]]:
    """Compute, for every two targets with a centre, by how many layers the second lies behind the first.

    Speakers that only one of the two tests are left out.

    Args:
        targets: the probed targets.
        results: results of their probes, by name of the target.
    """
    differences = []
    for first, second in combinations(targets, 2):
        # Both targets need the same speakers in the same order, because draws are shared.
        speakers = sorted({*first.test_speakers} & {*second.test_speakers})
        if len(speakers) < 2:
            continue
        first_scores, first_draws = _score_speakers(first, results[first.name], speakers)
        second_scores, second_draws = _score_speakers(second, results[second.name], speakers)
        if not _is_above_chance(first, first_scores, first_draws, len(speakers)):
            continue
        if not _is_above_chance(second, second_scores, second_draws, len(speakers)):
            continue
        # The draws of both have the same speakers, so their differences are paired.
        gap = float(compute_centre(second_scores) - compute_centre(first_scores))
        gap_draws = compute_centre(second_draws) - compute_centre(first_draws)
        difference = _build_cautious_interval(gap, gap_draws, len(speakers))
        differences.append({"first": first.name, "second": second.name} | difference.to_json())
    return differences


def compute_centre(scores: np.ndarray) -> np.ndarray:
    """Return the mean layer, weighted by the score above that of the worst layer: (..., C) -> (...).

    The centre of equal scores is in the middle.
    """
    excess = scores - scores.min(-1, keepdims=True)
    layers = np.arange(scores.shape[-1])
    total = excess.sum(-1)
    # The inner `where` avoids a division by zero where all scores are equal.
    return np.where(total > 0, excess @ layers / np.where(total > 0, total, 1.0), layers.mean())


def _score_layer(number: int, sums: SufficientStatistics, score: str) -> dict[str, Any]:
    # A slice keeps the axis of columns.
    layer_sums = replace(sums, values=sums.values[number : number + 1])
    scores = layer_sums.compute_scores()
    bounds = intervals.compute_intervals(layer_sums) or {}
    return {
        "layer": number,
        "scores": {name: scores[name] for name in REPORTED_SCORES[score]},
        "intervals": {name: bounds[name] for name in REPORTED_SCORES[score] if name in bounds},
    }


def _score_layers(sums: SufficientStatistics, score: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the main score of every layer, (C,), and of every draw, (R, C); None for a single speaker."""
    scores = sums.score_sums(sums.values.sum(2)[:, 0])[score]
    if sums.unit_count < 2:
        return scores, None
    drawn_units = intervals.draw_units(sums.unit_count)
    draws = np.stack([sums.score_sums(drawn_units @ layer[0])[score] for layer in sums.values], 1)
    return scores, draws


def _score_speakers(
    target: Target, results: LayerResults, speakers: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the main score of every layer, (C,), and of every draw, (R, C), over some speakers only.

    Args:
        target: the probed target.
        results: results of its probes, by layer.
        speakers: speakers, at least two; their order is that of the units.
    """
    rows = [target.test_speakers.index(name) for name in speakers]
    values = np.array([layer["values"] for layer in results])[:, rows]
    sums = linear_probes.build_statistics(target, values)
    scores, draws = _score_layers(sums, target.score)
    assert draws is not None, "two speakers or more can be drawn"
    return scores, draws


def _estimate_centre(
    target: Target, scores: np.ndarray, draws: np.ndarray | None, units: int
) -> dict[str, Any] | None:
    """Return the centre with its interval, or None where the layers are not above chance."""
    if draws is None or not _is_above_chance(target, scores, draws, units):
        return None
    centre = _build_cautious_interval(float(compute_centre(scores)), compute_centre(draws), units)
    # Reversed quantiles may lie outside of the layers.
    low, high = np.clip([centre.low, centre.high], 0, len(scores) - 1).tolist()
    return {"value": centre.value, "interval": [low, high]}


def _build_cautious_interval(value: float, draws: np.ndarray, units: int) -> intervals.Difference:
    """Return the interval that covers plain and reversed quantiles of the draws, and the larger p."""
    plain = intervals.summarise_draws(draws, value, units)
    reversed_ = intervals.summarise_draws(2 * value - draws, value, units)
    low = min(plain.low, reversed_.low)
    high = max(plain.high, reversed_.high)
    return intervals.Difference(value, low, high, max(plain.p, reversed_.p))


def _is_above_chance(target: Target, scores: np.ndarray, draws: np.ndarray, units: int) -> bool:
    """Return true where the mean score of all layers is above chance. This is one test for all layers."""
    mean = intervals.summarise_draws(draws.mean(1), float(scores.mean()), units)
    return mean.low > target.chance


def _find_best_layer(scores: np.ndarray, draws: np.ndarray | None) -> dict[str, Any]:
    """Return the layer with the best score, and the share of draws in which each layer is best.

    Layers that are equally good share a draw.
    """
    best: dict[str, Any] = {"layer": int(scores.argmax())}
    if draws is None:
        return best
    winners = draws == draws.max(1, keepdims=True)
    shares = (winners / winners.sum(1, keepdims=True)).mean(0)
    # The range holds the middle 95 % of the draws.
    low, high = np.searchsorted(shares.cumsum(), [0.025, 0.975])
    return best | {"shares": shares.tolist(), "range": [int(low), int(high)]}
