"""Segmentation of a recording: windows, speech by voice activity, or spans that are known beforehand.

A segmenter takes one channel at 16 kHz block by block, and returns spans as soon as they are complete. Its
property `first_needed` states from which sample on later spans may begin, so earlier samples can be dropped.
Positions are samples at 16 kHz.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Protocol

import numpy as np

from sertone.audio import MIN_SAMPLES, SILENCE, is_silent
from sertone.runtime.speech import FRAME

HYSTERESIS = 0.15
"""Speech continues down to this much below the threshold at which it begins."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span of samples, [start, end), and its speaker; empty where the speaker is not known."""

    start: int
    end: int
    speaker: str = ""


class Segmenter(Protocol):
    """Finds the spans of one channel."""

    @property
    def first_needed(self) -> int:
        """First sample with which a later span may begin."""
        ...

    def push(self, samples: np.ndarray) -> list[Span]:
        """Take the next samples (N,), and return the spans that are complete."""
        ...

    def finish(self) -> list[Span]:
        """Return the remaining spans at the end of the recording."""
        ...


class WindowSegmenter:
    """Windows of equal length, one per hop.

    The last window ends with the recording. It begins at its hop, or earlier if it would be shorter than
    `shortest`. A rest of less than one frame of the encoder (MIN_SAMPLES) is ignored.

    Args:
        window: length in samples.
        hop: distance between the starts of two windows, in samples; at most `window`.
        shortest: shortest last window, in samples; at most `window`.
    """

    def __init__(self, window: int, hop: int, shortest: int) -> None:
        self._window = window
        self._hop = hop
        self._shortest = shortest
        self._next = 0  # start of the next window
        self._received = 0

    @property
    def first_needed(self) -> int:
        # The last window may begin before its hop, to be as long as `shortest`.
        return max(0, min(self._next, self._received - self._shortest))

    def push(self, samples: np.ndarray) -> list[Span]:
        self._received += len(samples)
        spans = []
        while self._next + self._window <= self._received:
            spans.append(Span(self._next, self._next + self._window))
            self._next += self._hop
        return spans

    def finish(self) -> list[Span]:
        covered = self._next - self._hop + self._window if self._next else 0
        remainder = self._received - covered
        # A recording shorter than a window is one window, however short.
        return (
            [Span(self.first_needed, self._received)] if remainder >= (MIN_SAMPLES if covered else 1) else []
        )


