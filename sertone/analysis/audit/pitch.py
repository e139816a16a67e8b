"""The pitch of speakers, for groups of low and high voices.

Axis letters: N samples, F frames.
"""

from collections.abc import Sequence

import numpy as np

from sertone.audio import SAMPLING_RATE

RANGE_HZ = (60.0, 450.0)
FRAME, HOP = 1024, 512
"""Samples: 64 ms hold four periods of the lowest voice."""
OCTAVE_COST = 0.05
"""Handicap of a lag of twice the length, since a period repeated twice is a period, too (Boersma 1993)."""
VOICED = 0.5
"""Autocorrelation from which a frame counts as voiced."""
GROUPS = ("low pitch", "middle pitch", "high pitch")


def measure_pitch(samples: np.ndarray) -> float:
    """Return the median pitch of the voiced frames in Hz; NaN without any.

    The pitch of a frame is the lag of the highest normalised autocorrelation (Boersma 1993).

    Args:
        samples: 16 kHz, (N,).
    """
    if len(samples) < FRAME:
        return float("nan")
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(float), FRAME)[::HOP]
    window = np.hanning(FRAME)
    correlation = _autocorrelate((frames - frames.mean(1, keepdims=True)) * window)
    correlation /= _autocorrelate(window[None])  # without it, long lags would seem weaker
    shortest, longest = (round(SAMPLING_RATE / hz) for hz in RANGE_HZ[::-1])
    lags = correlation[:, shortest : longest + 1]
    voiced = (lags.max(1) >= VOICED) & (frames.std(1) >= frames.std(1).max() / 10)
    costs = OCTAVE_COST * np.log2(1 + np.arange(lags.shape[1]) / shortest)
    best = shortest + (lags[voiced] - costs).argmax(1)
    return float(np.median(SAMPLING_RATE / best)) if voiced.any() else float("nan")


def group_by_pitch(pitches: Sequence[float], speakers: Sequence[str]) -> list[str]:
    """Divide the speakers into thirds by the median pitch of their recordings.

    Args:
        pitches: pitch of each recording in Hz, (N,); NaN where it is not known.
        speakers: speaker of each recording.

    Returns:
        the group of each recording; empty where the pitch of its speaker is not known.
    """
    values = np.asarray(pitches, float)
    by_speaker = {}
    for speaker in dict.fromkeys(speakers):
        own = values[[name == speaker for name in speakers]]
        if np.isfinite(own).any():
            by_speaker[speaker] = np.nanmedian(own)
    ordered = sorted(by_speaker, key=lambda speaker: by_speaker[speaker])
    group = {name: GROUPS[3 * place // len(ordered)] for place, name in enumerate(ordered)}
    return [group.get(speaker, "") for speaker in speakers]


def _autocorrelate(frames: np.ndarray) -> np.ndarray:
    """Return the autocorrelation of each frame, 1 at lag 0, (F, FRAME)."""
    power = np.abs(np.fft.rfft(frames, 2 * FRAME)) ** 2
    correlation = np.fft.irfft(power)[:, :FRAME]
    return correlation / np.maximum(correlation[:, :1], 1e-12)
