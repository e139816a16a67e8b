"""Long recordings: each segment follows from its samples, and the whole from its segments."""

import os
import signal
import tracemalloc

import numpy as np
import pytest
import soundfile
from toys import CLASSES, expected, write_toy

import sertone
from sertone.audio.block_stream import BlockStream
from sertone.audio.decoder import AudioInfo
from sertone.errors import AudioError, SertoneError
from sertone.runtime.answering import AnswerFormat, Outputs
from sertone.runtime.predictor import Predictor
from sertone.runtime.timeline.cutting import PieceReader
from sertone.runtime.timeline.isolated import IsolatedPieceReader, open_piece_reader
from sertone.runtime.timeline.plan import TimelinePlan, TimelineSettings
from sertone.utils.processes import ChildProcess

RATE = 16000


def levels(seconds, *heights, seed=0):
    """Return noise whose loudness changes every `seconds`."""
    draw = np.random.default_rng(seed).standard_normal(round(seconds * RATE) * len(heights))
    return (draw * np.repeat(heights, round(seconds * RATE))).astype(np.float32)


def windows(window_s=4.0, hop_s=None, **more):
    return TimelineSettings(segmentation="windows", window_s=window_s, hop_s=hop_s, **more)


def compute_expected(samples, segment):
    return expected(samples[round(segment.start_s * RATE) : round(segment.end_s * RATE)])


def require_expected(answer, samples):
    """Check every segment against the formula, and the whole against their mean, weighted by length."""
    pairs = [compute_expected(samples, segment) for segment in answer.segments]
    for segment, (shares, arousal) in zip(answer.segments, pairs, strict=True):
        assert list(segment.probabilities.values()) == pytest.approx(list(shares), abs=1e-5)
        assert segment.label == CLASSES[int(shares.argmax())]
        assert segment.confidence == pytest.approx(max(shares), abs=1e-5)
        assert segment.dimensions["arousal"] == pytest.approx(arousal, abs=1e-4)
    require_mean(answer, answer.segments)


def require_mean(answer, segments):
    lengths = [segment.end_s - segment.start_s for segment in segments]
    rows = [list(segment.probabilities.values()) for segment in segments]
    mean = np.average(rows, axis=0, weights=lengths)
    assert list(answer.probabilities.values()) == pytest.approx(list(mean), abs=1e-6)
    assert answer.label == CLASSES[int(mean.argmax())] and answer.confidence == pytest.approx(mean.max())
    arousal = np.average([segment.dimensions["arousal"] for segment in segments], weights=lengths)
    assert answer.dimensions["arousal"] == pytest.approx(arousal, abs=1e-6)


@pytest.mark.parametrize("hop_s", [None, 1.5])
def test_windows_are_predicted_from_their_samples(toy, hop_s):
    samples = levels(5, 0.3, 0.005, 0.1, 0.002, 0.4)[: 23 * RATE + 777]
    answer = sertone.load(toy, any_sound=True).timeline(samples, RATE, settings=windows(hop_s=hop_s))
    assert answer.status == "ok" and answer.duration_s == round(len(samples) / RATE, 4)
    hop = hop_s or 4.0
    starts = [segment.start_s for segment in answer.segments]
    assert starts == pytest.approx([hop * n for n in range(len(starts))])
    assert answer.segments[-1].end_s == pytest.approx(len(samples) / RATE)
    require_expected(answer, samples)
    (speaker,) = answer.speakers
    assert speaker.segments == len(starts) and speaker.name == ""
    assert speaker.speech_s == pytest.approx(len(samples) / RATE)
    assert sum(speaker.seconds_by_label.values()) == pytest.approx(speaker.speech_s)
    assert speaker.probabilities == pytest.approx(answer.probabilities)
    assert len(speaker.seconds_by_label) > 1 and speaker.label == answer.label


