"""Reverberation: rooms from random numbers, or impulse responses of the user.

A room is an exponential tail of noise behind the direct sound. That sets the reverberation time exactly, and
needs no geometry. Early reflections are part of the tail; those of a real room need its impulse responses.

Axis letters: N samples.
"""

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.perturb.material import Material
from sertone.perturb.speech_level import rms

VOLUME_M3 = 60.0
DISTANCE_M = 1.0
FIRST_REFLECTION_S = 0.003
"""Delay of the tail: a path that is one metre longer than the direct one."""


def reverberate(
    samples: np.ndarray, rt60_s: float, rng: np.random.Generator, material: Material
) -> np.ndarray:
    """Place a speaker in a room; the length and the RMS stay the same.

    Args:
        samples: 16 kHz, (N,).
        rt60_s: seconds in which the sound falls by 60 dB.
        rng: draws the room.
        material: not used.

    Returns:
        float32, (N,).
    """
    return _convolve(samples, room_response(rt60_s, rng))


def apply_recorded_room(
    samples: np.ndarray, share: float, rng: np.random.Generator, material: Material
) -> np.ndarray:
    """Mix the recording with itself in a recorded room; the length and the RMS stay the same.

    Args:
        samples: 16 kHz, (N,).
        share: share of the reverberated signal, from 0 to 1.
        rng: draws one of the impulse responses.
        material: has them.

    Returns:
        float32, (N,).

    Raises:
        SertoneError: `no_material`.
    """
    response = material.draw("impulse_responses", rng)
    wet = _convolve(samples, response[np.abs(response).argmax() :])  # the direct sound has no delay
    return ((1 - share) * samples + share * wet).astype(np.float32)


def room_response(rt60_s: float, rng: np.random.Generator) -> np.ndarray:
    """Return the impulse response of a room of 60 m3, one metre from the speaker, (N,).

    The tail has the energy of a diffuse field: relative to the direct sound, the square of the distance over
    the critical distance, which is 0.057 times the root of the volume over the reverberation time.
    """
    times = np.arange(1, round(1.2 * rt60_s * SAMPLING_RATE) + 2) / SAMPLING_RATE
    tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / rt60_s)
    tail[times < FIRST_REFLECTION_S] = 0
    critical_distance = 0.057 * np.sqrt(VOLUME_M3 / rt60_s)
    energy = float((tail**2).sum())
    gain = DISTANCE_M / critical_distance / np.sqrt(energy) if energy else 0.0
    return np.concatenate([[1.0], gain * tail])


def _convolve(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    from scipy.signal import fftconvolve  # recipes name perturbations where scipy is not installed

    wet = fftconvolve(samples, response)[: len(samples)]
    level = rms(wet)
    return (wet * (rms(samples) / level if level else 1.0)).astype(np.float32)
