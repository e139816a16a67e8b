"""Scores of ratings against formulas written a second time; intervals of CCC that cover a known one."""

import math
from statistics import fmean, pstdev

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from sertone.scoring import display, intervals, metrics
from sertone.scoring.sufficient_statistics import SufficientStatistics, select_labelled

NAMES = ("ccc", "pearson", "rmse")
ratings = st.integers(-500, 500).map(lambda number: number / 100)
rated = st.lists(st.tuples(ratings, ratings), min_size=1, max_size=40)


def expected_scores(targets, predictions):
    """Lin's other form, 1 - E(t - p)^2 / what it would be of independent sides; z scores; a plain RMSE."""
    errors = [(t - p) ** 2 for t, p in zip(targets, predictions, strict=True)]
    mean_t, mean_p = fmean(targets), fmean(predictions)
    sd_t, sd_p = pstdev(targets), pstdev(predictions)
    found = {"ccc": 0.0, "pearson": 0.0, "rmse": math.sqrt(fmean(errors))}
    if sd_t and sd_p:
        found["ccc"] = 1 - fmean(errors) / (sd_t**2 + sd_p**2 + (mean_t - mean_p) ** 2)
        z = [(t - mean_t) * (p - mean_p) for t, p in zip(targets, predictions, strict=True)]
        found["pearson"] = fmean(z) / (sd_t * sd_p)
    return found


@given(rated)
def test_rating_scores(pairs):
    targets, predictions = (list(side) for side in zip(*pairs, strict=True))
    found = metrics.rating_scores(targets, predictions)
    assert found == pytest.approx(expected_scores(targets, predictions), abs=1e-9)
    assert -1 <= found["ccc"] <= 1 and abs(found["ccc"]) <= abs(found["pearson"]) + 1e-9


@given(rated, st.integers(-3, 3), st.floats(0.1, 50))
def test_scale_and_offset_of_both_sides_leave_ccc_as_it_is(pairs, offset, factor):
    targets, predictions = np.array(pairs).T
    found = metrics.rating_scores(targets, predictions)
    moved = metrics.rating_scores(1000 * offset + factor * targets, 1000 * offset + factor * predictions)
    expected = found | {"rmse": factor * found["rmse"]}
    assert moved == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_ccc_minds_offset_and_spread_where_pearson_does_not():
    targets = np.array([1.0, 2, 3, 4, 5])
    assert metrics.rating_scores(targets, targets) == pytest.approx({"ccc": 1, "pearson": 1, "rmse": 0})
    higher = metrics.rating_scores(targets, targets + 2)
    assert higher == pytest.approx({"ccc": 4 / 8, "pearson": 1.0, "rmse": 2.0})  # 2 * 2 / (2 + 2 + 2^2)
    narrow = metrics.rating_scores(targets, 3 + (targets - 3) / 2)
    assert narrow == pytest.approx({"ccc": 2 / 2.5, "pearson": 1.0, "rmse": math.sqrt(0.5)})
    assert metrics.rating_scores(targets, targets[::-1])["ccc"] == pytest.approx(-1)


@pytest.mark.parametrize(
    "targets, predictions, rmse",
    [
        ([3.7], [3.7], 0),
        ([2.0], [5.0], 3),
        ([3.1] * 7, [1, 2, 3, 4, 5, 6, 7], None),
        ([1, 2], [0.1, 0.1], None),
    ],
)
def test_where_nothing_varies_the_correlations_are_zero(targets, predictions, rmse):
    found = metrics.rating_scores(targets, predictions)
    assert (found["ccc"], found["pearson"]) == (0.0, 0.0) and math.isfinite(found["rmse"])
    assert rmse is None or found["rmse"] == pytest.approx(rmse)


def rows_of(targets, predictions, speakers):
    sides = zip(targets, predictions, speakers, strict=True)
    return [
        {"speaker": s, "fold": 0, "valence_target": t, "valence_prediction": p, "target": ""}
        for t, p, s in sides
    ]


