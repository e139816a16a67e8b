"""Bootstrap intervals of scores, and of differences between runs.

Utterances of one speaker resemble each other, so the bootstrap draws whole units with replacement. Units are
speakers, or folds (whose speakers also share a trained model), and training seeds where there are several.

Corpora have few speakers, and for few units the plain percentile interval is too short: 90 % instead of 95 %
for ten speakers. The bounds are therefore the quantiles Phi(-+ sqrt(n / (n-1)) t) of the draws, with t from
Student's distribution with n - 1 degrees of freedom ("expanded percentile", Hesterberg 2015, arXiv
1411.5279). Draws of fewer than five units have no such quantiles. Their interval is Student's, with the
standard deviation of the draws, and it is wide.

Axis letters: C columns of a table (such as encoders), S seeds, U units, R draws. A mean over columns takes
the columns as fixed: the table is about them, and they are no sample of others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from sertone.scoring.sufficient_statistics import SufficientStatistics, get_unit, select_labelled

RESAMPLES = 10_000
LEVEL = 0.95
MIN_UNITS_FOR_QUANTILES = 5
"""Smallest number of units whose interval is taken from quantiles of the draws."""

Bounds = dict[str, list[float]]
"""Score -> [low, high]."""


def compute_intervals(sums: SufficientStatistics, *, level: float = LEVEL, seed: int = 0) -> Bounds | None:
    """Compute the intervals of all scores by drawing units, and training seeds where there are several.

    Args:
        sums: statistics by unit; the score of several seeds or columns is the mean of their scores.
        level: share of such intervals that are to contain the true score.
        seed: seed of the random draws.

    Returns:
        score -> [low, high]; None for fewer than two units, whose variation is not known.
    """
    units = sums.unit_count
    if units < 2:
        return None
    scores = sums.compute_scores()
    intervals = {}
    for name, draws in _score_draws(sums, draw_units(units, seed), seed).items():
        lowest, highest = sums.limits[name]
        bounds = _compute_bounds(draws, scores[name], units, level)
        # Student's interval may exceed the limits of a score.
        intervals[name] = [min(max(bound, lowest), highest) for bound in bounds]
    return intervals


def compute_intervals_by_unit(
    rows: Sequence[Mapping[str, Any]], task: str, classes: Sequence[str], *, seed: int = 0
) -> dict[str, dict]:
    """Compute the intervals of a run's scores for each kind of unit that occurs at least twice.

    Args:
        rows: target and prediction of the task, `speaker` and `fold` of every utterance.
        task: `emotion`, or a rating.
        classes: all class names.
        seed: seed of the random draws.

    Returns:
        `speakers` and `folds`, each with the number of `units` and the bounds of every score. Where no
        speaker is known, the key is `utterances` instead of `speakers`. Where some speakers are unknown, each
        of their utterances is a unit of its own, and `unknown_speakers` counts these.
    """
    rows = select_labelled(rows, task)
    intervals: dict[str, dict] = {}
    unknown = sum(not row["speaker"] for row in rows)
    kind = "utterances" if rows and unknown == len(rows) else "speakers"
    for name, units in ((kind, [get_unit(row) for row in rows]), ("folds", [row["fold"] for row in rows])):
        sums = SufficientStatistics.from_rows(rows, task, classes, units)
        if bounds := compute_intervals(sums, seed=seed):
            mixed = {"unknown_speakers": unknown} if name == "speakers" and unknown else {}
            intervals[name] = {"units": sums.unit_count} | mixed | bounds
    return intervals


@dataclass(frozen=True)
class Difference:
    """Difference between two scores, with its interval and p.

    Attributes:
        value: second score minus first.
        low: lower bound of the interval.
        high: upper bound of the interval.
        p: smallest error level whose interval excludes zero, so interval and p agree.
    """

    value: float
    low: float
    high: float
    p: float

    def to_json(self) -> dict:
        """Return the difference as a JSON object."""
        return asdict(self)


def compute_differences(
    first: SufficientStatistics, second: SufficientStatistics, *, level: float = LEVEL, seed: int = 0
) -> dict[str, Difference]:
    """Compute the differences second minus first by paired draws.

    Both runs are scored on the same drawn speakers, so the variation between speakers cancels.

    Args:
        first: statistics of one run.
        second: statistics of the other, with the same units and columns in the same order. Its seeds may
            differ.
        level: confidence level of the intervals.
        seed: seed of the random draws.

    Raises:
        ValueError: fewer than two units, or not the same number.
    """
    units = first.unit_count
    if units < 2 or second.unit_count != units:
        raise ValueError(f"{units} and {second.unit_count} units: expected the same number, two or more")
    drawn_units = draw_units(units, seed)
    # Training seeds are drawn independently: seed 0 of one system is not paired with seed 0 of the other.
    first_draws = _score_draws(first, drawn_units, seed)
    second_draws = _score_draws(second, drawn_units, seed + 1)
    first_scores = first.compute_scores()
    second_scores = second.compute_scores()
    differences = {}
    for name in first_draws:
        value = second_scores[name] - first_scores[name]
        draws = second_draws[name] - first_draws[name]
        low, high = _compute_bounds(draws, value, units, level)
        lowest, highest = first.limits[name]
        widest = highest - lowest
        p = _compute_p(draws, value, units)
        differences[name] = Difference(value, max(low, -widest), min(high, widest), p)
    return differences


def summarise_draws(draws: np.ndarray, value: float, units: int, *, level: float = LEVEL) -> Difference:
    """Return interval and p of any statistic that was computed for every draw of `draw_units`.

    Args:
        draws: the statistic of each draw, (R,).
        value: the statistic of the units as they are.
        units: number of units, at least two.
        level: confidence level of the interval.
    """
    low, high = _compute_bounds(draws, value, units, level)
    return Difference(value, low, high, _compute_p(draws, value, units))


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> dict[str, float]:
    """Run McNemar's exact test on the utterances that only one of two runs predicts correctly.

    The test assumes independent utterances. Those of one speaker are not, so its p is too small.

    Args:
        first_right: true where the first run is right, by utterance.
        second_right: true where the second run is right, by utterance.

    Returns:
        `only_first`, `only_second`: number of utterances that only one run predicts correctly; `p`.
    """
    first = np.asarray(first_right, bool)
    second = np.asarray(second_right, bool)
    only_first = int((first & ~second).sum())
    only_second = int((second & ~first).sum())
    total = only_first + only_second
    p = float(stats.binomtest(only_first, total).pvalue) if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def draw_units(units: int, seed: int = 0) -> np.ndarray:
    """Draw units with replacement and return how often each occurs in each draw: (R, U)."""
    # The second number keeps this stream apart from that of the training seeds.
    return np.random.default_rng([seed, 0]).multinomial(units, np.full(units, 1 / units), RESAMPLES)


def _score_draws(sums: SufficientStatistics, drawn_units: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return the scores of each draw, with training seeds drawn anew in every column.

    Args:
        sums: statistics by unit.
        drawn_units: how often each draw has each unit, (R, U).
        seed: seed of the random draws.

    Returns:
        score -> (R,).
    """
    columns, seeds = sums.values.shape[:2]
    rng = np.random.default_rng([seed, 1])
    # Dividing here makes the weighted sums below the means over seeds and columns.
    weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), (RESAMPLES, columns)) / (seeds * columns)
    total: dict[str, np.ndarray] = {}
    for column in range(columns):
        for number in range(seeds):
            for name, values in sums.score_sums(drawn_units @ sums.values[column, number]).items():
                total[name] = total.get(name, 0.0) + weights[:, column, number] * values
    return total