def test_a_file_and_its_samples_give_the_same_prediction(toy, tmp_path):
    stereo = np.stack([levels(3, 0.1, 0.01, 0.3, seed=seed) for seed in (1, 2)], 1)
    soundfile.write(tmp_path / "a.wav", stereo, 44100, subtype="FLOAT")
    predictor = sertone.load(toy, any_sound=True)
    for settings in (windows(1.0), TimelineSettings()):
        one = predictor.timeline(tmp_path / "a.wav", settings=settings)
        other = predictor.timeline(stereo, 44100, settings=settings)
        assert (one.segments, one.speakers, one.probabilities) == (
            other.segments,
            other.speakers,
            other.probabilities,
        )


def test_channels_are_speakers(toy):
    agent, customer = levels(2, 0.3, 0.3, 0.3), levels(2, 0.004, 0.004, 0.2, seed=1)
    settings = windows(2.0, channels=("agent", "customer"))
    answer = sertone.load(toy, any_sound=True).timeline(
        np.stack([agent, customer], 1), RATE, settings=settings
    )
    assert [(s.start_s, s.speaker) for s in answer.segments] == [
        (start, who) for start in (0.0, 2.0, 4.0) for who in ("agent", "customer")
    ]
    for name, samples in (("agent", agent), ("customer", customer)):
        own = [segment for segment in answer.segments if segment.speaker == name]
        for segment in own:
            assert segment.label == CLASSES[int(compute_expected(samples, segment)[0].argmax())]
        (speaker,) = [speaker for speaker in answer.speakers if speaker.name == name]
        require_mean(speaker, own)
        assert speaker.speech_s == pytest.approx(6.0)
    require_mean(answer, answer.segments)
    for mono in (agent, np.stack([agent] * 3, 1)):
        refused = sertone.load(toy, any_sound=True).timeline(mono, RATE, settings=settings)
        assert (refused.status, refused.code) == ("error", "channel_names")


def test_silent_windows_do_not_count_in_the_mean(toy):
    loud, silence = levels(4, 0.3, 0.1), np.zeros(16 * RATE, np.float32)
    model = sertone.load(toy, any_sound=True)
    alone = model.timeline(loud, RATE, settings=windows())
    among = model.timeline(np.concatenate([silence, loud, silence]), RATE, settings=windows())
    assert [s.label is None for s in among.segments] == [True] * 4 + [False] * 2 + [True] * 4
    assert among.speakers[0].speech_s == 8.0 and among.speakers[0].segments == 10
    nothing = model.timeline(silence, RATE, settings=windows(smoothing=3))
    assert (nothing.code, nothing.label, nothing.speakers[0].label) == ("no_speech", None, None)
    assert among.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
    require_mean(among, among.segments[4:6])


def test_speaker_turns_are_predicted(toy, tmp_path):
    samples = levels(2, 0.3, 0.004, 0.1, 0.02, 0.3, 0.01)
    soundfile.write(tmp_path / "talk.wav", samples, RATE, subtype="FLOAT")
    turns = [("talk", 0.5, 2.5, "ann"), ("talk", 2.0, 7.5, "bob"), ("talk", 11.0, 5.0, "ann")]
    turns += [("talk", 20.0, 1.0, "bob"), ("other", 0, 1, "cid"), ("talk", 6.0, 1.0, "bob")]
    lines = [f"SPEAKER {f} 1 {start} {length} <NA> <NA> {who} <NA> <NA>\n" for f, start, length, who in turns]
    (tmp_path / "a.rttm").write_text("".join(lines))
    settings = TimelineSettings(rttm=tmp_path / "a.rttm", longest_s=4.0)
    answer = sertone.load(toy, any_sound=True).timeline(tmp_path / "talk.wav", settings=settings)
    results = [(segment.start_s, segment.end_s, segment.speaker) for segment in answer.segments]
    bobs = [(2.0, 5.75, "bob"), (5.75, 9.5, "bob"), (6.0, 7.0, "bob")]  # the last lies in the one before
    assert results == [(0.5, 3.0, "ann"), *bobs, (11.0, 12.0, "ann")]
    assert answer.code == "turns_left_out" and "2 parts of turns" in answer.message
    require_expected(answer, samples)
    assert [(speaker.name, speaker.speech_s) for speaker in answer.speakers] == [("ann", 3.5), ("bob", 7.5)]


