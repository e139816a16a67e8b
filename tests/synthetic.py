"""Recordings of 16 kHz from random numbers, and their level."""

import numpy as np

from sertone.audio import SAMPLING_RATE as RATE

SEED = 3


def draw(seed=SEED):
    return np.random.default_rng(seed)


def tone(hertz, seconds=2.0, amplitude=0.2):
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(
        np.float32
    )


def talk(seconds=4.0, seed=0):
    """Noise in bursts of syllables, with pauses."""
    rng = draw(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    syllables = np.clip(np.sin(2 * np.pi * 4 * time), 0, 1) * (np.sin(2 * np.pi * 0.5 * time) > -0.3)
    return (0.1 * rng.standard_normal(len(time)) * syllables).astype(np.float32)


def decibels(samples):
    return 10 * np.log10(np.mean(np.square(samples, dtype=float)) + 1e-20)
