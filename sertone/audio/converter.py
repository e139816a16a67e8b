"""Conversion to 16 kHz, block by block: samples are checked, mixed and resampled with the memory of a block.

Conventions: samples are float32 in [-1, 1]. Channels are mixed before anything is kept.
"""

from pathlib import Path

import numpy as np
import soxr

from sertone.audio.containers.limits import MAX_CHANNELS, Warnings, check_format
from sertone.errors import AudioError
from sertone.utils.wording import format_count

SAMPLING_RATE = 16000
SILENCE = 1e-4
"""Standard deviation of samples below which a signal counts as silent."""
MIN_SAMPLES = 400  # 25 ms: one frame of every encoder
_FULL_SCALE = {"uint8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}  # as WAV files hold them


class BlockConverter:
    """Converts blocks of samples to 16 kHz, mixed or by channel.

    Args:
        sampling_rate: sampling rate of the input, in Hz.
        channels: channels of the input.
        name: name of the recording, for errors.
        mix: whether channels are mixed into one.

    Attributes:
        input_frames: samples per channel received so far.

    Raises:
        AudioError: `bad_rate`, `bad_channels`.
    """

    def __init__(self, sampling_rate: int, channels: int, name: str, *, mix: bool = True) -> None:
        check_format(sampling_rate, channels, Path(name))
        self.sampling_rate = sampling_rate
        self.channels = channels
        self.name = name
        self.mix = mix
        self.input_frames = 0
        self._output_frames = 0
        self._statistics = SignalStatistics()
        self._resampler = None
        if sampling_rate != SAMPLING_RATE:
            width = 1 if mix else channels
            self._resampler = soxr.ResampleStream(sampling_rate, SAMPLING_RATE, width, dtype="float32")

    @property
    def duration_s(self) -> float:
        """Seconds received so far."""
        return self.input_frames / self.sampling_rate

    @property
    def warnings(self) -> Warnings:
        """Warnings about the samples received so far."""
        return self._statistics.warnings(mixed=self.mix)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Convert the next samples, (N,) of one channel or (N, channels).

        Returns:
            samples that are ready at 16 kHz, (M, 1) or (M, channels); M may be 0.

        Raises:
            AudioError: `bad_samples`, `non_finite`; the samples are not taken then.
        """
        columns = self._check_samples(samples)
        if not len(columns):
            return self._resample(columns[:, :1] if self.mix else columns)
        mono = columns.mean(1)
        self._statistics.add(columns, mono)
        self.input_frames += len(columns)
        return self._resample(mono[:, None] if self.mix else columns)

    def finish(self) -> np.ndarray:
        """Return the last samples at the end of the input.

        Raises:
            AudioError: `no_samples`, `too_short`.
        """
        if not self.input_frames:
            raise AudioError("no_samples", f"{self.name}: no samples", "a recording")
        empty = np.zeros((0, 1 if self.mix else self.channels), np.float32)
        last_samples = self._resample(empty, last=True)
        if self._output_frames < MIN_SAMPLES:
            length = f"{self.name}: {format_count(self._output_frames, 'sample')} at 16 kHz"
            raise AudioError("too_short", length, f"at least {MIN_SAMPLES}")
        return last_samples

    def _check_samples(self, samples: np.ndarray) -> np.ndarray:
        columns = as_columns(samples, self.name)
        if columns.shape[1] != self.channels:
            shapes = "(N, 1), or (N,)" if self.channels == 1 else f"(N, {self.channels})"
            problem = f"{self.name}: samples of shape {np.shape(samples)}"
            raise AudioError("bad_samples", problem, shapes)
        if not np.isfinite(columns).all():
            raise AudioError("non_finite", f"{self.name}: NaN or infinite samples", "finite samples")
        return columns

    def _resample(self, columns: np.ndarray, *, last: bool = False) -> np.ndarray:
        if self._resampler:
            columns = self._resampler.resample_chunk(np.ascontiguousarray(columns), last=last)
        self._output_frames += len(columns)
        return columns


def as_columns(samples: np.ndarray, name: str) -> np.ndarray:
    """Return samples as (N, channels) float32.

    Args:
        samples: (N,) or (N, channels), floats from -1 to 1 or integers of 8, 16 or 32 bits.
        name: name of the recording, for errors.

    Raises:
        AudioError: `bad_samples`, `bad_channels`.
    """
    array = np.asarray(samples)
    if array.ndim not in (1, 2) or not (array.dtype.kind == "f" or array.dtype.name in _FULL_SCALE):
        raise AudioError(
            "bad_samples",
            f"{name}: {array.dtype} samples of shape {array.shape}",
            "floats from -1 to 1 or integers of 8, 16 or 32 bits, (N,) or (N, channels)",
        )
    columns = array[:, None] if array.ndim == 1 else array
    # Few rows and many columns: the axes were exchanged.
    if len(columns) <= MAX_CHANNELS < columns.shape[1]:
        problem = f"{name}: {columns.shape[1]} channels of {format_count(len(columns), 'sample')}"
        raise AudioError("bad_channels", problem, "samples (N, channels)", "transpose them")
    if array.dtype.kind == "f":
        return columns.astype(np.float32, copy=False)
    middle = 128 if array.dtype == np.uint8 else 0  # WAV files hold 8 bits without a sign
    return ((columns.astype(np.float64) - middle) / _FULL_SCALE[array.dtype.name]).astype(np.float32)


def is_silent(samples: np.ndarray) -> bool:
    """Return whether samples (N,) are silent or constant."""
    return bool(samples.std() < SILENCE)


class SignalStatistics:
    """Level statistics of a signal, gathered block by block, and the warnings that follow from them."""

    def __init__(self) -> None:
        self._count = 0
        self._clipped = 0
        self._peak = 0.0
        # Of every channel, and of their mean: (C + 1,).
        self._sum: np.ndarray | float = 0.0
        self._squares: np.ndarray | float = 0.0

    def add(self, columns: np.ndarray, mono: np.ndarray) -> None:
        """Add a block, channels (N, C) and their mean (N,)."""
        signals = np.stack([*columns.T, mono]).astype(np.float64)  # by channel: sums along memory are fast
        self._count += len(columns)
        magnitudes = np.abs(columns)
        self._clipped += int((magnitudes >= 0.999).sum())
        self._peak = max(self._peak, float(magnitudes.max(initial=0.0)))
        self._sum = self._sum + signals.sum(1)
        self._squares = self._squares + np.square(signals).sum(1)

    def warnings(self, *, mixed: bool = True) -> Warnings:
        """Return the warnings about all blocks so far.

        Args:
            mixed: whether channels are mixed, or used one by one.
        """
        warnings: Warnings = {}
        count = max(1, self._count)
        variances = np.atleast_1d(self._squares / count - np.square(self._sum / count))
        # Rounding may bring the variance of a constant signal below 0.
        *channel_stds, mixed_std = np.sqrt(np.maximum(0, variances))
        clipped = self._clipped / (count * max(1, len(channel_stds)))
        if self._peak > 4:  # floats may go a little beyond full scale
            warnings["not_scaled"] = f"samples up to {self._peak:.0f}; expected -1 to 1"
        elif clipped > 0.01:
            warnings["clipped"] = f"{clipped:.1%} of the samples are at full scale"
        loudest = max(channel_stds, default=0.0)
        if loudest < SILENCE:
            warnings["no_speech"] = "the recording is silent or constant"
        elif mixed and mixed_std < 0.1 * loudest:
            warnings["anti_phase"] = "the channels cancel each other when mixed"
        return warnings
