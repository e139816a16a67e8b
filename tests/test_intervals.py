"""Intervals that cover what they should, by simulation, and tests of differences against other formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sertone.scoring import intervals
from sertone.scoring.metrics import emotion_scores
from sertone.scoring.sufficient_statistics import SufficientStatistics, count_confusions_by_unit

CLASSES = 4


def simulated(random, accuracy, speakers=10, spoken=10, spread=8.0):
    """Confusion counts of speakers whose accuracies scatter about `accuracy`, (U, K, K)."""
    own = random.beta(accuracy * spread, (1 - accuracy) * spread, speakers)
    hits = random.binomial(spoken, own[:, None], (speakers, CLASSES))
    tables = np.zeros((speakers, CLASSES, CLASSES), int)
    index = np.arange(CLASSES)
    tables[:, index, index] = hits
    tables[:, index, (index + 1) % CLASSES] = spoken - hits
    return tables


def interval(counts):
    return intervals.compute_intervals(SufficientStatistics.from_counts(counts))


def difference(first, second):
    return intervals.compute_differences(
        SufficientStatistics.from_counts(first), SufficientStatistics.from_counts(second)
    )


@pytest.mark.parametrize("accuracy", [0.5, 0.7, 0.85])
def test_the_interval_of_ten_speakers_covers_a_known_accuracy(accuracy):
    random = np.random.default_rng(1)
    held = []
    for _ in range(250):
        bounds = interval(simulated(random, accuracy))
        held.append(bounds["ua"][0] <= accuracy <= bounds["ua"][1])
    assert 0.90 <= np.mean(held) <= 0.98


def test_drawing_utterances_instead_would_cover_far_less():
    """Why speakers are drawn: the interval over utterances takes 400 opinions for independent."""
    random = np.random.default_rng(2)
    held = []
    for _ in range(60):
        counts = simulated(random, 0.7).sum(0)
        right = np.repeat([1, 0], [np.trace(counts), counts.sum() - np.trace(counts)])
        error = 1.96 * right.std() / np.sqrt(len(right))
        held.append(abs(right.mean() - 0.7) <= error)
    assert np.mean(held) < 0.75


def test_an_unbiased_null_is_rejected_about_as_often_as_it_should():
    random = np.random.default_rng(3)
    found = [difference(simulated(random, 0.7), simulated(random, 0.7))["ua"].p < 0.05 for _ in range(150)]
    assert np.mean(found) <= 0.10


def test_tables_are_the_counts_of_each_unit():
    targets, answers = list("aabbab"), list("abbbaa")
    units, counts = count_confusions_by_unit(targets, answers, ["y", "x", "x", "y", "y", "x"], "ab")
    assert units == ["x", "y"]
    assert counts.tolist() == [[[0, 1], [1, 1]], [[2, 0], [0, 1]]]


def test_the_interval_draws_units_not_utterances():
    """Ten speakers all right or all wrong: the interval is that of ten throws, not of a thousand."""
    right = np.array([[[50, 0], [0, 50]]] * 6 + [[[0, 50], [50, 0]]] * 4)
    low, high = interval(right)["wa"]
    tail = stats.norm.sf(np.sqrt(10 / 9) * stats.t.isf(0.025, 9))
    throws = stats.binom.ppf([tail, 1 - tail], 10, 0.6) / 10
    assert [low, high] == pytest.approx(throws)
    many = np.repeat(right, 100, axis=0)
    low, high = interval(many)["wa"]
    normal = 1.96 * np.sqrt(0.6 * 0.4 / 1000)
    assert [low, high] == pytest.approx([0.6 - normal, 0.6 + normal], abs=0.003)


def test_with_many_units_it_is_the_interval_of_a_mean():
    random = np.random.default_rng(4)
    counts = simulated(random, 0.7, speakers=200)
    own = np.trace(counts, axis1=1, axis2=2) / counts.sum((1, 2))
    expected = stats.t.interval(0.95, 199, own.mean(), own.std(ddof=1) / np.sqrt(200))
    assert interval(counts)["wa"] == pytest.approx(expected, abs=0.003)


def test_one_unit_shows_nothing_and_two_show_little():
    counts = simulated(np.random.default_rng(5), 0.7)
    assert interval(counts[:1]) is None
    three = np.array([[[9, 1], [1, 9]], [[8, 2], [2, 8]], [[7, 3], [3, 7]]])
    expected = stats.t.interval(0.95, 2, 0.8, np.std([0.9, 0.8, 0.7], ddof=1) / np.sqrt(3))
    assert interval(three)["wa"] == pytest.approx([expected[0], 1.0], abs=0.01)
    assert interval(three[[0, 2]])["wa"] == [0.0, 1.0]


def test_seeds_that_differ_widen_the_interval():
    base = simulated(np.random.default_rng(6), 0.7, speakers=40, spoken=50)
    swapped = base[:, :, [1, 0, 2, 3]]  # a seed that confuses two classes
    same = interval(np.stack([base, base]))["ua"]
    assert same == pytest.approx(interval(base)["ua"], abs=0.005)
    low, high = interval(np.stack([base, swapped]))["ua"]
    assert high - low > 3 * (same[1] - same[0])


def test_columns_are_taken_as_they_are():
    """Two encoders that differ much, both made a little better in every speaker: the mean difference is sure."""
    random = np.random.default_rng(10)
    weak, strong = simulated(random, 0.4, spoken=50), simulated(random, 0.9, spoken=50)
    first = np.stack([weak, strong])[:, None]  # (C, S, U, K, K)
    second = first.copy()
    index = np.arange(CLASSES)
    for table in second.reshape(-1, CLASSES, CLASSES):
        moved = np.minimum(2, table[index, (index + 1) % CLASSES])
        table[index, (index + 1) % CLASSES] -= moved
        table[index, index] += moved
    found = difference(first, second)["ua"]
    alone = [difference(first[c], second[c])["ua"].value for c in (0, 1)]
    assert found.value == pytest.approx(np.mean(alone)) and found.low > 0
    as_seeds = difference(first[:, 0], second[:, 0])["ua"]
    assert as_seeds.value == pytest.approx(found.value) and as_seeds.low < 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.integers(2, 12))
def test_a_difference_is_that_of_the_scores_and_turns_with_its_sides(seed, speakers):
    random = np.random.default_rng(seed)
    first, second = (simulated(random, accuracy, speakers) for accuracy in (0.6, 0.8))
    there, back = difference(first, second)["ua"], difference(second, first)["ua"]
    value = scores(second)["ua"] - scores(first)["ua"]
    assert there.value == pytest.approx(value) and back.value == pytest.approx(-value)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low)) and there.p == back.p
    if min(abs(there.low), abs(there.high)) > 1e-12:  # a bound may be zero itself
        assert (there.p < 0.05) == (there.low > 0 or there.high < 0)


def scores(counts):
    """Through single utterances, the long way round."""
    cells = [(t, p) for t in range(CLASSES) for p in range(CLASSES) for _ in range(counts.sum(0)[t, p])]
    return emotion_scores([str(t) for t, _ in cells], [str(p) for _, p in cells])


def test_equal_runs_do_not_differ():
    counts = simulated(np.random.default_rng(7), 0.7)
    same = difference(counts, counts)["wa"]
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_pairing_tells_apart_what_unpaired_intervals_do_not():
    """Speakers differ much, the runs little but always the same way."""
    random = np.random.default_rng(8)
    first = simulated(random, 0.6, spoken=200, spread=5)
    second = first.copy()
    for table in second:
        for target in range(CLASSES):
            moved = table[target, (target + 1) % CLASSES] // 10
            table[target, (target + 1) % CLASSES] -= moved
            table[target, target] += moved
    found = difference(first, second)["ua"]
    low, high = interval(first)["ua"]
    assert found.low > 0 and found.p < 0.01 and found.value < (high - low) / 2


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_mcnemar(pairs):
    first, second = zip(*pairs, strict=True)
    found = intervals.mcnemar(first, second)
    b, c = sum(f and not s for f, s in pairs), sum(s and not f for f, s in pairs)
    assert (found["only_first"], found["only_second"]) == (b, c)
    expected = min(1.0, 2 * stats.binom.cdf(min(b, c), b + c, 0.5)) if b + c else 1.0
    assert found["p"] == pytest.approx(expected)


def test_unlike_units_are_refused():
    counts = simulated(np.random.default_rng(9), 0.7)
    with pytest.raises(ValueError, match="9 and 10 units"):
        difference(counts[1:], counts)
