"""Active speech level (ITU-T P.56, method B), and mixing at a signal-to-noise ratio over it.

Pauses lower a plain mean, so a recording with many pauses would get less noise. The active level leaves them
out: it is the level over the samples whose envelope is less than 15.9 dB below that level itself.

Axis letters: N samples.
"""

import numpy as np

from sertone.audio import SAMPLING_RATE

SMOOTHING_S = 0.03
"""Time constant of both stages of the envelope (P.56)."""
HANGOVER_S = 0.2
"""A sample counts as active for this long after the envelope has fallen below the threshold (P.56)."""
MARGIN_DB = 15.9
"""Difference between the active level and its threshold (P.56)."""
ENVELOPE_RATE = 1000
"""Values of the envelope per second that are compared with the thresholds; P.56 wants at least 694."""
_THRESHOLDS = 2.0 ** -np.arange(16)


def active_level(samples: np.ndarray) -> float:
    """Return the RMS of the active speech; 0 for digital silence.

    Thresholds are relative to the peak, so the level scales with the samples.

    Args:
        samples: 16 kHz, (N,).
    """
    peak = float(np.abs(samples).max(initial=0.0))
    if peak == 0:
        return 0.0
    scaled = samples.astype(np.float64) / peak
    # The hangover of the last samples counts as well.
    padded = np.pad(np.abs(scaled), (0, round(HANGOVER_S * SAMPLING_RATE)))
    step = SAMPLING_RATE // ENVELOPE_RATE
    counts = step * _count_active(_envelope(padded)[::step])
    # An active part cannot be longer than the recording.
    counts = np.minimum(counts, len(scaled))
    level_db = _find_crossing((scaled**2).sum(), counts)
    return peak * 10 ** (level_db / 20)


def _find_crossing(energy: float, counts: np.ndarray) -> float:
    """Return the active level in dB relative to the peak.

    From the lowest threshold upwards, the level rises and comes nearer to the threshold. The active level is
    the first one at most `MARGIN_DB` above its threshold. A click may reach higher thresholds, but is not
    speech, so they are not looked at.

    Args:
        energy: sum of the squared samples.
        counts: active samples at each threshold, from the highest to the lowest, (16,).
    """
    reached = counts[::-1] > 0
    levels = 10 * np.log10(energy / counts[::-1][reached])
    distances = levels - 20 * np.log10(_THRESHOLDS[::-1][reached])
    within = np.flatnonzero(distances <= MARGIN_DB)
    if not len(within) or within[0] == 0:  # a very short recording, or one that is loud throughout
        return float(levels[0])
    neighbours = [within[0], within[0] - 1]  # `interp` wants growing distances
    return float(np.interp(MARGIN_DB, distances[neighbours], levels[neighbours]))


def _envelope(magnitudes: np.ndarray) -> np.ndarray:
    """Smooth magnitudes twice by an exponential mean, (N,)."""
    from scipy.signal import lfilter  # recipes name perturbations where scipy is not installed

    keep = np.exp(-1 / (SMOOTHING_S * SAMPLING_RATE))
    for _ in range(2):
        magnitudes = np.asarray(lfilter([1 - keep], [1, -keep], magnitudes))
    return magnitudes


def _count_active(envelope: np.ndarray) -> np.ndarray:
    """Count the values of the envelope that are active at each threshold, (16,)."""
    index = np.arange(len(envelope))
    hangover = round(HANGOVER_S * ENVELOPE_RATE)
    above = envelope >= _THRESHOLDS[:, None]
    last_above = np.maximum.accumulate(np.where(above, index, -hangover - 1), axis=1)
    return (index - last_above <= hangover).sum(1)


def rms(samples: np.ndarray) -> float:
    """Return the root mean square of samples, (N,)."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def mix(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Add noise at a signal-to-noise ratio: active speech level over RMS of the noise.

    Speech or noise that is silent has no ratio, so the speech is returned as it is.

    Args:
        speech: (N,).
        noise: (N,).
        snr_db: signal-to-noise ratio in dB.

    Returns:
        float32, (N,). It may exceed 1.
    """
    level, noise_level = active_level(speech), rms(noise)
    gain = level / noise_level * 10 ** (-snr_db / 20) if noise_level else 0.0
    return (speech + gain * noise).astype(np.float32)
