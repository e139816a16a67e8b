"""How far a score can be believed: intervals, and differences between runs.

Utterances of one speaker resemble each other, so whole units are drawn with replacement: speakers, or
folds (whose speakers also share a trained model), and training seeds where there are several. Between the
few units of this field the plain percentile interval is too short, 90 % instead of 95 % for ten speakers;
the bounds are therefore the quantiles Phi(-+ sqrt(n / (n-1)) t) of the draws, with t from Student's
distribution with n - 1 degrees of freedom ("expanded percentile", Hesterberg 2015, arXiv 1411.5279).
Draws of fewer than five units cannot reach that far; there it is Student's interval with the draws'
standard deviation, which is wide, as it must be.

Axis letters: C columns of a table (encoders, say), S seeds, U units, R draws. A mean over columns takes
them as they are: they are what the table is about, not a sample of something.
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
FEW = 5
"""Units from which on quantiles of the draws are taken."""

Bounds = dict[str, list[float]]
"""Score -> [low, high]."""


def compute_intervals(sums: SufficientStatistics, *, level: float = LEVEL, seed: int = 0) -> Bounds | None:
    """Intervals of the scores, drawing units, and training seeds where there are several.

    Args:
        sums: of each unit; the score of several seeds or columns is the mean of theirs.
        level: how often the interval is to hold the true score.
        seed: of the draws.

    Returns:
        score -> [low, high]; None for fewer than two units, which show nothing.
    """
    units, whole = sums.unit_count, sums.compute_scores()
    if units < 2:
        return None
    found = {}
    for name, values in _scores(sums, draw_units(units, seed), seed).items():
        lowest, highest = sums.limits[name]
        bounds = _bounds(values, whole[name], units, level)
        found[name] = [min(max(bound, lowest), highest) for bound in bounds]
    return found


def compute_intervals_by_unit(
    rows: Sequence[Mapping[str, Any]], task: str, classes: Sequence[str], *, seed: int = 0
) -> dict[str, dict]:
    """Intervals of a run's scores, for each kind of unit that there are two of.

    Args:
        rows: target and prediction of the task, `speaker` and `fold` of every utterance.
        task: `emotion`, or a rating.
        classes: all class names.
        seed: of the draws.

    Returns:
        `speakers` and `folds`, each with `units`, how many there are, and the bounds of every score. Where no
        speaker is known, `utterances` in the place of speakers; where some are not, each of their utterances
        is a unit beside the speakers, and `unknown_speakers` counts them.
    """
    rows, found = select_labelled(rows, task), {}
    unknown = sum(not row["speaker"] for row in rows)
    kind = "utterances" if rows and unknown == len(rows) else "speakers"
    for name, units in ((kind, [get_unit(row) for row in rows]), ("folds", [row["fold"] for row in rows])):
        sums = SufficientStatistics.from_rows(rows, task, classes, units)
        if bounds := compute_intervals(sums, seed=seed):
            mixed = {"unknown_speakers": unknown} if name == "speakers" and unknown else {}
            found[name] = {"units": sums.unit_count} | mixed | bounds
    return found


@dataclass(frozen=True)
class Difference:
    """By how much one run scores higher than another.

    Attributes:
        value: the difference of the two scores.
        low: lower bound of its interval.
        high: upper bound.
        p: the smallest error level whose interval leaves out zero; interval and p agree.
    """

    value: float
    low: float
    high: float
    p: float

    def to_json(self) -> dict:
        """As a JSON object."""
        return asdict(self)


def compute_differences(
    first: SufficientStatistics, second: SufficientStatistics, *, level: float = LEVEL, seed: int = 0
) -> dict[str, Difference]:
    """Second minus first, by paired draws: both runs are scored on the same drawn speakers.

    Args:
        first: of one run.
        second: of the other, of the same units and columns in the same order; seeds may be others.
        level: of the interval.
        seed: of the draws.

    Raises:
        ValueError: fewer than two units, or not the same number.
    """
    sides, units = (first, second), first.unit_count
    if units < 2 or second.unit_count != units:
        raise ValueError(f"{units} and {second.unit_count} units; the same number, two or more")
    chosen = draw_units(units, seed)
    drawn = [_scores(side, chosen, seed + number) for number, side in enumerate(sides)]
    found, whole = {}, [side.compute_scores() for side in sides]
    for name in drawn[0]:
        value, values = whole[1][name] - whole[0][name], drawn[1][name] - drawn[0][name]
        low, high = _bounds(values, value, units, level)
        lowest, highest = first.limits[name]
        widest = highest - lowest
        found[name] = Difference(value, max(low, -widest), min(high, widest), _p(values, value, units))
    return found


def summarise_draws(values: np.ndarray, value: float, units: int, *, level: float = LEVEL) -> Difference:
    """The interval and p of anything that was computed anew for every draw.

    Args:
        values: of the draws of `drawn_units`, (R,).
        value: of the units as they are.
        units: how many there are, two at least.
        level: of the interval.
    """
    return Difference(value, *_bounds(values, value, units, level), _p(values, value, units))


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> dict[str, float]:
    """McNemar's exact test on utterances of which one run is right and the other wrong.

    It takes utterances for independent, which those of one speaker are not: its p is too small.

    Args:
        first_right: whether one run is right, by utterance.
        second_right: whether the other is.

    Returns:
        `only_first`, `only_second`: utterances that only one has right; `p`.
    """
    first, second = np.asarray(first_right, bool), np.asarray(second_right, bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total = only_first + only_second
    p = float(stats.binomtest(only_first, total).pvalue) if total else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def draw_units(units: int, seed: int = 0) -> np.ndarray:
    """How often each unit is drawn, (R, U)."""
    return np.random.default_rng([seed, 0]).multinomial(units, np.full(units, 1 / units), RESAMPLES)


def _scores(sums: SufficientStatistics, units: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Scores of each draw: units (R, U) -> score -> (R,).

    In every column as many seeds are drawn as there are.
    """
    columns, seeds = sums.values.shape[:2]
    random = np.random.default_rng([seed, 1])
    weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), (RESAMPLES, columns)) / (seeds * columns)
    total: dict[str, np.ndarray] = {}
    for column in range(columns):
        for number in range(seeds):
            for name, values in sums.score_sums(units @ sums.values[column, number]).items():
                total[name] = total.get(name, 0.0) + weights[:, column, number] * values
    return total


