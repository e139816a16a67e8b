"""Live audio: chunks of any size give the predictions of the whole recording."""

import json
import os
import subprocess
import sys
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import write_toy

import sertone
from sertone.cli.listen import format_json, format_text, print_stream
from sertone.errors import AudioError, SertoneError
from sertone.runtime.timeline.plan import TimelineSettings


def noise(seconds, rate, channels=1, seed=0):
    """Return noise that gets louder and softer every three seconds."""
    time = np.arange(round(seconds * rate)) / rate
    draw = np.random.default_rng(seed).standard_normal((len(time), channels))
    return (draw * 0.2 * np.exp(2 * np.sin(2 * np.pi * time / 3))[:, None] / 8).astype(np.float32)


def run_stream(stream, samples, sizes):
    """Return all segments, with those at the end, and the prediction for the whole."""
    segments, at, turn = [], 0, 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        segments += stream.push(samples[at : at + size])
        at, turn = at + size, turn + 1
    whole = stream.finish()
    return segments + whole.segments, whole


def require_near(one, other):
    """Compare two means of segments, which may be summed in another order."""
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-9)
    assert one.dimensions == pytest.approx(other.dimensions, abs=1e-9)
    assert one.confidence == pytest.approx(other.confidence, abs=1e-9)
    assert (one.label, one.unsure) == (other.label, other.unsure)


def require_same(segments, whole, offline):
    assert segments == offline.segments
    require_near(whole, offline)
    assert (whole.status, whole.code, whole.duration_s) == (offline.status, offline.code, offline.duration_s)
    for one, other in zip(whole.speakers, offline.speakers, strict=True):
        assert (one.name, one.segments, one.label) == (other.name, other.segments, other.label)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-9)
        assert (one.speech_s, one.seconds_by_label) == (
            pytest.approx(other.speech_s),
            pytest.approx(other.seconds_by_label),
        )


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([8000, 16000, 44100, 48000]),
    st.floats(0.1, 5),
    st.floats(0.1, 2),
    st.floats(0.2, 1),
    st.integers(1, 3),
    st.lists(st.integers(0, 30000), min_size=1, max_size=5).filter(any),
)
def test_a_stream_predicts_the_same_as_the_timeline(toy, rate, seconds, window_s, share, channels, sizes):
    hop_s, samples = share * window_s, noise(seconds, rate, channels)
    predictor = sertone.load(toy, any_sound=True)
    cut = TimelineSettings(segmentation="windows", window_s=window_s, hop_s=hop_s)
    offline = predictor.timeline(samples, rate, settings=cut)
    stream = predictor.stream(rate, window_s=window_s, hop_s=hop_s, channels=channels)
    require_same(*run_stream(stream, samples, sizes), offline)


@pytest.mark.parametrize("window_s", [1.0, 2.0])
def test_a_stream_of_the_bundled_model_equals_the_file_exactly(window_s):
    """A batch of windows would be summed in another order than one window at a time."""
    predictor, samples = sertone.load(any_sound=True), noise(20, 16000)
    cut = TimelineSettings(segmentation="windows", window_s=window_s, hop_s=window_s / 2)
    offline = predictor.timeline(samples, 16000, settings=cut)
    stream = predictor.stream(16000, window_s=window_s, hop_s=window_s / 2)
    require_same(*run_stream(stream, samples, [4000]), offline)


def test_channels_of_a_stream_are_speakers(toy):
    predictor, samples = sertone.load(toy, any_sound=True), noise(5, 44100, 2)
    samples[:, 1] *= 0.05
    cut = TimelineSettings(segmentation="windows", window_s=1.0, channels=("a", "b"))
    stream = predictor.stream(44100, window_s=1.0, channels=2, names=("a", "b"))
    segments, whole = run_stream(stream, samples, [4410])
    order = sorted(segments, key=lambda segment: (segment.start_s, segment.speaker))
    require_same(order, whole, predictor.timeline(samples, 44100, settings=cut))
    assert [speaker.name for speaker in whole.speakers] == ["a", "b"]


def test_speech_of_a_stream(toy, voices):
    gap = np.zeros(16000, np.float32)
    samples = np.concatenate([x for f in voices[:3] for x in (gap, soundfile.read(f, dtype="float32")[0])])
    predictor = sertone.load(toy, any_sound=True)
    stream = predictor.stream(16000, segmentation="speech")
    segments, whole = run_stream(stream, samples, [1600])
    assert len(segments) >= 3
    require_same(segments, whole, predictor.timeline(samples, 16000))


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_a_window_is_returned_soon_after_its_end(toy, rate):
    stream, chunk, delays = (
        sertone.load(toy, any_sound=True).stream(rate, window_s=2.0, hop_s=1.0),
        rate // 100,
        [],
    )
    samples = noise(10, rate)
    for number in range(1000):
        for segment in stream.push(samples[number * chunk : (number + 1) * chunk]):
            delays.append((number + 1) / 100 - segment.end_s)
    assert len(delays) == 8 + (delays[-1] <= 0.01) and max(delays) <= 0.13


