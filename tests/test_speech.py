"""Speech, level and noise of a recording: what is no speech gets no answer."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import REAL_SPEECH
from sounds import voice
from toys import write_toy

import sertone
from sertone import audio, corpora
from sertone.runtime.speech import SHORTEST_FOR_NOISE_S, check_sound, has_speech, measure_levels

RATE = 16000
SECONDS = 3 * RATE
rng = np.random.default_rng(0)
TIME = np.arange(SECONDS) / RATE
NO_SPEECH = {
    "silence": np.zeros(SECONDS),
    "a constant": np.full(SECONDS, 0.2),
    "white noise": 0.1 * rng.standard_normal(SECONDS),
    "brown noise": np.cumsum(rng.standard_normal(SECONDS)) / 2000,
    "hum": 0.1 * sum(np.sin(2 * np.pi * 50 * n * TIME) / n for n in range(1, 9)),
    "a tone": 0.3 * np.sin(2 * np.pi * 440 * TIME),
    "clicks": (rng.random(SECONDS) < 20 / RATE).astype(float),
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("speech") / "toy")


@pytest.fixture(scope="module")
def predictor(toy):
    return sertone.load(toy)


@pytest.mark.parametrize("name", NO_SPEECH)
def test_what_is_no_speech_has_no_label(predictor, name):
    for seconds in (0.6, 3.0):
        samples = NO_SPEECH[name][: round(seconds * RATE)].astype(np.float32)
        whole = predictor.predict(samples, RATE)
        assert (whole.code, whole.label, whole.probabilities) == ("no_speech", None, {})
        windows = predictor.timeline(samples, RATE, settings=sertone.TimelineSettings(window_s=1.0))
        assert windows.code == "no_speech" and all(s.label is None for s in windows.segments)


def test_any_sound_is_labelled_on_request(toy, tmp_path):
    predictor = sertone.load(toy, any_sound=True)
    assert predictor.predict(NO_SPEECH["a tone"], RATE).label
    assert predictor.predict(NO_SPEECH["white noise"], RATE).status == "ok"
    assert predictor.predict(np.zeros(RATE), RATE).code == "no_speech", "silence never is"


def test_a_voice_between_noises_is_found(predictor):
    """Wherever it is, also where something else is louder."""
    noise = NO_SPEECH["white noise"]
    for place in range(3):
        parts = [noise, noise]
        parts.insert(place, voice(2.0))
        samples = np.concatenate(parts).astype(np.float32)
        assert has_speech(samples)
        windows = predictor.timeline(samples, RATE, settings=sertone.TimelineSettings(window_s=1.0))
        labelled = [segment.start_s for segment in windows.segments if segment.label]
        assert labelled and all(3 * place - 1 < start < 3 * place + 2 for start in labelled)


def test_a_recording_too_short_to_tell_is_taken_for_speech():
    assert has_speech(NO_SPEECH["a tone"][:7999]) and not has_speech(NO_SPEECH["a tone"][:8000])


def test_threads_do_not_share_a_detector():
    recordings = [*NO_SPEECH.values(), voice(3.0)] * 4
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(has_speech, recordings))
    assert found == ([False] * len(NO_SPEECH) + [True]) * 4


IS_SPOKEN = np.arange(SECONDS) % RATE < 12000
SPEECH = np.where(IS_SPOKEN, voice(3.0), 0).astype(np.float32)
RMS = np.sqrt(np.mean(SPEECH[IS_SPOKEN] ** 2))


def with_noise(snr_db):
    noise = RMS * 10 ** (-snr_db / 20) * np.random.default_rng(1).standard_normal(SECONDS)
    return (SPEECH + noise).astype(np.float32)


def test_level_and_noise_of_a_voice_with_pauses():
    for gain in (1.0, 0.01):
        assert measure_levels(gain * SPEECH).level_dbfs == pytest.approx(20 * np.log10(gain * RMS), abs=1.0)
    for snr_db in (0, 10, 20):
        assert measure_levels(with_noise(snr_db)).snr_db == pytest.approx(snr_db, abs=1.5)
    assert measure_levels(with_noise(10) + 0.1).snr_db == pytest.approx(10, abs=1.5), "an offset is no noise"
    assert measure_levels(SPEECH).snr_db == np.inf
    assert measure_levels(SPEECH[: round(SHORTEST_FOR_NOISE_S * RATE) - 1]).snr_db is None
    assert measure_levels(np.zeros(100)).level_dbfs == -np.inf


def test_noise_and_a_low_level_are_warnings_with_their_figures(predictor):
    assert predictor.predict(SPEECH, RATE).status == "ok"
    found = predictor.predict(with_noise(10), RATE)
    assert found.code == "noisy" and found.label
    assert float(re.search(r"SNR (-?\d+) dB, below 15 dB", found.message)[1]) == pytest.approx(10, abs=1.5)
    found = predictor.predict(SPEECH * 10 ** (-65 / 20) / RMS, RATE)
    assert found.code == "very_quiet" and found.label
    assert float(re.search(r"(-\d+) dBFS, below -60 dBFS", found.message)[1]) == pytest.approx(-65, abs=1.5)
    windows = predictor.timeline(with_noise(10), RATE, settings=sertone.TimelineSettings(window_s=2.5))
    assert windows.code == "noisy" and "1 of 2 segments" in windows.message, "the second is too short"


@pytest.mark.real_speech
@pytest.mark.parametrize("corpus", ["emodb", "ravdess"])
def test_false_alarms_on_real_speech(corpus):
    utterances = corpora.load(corpus, REAL_SPEECH / f"{corpus}4")
    found = [check_sound(audio.read(u.path).samples, any_sound=False) for u in utterances]
    assert len(found) > 300 and sum(map(bool, found)) / len(found) <= 0.02