class SpeechSegmenter:
    """Spans of speech by voice activity.

    Speech begins where its probability reaches the threshold, and ends before a silence of `gap`. Speech
    shorter than `shortest` is ignored. Speech longer than `longest` is cut where it is least probable in its
    second half. Both ends get `margin`, except at such a cut.

    Args:
        detector: the next FRAME samples -> probability of speech.
        threshold: threshold of this probability.
        longest: longest span, in samples, margins included.
        shortest: shortest span, in samples.
        gap: shortest silence that ends a span, in samples.
        margin: length added at both ends, in samples; at most half a gap.
    """

    def __init__(
        self,
        detector: Callable[[np.ndarray], float],
        *,
        threshold: float,
        longest: int,
        shortest: int,
        gap: int,
        margin: int,
    ) -> None:
        self._detector = detector
        self._threshold = threshold
        self._margin = margin
        # The next three are in frames.
        self._shortest = max(1, round(shortest / FRAME))
        self._gap = max(1, round(gap / FRAME))
        # What remains after a cut is at least `shortest`, so both together must fit into `longest`.
        self._longest = max(2, (longest - 2 * margin) // FRAME - self._shortest)
        self._rest = np.zeros(0, np.float32)  # samples that do not fill a frame yet
        self._received = 0  # samples
        self._frames = 0  # complete frames up to here
        self._start = -1  # first frame of the current speech; -1: there is none
        self._end = 0  # frame after the last one with speech
        self._probabilities: list[float] = []  # of the frames of the current speech
        self._is_continued = False  # whether the current speech begins at a cut

    @property
    def first_needed(self) -> int:
        first = self._frames if self._start < 0 else self._start
        return max(0, first * FRAME - self._margin)

    def push(self, samples: np.ndarray) -> list[Span]:
        self._received += len(samples)
        base = self._frames
        self._rest = np.concatenate([self._rest, samples])
        complete = len(self._rest) // FRAME * FRAME
        frames, self._rest = self._rest[:complete].reshape(-1, FRAME), self._rest[complete:]
        sounding = np.flatnonzero(frames.std(1) >= SILENCE).tolist()
        spans = []
        for frame in sounding:
            spans += self._skip(base + frame - self._frames)
            spans += self._process(self._detector(frames[frame]))
        return spans + self._skip(base + len(frames) - self._frames)

    def finish(self) -> list[Span]:
        last = np.pad(self._rest, (0, FRAME - len(self._rest)))
        spans = []
        if len(self._rest):
            spans = self._process(0.0 if is_silent(last) else self._detector(last))
        return spans + (self._close() if self._start >= 0 else [])

    def _skip(self, count: int) -> list[Span]:
        """Skip frames of silence, which the detector does not process."""
        spans = []
        while count and self._start >= 0:  # silence may end the current speech
            spans += self._process(0.0)
            count -= 1
        self._frames += count
        return spans

    def _process(self, probability: float) -> list[Span]:
        """Take the next frame by its probability of speech."""
        self._frames += 1
        if self._start < 0 and probability < self._threshold:
            return []
        if self._start < 0:
            self._start = self._frames - 1
            self._probabilities = []
        self._probabilities.append(probability)
        if probability >= self._threshold - HYSTERESIS:
            self._end = self._frames
        if self._frames - self._end >= self._gap:
            return self._close()
        return self._divide() if self._end - self._start >= self._longest + self._shortest else []

    def _close(self) -> list[Span]:
        """End the current speech."""
        span = Span(self._first_sample(), min(self._received, self._end * FRAME + self._margin))
        is_long_enough = self._end - self._start >= self._shortest
        self._start = -1
        self._is_continued = False
        return [span] if is_long_enough else []

    def _divide(self) -> list[Span]:
        """Cut the current speech; at least `shortest` remains."""
        half = self._longest // 2
        length = half + int(np.argmin(self._probabilities[half : self._longest + 1]))
        span = Span(self._first_sample(), (self._start + length) * FRAME)
        self._start += length
        self._probabilities = self._probabilities[length:]
        self._is_continued = True
        return [span]

    def _first_sample(self) -> int:
        return max(0, self._start * FRAME - (0 if self._is_continued else self._margin))


class SpanSegmenter:
    """Spans that are known beforehand.

    Args:
        spans: spans in any order; they may overlap.

    Attributes:
        dropped: number of spans shorter than one frame of the encoder (MIN_SAMPLES), or after the end of the
            recording; complete after `finish`.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        ordered = sorted(spans, key=lambda span: (span.start, span.end))
        self._waiting = deque(span for span in ordered if span.end - span.start >= MIN_SAMPLES)
        self.dropped = len(ordered) - len(self._waiting)
        self._received = 0

    @property
    def first_needed(self) -> int:
        return min(self._waiting[0].start, self._received) if self._waiting else self._received

    def push(self, samples: np.ndarray) -> list[Span]:
        self._received += len(samples)
        spans = []
        while self._waiting and self._waiting[0].end <= self._received:
            spans.append(self._waiting.popleft())
        return spans

    def finish(self) -> list[Span]:
        # The recording may end within the last spans, or before them.
        clipped = [Span(span.start, min(span.end, self._received), span.speaker) for span in self._waiting]
        spans = [span for span in clipped if span.end - span.start >= MIN_SAMPLES]
        self.dropped += len(clipped) - len(spans)
        return spans


def divide_long_spans(spans: Sequence[Span], longest: int) -> list[Span]:
    """Return the spans; those longer than `longest` samples are divided evenly."""
    parts = []
    for span in spans:
        length = span.end - span.start
        count = max(1, ceil(length / longest))
        edges = [span.start + length * n // count for n in range(count + 1)]
        parts += [Span(*edge, span.speaker) for edge in pairwise(edges)]
    return parts
