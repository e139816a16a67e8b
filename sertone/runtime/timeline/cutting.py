"""From blocks of samples to the pieces that a model answers, with the memory of one piece and one block."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sertone.audio import SAMPLING_RATE, is_silent
from sertone.audio.block_stream import BlockStream
from sertone.audio.decoder import Warnings
from sertone.runtime.timeline.segmentation import Segmenter, Span, SpanSegmenter
from sertone.scoring.display import format_count
from sertone.utils.child_process import emit

TOGETHER = 16 * SAMPLING_RATE
"""Samples that are handed over at once."""


@dataclass(frozen=True, slots=True)
class AudioPiece:
    """A stretch of a recording with its samples, mono at 16 kHz.

    Attributes:
        start_s: in seconds.
        end_s: in seconds.
        speaker: who speaks; empty where nobody said.
        samples: float32, (N,); none of silence, about which no model is asked.
    """

    start_s: float
    end_s: float
    speaker: str
    samples: np.ndarray


class ChannelCutter:
    """One channel: its segmenter, its speaker, and the samples that may still be asked for."""

    def __init__(self, segmenter: Segmenter, speaker: str) -> None:
        self.segmenter, self._speaker = segmenter, speaker
        self._kept, self._first = np.zeros(0, np.float32), 0

    def push(self, samples: np.ndarray) -> list[AudioPiece]:
        """Takes the next samples (N,); gives the pieces that are complete."""
        self._kept = np.concatenate([self._kept, samples])
        pieces = [self._piece(span) for span in self.segmenter.push(samples)]
        passed = self.segmenter.first_needed - self._first
        self._kept, self._first = self._kept[passed:], self._first + passed
        return pieces

    def finish(self) -> list[AudioPiece]:
        """The rest, when nothing more comes."""
        return [self._piece(span) for span in self.segmenter.finish()]

    def _piece(self, span: Span) -> AudioPiece:
        samples = self._kept[span.start - self._first : span.end - self._first]
        start, end = span.start / SAMPLING_RATE, span.end / SAMPLING_RATE
        kept = samples[:0] if is_silent(samples) else samples
        return AudioPiece(start, end, span.speaker or self._speaker, kept.copy())


class Cutter:
    """Cuts all channels of a recording as it comes."""

    def __init__(self, tracks: Sequence[ChannelCutter]) -> None:
        self.tracks = tracks

    @property
    def warnings(self) -> Warnings:
        """Complete after `finish`."""
        found: Warnings = {}
        segmenters = [track.segmenter for track in self.tracks]
        left_out = sum(each.dropped for each in segmenters if isinstance(each, SpanSegmenter))
        if left_out:
            found["turns_left_out"] = (
                f"{format_count(left_out, 'part')} of turns: behind the end, or shorter than 25 ms"
            )
        return found

    def push(self, block: np.ndarray) -> list[AudioPiece]:
        """Takes the next samples, (N, tracks); gives the pieces that are complete."""
        pairs = zip(self.tracks, block.T, strict=True)
        return [piece for track, column in pairs for piece in track.push(column)]

    def finish(self) -> list[AudioPiece]:
        """The rest, when nothing more comes."""
        return [piece for track in self.tracks for piece in track.finish()]


class PieceReader:
    """A recording as groups of pieces; iterated once."""

    def __init__(self, sound: BlockStream, cutter: Cutter) -> None:
        self._sound, self._cutter = sound, cutter

    def __iter__(self) -> Generator[list[AudioPiece], None, None]:
        return group_pieces(self._cut())

    def finish(self) -> tuple[float, Warnings]:
        """Seconds of the recording and warnings about it, when all was taken."""
        return self._sound.duration_s, self._sound.warnings | self._cutter.warnings

    def _cut(self) -> Iterator[AudioPiece]:
        for block in self._sound:
            emit(None)  # a sign of life: silence may go on for hours before there is a piece
            yield from self._cutter.push(block)
        yield from self._cutter.finish()


def group_pieces(pieces: Iterable[AudioPiece]) -> Generator[list[AudioPiece], None, None]:
    """Yield neighbours, at most TOGETHER unless a piece is longer."""
    group: list[AudioPiece] = []
    count = 0
    for piece in pieces:
        if group and count + len(piece.samples) > TOGETHER:
            yield group
            group, count = [], 0
        group.append(piece)
        count += len(piece.samples)
    if group:
        yield group
