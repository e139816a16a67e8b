"""Recordings of any length, block by block: any rate and container in, 16 kHz float32 out.

The same checks and codes as `sertone.audio`, with the memory of a block however long the recording is. The
resampler is the streaming form of the one used there: its output does not depend on how the samples come in,
and is that of the whole.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soxr

from sertone.audio import MIN_SAMPLES, SAMPLING_RATE, Doubts, columns_of
from sertone.decoding import BLOCK, MAX_CHANNELS, AudioInfo, Warnings, check_format, open_audio
from sertone.errors import AudioError

MAX_HOURS = 48.0
"""Longest recording that is decoded: a small file can hold any length of silence."""


class Intake:
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
        self.taken, self._given, self._doubts = 0, 0, Doubts()
        self._resampler = None
        if sampling_rate != SAMPLING_RATE:
            width = 1 if mix else channels
            self._resampler = soxr.ResampleStream(sampling_rate, SAMPLING_RATE, width, dtype="float32")

    @property
    def duration_s(self) -> float:
        """Seconds that came so far."""
        return self.taken / self.sampling_rate

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
        self.taken += len(columns)
        return self._resampled(mono[:, None] if self.mix else columns)

    def finish(self) -> np.ndarray:
        """The rest, when nothing more comes.

        Raises:
            AudioError: `no_samples`, `too_short`.
        """
        if not self.taken:
            raise AudioError("no_samples", f"{self.name}: no samples", "a recording")
        rest = self._resampled(np.zeros((0, 1 if self.mix else self.channels), np.float32), last=True)
        if self._given < MIN_SAMPLES:
            found = f"{self.name}: {self._given} samples at 16 kHz"
            raise AudioError("too_short", found, f"at least {MIN_SAMPLES}")
        return rest

    def _columns(self, samples: np.ndarray) -> np.ndarray:
        columns = columns_of(samples, self.name)
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


class Sound:
    """A recording that is decoded while it is iterated, once: blocks (N, 1), or (N, channels) unmixed.

    Args:
        blocks: decoded samples, (N, channels).
        info: what the header says.
        warnings: about the header.
        name: of the recording, for errors.
        mix: whether channels are mixed into one.
        max_hours: longest recording that is decoded.

    Attributes:
        info: as given.

    Raises:
        AudioError: while iterated, as `audio.read`; `too_long` is more than `max_hours`.
    """

    def __init__(
        self,
        blocks: Iterable[np.ndarray],
        info: AudioInfo,
        warnings: Warnings,
        name: str,
        *,
        mix: bool = True,
        max_hours: float = MAX_HOURS,
    ) -> None:
        self.info, self._blocks, self._header, self._name = info, blocks, warnings, name
        self._intake = Intake(info.sampling_rate, info.channels, name, mix=mix)
        self._max_hours = max_hours

    @property
    def duration_s(self) -> float:
        """Seconds decoded so far."""
        return self._intake.duration_s

    @property
    def warnings(self) -> Warnings:
        """About the header, and about what was decoded so far."""
        return self._header | self._intake.warnings

    def __iter__(self) -> Iterator[np.ndarray]:
        self._require_length(self.info.frames if self.info.exact else 0)
        for block in self._blocks:
            yield self._intake.push(block)
            self._require_length(self._intake.taken)
        if self.info.exact and self._intake.taken < self.info.frames:
            raise AudioError(
                "decode_failed",
                f"{self._name}: decoding ended after {self._intake.taken} samples",
                f"the {self.info.frames} of its header",
                "the file is damaged; fetch it again",
            )
        yield self._intake.finish()

    def _require_length(self, frames: int) -> None:
        if frames > self._max_hours * 3600 * self.info.sampling_rate:
            found = f"{self._name}: more than {self._max_hours:g} hours"
            raise AudioError("too_long", found, "a shorter recording", "cut the recording")


def stream(path: str | Path, *, mix: bool = True, max_hours: float = MAX_HOURS) -> Sound:
    """Opens a file to be read block by block.

    Args:
        path: as `audio.read`.
        mix: whether channels are mixed into one.
        max_hours: longest recording that is decoded.

    Raises:
        AudioError: for what is no sound file, or has a header that cannot be right.
    """
    blocks, info, warnings = open_audio(Path(path))
    return Sound(blocks(0), info, warnings, str(path), mix=mix, max_hours=max_hours)


def stream_array(samples: np.ndarray, sampling_rate: int, *, mix: bool = True) -> Sound:
    """The same of samples in memory, (N,) or (N, channels), see `audio.columns_of`.

    Raises:
        AudioError: `bad_rate`, `bad_channels`, `bad_samples`.
    """
    if samples.ndim != 1 and (samples.ndim != 2 or len(samples) <= MAX_CHANNELS):
        columns_of(samples, "<array>")  # says what is wrong
    channels = samples.shape[1] if samples.ndim == 2 else 1
    blocks = (samples[first : first + BLOCK] for first in range(0, len(samples), BLOCK))
    return Sound(blocks, AudioInfo(sampling_rate, channels, len(samples)), {}, "<array>", mix=mix)
