"""The active speech level against ITU-T P.56 sample by sample, and the ratios of noises measured back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import RATE, SEED, decibels, draw, talk, tone

from sertone.perturb import perturb
from sertone.perturb.speech_level import active_level, mix


@pytest.mark.parametrize("pause", [0.5, 2.0, 6.0])
def test_the_active_level_leaves_pauses_out(pause):
    sine = tone(300, 3.0)
    with_pauses = np.concatenate([np.zeros(round(pause * RATE)), sine, np.zeros(round(pause * RATE)), sine])
    expected = 20 * np.log10(0.2 / np.sqrt(2))
    assert 20 * np.log10(active_level(sine)) == pytest.approx(expected, abs=0.2)
    # P.56 counts 0.2 s after each stretch as active: less than .4 dB of these 3 s.
    assert 20 * np.log10(active_level(with_pauses)) == pytest.approx(expected, abs=0.4)


def p56_in_a_loop(samples):
    """ITU-T P.56, sample by sample: level in dB of the active speech."""
    keep, hangover = np.exp(-1 / (0.03 * RATE)), round(0.2 * RATE)
    thresholds = 2.0 ** np.arange(-15, 1) * np.abs(samples).max()
    active, idle = np.zeros(16), np.full(16, hangover)
    first = second = 0.0
    for magnitude in [*np.abs(samples), *np.zeros(hangover)]:
        first = keep * first + (1 - keep) * magnitude
        second = keep * second + (1 - keep) * first
        idle = np.where(second >= thresholds, 0, idle + 1)
        active += idle <= hangover
    energy, above = (samples.astype(float) ** 2).sum(), None
    for threshold, count in zip(thresholds, active, strict=True):
        level = 10 * np.log10(energy / min(count, len(samples)))
        distance = level - 20 * np.log10(threshold)
        if distance <= 15.9:
            share = (above[1] - 15.9) / (above[1] - distance) if above else 1.0
            return above[0] + share * (level - above[0]) if above else level
        above = (level, distance)


def knocked():
    """A quiet voice after a loud knock."""
    samples = np.concatenate([np.zeros(RATE, np.float32), tone(200, 1.5, 0.004)])
    samples[4000:4160] = tone(200, 0.01)
    return samples


@pytest.mark.parametrize(
    "samples",
    [talk(1.5), talk(1.5, 4), knocked(), tone(300, 0.5), talk()[1000:1400], talk()[1000:1800]],
    ids=["talk", "other talk", "knock", "tone", "400 samples", "800 samples"],
)
def test_the_active_level_is_that_of_p56(samples):
    assert 20 * np.log10(active_level(samples)) == pytest.approx(p56_in_a_loop(samples), abs=0.05)


@pytest.mark.parametrize("length", [1, 50, 400, 1600])
def test_the_level_of_a_very_short_recording_is_its_rms(length):
    noise = draw().standard_normal(length)
    assert active_level(noise) == pytest.approx(np.sqrt(np.mean(noise**2)))


@given(gain=st.floats(1e-4, 50))
@settings(max_examples=20, deadline=None)
def test_the_active_level_scales_with_the_samples(gain):
    assert active_level(talk() * gain) == pytest.approx(gain * active_level(talk()), rel=1e-4)


def test_silence_has_no_level_and_gets_no_noise():
    silent = np.zeros(RATE, np.float32)
    assert active_level(silent) == 0
    assert np.array_equal(mix(silent, draw().standard_normal(RATE), 0), silent)


@pytest.mark.parametrize("snr_db", [-5, 0, 10, 30])
def test_the_ratio_over_speech_is_measured_back_where_speech_is(snr_db):
    sine = np.concatenate([tone(300, 3.0), np.zeros(3 * RATE, np.float32)])
    speaking = slice(0, 3 * RATE)
    for name in ("white_noise", "pink_noise", "brown_noise", "hum"):
        added = perturb(sine, name, snr_db, SEED) - sine
        assert decibels(sine[speaking]) - decibels(added) == pytest.approx(snr_db, abs=0.4)
