"""Cut blocks of samples into the pieces that a model predicts, with the memory of one piece and one block."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sertone.audio import SAMPLING_RATE, is_silent
from sertone.audio.block_stream import BlockStream
from sertone.audio.decoder import Warnings
from sertone.runtime.timeline.segmentation import Segmenter, Span, SpanSegmenter, SpeechSegmenter
from sertone.utils.child_process import emit
from sertone.utils.wording import format_count

GROUP_SAMPLES = 16 * SAMPLING_RATE
"""Most samples of a group of pieces."""


@dataclass(frozen=True, slots=True)
class AudioPiece:
    """A piece of a recording with its samples, mono at 16 kHz.

    Attributes:
        start_s: start in seconds.
        end_s: end in seconds.
        speaker: name; empty where it is not known.
        samples: float32, (N,); empty for silence, which no model predicts.
        found_by_voice: whether voice activity has found the piece, so that it is known to be speech.
    """

    start_s: float
    end_s: float
    speaker: str
    samples: np.ndarray
    found_by_voice: bool


class ChannelCutter:
    """Cuts one channel: its segmenter, its speaker, and the samples that later pieces may need."""

    def __init__(self, segmenter: Segmenter, speaker: str) -> None:
        self.segmenter = segmenter
        self._speaker = speaker
        self._buffer = np.zeros(0, np.float32)
        self._buffer_start = 0  # position of the buffer's first sample in the recording

    def push(self, samples: np.ndarray) -> list[AudioPiece]:
        """Take the next samples (N,), and return the pieces that are complete."""
        self._buffer = np.concatenate([self._buffer, samples])
        pieces = [self._cut(span) for span in self.segmenter.push(samples)]
        passed = self.segmenter.first_needed - self._buffer_start
        self._buffer = self._buffer[passed:]
        self._buffer_start += passed
        return pieces

    def finish(self) -> list[AudioPiece]:
        """Return the remaining pieces at the end of the recording."""
        return [self._cut(span) for span in self.segmenter.finish()]

    def _cut(self, span: Span) -> AudioPiece:
        samples = self._buffer[span.start - self._buffer_start : span.end - self._buffer_start]
        if is_silent(samples):
            samples = samples[:0]
        start_s, end_s = span.start / SAMPLING_RATE, span.end / SAMPLING_RATE
        # A copy: a view would keep the whole buffer in memory.
        speaker, found_by_voice = span.speaker or self._speaker, isinstance(self.segmenter, SpeechSegmenter)
        return AudioPiece(start_s, end_s, speaker, samples.copy(), found_by_voice)


class Cutter:
    """Cuts all channels of a recording, block by block."""

    def __init__(self, channels: Sequence[ChannelCutter]) -> None:
        self.channels = channels

    @property
    def warnings(self) -> Warnings:
        """Code -> message; complete after `finish`."""
        segmenters = [channel.segmenter for channel in self.channels]
        dropped = sum(s.dropped for s in segmenters if isinstance(s, SpanSegmenter))
        if not dropped:
            return {}
        message = f"{format_count(dropped, 'part')} of turns: after the end, or shorter than 25 ms"
        return {"turns_left_out": message}

    def push(self, block: np.ndarray) -> list[AudioPiece]:
        """Take the next samples, (N, channels), and return the pieces that are complete."""
        pairs = zip(self.channels, block.T, strict=True)
        return [piece for channel, samples in pairs for piece in channel.push(samples)]

    def finish(self) -> list[AudioPiece]:
        """Return the remaining pieces at the end of the recording."""
        return [piece for channel in self.channels for piece in channel.finish()]


class PieceReader:
    """Reads a recording as groups of pieces; can be iterated once."""

    def __init__(self, sound: BlockStream, cutter: Cutter) -> None:
        self._sound = sound
        self._cutter = cutter

    def __iter__(self) -> Generator[list[AudioPiece], None, None]:
        return group_pieces(self._cut())

    def finish(self) -> tuple[float, Warnings]:
        """Return the length in seconds and the warnings, after all pieces were read."""
        return self._sound.duration_s, self._sound.warnings | self._cutter.warnings

    def _cut(self) -> Iterator[AudioPiece]:
        for block in self._sound:
            emit(None)  # a sign of life: hours of silence may pass before the next piece
            yield from self._cutter.push(block)
        yield from self._cutter.finish()


def group_pieces(pieces: Iterable[AudioPiece]) -> Generator[list[AudioPiece], None, None]:
    """Yield groups of neighbours with at most GROUP_SAMPLES samples; a longer piece is its own group."""
    group: list[AudioPiece] = []
    count = 0
    for piece in pieces:
        if group and count + len(piece.samples) > GROUP_SAMPLES:
            yield group
            group, count = [], 0
        group.append(piece)
        count += len(piece.samples)
    if group:
        yield group
