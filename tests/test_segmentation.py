"""Segmentation into windows, speech and turns, for blocks of any size."""

from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from sertone.errors import AudioError, SertoneError
from sertone.runtime.speech import FRAME, SpeechDetector
from sertone.runtime.timeline.plan import TimelineSettings, parse_channel_names
from sertone.runtime.timeline.rttm import read_rttm, select_spans
from sertone.runtime.timeline.segmentation import (
    HYSTERESIS,
    Span,
    SpanSegmenter,
    SpeechSegmenter,
    WindowSegmenter,
    divide_long_spans,
)

SIZES = st.lists(st.integers(1, 4000), min_size=1, max_size=8)


def run_segmenter(segmenter, samples, sizes=(len,)):
    """Return all spans; check that no span needs samples that were given up before."""
    spans, kept, at, turn = [], 0, 0, 0
    while at < len(samples):
        size = sizes[turn % len(sizes)] if isinstance(sizes[0], int) else len(samples)
        new_spans = segmenter.push(samples[at : at + size])
        at, turn = min(len(samples), at + size), turn + 1
        assert all(kept <= span.start < span.end <= at for span in new_spans)
        assert kept <= segmenter.first_needed <= at
        kept = segmenter.first_needed
        spans += new_spans
    last = segmenter.finish()
    assert all(kept <= span.start < span.end <= len(samples) for span in last)
    return spans + last


