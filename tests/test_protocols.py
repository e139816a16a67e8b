"""Splits that share no speaker, and the check that finds leaks."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sertone import corpora
from sertone.errors import SertoneError
from sertone.labels import FOUR_CLASSES
from sertone.protocol.leaks import find_leaks, hash_recordings, require_labels, require_no_leaks
from sertone.protocol.protocol_card import build_protocol_card
from sertone.protocol.splits import Fold, make_folds, make_full_fold
from sertone.recipe import DataConfig
from sertone.schema import Utterance


def utterance(number, speaker, session=None, **options):
    options.setdefault("labels", {"emotion": ("neutral", "happy", "angry", "sad")[number % 4]})
    return Utterance(id=str(number), path=Path(f"{number}.wav"), speaker=speaker, session=session, **options)


def code_of(function, *arguments, **options) -> str:
    with pytest.raises(SertoneError) as caught:
        function(*arguments, **options)
    return caught.value.code


speakers_of_clips = st.lists(st.integers(0, 12), min_size=12, max_size=120).filter(lambda s: len(set(s)) >= 6)


@given(
    speakers_of_clips,
    st.sampled_from(["leave_one_speaker_out", "grouped_k_fold"]),
    st.sampled_from(["none", "speaker"]),
)
def test_folds_cover_everything_once_and_share_no_speaker(speakers, split, validation):
    us = [utterance(n, f"s{s}") for n, s in enumerate(speakers)]
    folds = make_folds(us, split, validation=validation)
    assert sorted(u.id for f in folds for u in f.test) == sorted(u.id for u in us)
    for fold in folds:
        sides = [{u.speaker for u in side} for side in fold.subsets.values()]
        assert sum(map(len, sides)) == len(set(speakers))
        assert sum(map(len, fold.subsets.values())) == len(us)
        assert len(sides[1]) == (split == "leave_one_speaker_out" or validation == "speaker")
        assert sides[0] and sides[2]


def test_iemocap_five_and_ten_folds(tmp_path):
    corpora.load_sheet("iemocap").fake(tmp_path)
    us = list(corpora.load_utterances("iemocap", tmp_path))
    five = make_folds(us, "leave_one_session_out")
    assert [f.name for f in five] == [f"Session{n}" for n in range(1, 6)]
    assert all(len({u.speaker for u in f.test}) == 2 and not f.validation for f in five)
    ten = make_folds(us, "leave_one_speaker_out")
    assert len(ten) == 10
    for fold in ten:
        train, (validation,), (test,) = ({u.speaker for u in side} for side in fold.subsets.values())
        assert len(train) == 8
        assert validation[:5] == test[:5]  # the partner of the same session


def test_official_split():
    sides = ("train", "train", "validation", "test")
    us = [utterance(n, f"s{n}", split=side) for n, side in enumerate(sides)]
    (fold,) = make_folds(us, "official")
    assert [len(side) for side in fold.subsets.values()] == [2, 1, 1]
    assert code_of(make_folds, us[:2], "official") == "no_official_split"


def test_splits_that_cannot_be_made():
    us = [utterance(n, f"s{n % 2}") for n in range(8)]
    assert code_of(make_folds, us, "leave_one_session_out") == "no_sessions"
    assert code_of(make_folds, us, "random") == "unknown_split"
    assert code_of(make_folds, us, "grouped_k_fold") == "too_few_speakers"
    assert code_of(make_folds, us, "leave_one_speaker_out") == "too_few_speakers"
    wandering = [utterance(n, "s0", session=f"S{n % 2}") for n in range(4)]
    assert code_of(make_folds, wandering, "leave_one_session_out") == "speaker_in_two_sessions"


def test_a_full_fold_trains_on_everything():
    us = [utterance(n, f"s{n % 3}") for n in range(9)]
    assert make_full_fold(us).train == us
    kept_out = make_full_fold(us, "speaker")
    assert {u.speaker for u in kept_out.validation} == {"s2"} and len(kept_out.train) == 6


def fold_of(train, test, validation=()):
    return Fold("f", list(train), list(validation), list(test))


def test_a_speaker_in_two_sets_is_an_error():
    us = [utterance(n, f"s{n // 4}") for n in range(8)]
    fold = fold_of(us[:6], us[6:])
    leaks = find_leaks(fold, {u.id: u.id for u in us})
    assert leaks.speakers == ["s1"]
    assert code_of(require_no_leaks, fold, leaks) == "speaker_leak"
    in_validation = fold_of(us[:4], [], us[3:])
    assert find_leaks(in_validation, {u.id: u.id for u in us}).speakers == ["s0"]


def test_the_same_audio_in_two_sets_is_an_error(tone, tmp_path):
    one, two = tone("one.wav"), tone("two.wav")
    other = tone("other.wav", 2.0)
    us = [
        Utterance(id=name, path=path, speaker=name, labels={"emotion": "sad"})
        for name, path in (("a", one), ("b", two), ("c", other))
    ]
    fold = fold_of(us[:1], us[1:])
    leaks = find_leaks(fold, hash_recordings(us))
    assert leaks.recordings == ["a = b"]
    assert code_of(require_no_leaks, fold, leaks) == "audio_leak"


@pytest.mark.parametrize(
    "one, other, leaks",
    [
        ((0.0, 0.5), (0.5, 1.0), False),
        ((0.0, 0.5), (0.4, 1.0), True),
        ((0.0, None), (0.4, 0.6), True),
        ((0.0, 1.0), (0.0, None), True),
        ((0.5, None), (0.0, 0.5), False),
    ],
)
def test_segments_leak_where_they_overlap(tone, one, other, leaks):
    path, copy = tone("a.wav"), tone("b.wav")
    for first, second in ((path, path), (path, copy)):
        us = [
            Utterance(id="1", path=first, speaker="1", start_s=one[0], end_s=one[1]),
            Utterance(id="2", path=second, speaker="2", start_s=other[0], end_s=other[1]),
        ]
        recordings = find_leaks(fold_of(us[:1], us[1:]), hash_recordings(us)).recordings
        assert bool(recordings) == leaks


def test_speakers_without_labels_are_never_tested():
    us = [utterance(n, f"s{n % 6}", labels={} if n % 6 == 5 else {"emotion": "sad"}) for n in range(24)]
    for split in ("leave_one_speaker_out", "grouped_k_fold"):
        for fold in make_folds(us, split, folds=3, validation="speaker"):
            assert "s5" in {u.speaker for u in fold.train}
    bare = fold_of(us[:5], us[5:6])
    assert code_of(require_labels, bare, {"sad": "sad"}) == "no_labels"


def test_shared_texts_and_sessions_are_reported_not_refused():
    us = [utterance(n, f"s{n // 4}", session="S", text=f"Line {n % 4}!") for n in range(8)]
    fold = fold_of(us[:4], us[4:])
    leaks = find_leaks(fold, {u.id: u.id for u in us})
    assert leaks.scripted_texts == [f"line {n}" for n in range(4)]
    assert leaks.test_in_texts == 1.0 and leaks.sessions == ["S"]
    require_no_leaks(fold, leaks)
    require_labels(fold, FOUR_CLASSES)


def test_a_class_absent_from_training_is_an_error():
    us = [utterance(n, f"s{n // 4}") for n in range(8)]
    fold = fold_of([u for u in us[:4] if u.labels["emotion"] != "sad"], us[4:])
    assert code_of(require_labels, fold, FOUR_CLASSES) == "missing_class"


def test_ratings_need_labels_that_differ():
    us = [utterance(n, f"s{n // 4}", labels={"valence": float(n % 3)}) for n in range(8)]
    fold = fold_of(us[:4], us[4:])
    require_labels(fold, {}, ("valence",))
    assert code_of(require_labels, fold, {}, ("valence", "arousal")) == "no_labels"
    same = [replace(u, labels={"valence": 2.0}) for u in us[:4]]
    assert code_of(require_labels, fold_of(same, us[4:]), {}, ("valence",)) == "constant_rating"
    folds = make_folds(us, "grouped_k_fold", folds=2, tasks=("valence",))
    assert {fold.name for fold in folds} == {"s0", "s1"}


def test_the_card_has_everything_that_a_score_depends_on(small_demo):
    us = list(corpora.load_utterances("demo", small_demo))
    folds = make_folds(us, "leave_one_session_out")
    hashes = hash_recordings(us)
    leaks = [find_leaks(fold, hashes) for fold in folds]
    card = build_protocol_card(
        DataConfig(corpus="demo", root="x"), len(us), folds, leaks, FOUR_CLASSES, hashes, {"split": "x"}, 3
    )
    assert card["file_hashes"] == hashes and len(hashes) == 40
    assert card["seed"] == 3 and card["class_map"]["excited"] == "happy"
    assert card["folds"][0]["test_speakers"] == ["S1F", "S1M"]
    assert {"python", "torch", "transformers"} <= set(card["versions"])
    assert "test side plays no part" in card["selection"]