@settings(deadline=None, max_examples=50)
@given(rated, st.integers(1, 6))
def test_the_sums_over_speakers_give_the_scores_of_the_rows(pairs, speakers):
    targets, predictions = zip(*pairs, strict=True)
    rows = rows_of(map(str, targets), predictions, [n % speakers for n in range(len(pairs))])
    rows.append(rows[0] | {"valence_target": ""})
    known = select_labelled(rows, "valence")
    found = SufficientStatistics.from_rows(known, "valence", [], [row["speaker"] for row in known])
    assert found.unit_count == min(speakers, len(pairs))
    assert found.compute_scores() == pytest.approx(expected_scores(targets, predictions), abs=1e-9)


def simulated(random, slope, noise, shift, speakers=10, spoken=40):
    """Ratings of speakers with a mean, a slope and an offset of their own: targets, answers (U, N)."""
    targets = 3 + random.normal(0, 0.5, (speakers, 1)) + random.normal(0, 1, (speakers, spoken))
    slopes, shifts = random.normal(slope, 0.15, (speakers, 1)), random.normal(0, shift, (speakers, 1))
    return targets, 3 + slopes * (targets - 3) + shifts + random.normal(0, noise, targets.shape)


def true_ccc(slope, noise, shift):
    """Of the population that `simulated` draws speakers from."""
    targets = 1 + 0.5**2
    answers = (slope**2 + 0.15**2) * targets + shift**2 + noise**2
    return 2 * slope * targets / (targets + answers)


def sums_of(targets, predictions):
    rows = rows_of(targets.ravel(), predictions.ravel(), np.repeat(np.arange(len(targets)), targets.shape[1]))
    return SufficientStatistics.from_rows(rows, "valence", [], [row["speaker"] for row in rows])


@pytest.mark.parametrize("case", [(0.8, 0.4, 0.1), (0.8, 0.4, 0.5), (0.5, 0.5, 0.1), (0.2, 0.5, 0.5)])
def test_the_interval_of_ten_speakers_covers_a_known_ccc(case):
    random = np.random.default_rng(1)
    held = []
    for _ in range(150):
        low, high = intervals.compute_intervals(sums_of(*simulated(random, *case)))["ccc"]
        held.append(low <= true_ccc(*case) <= high)
    assert 0.90 <= np.mean(held) <= 0.98


def test_with_many_speakers_it_is_the_interval_of_the_jackknife():
    random = np.random.default_rng(2)
    targets, predictions = simulated(random, 0.6, 0.6, 0.3, speakers=200)
    low, high = intervals.compute_intervals(sums_of(targets, predictions))["ccc"]
    whole = expected_scores(targets.ravel(), predictions.ravel())["ccc"]
    left_out = [
        expected_scores(np.delete(targets, u, 0).ravel(), np.delete(predictions, u, 0).ravel())["ccc"]
        for u in range(200)
    ]
    error = np.sqrt(199 * np.var(left_out))
    assert [low, high] == pytest.approx([whole - 1.97 * error, whole + 1.97 * error], abs=0.15 * error)


def test_bounds_stay_where_scores_can_be():
    targets = np.array([[1.0, 5.0], [2.0, 4.0], [5.0, 1.0]])
    found = intervals.compute_intervals(sums_of(targets, np.array([[1.0, 5.0], [2.0, 4.0], [1.0, 5.0]])))
    assert found["ccc"] == [-1.0, 1.0] and found["rmse"][0] == 0.0 < found["rmse"][1] < math.inf
    assert intervals.compute_intervals(sums_of(targets[:1], targets[:1])) is None


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(2, 12))
@example(243, 6)  # zero between the two draws at the bound
def test_a_difference_is_that_of_the_scores_and_turns_with_its_sides(seed, speakers):
    random = np.random.default_rng(seed)
    targets, first = simulated(random, 0.5, 0.5, 0.3, speakers)
    second = 3 + 0.8 * (targets - 3) + random.normal(0, 0.5, targets.shape)
    a, b = sums_of(targets, first), sums_of(targets, second)
    there, back = intervals.compute_differences(a, b), intervals.compute_differences(b, a)
    for name in NAMES:
        scores = [expected_scores(targets.ravel(), side.ravel())[name] for side in (first, second)]
        one, other = there[name], back[name]
        assert one.value == pytest.approx(scores[1] - scores[0]) and other.value == pytest.approx(-one.value)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low)) and one.p == other.p
        assert (one.p < 0.05) == (one.low > 1e-12 or one.high < -1e-12)