@given(st.integers(400, 4000), st.data(), st.integers(1, 20000), SIZES)
def test_windows(window, data, total, sizes):
    hop, shortest = data.draw(st.integers(1 + window // 9, window)), data.draw(st.integers(400, window))
    spans = run_segmenter(WindowSegmenter(window, hop, shortest), np.zeros(total), sizes)
    whole = [Span(start, start + window) for start in range(0, total - window + 1, hop)]
    assert spans[: len(whole)] == whole and len(spans) - len(whole) in (0, 1)
    covered = np.zeros(total, bool)
    for span in spans:
        covered[span.start : span.end] = True
        assert span.end - span.start >= min(shortest, total)
    assert covered[: total if len(spans) > len(whole) else -400].all()
    assert (~covered).sum() < 400
    if len(spans) > len(whole):
        assert spans[-1].end == total and spans[-1].start <= len(whole) * hop


def make_frames(scores):
    """Return samples from whose frames `detect_level` gets the scores back."""
    signs = np.where(np.arange(FRAME) % 2, -1, 1)
    return (np.asarray(scores)[:, None] * signs).ravel()


def detect_level(frame):
    return float(np.abs(frame).mean())


def make_segmenter(**changes):
    given = {
        "threshold": 0.5,
        "longest": 40 * FRAME,
        "shortest": 3 * FRAME,
        "gap": 5 * FRAME,
        "margin": FRAME,
    }
    return SpeechSegmenter(detect_level, **given | changes)


def test_speech_begins_holds_and_ends():
    calm, loud, doubtful = 0.1, 0.9, 0.5 - HYSTERESIS / 2
    scores = [calm] * 10 + [loud] * 4 + [doubtful] * 3 + [calm] * 4 + [loud] * 2 + [calm] * 9
    scores += [loud] * 2 + [calm] * 9  # too short
    scores += [doubtful] * 9 + [calm] * 9  # never began
    scores += [loud] * 5  # goes on to the end
    (first, last) = run_segmenter(make_segmenter(), make_frames(scores))
    assert first == Span(9 * FRAME, 24 * FRAME)
    assert last == Span((len(scores) - 6) * FRAME, len(scores) * FRAME)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 70), st.just(0.0) | st.floats(0.01, 1)), max_size=14),
    SIZES,
    st.integers(0, FRAME - 1),
)
def test_speech_with_any_probabilities(runs, sizes, extra):
    scores = [score for length, score in runs for _ in range(length)]
    samples = np.concatenate([make_frames(scores) if scores else np.zeros(0), np.zeros(extra)])
    spans = run_segmenter(make_segmenter(), samples, sizes)
    assert spans == run_segmenter(make_segmenter(), samples)
    assert all(span.end - span.start <= 40 * FRAME for span in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    inside = np.zeros(len(samples), bool)
    for span in spans:
        inside[span.start : span.end] = True
    detected = inside[: len(scores) * FRAME].reshape(-1, FRAME).any(1)
    loud = np.asarray(scores) >= 0.5
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud, [0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        assert end - start < 3 or detected[start:end].all()
    if not loud.any():
        assert not spans


def test_long_speech_is_cut_where_it_is_least_probable():
    scores = [0.9] * 25 + [0.6] + [0.9] * 60
    first, *rest = run_segmenter(make_segmenter(), make_frames([0.01] * 2 + scores + [0.01] * 9))
    assert first == Span(1 * FRAME, (2 + 25) * FRAME)
    assert rest[0].start == first.end and rest[-1].end == (2 + len(scores) + 1) * FRAME
    assert all(span.end - span.start >= 3 * FRAME for span in rest)


def test_the_detector_finds_inserted_speech(voices):
    parts, put, at = [np.zeros(16000)], [], 16000
    for file in voices[::8]:
        samples, _ = soundfile.read(file)
        parts += [samples, np.zeros(64000)]
        put.append((at, at + len(samples)))
        at += len(samples) + 64000
    sound = np.concatenate(parts) + 1e-3 * np.random.default_rng(0).standard_normal(at)
    segmenter = SpeechSegmenter(
        SpeechDetector(), threshold=0.5, longest=160000, shortest=4000, gap=6400, margin=1600
    )  # fmt: skip
    spans = run_segmenter(segmenter, sound.astype(np.float32), [5000])
    assert len(spans) >= len(put)
    detected, truth = np.zeros(at, bool), np.zeros(at, bool)
    for span in spans:
        detected[span.start : span.end] = True
    for start, end in put:
        truth[start:end] = True
        assert detected[start:end].mean() > 0.85
    assert detected[~truth].mean() < 0.05


def test_rttm_files_are_parsed(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_text(
        ";; a comment\nSPKR-INFO talk 1 <NA> <NA> <NA> unknown ann <NA>\n\n"
        "SPEAKER talk 1 0.50 2.25 <NA> <NA> ann <NA> <NA>\nSPEAKER other 1 0 1 <NA> <NA> cid <NA> <NA>\n"
        "SPEAKER talk 1 2 1.5 <NA> <NA> bob <NA>\n"
    )
    spans = read_rttm(path)
    talk = [Span(8000, 44000, "ann"), Span(32000, 56000, "bob")]
    assert spans == {"talk": talk, "other": [Span(0, 16000, "cid")]}
    assert select_spans(spans, "x/talk.mp3", alone=False) == talk
    single = {"talk": talk}
    assert select_spans(single, "any.wav", alone=True) == talk  # with one recording, the name does not matter
    with pytest.raises(AudioError, match="no turns among those of talk"):
        select_spans(single, "any.wav", alone=False)
    with pytest.raises(AudioError, match="among those of other, talk") as caught:
        select_spans(spans, "any.wav", alone=True)
    assert caught.value.code == "no_turns"


@pytest.mark.parametrize(
    "line",
    [
        "SPEAKER talk 1 0.5 -1 <NA> <NA> ann <NA> <NA>",
        "SPEAKER talk 1 -0.5 1 <NA> <NA> ann <NA> <NA>",
        "SPEAKER talk 1 nan 1 <NA> <NA> ann <NA> <NA>",
        "SPEAKER talk 1 0.5 inf <NA> <NA> ann <NA> <NA>",
        "SPEAKER talk 1 1e308 1 <NA> <NA> ann <NA> <NA>",
        "SPEAKER talk 1 0.5 soon <NA> <NA> ann <NA> <NA>",
        "SPEAKER talk 1 0.5 1",
    ],
)
def test_a_bad_turn_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "a.rttm"
    path.write_text(f"SPEAKER talk 1 0 1 <NA> <NA> ann <NA> <NA>\n{line}\n")
    with pytest.raises(SertoneError, match=r"a\.rttm, line 2") as caught:
        read_rttm(path)
    assert caught.value.code == "bad_rttm"


def test_invalid_and_missing_rttm_files_are_refused(tmp_path):
    (tmp_path / "a.rttm").write_bytes(b"\xff\xfe\x00SPEAKER")
    for name, code in (("a.rttm", "bad_rttm"), ("b.rttm", "missing_rttm")):
        with pytest.raises(SertoneError) as caught:
            read_rttm(tmp_path / name)
        assert caught.value.code == code


@given(
    st.lists(st.tuples(st.floats(0, 2), st.floats(0.001, 2), st.sampled_from("ab")), max_size=8),
    st.integers(1, 48000),
    SIZES,
)
def test_turns_in_any_order_overlap_and_end(turns, total, sizes):
    known = [
        Span(round(start * 16000), round((start + length) * 16000), speaker)
        for start, length, speaker in turns
    ]
    spans = divide_long_spans(known, 16000)
    assert all(0 <= span.end - span.start <= 16000 for span in spans)
    segmenter = SpanSegmenter(spans)
    new_spans = run_segmenter(segmenter, np.zeros(total), sizes)
    clipped = [Span(span.start, min(span.end, total), span.speaker) for span in spans]
    wanted = [span for span in clipped if span.end - span.start >= 400]
    assert sorted(new_spans, key=str) == sorted(wanted, key=str)
    assert segmenter.dropped == len(spans) - len(wanted)
    for turn in known:
        parts = [span for span in spans if span.speaker == turn.speaker and span.start >= turn.start]
        assert any(part.start == turn.start for part in parts)


def test_names_of_channels():
    assert parse_channel_names("left=agent,right=customer") == ("agent", "customer")
    assert parse_channel_names("2=b, 1=a,3=c") == ("a", "b", "c")
    for wrong in ("left", "left=", "middle=a", "left=a,left=b", "right=a", "1=a,3=b", ""):
        with pytest.raises(SertoneError) as caught:
            parse_channel_names(wrong)
        assert caught.value.code == "bad_channel_names"


@pytest.mark.parametrize(
    "wrong",
    [
        {"segmentation": "words"},
        {"window_s": 0.0},
        {"window_s": float("nan")},
        {"hop_s": 0.0},
        {"hop_s": 4.1},
        {"longest_s": 1.0},
        {"shortest_s": 1.0},
        {"gap_s": -1.0},
        {"threshold": 1.0},
        {"smoothing": 2},
        {"smoothing": 0},
        {"rttm": "a.rttm", "channels": ("a", "b")},
    ],
)
def test_impossible_settings_are_reported(wrong):
    assert TimelineSettings().find_problem() is None
    assert TimelineSettings(**wrong).find_problem() is not None
