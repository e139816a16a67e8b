"""Scores against formulas written a second time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sertone.errors import SertoneError
from sertone.scoring import metrics

labelled = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=60)


def expected_emotion_scores(targets, predictions):
    """From the definitions, by counting."""
    recalls, f1s = [], []
    for name in set(targets):
        hits = sum(t == p == name for t, p in zip(targets, predictions, strict=True))
        spoken, answered = targets.count(name), predictions.count(name)
        recalls.append(hits / spoken)
        f1s.append(2 * hits / (spoken + answered))
    correct = sum(t == p for t, p in zip(targets, predictions, strict=True))
    return {
        "ua": sum(recalls) / len(recalls),
        "wa": correct / len(targets),
        "macro_f1": sum(f1s) / len(f1s),
    }


@given(labelled)
def test_emotion_scores(pairs):
    targets, predictions = (list(side) for side in zip(*pairs, strict=True))
    assert metrics.emotion_scores(targets, predictions) == pytest.approx(
        expected_emotion_scores(targets, predictions)
    )


@settings(deadline=None)
@given(st.lists(labelled, min_size=1, max_size=4))
def test_scores_of_confusion_are_the_scores(runs):
    for pairs in runs:
        targets, predictions = (list(side) for side in zip(*pairs, strict=True))
        table = metrics.count_confusions(targets, predictions, "abcd")
        assert table.sum() == len(pairs)
        found = {k: float(v[0]) for k, v in metrics.score_confusions(table[None]).items()}
        assert found == pytest.approx(expected_emotion_scores(targets, predictions))


def edits(a, b):
    """Levenshtein distance, by its recursion."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, before = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


words = st.text("ab ", min_size=1, max_size=12).map(lambda t: " ".join(t.split())).filter(bool)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(words, st.text("ab ", max_size=12).map(lambda t: " ".join(t.split()))),
        min_size=1,
        max_size=5,
    )
)
def test_error_rates(pairs):
    texts, answers = (list(side) for side in zip(*pairs, strict=True))
    found = metrics.transcript_scores(texts, answers)
    characters = sum(edits(t, a) for t, a in pairs) / sum(len(t) for t in texts)
    by_word = sum(edits(t.split(), a.split()) for t, a in pairs) / sum(len(t.split()) for t in texts)
    assert found == pytest.approx({"cer": characters, "wer": by_word})


def test_accuracy_and_empty_input():
    assert metrics.class_scores(["a", "b", "b"], ["a", "b", "a"])["accuracy"] == pytest.approx(2 / 3)
    for score in metrics.SCORES.values():
        with pytest.raises(SertoneError):
            score([], [])
