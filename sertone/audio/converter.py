"""Taking samples as they come: checked, mixed, and resampled to 16 kHz, with the memory of a block.

Conventions: samples are float32 in [-1, 1], held once; channels are mixed before anything is kept.
"""

from pathlib import Path

import numpy as np
import soxr

from sertone.audio.containers.limits import MAX_CHANNELS, Warnings, check_format
from sertone.errors import AudioError
from sertone.scoring.display import format_count

SAMPLING_RATE = 16000
SILENCE = 1e-4  # standard deviation below which there is nothing to hear
MIN_SAMPLES = 400  # 25 ms: one frame of every encoder
_FULL_SCALE = {"uint8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}  # as WAV files hold them


class BlockConverter:
    """Takes samples as they come, and gives them at 16 kHz, mixed or by channel.

    Args:
        sampling_rate: of what comes, in Hz.
        channels: of what comes.
        name: of the recording, for errors.
        mix: whether channels are mixed into one.

    Attributes:
        taken: samples per channel that came so far.

    Raises:
        AudioError: `bad_rate`, `bad_channels`.
    """

    def __init__(self, sampling_rate: int, channels: int, name: str, *, mix: bool = True) -> None:
        check_format(sampling_rate, channels, Path(name))
        self.sampling_rate, self.channels, self.name, self.mix = sampling_rate, channels, name, mix
        self.input_frames, self._given, self._doubts = 0, 0, Doubts()
        self._resampler = None
        if sampling_rate != SAMPLING_RATE:
            width = 1 if mix else channels
            self._resampler = soxr.ResampleStream(sampling_rate, SAMPLING_RATE, width, dtype="float32")

    @property
    def duration_s(self) -> float:
        """Seconds that came so far."""
        return self.input_frames / self.sampling_rate

    @property
    def warnings(self) -> Warnings:
        """What is doubtful about what came so far."""
        return self._doubts.warnings(mixed=self.mix)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes the next samples, (N,) of one channel or (N, channels).

        Returns:
            what is ready at 16 kHz, (M, 1) or (M, channels); M may be 0.

        Raises:
            AudioError: `bad_samples`, `non_finite`; nothing was taken then.
        """
        columns = self._columns(samples)
        if not len(columns):
            return self._resampled(columns[:, :1] if self.mix else columns)
        mono = columns.mean(1)
        self._doubts.add(columns, mono)
        self.input_frames += len(columns)
        return self._resampled(mono[:, None] if self.mix else columns)

    def finish(self) -> np.ndarray:
        """The rest, when nothing more comes.

        Raises:
            AudioError: `no_samples`, `too_short`.
        """
        if not self.input_frames:
            raise AudioError("no_samples", f"{self.name}: no samples", "a recording")
        rest = self._resampled(np.zeros((0, 1 if self.mix else self.channels), np.float32), last=True)
        if self._given < MIN_SAMPLES:
            found = f"{self.name}: {format_count(self._given, 'sample')} at 16 kHz"
            raise AudioError("too_short", found, f"at least {MIN_SAMPLES}")
        return rest

    def _columns(self, samples: np.ndarray) -> np.ndarray:
        columns = as_columns(samples, self.name)
        if columns.shape[1] != self.channels:
            raise AudioError(
                "bad_samples",
                f"{self.name}: samples of shape {np.shape(samples)}",
                f"(N, {self.channels})" + ", or (N,)" * (self.channels == 1),
            )
        if not np.isfinite(columns).all():
            raise AudioError("non_finite", f"{self.name}: NaN or infinite samples", "finite samples")
        return columns

    def _resampled(self, columns: np.ndarray, *, last: bool = False) -> np.ndarray:
        if self._resampler:
            columns = self._resampler.resample_chunk(np.ascontiguousarray(columns), last=last)
        self._given += len(columns)
        return columns


def as_columns(samples: np.ndarray, name: str) -> np.ndarray:
    """Samples as (N, channels) float32.

    Args:
        samples: (N,) or (N, channels), floats from -1 to 1 or integers of 8, 16 or 32 bits.
        name: of the recording, for errors.

    Raises:
        AudioError: `bad_samples`.
    """
    given = np.asarray(samples)
    if given.ndim not in (1, 2) or not (given.dtype.kind == "f" or given.dtype.name in _FULL_SCALE):
        raise AudioError(
            "bad_samples",
            f"{name}: {given.dtype} samples of shape {given.shape}",
            "floats from -1 to 1 or integers of 8, 16 or 32 bits, (N,) or (N, channels)",
        )
    columns = given[:, None] if given.ndim == 1 else given
    if len(columns) <= MAX_CHANNELS < columns.shape[1]:
        found = f"{name}: {columns.shape[1]} channels of {format_count(len(columns), 'sample')}"
        raise AudioError("bad_channels", found, "samples (N, channels)", "transpose them")
    if given.dtype.kind == "f":
        return columns.astype(np.float32, copy=False)
    middle = 128 if given.dtype == np.uint8 else 0
    return ((columns.astype(np.float64) - middle) / _FULL_SCALE[given.dtype.name]).astype(np.float32)


def is_silent(samples: np.ndarray) -> bool:
    """Whether there is nothing to hear in samples (N,)."""
    return bool(samples.std() < SILENCE)


class Doubts:
    """What is doubtful about a signal, gathered block by block."""

    def __init__(self) -> None:
        self._count, self._clipped, self._peak = 0, 0, 0.0
        self._sum: np.ndarray | float = 0.0
        self._squares: np.ndarray | float = 0.0

    def add(self, columns: np.ndarray, mono: np.ndarray) -> None:
        """Takes a block, channels (N, C) and their mean (N,)."""
        signals = np.stack([*columns.T, mono]).astype(np.float64)  # by channel: sums along memory are fast
        self._count += len(columns)
        loudness = np.abs(columns)
        self._clipped += int((loudness >= 0.999).sum())
        self._peak = max(self._peak, float(loudness.max(initial=0.0)))
        self._sum = self._sum + signals.sum(1)
        self._squares = self._squares + np.square(signals).sum(1)

    def warnings(self, *, mixed: bool = True) -> Warnings:
        """Of all that was taken; whether it is mixed or used by channel."""
        found: Warnings = {}
        count = max(1, self._count)
        variances = np.atleast_1d(self._squares / count - np.square(self._sum / count))
        *spreads, spread = np.sqrt(np.maximum(0, variances))
        clipped = self._clipped / (count * max(1, len(spreads)))
        if self._peak > 4:  # floats may go a little beyond full scale
            found["not_scaled"] = f"samples up to {self._peak:.0f}; expected -1 to 1"
        elif clipped > 0.01:
            found["clipped"] = f"{clipped:.1%} of the samples are at full scale"
        loudest = max(spreads, default=0.0)
        if loudest < SILENCE:
            found["no_speech"] = "the recording is silent or constant"
        elif mixed and spread < 0.1 * loudest:
            found["anti_phase"] = "the channels cancel each other when mixed"
        return found
