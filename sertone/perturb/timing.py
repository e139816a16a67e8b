"""Changes of time: cut ends, lost packets, speed and pitch.

Axis letters: N samples, M samples after the change.
"""

import numpy as np
import soxr

from sertone.audio import SAMPLING_RATE
from sertone.perturb.material import Material

PACKET = SAMPLING_RATE // 50  # 20 ms, as most voice codecs send them
BURST = 3.0
"""Mean number of packets that are lost in a row."""


def cut_ends(samples: np.ndarray, percent: float, rng: np.random.Generator, material: Material) -> np.ndarray:
    """Cut a percentage of the recording, at random shares from the beginning and the end, (M,)."""
    removed = round(len(samples) * percent / 100)
    start = int(rng.integers(removed + 1))
    return samples[start : start + len(samples) - removed].astype(np.float32)


def lose_packets(
    samples: np.ndarray, percent: float, rng: np.random.Generator, material: Material
) -> np.ndarray:
    """Set packets of 20 ms to zero, in bursts of three on average.

    A chain of two states draws the packets (Gilbert 1960): its share of lost packets is `percent`.

    Args:
        samples: 16 kHz, (N,).
        percent: share of the packets that are lost, below 75.
        rng: draws them.
        material: not used.

    Returns:
        float32, (N,).
    """
    share = percent / 100
    packets = -(-len(samples) // PACKET)
    lost = np.empty(packets, bool)
    is_lost = rng.random() < share
    for packet in range(packets):
        lost[packet] = is_lost
        is_lost = rng.random() < (1 - 1 / BURST if is_lost else share / (1 - share) / BURST)
    return np.where(np.repeat(lost, PACKET)[: len(samples)], 0, samples).astype(np.float32)


def change_speed(
    samples: np.ndarray, percent: float, rng: np.random.Generator, material: Material
) -> np.ndarray:
    """Play faster by a percentage, or slower where it is negative: pitch and tempo change, (M,)."""
    return soxr.resample(samples.astype(np.float32), SAMPLING_RATE * (1 + percent / 100), SAMPLING_RATE)


def shift_pitch(
    samples: np.ndarray, semitones: float, rng: np.random.Generator, material: Material
) -> np.ndarray:
    """Shift the pitch, and keep the duration: float32, (N,)."""
    from python_stretch.Signalsmith import Stretch  # recipes name perturbations where it is not installed

    stretch = Stretch()
    stretch.preset(1, SAMPLING_RATE)
    stretch.setTransposeSemitones(semitones)
    shifted = np.asarray(stretch.process(samples.astype(np.float32)[None]))
    return shifted[0, : len(samples)]