def test_a_stream_continues_after_an_invalid_chunk(toy):
    predictor, samples = sertone.load(toy, any_sound=True), noise(3, 16000)[:, 0]
    stream = predictor.stream(16000, window_s=1.0)
    segments = stream.push(samples[:20000])
    broken = samples[:100].copy()
    broken[3] = np.inf
    for wrong, code in (
        (broken, "non_finite"),
        (np.zeros((100, 2), np.float32), "bad_samples"),
        (np.zeros((2, 2, 2), np.float32), "bad_samples"),
        (np.zeros(100, np.int64), "bad_samples"),
        (np.float32(1.0), "bad_samples"),
    ):
        with pytest.raises(AudioError) as caught:
            stream.push(wrong)
        assert caught.value.code == code
    assert stream.push(samples[:0]) == []
    segments += stream.push(samples[20000:])
    whole = stream.finish()
    cut = TimelineSettings(segmentation="windows", window_s=1.0)
    require_same(segments + whole.segments, whole, predictor.timeline(samples, 16000, settings=cut))
    for call in (stream.finish, lambda: stream.push(samples)):
        with pytest.raises(SertoneError) as caught:
            call()
        assert caught.value.code == "stream_finished"


def test_too_few_samples_are_an_error(toy):
    predictor = sertone.load(toy, any_sound=True)
    for samples, code in ((np.zeros(0), "no_samples"), (0.1 * np.ones(399), "too_short")):
        stream = predictor.stream(16000)
        assert stream.push(samples) == []
        whole = stream.finish()
        assert (whole.status, whole.code) == ("error", code)
        assert predictor.timeline(samples, 16000).code == code
    for wrong, code in (({"window_s": 99.0}, "bad_timeline"), ({"channels": 9}, "bad_channels")):
        with pytest.raises(SertoneError) as caught:
            predictor.stream(16000, **wrong)
        assert caught.value.code == code
    with pytest.raises(SertoneError) as caught:
        predictor.stream(0)
    assert caught.value.code == "bad_rate"


def test_memory_does_not_grow(toy):
    stream, second = sertone.load(toy, any_sound=True).stream(48000, window_s=4.0, hop_s=1.0), noise(1, 48000)
    peaks = []
    tracemalloc.start()
    for minutes in (1, 4):
        tracemalloc.reset_peak()
        assert sum(len(stream.push(second)) for _ in range(60 * minutes)) in (56, 57, 240)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0] < 8e6


def test_listening_prints_a_line_per_window(toy, capsys):
    samples = noise(5.5, 16000)
    chunks = [samples[a:b] for a, b in pairwise(range(0, len(samples) + 1, 1600))]
    predictor = sertone.load(toy, any_sound=True)
    assert print_stream(predictor.stream(16000, window_s=2.0, hop_s=1.0), chunks, format_text) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split(" s ")[0].split() for line in lines] == [
        *([f"{n:.1f}", "-", f"{n + 2:.1f}"] for n in range(4)),
        ["4.0", "-", "5.5"],
    ]
    cut = TimelineSettings(segmentation="windows", window_s=2.0, hop_s=1.0)
    offline = predictor.timeline(samples, 16000, settings=cut)
    for line, segment in zip([*lines, last], [*offline.segments, offline], strict=True):
        assert segment.label in line and f"{segment.confidence:.0%}" in line
        assert line.count("█") == round(20 * segment.confidence)
        assert f"arousal {segment.dimensions['arousal']:.2f}" in line
    assert print_stream(predictor.stream(16000, window_s=2.0, hop_s=1.0), iter(chunks), format_json) == 0
    *rows, whole = map(json.loads, capsys.readouterr().out.splitlines())
    assert [row["start_s"] for row in rows] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert whole["label"] == offline.label and whole["duration_s"] == 5.5


def test_listening_ends_with_an_interrupt_or_too_little(toy, capsys):
    def interrupted():
        yield noise(2.5, 16000)
        raise KeyboardInterrupt

    assert (
        print_stream(
            sertone.load(toy, any_sound=True).stream(16000, window_s=1.0), interrupted(), format_text
        )
        == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert print_stream(sertone.load(toy, any_sound=True).stream(16000), [], format_text) == 1
    assert "no_samples" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("raise ImportError", "missing_extra"),
        ("raise OSError('PortAudio library not found')", "no_portaudio"),
        (
            "class PortAudioError(Exception): pass\ndef query_devices(*_): raise PortAudioError('no device -1')",
            "no_microphone",
        ),
    ],
)
def test_the_command_reports_why_there_is_no_microphone(tmp_path, module, code):
    """A fake `sounddevice` fails as the real one does without the package, its library, or a device."""
    (tmp_path / "sounddevice.py").write_text(module)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "sertone", "listen", str(write_toy(tmp_path / "toy"))]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    assert done.returncode == 2 and f"error [{code}]" in done.stderr, done.stderr
