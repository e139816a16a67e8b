"""Noises of unit RMS, made from random numbers or from recordings.

Coloured noise has no energy below 20 Hz, which nobody hears. Otherwise half of the power of brown noise would
lie there, and the signal-to-noise ratio would describe that half.

Axis letters: N samples.
"""

from collections.abc import Callable

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.perturb.material import Material, repeat
from sertone.perturb.speech_level import active_level, rms

LOWEST_HZ = 20.0
BABBLE_VOICES = 6
MAINS_HZ = (50.0, 60.0)
SEMITONE = 2 ** (1 / 12)
CHORDS = ((0, 4, 7), (9, 12, 16), (5, 9, 12), (7, 11, 14))
"""Chords of a common progression (I, vi, IV, V), in semitones above the key note."""

NoiseMaker = Callable[[int, np.random.Generator, Material], np.ndarray]


def white(length: int, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Return noise of equal power at all frequencies, (length,)."""
    return _colour(length, rng, 0.0)


def pink(length: int, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Return noise of equal power in all octaves, (length,)."""
    return _colour(length, rng, 1.0)


def brown(length: int, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Return noise whose power falls by 6 dB per octave, (length,)."""
    return _colour(length, rng, 2.0)


def hum(length: int, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Return mains hum of 50 or 60 Hz with ten harmonics, (length,)."""
    times = np.arange(length) / SAMPLING_RATE
    mains = rng.choice(MAINS_HZ)
    orders = np.arange(1, 11)[:, None]
    phases = rng.uniform(0, 2 * np.pi, orders.shape)
    return _normalise((np.sin(2 * np.pi * mains * orders * times + phases) / orders).sum(0))


def babble(length: int, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Return several other utterances at once, all at the same level, (length,).

    Raises:
        SertoneError: `no_material`.
    """
    total = np.zeros(length)
    for _ in range(BABBLE_VOICES):
        utterance = material.draw("speech", rng)
        # A loud voice must not hide the others.
        total += repeat(utterance, length, rng) / (active_level(utterance) or 1.0)
    return _normalise(total)


def voice(length: int, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Return one other utterance, such as one that bleeds in from another channel, (length,).

    Raises:
        SertoneError: `no_material`.
    """
    return _normalise(repeat(material.draw("speech", rng), length, rng))


def user_noise(length: int, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Return a part of one of the user's noises, (length,).

    Raises:
        SertoneError: `no_material`.
    """
    return _normalise(repeat(material.draw("noises", rng), length, rng))


def music(length: int, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Return chords with a melody and a beat, at a random key and tempo, (length,)."""
    beat = round(SAMPLING_RATE * 60 / rng.uniform(80, 140))
    key = rng.uniform(110, 220)
    total = np.zeros(length)
    first = int(rng.integers(len(CHORDS)))
    for number, start in enumerate(range(0, length, beat)):
        # A chord lasts four beats.
        chord = CHORDS[(first + number // 4) % len(CHORDS)]
        sound = sum(_play_note(key * SEMITONE**step, beat) for step in chord)
        sound = sound + 1.5 * _play_note(2 * key * SEMITONE ** rng.choice(chord), beat) + _strike(beat, rng)
        total[start : start + beat] += sound[: length - start]
    return _normalise(total)


def environment(length: int, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Return a street: slowly changing rumble with short sounds, about two in a second, (length,)."""
    total = _colour(length, rng, 2.0) * _fluctuate(length, rng)
    for start in rng.integers(length, size=rng.poisson(2 * length / SAMPLING_RATE)):
        sound = _make_burst(rng)[: length - start]
        total[start : start + len(sound)] += sound * rng.uniform(0.5, 3.0)
    return _normalise(total)


def _colour(length: int, rng: np.random.Generator, exponent: float) -> np.ndarray:
    """Return noise whose power density falls with the frequency to the power of `exponent`."""
    frequencies = np.fft.rfftfreq(length, 1 / SAMPLING_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum *= np.where(frequencies < LOWEST_HZ, 0.0, np.maximum(frequencies, LOWEST_HZ) ** (-exponent / 2))
    return _normalise(np.fft.irfft(spectrum, length))


def _normalise(samples: np.ndarray) -> np.ndarray:
    level = rms(samples)
    return samples / level if level else samples


def _play_note(frequency: float, length: int) -> np.ndarray:
    """Return a plucked note with six harmonics."""
    times = np.arange(length) / SAMPLING_RATE
    orders = np.arange(1, 7)[:, None]
    harmonics = np.sin(2 * np.pi * frequency * orders * times) / orders**1.5
    return harmonics.sum(0) * np.exp(-3 * times)


def _strike(length: int, rng: np.random.Generator) -> np.ndarray:
    """Return a drum: a burst of noise that decays within a tenth of a second."""
    return rng.standard_normal(length) * np.exp(-40 * np.arange(length) / SAMPLING_RATE)


def _fluctuate(length: int, rng: np.random.Generator) -> np.ndarray:
    """Return a gain that drifts between about one half and two, with two random values per second."""
    knots = rng.normal(0, 3, 2 + 2 * length // SAMPLING_RATE)  # dB
    positions = np.linspace(0, length, len(knots))
    return 10 ** (np.interp(np.arange(length), positions, knots) / 20)


def _make_burst(rng: np.random.Generator) -> np.ndarray:
    """Return a knock, a clatter or a horn: noise in one octave that decays within a second."""
    from scipy.signal import butter, sosfilt  # recipes name perturbations where scipy is not installed

    centre = rng.uniform(200, 4000)
    band = butter(2, [centre / 2**0.5, centre * 2**0.5], "bandpass", fs=SAMPLING_RATE, output="sos")
    times = np.arange(SAMPLING_RATE) / SAMPLING_RATE
    sound = sosfilt(band, rng.standard_normal(SAMPLING_RATE)) * np.exp(-rng.uniform(5, 50) * times)
    return sound / np.abs(sound).max()