def _compute_bounds(draws: np.ndarray, value: float, units: int, level: float) -> tuple[float, float]:
    """Return the bounds of the interval of a value with these draws."""
    t = float(stats.t.isf((1 - level) / 2, units - 1))
    if units < MIN_UNITS_FOR_QUANTILES:
        reach = t * _compute_standard_error(draws, units)
        return value - reach, value + reach
    # Expanded percentile, Hesterberg 2015: a level beyond (1 - level) / 2 corrects the short interval.
    tail = stats.norm.sf(np.sqrt(units / (units - 1)) * t)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _compute_p(draws: np.ndarray, value: float, units: int) -> float:
    """Return the error level at which one bound of the interval reaches zero.

    This inverts `_compute_bounds`, so interval and p agree.
    """
    if units < MIN_UNITS_FOR_QUANTILES:
        error = _compute_standard_error(draws, units)
        # Without any variation, t is infinite or undefined.
        return float(2 * stats.t.sf(abs(value) / error, units - 1)) if error else float(value == 0)
    # A finite number of draws cannot show a smaller tail than 1 / (R + 1).
    tail = max(min(_share_below_zero(draws), _share_below_zero(-draws)), 1 / (len(draws) + 1))
    t = stats.norm.isf(min(tail, 0.5)) * np.sqrt((units - 1) / units)
    return float(2 * stats.t.sf(t, units - 1))


def _share_below_zero(draws: np.ndarray) -> float:
    """Return the share whose quantile is zero, interpolated between two draws as `np.quantile` does."""
    draws = np.sort(draws)
    count = int((draws <= 0).sum())
    if count in (0, len(draws)):
        return float(count > 0)
    below, above = draws[count - 1 : count + 1]
    return float((count - 1 - below / (above - below)) / (len(draws) - 1))


def _compute_standard_error(draws: np.ndarray, units: int) -> float:
    """Return the standard error: the standard deviation of the draws, corrected for its known bias."""
    return float(draws.std() * np.sqrt(units / (units - 1)))