def _bounds(values: np.ndarray, value: float, units: int, level: float) -> tuple[float, float]:
    """The interval of a value of which `values` were drawn."""
    t = float(stats.t.isf((1 - level) / 2, units - 1))
    if units < FEW:
        reach = t * _error(values, units)
        return value - reach, value + reach
    tail = stats.norm.sf(np.sqrt(units / (units - 1)) * t)
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _p(values: np.ndarray, value: float, units: int) -> float:
    """`_bounds` turned round: the error level at which one bound reaches zero."""
    if units < FEW:
        error = _error(values, units)
        return float(2 * stats.t.sf(abs(value) / error, units - 1)) if error else float(value == 0)
    tail = max(min(_below_zero(values), _below_zero(-values)), 1 / (len(values) + 1))
    t = stats.norm.isf(min(tail, 0.5)) * np.sqrt((units - 1) / units)
    return float(2 * stats.t.sf(t, units - 1))


def _below_zero(values: np.ndarray) -> float:
    """The share whose quantile is zero, between two values as `np.quantile` takes it."""
    values = np.sort(values)
    count = int((values <= 0).sum())
    if count in (0, len(values)):
        return float(count > 0)
    last, following = values[count - 1 : count + 1]
    return float((count - 1 - last / (following - last)) / (len(values) - 1))


def _error(values: np.ndarray, units: int) -> float:
    """Standard error: the deviation of the draws, which is too small by a factor that is known."""
    return float(values.std() * np.sqrt(units / (units - 1)))
