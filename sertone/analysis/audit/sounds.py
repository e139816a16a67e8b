"""Sounds that are no speech, or no ordinary speech, made from random numbers.

A model of emotions should give `NOT_SPEECH` no label, or at least no sure one. `UNUSUAL_VOICES` are voices,
so a label may be right: the audit reports how often they get one.

Axis letters: N samples.
"""

from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

from sertone.audio import SAMPLING_RATE
from sertone.perturb import noise
from sertone.perturb.material import Material

SECONDS = 3.0
LEVELS_DBFS = (-50.0, -15.0)
"""Lowest and highest RMS of the sounds."""
FORMANTS_HZ = {"a": (850, 1600, 2800), "i": (300, 2300, 3000), "u": (350, 800, 2500)}
BANDWIDTHS_HZ = (90, 120, 180)
MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)
"""Semitones of a major scale above its key note."""

MakeSound = Callable[[np.random.Generator], np.ndarray]


def silence(rng: np.random.Generator) -> np.ndarray:
    """Return digital silence."""
    return np.zeros(_count_samples())


def tone(rng: np.random.Generator) -> np.ndarray:
    """Return a sine between 80 Hz and 3 kHz."""
    return np.sin(2 * np.pi * rng.uniform(80, 3000) * _times())


def tones(rng: np.random.Generator) -> np.ndarray:
    """Return a telephone's ring: two tones that stop every second."""
    rings = np.sin(2 * np.pi * rng.uniform(300, 1500) * _times()) + np.sin(
        2 * np.pi * rng.uniform(300, 1500) * _times()
    )
    return rings * (_times() % 1 < 0.5)


def clicks(rng: np.random.Generator) -> np.ndarray:
    """Return typing: short clicks at random times."""
    sound = np.zeros(_count_samples())
    sound[rng.integers(len(sound), size=20)] = rng.choice([-1.0, 1.0], 20)
    return np.asarray(lfilter([1.0], [1.0, -0.9], sound))


def laughter(rng: np.random.Generator) -> np.ndarray:
    """Return laughter: voiced bursts, about five a second, whose pitch falls."""
    pitch = rng.uniform(180, 400) * np.exp(-0.15 * _times())
    voiced = _filter_vowel(_pulses(pitch), "a")
    breath = 0.05 * rng.standard_normal(_count_samples())
    bursts = np.clip(np.sin(2 * np.pi * rng.uniform(4, 5.5) * _times()), 0, 1) ** 0.7
    return (voiced / np.abs(voiced).max() + breath) * bursts


def singing(rng: np.random.Generator) -> np.ndarray:
    """Return singing: sustained vowels on notes of a scale, with vibrato."""
    notes = rng.uniform(120, 300) * 2 ** (rng.choice(MAJOR, 4) / 12)
    steady = np.repeat(notes, -(-_count_samples() // 4))[: _count_samples()]
    pitch = steady * 2 ** (0.5 / 12 * np.sin(2 * np.pi * 5.5 * _times()))
    return _filter_vowel(_pulses(pitch), str(rng.choice(list(FORMANTS_HZ))))


def _take(make_noise: noise.NoiseMaker) -> MakeSound:
    return lambda rng: make_noise(_count_samples(), rng, Material())


NOT_SPEECH: dict[str, MakeSound] = {
    "silence": silence,
    "white noise": _take(noise.white),
    "pink noise": _take(noise.pink),
    "brown noise": _take(noise.brown),
    "hum": _take(noise.hum),
    "tone": tone,
    "ringing": tones,
    "clicks": clicks,
    "music": _take(noise.music),
    "street": _take(noise.environment),
}
UNUSUAL_VOICES: dict[str, MakeSound] = {"laughter": laughter, "singing": singing}


def make_sound(make: MakeSound, seed: int) -> np.ndarray:
    """Return a sound at a random level, float32, (N,)."""
    rng = np.random.default_rng(seed)
    sound = make(rng)
    level = np.sqrt(np.mean(sound**2))
    wanted = 10 ** (rng.uniform(*LEVELS_DBFS) / 20)
    return np.clip(sound * (wanted / level if level else 0.0), -1, 1).astype(np.float32)


def _count_samples() -> int:
    return round(SECONDS * SAMPLING_RATE)


def _times() -> np.ndarray:
    return np.arange(_count_samples()) / SAMPLING_RATE


def _pulses(pitch_hz: np.ndarray) -> np.ndarray:
    """Return one impulse per period of a pitch contour, (N,)."""
    cycles = np.floor(np.cumsum(pitch_hz) / SAMPLING_RATE)
    return np.diff(cycles, prepend=0.0)


def _filter_vowel(source: np.ndarray, vowel: str) -> np.ndarray:
    """Pass a source through the resonances of a vowel."""
    for centre, bandwidth in zip(FORMANTS_HZ[vowel], BANDWIDTHS_HZ, strict=True):
        radius = np.exp(-np.pi * bandwidth / SAMPLING_RATE)
        cosine = np.cos(2 * np.pi * centre / SAMPLING_RATE)
        source = np.asarray(lfilter([1.0], [1.0, -2 * radius * cosine, radius**2], source))
    return source