def test_speech_is_predicted_and_silence_is_not(toy, voices):
    parts = [soundfile.read(file, dtype="float32")[0] for file in voices[:3]]
    gap = np.zeros(2 * RATE, np.float32)
    samples = np.concatenate([piece for part in parts for piece in (gap, part)])
    answer = sertone.load(toy, any_sound=True).timeline(samples, RATE)
    assert len(answer.segments) >= 3 and answer.status == "ok"
    require_expected(answer, samples)
    speech_s = sum(map(len, parts)) / RATE
    assert answer.speakers[0].speech_s == pytest.approx(speech_s, rel=0.15)
    silent = sertone.load(toy, any_sound=True).timeline(1e-3 * levels(1, *[1] * 9), RATE)
    assert (silent.status, silent.code, silent.label, silent.segments) == ("warning", "no_speech", None, [])
    assert silent.duration_s == 9.0 and silent.speakers == [] and silent.probabilities == {}


def test_smoothing_averages_neighbours_of_a_speaker(toy):
    both = np.stack([levels(1, 0.3, 0.004, 0.1, 0.02, 0.3), levels(1, 0.01, 0.2, 0.1, 0.02, 0.003)], 1)
    plain, smooth = (
        sertone.load(toy, any_sound=True).timeline(
            both, RATE, settings=windows(1.0, channels=("a", "b"), smoothing=width)
        )
        for width in (1, 3)
    )
    for name in "ab":
        raw, averaged = (
            np.asarray([list(s.probabilities.values()) for s in made.segments if s.speaker == name])
            for made in (plain, smooth)
        )
        for n in range(5):
            np.testing.assert_allclose(averaged[n], raw[max(0, n - 1) : n + 2].mean(0), atol=1e-6)
    require_mean(smooth, smooth.segments)


def test_classes_scales_and_thresholds_apply_to_segments(tmp_path):
    folder, samples = write_toy(tmp_path / "toy"), levels(2, 0.3, 0.004, 0.05)
    mapping = {"happy": "up", "angry": "up", "sad": "down"}
    shares = [expected(samples[start : start + 2 * RATE])[0][1:] for start in range(0, 6 * RATE, 2 * RATE)]
    least, second, _ = sorted(max(s[0] + s[1], s[2]) / s.sum() for s in shares)
    limit = (least + second) / 2
    predictor = sertone.load(folder, classes=mapping, min_confidence=limit, dimensions="unit", any_sound=True)
    answer = predictor.timeline(samples, RATE, settings=windows(2.0))
    rows = [list(s.probabilities.values()) for s in answer.segments]
    for segment, row in zip(answer.segments, rows, strict=True):
        shares, arousal = compute_expected(samples, segment)
        kept = shares[1:].sum()
        assert row == pytest.approx([(shares[1] + shares[2]) / kept, shares[3] / kept], abs=1e-5)
        assert segment.dimensions["arousal"] == pytest.approx((arousal - 1) / 4, abs=1e-4)
        assert segment.unsure == (max(row) < limit)
    assert list(answer.probabilities.values()) == pytest.approx(list(np.mean(rows, 0)))
    (speaker,) = answer.speakers
    unsure = sum(2.0 for segment in answer.segments if segment.unsure)
    assert unsure == 2.0 and speaker.unsure_s == pytest.approx(unsure)
    assert sum(speaker.seconds_by_label.values()) == pytest.approx(6 - unsure)


def test_pieces_shorter_than_the_model_needs_are_padded(tmp_path):
    predictor = sertone.load(write_toy(tmp_path / "toy", min_samples=RATE), any_sound=True)
    samples = levels(0.5, 0.1, 0.3)
    answer = predictor.timeline(samples, RATE, settings=windows(0.5))
    assert answer.code == "padded" and "2 segments" in answer.message
    padded = np.pad(samples[:8000], (0, 8000))
    assert list(answer.segments[0].probabilities.values()) == pytest.approx(
        list(expected(padded)[0]), abs=1e-5
    )