def test_pairing_tells_apart_what_unpaired_intervals_do_not():
    """Speakers differ much; one system adds noise of the same size to every speaker."""
    random = np.random.default_rng(3)
    targets, first = simulated(random, 0.7, 0.3, 0.8)
    second = first + random.normal(0, 0.3, targets.shape)
    low, high = intervals.compute_intervals(sums_of(targets, first))["ccc"]
    found = intervals.compute_differences(sums_of(targets, first), sums_of(targets, second))["ccc"]
    assert found.high < 0 and found.p < 0.05 and abs(found.value) < (high - low) / 2


def test_seeds_are_averaged_not_pooled():
    random = np.random.default_rng(4)
    targets, first = simulated(random, 0.9, 0.2, 0.1)
    second = 6 - first  # the other way round: pooled they would cancel
    both = sums_of(targets, first).stack_runs([sums_of(targets, second)])
    scores = [expected_scores(targets.ravel(), side.ravel())["ccc"] for side in (first, second)]
    assert both.values.shape[:3] == (1, 2, 10) and both.compute_scores()["ccc"] == pytest.approx(
        np.mean(scores)
    )
    low, high = intervals.compute_intervals(both)["ccc"]
    assert high - low > 1  # two seeds that far apart say nothing


def test_an_equal_null_is_rejected_about_as_often_as_it_should():
    random, found = np.random.default_rng(5), []
    for _ in range(100):
        targets, first = simulated(random, 0.6, 0.6, 0.0)
        second = 3 + random.normal(0.6, 0.15, (10, 1)) * (targets - 3) + random.normal(0, 0.6, targets.shape)
        found.append(
            intervals.compute_differences(sums_of(targets, first), sums_of(targets, second))["ccc"].p < 0.05
        )
    assert np.mean(found) <= 0.12


@given(st.floats(-1, 1))
def test_correlations_are_printed_without_a_zero_in_front(value):
    text = display.get_score_format("valence.ccc").format_number(value)
    assert float(text) == pytest.approx(value, abs=5.1e-4)
    assert text.lstrip("-").startswith(".") or abs(float(text)) == 1


def test_how_figures_are_printed():
    ccc, rmse, ua = (display.get_score_format(name) for name in ("arousal.ccc", "arousal.rmse", "ua"))
    assert (ccc.label, ccc.format_value(0.7484), ccc.format_number(-0.012), ccc.format_number(0.012, "+")) == (
        "CCC arousal", ".748", "-.012", "+.012",
    )  # fmt: skip
    assert (ccc.format_value(1.0), ccc.format_published(0.7), rmse.format_value(0.6124), rmse.format_value(10.5)) == (
        "1.000", ".700", "0.612", "10.500",
    )  # fmt: skip
    assert (ua.format_value(0.7512), ua.format_number(-0.012, "+"), ua.format_published(76.64)) == (
        "75.1%",
        "-1.2",
        "76.64",
    )
    assert display.describe_units(["ua", "asr.cer"]) == "Percent"
    assert display.describe_units(["ua", "wa", "valence.ccc", "arousal.ccc", "valence.rmse"]) == (
        "UA and WA in percent, CCC from -1 to 1, RMSE in points of the scale"
    )


def test_the_second_interval_is_not_the_first():
    """Over utterances the interval would be far too sure: why speakers are drawn."""
    random = np.random.default_rng(6)
    held = []
    for _ in range(60):
        targets, predictions = simulated(random, 0.8, 0.4, 0.5)
        own = expected_scores(targets.ravel(), predictions.ravel())["ccc"]
        reach = stats.norm.isf(0.025) * (1 - own**2) / math.sqrt(targets.size)
        held.append(abs(own - true_ccc(0.8, 0.4, 0.5)) <= reach)
    assert np.mean(held) < 0.8
