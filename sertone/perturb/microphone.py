"""Microphones, amplifiers and converters: colour, tilt, band limits, clipping and level.

Filters have no phase shift: they are gains on the spectrum of the padded recording.

Axis letters: N samples, F frequencies.
"""

from collections.abc import Callable

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.perturb.material import Material
from sertone.perturb.speech_level import active_level

ORDER = 8
"""Order of the Butterworth gains: they fall by 48 dB per octave beyond the band edge."""
PADDING = SAMPLING_RATE // 4
"""Zeros behind the recording, so that a filter does not wrap around."""


def tilt(samples: np.ndarray, slope_db: float, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Tilt the spectrum around 1 kHz by `slope_db` per octave, between 50 Hz and 8 kHz, (N,)."""
    return filter_spectrum(
        samples, lambda hertz: 10 ** (slope_db * np.log2(np.maximum(hertz, 50) / 1000) / 20)
    )


def colour(samples: np.ndarray, spread_db: float, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Apply the frequency response of a random microphone.

    Args:
        samples: 16 kHz, (N,).
        spread_db: standard deviation of the response, in dB, at points two thirds of an octave apart.
        rng: draws the response.
        material: not used.

    Returns:
        float32, (N,).
    """
    octaves = np.arange(np.log2(50), np.log2(SAMPLING_RATE / 2) + 1, 2 / 3)
    response = rng.normal(0, spread_db, len(octaves))
    return filter_spectrum(
        samples, lambda hertz: 10 ** (np.interp(np.log2(np.maximum(hertz, 50)), octaves, response) / 20)
    )


def low_pass(samples: np.ndarray, edge_hz: float, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Remove frequencies above an edge, where the gain is -3 dB, (N,)."""
    return filter_spectrum(samples, lambda hertz: 1 / np.sqrt(1 + (hertz / edge_hz) ** (2 * ORDER)))


def high_pass(
    samples: np.ndarray, edge_hz: float, rng: np.random.Generator, material: Material
) -> np.ndarray:
    """Remove frequencies below an edge, where the gain is -3 dB, (N,)."""
    return filter_spectrum(
        samples, lambda hertz: 1 / np.sqrt(1 + (edge_hz / np.maximum(hertz, 1e-3)) ** (2 * ORDER))
    )


def filter_spectrum(samples: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Multiply the spectrum by a gain.

    Args:
        samples: 16 kHz, (N,).
        gain: frequencies in Hz, (F,) -> factors, (F,).

    Returns:
        float32, (N,).
    """
    length = len(samples) + PADDING
    spectrum = np.fft.rfft(samples, length) * gain(np.fft.rfftfreq(length, 1 / SAMPLING_RATE))
    return np.fft.irfft(spectrum, length)[: len(samples)].astype(np.float32)


def clip(samples: np.ndarray, percent: float, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Clip a percentage of the samples, the loudest ones, (N,)."""
    limit = np.quantile(np.abs(samples), 1 - percent / 100)
    return np.clip(samples, -limit, limit).astype(np.float32)


def set_level(
    samples: np.ndarray, level_dbfs: float, rng: np.random.Generator, material: Material
) -> np.ndarray:
    """Record at a level, as a 16-bit file: a high one clips, a low one is rounded coarsely.

    Args:
        samples: 16 kHz, (N,).
        level_dbfs: active speech level in dB relative to a full-scale square wave.
        rng: not used.
        material: not used.

    Returns:
        float32, (N,).
    """
    level = active_level(samples)
    scaled = samples * (10 ** (level_dbfs / 20) / level if level else 1.0)
    return (np.clip(np.round(scaled * 2**15), -(2**15), 2**15 - 1) / 2**15).astype(np.float32)