@pytest.mark.parametrize("kind", ["array", "file", "files"])
def test_a_recording_too_long_for_the_model_is_predicted_by_windows(tmp_path, kind):
    predictor = sertone.load(write_toy(tmp_path / "toy", max_seconds=4.0), any_sound=True)
    samples = levels(3, 0.3, 0.004, 0.1, 0.02, 0.3)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    if kind == "array":
        answer = predictor.predict(samples, RATE)
    elif kind == "file":
        answer = predictor.predict(tmp_path / "a.wav")
    else:
        (answer,) = predictor.predict_files([tmp_path / "a.wav"])
    assert answer.status == "ok" and [s.start_s for s in answer.segments] == [0.0, 4.0, 8.0, 12.0]
    require_expected(answer, samples)
    whole = predictor.predict(samples[: 4 * RATE], RATE)
    assert whole.segments == [] and whole.label


class TextModel:
    """A model by a formula: it uses the loudness of the audio or, without audio, the number of words."""

    classes, scales, threshold, card, licences = ["quiet", "loud"], {}, None, {}, []
    uses_text, min_samples, max_seconds = True, 400, 2.0

    def __init__(self, hears):
        self.uses_audio, self.asked = hears, []

    def truncates(self, text):
        return False

    def outputs(self, waveforms, text=None):
        self.asked.append((waveforms.shape, text))
        loud = np.abs(waveforms).mean(1) if self.uses_audio else np.full(1, len(text.split()) / 10)
        return Outputs(np.stack([1 - loud, loud], 1), np.zeros((len(loud), 0)))


def test_the_text_of_a_long_recording_is_not_divided():
    model, samples = TextModel(hears=True), levels(5, 0.1)
    answer = Predictor(AnswerFormat(model)).predict(samples, RATE, text="two words")
    assert (answer.status, answer.code, answer.text) == ("warning", "text_not_divided", None)
    assert len(answer.segments) == 3 and all(text is None for _, text in model.asked)
    assert Predictor(AnswerFormat(model)).predict(samples, RATE).code == "no_text"
    assert Predictor(AnswerFormat(model)).timeline(samples, RATE, settings=windows(1.0)).code == "no_text"


def test_a_model_of_text_alone_predicts_long_recordings_from_their_text():
    predictor, samples = Predictor(AnswerFormat(TextModel(hears=False))), levels(5, 0.1)
    answer = predictor.predict(samples, RATE, text="just three words")
    assert (answer.status, answer.text, answer.duration_s, answer.segments) == (
        "ok",
        "just three words",
        5.0,
        [],
    )
    assert answer.probabilities["loud"] == pytest.approx(0.3)
    assert predictor.predict(samples, RATE).code == "no_text"
    assert predictor.timeline(samples, RATE).code == "no_text"
    with pytest.raises(AudioError, match="only text"):
        predictor.stream(RATE)


