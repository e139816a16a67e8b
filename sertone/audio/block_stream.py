"""Recordings of any length, block by block: any sampling rate and container in, 16 kHz float32 out.

The checks and codes are those of `sertone.audio`. The memory is that of a block, however long the recording
is. The resampler is the streaming form of the one used there: its output does not depend on the size of the
blocks, and equals that of the recording as a whole.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from sertone.audio.containers.source import AudioBytes
from sertone.audio.converter import BlockConverter, as_columns
from sertone.audio.decoder import BLOCK_FRAMES, MAX_CHANNELS, AudioInfo, Warnings, open_audio
from sertone.errors import AudioError

MAX_HOURS = 48.0
"""Longest recording that is decoded, all channels together: a small file can hold any length of silence."""


class BlockStream:
    """A recording that is decoded while you iterate over it, once.

    Iterating yields blocks (N, 1), or (N, channels) where channels are not mixed.

    Args:
        blocks: decoded samples, (N, channels).
        info: header of the file.
        warnings: about the header.
        name: name of the recording, for errors.
        mix: whether channels are mixed into one.
        max_hours: longest recording that is decoded, all channels together.

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
        self.info = info
        self._blocks = blocks
        self._header_warnings = warnings
        self._name = name
        self._converter = BlockConverter(info.sampling_rate, info.channels, name, mix=mix)
        self._max_hours = max_hours

    @property
    def duration_s(self) -> float:
        """Seconds decoded so far."""
        return self._converter.duration_s

    @property
    def warnings(self) -> Warnings:
        """Warnings about the header, and about the samples decoded so far."""
        return self._header_warnings | self._converter.warnings

    def __iter__(self) -> Iterator[np.ndarray]:
        # An exact header is enough to refuse the recording before anything is decoded.
        self._require_length(self.info.frames if self.info.exact else 0)
        for block in self._blocks:
            yield self._converter.push(block)
            self._require_length(self._converter.input_frames)
        yield self._converter.finish()

    def _require_length(self, frames: int) -> None:
        if frames * self.info.channels > self._max_hours * 3600 * self.info.sampling_rate:
            problem = f"{self._name}: more than {self._max_hours:g} hours, all channels together"
            raise AudioError("too_long", problem, "a shorter recording", "cut the recording")


def stream(path: str | Path | AudioBytes, *, mix: bool = True, max_hours: float = MAX_HOURS) -> BlockStream:
    """Open a file to read it block by block.

    Args:
        path: as `audio.read`.
        mix: whether channels are mixed into one.
        max_hours: longest recording that is decoded, all channels together.

    Raises:
        AudioError: the file is no sound file, or its header cannot be right.
    """
    file = open_audio(path)
    return BlockStream(file.blocks(0), file.info, file.warnings, str(path), mix=mix, max_hours=max_hours)


def stream_array(samples: np.ndarray, sampling_rate: int, *, mix: bool = True) -> BlockStream:
    """Stream samples in memory, (N,) or (N, channels), see `audio.as_columns`.

    Raises:
        AudioError: `bad_rate`, `bad_channels`, `bad_samples`.
    """
    if samples.ndim != 1 and (samples.ndim != 2 or len(samples) <= MAX_CHANNELS):
        as_columns(samples, "<array>")  # raises an error that names the problem
    channels = samples.shape[1] if samples.ndim == 2 else 1
    starts = range(0, len(samples), BLOCK_FRAMES)
    blocks = (samples[start : start + BLOCK_FRAMES] for start in starts)
    return BlockStream(blocks, AudioInfo(sampling_rate, channels, len(samples)), {}, "<array>", mix=mix)
