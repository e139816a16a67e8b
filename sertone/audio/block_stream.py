"""Recordings of any length, block by block: any rate and container in, 16 kHz float32 out.

The same checks and codes as `sertone.audio`, with the memory of a block however long the recording is. The
resampler is the streaming form of the one used there: its output does not depend on how the samples come in,
and is that of the whole.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sertone.audio.containers.source import AudioBytes
from sertone.audio.converter import BlockConverter, as_columns
from sertone.audio.decoder import BLOCK_FRAMES, MAX_CHANNELS, AudioInfo, Warnings, open_audio
from sertone.errors import AudioError

MAX_HOURS = 48.0
"""Longest recording that is decoded, its channels added up: a small file can hold any length of silence."""


class BlockStream:
    """A recording that is decoded while it is iterated, once: blocks (N, 1), or (N, channels) unmixed.

    Args:
        blocks: decoded samples, (N, channels).
        info: what the header says.
        warnings: about the header.
        name: of the recording, for errors.
        mix: whether channels are mixed into one.
        max_hours: longest recording that is decoded, its channels added up.

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
        self._intake = BlockConverter(info.sampling_rate, info.channels, name, mix=mix)
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
            self._require_length(self._intake.input_frames)
        yield self._intake.finish()

    def _require_length(self, frames: int) -> None:
        if frames * self.info.channels > self._max_hours * 3600 * self.info.sampling_rate:
            found = f"{self._name}: more than {self._max_hours:g} hours, all channels together"
            raise AudioError("too_long", found, "a shorter recording", "cut the recording")


def stream(path: str | Path | AudioBytes, *, mix: bool = True, max_hours: float = MAX_HOURS) -> BlockStream:
    """Opens a file to be read block by block.

    Args:
        path: as `audio.read`.
        mix: whether channels are mixed into one.
        max_hours: longest recording that is decoded, its channels added up.

    Raises:
        AudioError: for what is no sound file, or has a header that cannot be right.
    """
    file = open_audio(path)
    return BlockStream(file.blocks(0), file.info, file.warnings, str(path), mix=mix, max_hours=max_hours)


def stream_array(samples: np.ndarray, sampling_rate: int, *, mix: bool = True) -> BlockStream:
    """The same of samples in memory, (N,) or (N, channels), see `audio.columns_of`.

    Raises:
        AudioError: `bad_rate`, `bad_channels`, `bad_samples`.
    """
    if samples.ndim != 1 and (samples.ndim != 2 or len(samples) <= MAX_CHANNELS):
        as_columns(samples, "<array>")  # says what is wrong
    channels = samples.shape[1] if samples.ndim == 2 else 1
    blocks = (samples[first : first + BLOCK_FRAMES] for first in range(0, len(samples), BLOCK_FRAMES))
    return BlockStream(blocks, AudioInfo(sampling_rate, channels, len(samples)), {}, "<array>", mix=mix)