def test_an_error_late_in_a_recording_is_its_prediction(toy, tmp_path):
    predictor, samples = sertone.load(toy, any_sound=True), levels(2, *[0.1] * 20)
    path = tmp_path / "a.flac"
    soundfile.write(path, samples, RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    samples[-100] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    results = [
        predictor.timeline(file, settings=windows()) for file in (path, tmp_path / "nan.wav", tmp_path)
    ]
    assert [answer.code for answer in results] == ["decode_failed", "non_finite", "not_a_file"]
    assert all(answer.status == "error" and answer.segments == [] for answer in results)
    assert predictor.timeline(np.zeros((0,), np.float32), RATE).code == "no_samples"
    assert predictor.timeline(np.zeros(9999, np.complex64), RATE).code == "bad_samples"
    with pytest.raises(ValueError, match="sampling_rate"):
        predictor.timeline(samples)


def test_a_wav_shorter_than_its_header_has_a_warning(toy, tone):
    path = tone(seconds=3.0)
    path.write_bytes(path.read_bytes()[:70000])
    answer = sertone.load(toy, any_sound=True).timeline(path, settings=windows(1.0))
    assert (answer.status, answer.code) == ("warning", "truncated") and answer.segments


def test_a_decoder_that_dies_ends_one_recording(toy, tone):
    path, plan = (
        tone(seconds=60.0),
        TimelinePlan.from_settings(windows(), sertone.load(toy, any_sound=True).model),
    )
    with ChildProcess() as isolated:
        child = isolated(os.getpid)
        pieces = IsolatedPieceReader(isolated, path, plan)
        groups = iter(pieces)
        next(groups)
        os.kill(child, signal.SIGKILL)
        with pytest.raises(AudioError, match=r"tone\.wav") as caught:
            list(groups)
        assert caught.value.code == "decoder_crashed"
        apart = [piece.start_s for group in IsolatedPieceReader(isolated, path, plan) for piece in group]
    assert apart == [piece.start_s for group in open_piece_reader(path, plan) for piece in group]


@pytest.mark.parametrize("settings", [windows(4.0, 1.0), TimelineSettings(rttm="turns")])
def test_an_hour_takes_the_memory_of_a_window(toy, tmp_path, settings):
    if settings.rttm:
        lines = [f"SPEAKER a 1 {n} 4 <NA> <NA> s{n % 5} <NA> <NA>\n" for n in range(3590)]
        (tmp_path / "turns.rttm").write_text("".join(lines))
        settings = TimelineSettings(rttm=tmp_path / "turns.rttm")
    plan, block = (
        TimelinePlan.from_settings(settings, sertone.load(toy, any_sound=True).model),
        np.full((RATE, 1), 0.1, np.float32),
    )
    sound = BlockStream((block for _ in range(3600)), AudioInfo(RATE, 1, 0, exact=False), {}, "hour")
    tracemalloc.start()
    count = sum(len(group) for group in PieceReader(sound, plan.create_cutter("a", 1)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count in (3590, 3597, 3598) and peak < 8e6 < 3600 * RATE * 4


def test_impossible_settings_are_refused_before_reading(toy, tmp_path):
    predictor = sertone.load(toy, any_sound=True)
    for settings, code in (
        (windows(31.0), "bad_timeline"),
        (windows(1.0, 2.0), "bad_timeline"),
        (TimelineSettings(rttm=tmp_path / "none.rttm"), "missing_rttm"),
    ):
        with pytest.raises(SertoneError) as caught:
            predictor.timeline(tmp_path / "none.wav", settings=settings)
        assert caught.value.code == code


def make_silence(kind, seconds):
    """Return samples that are silent after mixing and resampling to 16 kHz, and their rate."""
    rate = 44100 if kind == "constant" else 48000
    time = np.arange(seconds * rate) / rate
    if kind == "opposite channels":
        noise = 0.1 * np.random.default_rng(0).standard_normal(len(time))
        return np.stack([noise, -noise], 1), rate
    return (np.full(len(time), 0.3) if kind == "constant" else 0.1 * np.sin(2 * np.pi * 12000 * time)), rate


@pytest.mark.parametrize("kind", ["constant", "opposite channels", "too high"])
def test_silence_is_the_same_as_a_whole_and_in_pieces(toy, kind):
    samples, rate = make_silence(kind, 31)
    model = sertone.load(toy, any_sound=True)
    predictions = [model.predict(samples[: 4 * rate], rate), model.predict(samples, rate)]
    predictions += [model.timeline(samples, rate, settings=windows(smoothing=3))]
    for answer in predictions:
        assert answer.status == "warning" and answer.label is None and not answer.probabilities
        assert "speech" in answer.code + answer.message or "hear" in answer.message
        assert not [
            segment for segment in answer.segments if segment.label is not None and kind == "constant"
        ]
    predictions[0].probabilities["x"] = 1.0
    assert model.predict(samples[: 4 * rate], rate).probabilities == {}
