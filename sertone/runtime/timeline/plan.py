"""The plan of a timeline: the user's settings, checked against the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sertone.audio import SAMPLING_RATE
from sertone.audio.decoder import MAX_CHANNELS
from sertone.errors import AudioError, SertoneError
from sertone.runtime.answering import Model
from sertone.runtime.speech import SpeechDetector
from sertone.runtime.timeline.cutting import ChannelCutter, Cutter
from sertone.runtime.timeline.rttm import read_rttm, select_spans
from sertone.runtime.timeline.segmentation import (
    Segmenter,
    Span,
    SpanSegmenter,
    SpeechSegmenter,
    WindowSegmenter,
    divide_long_spans,
)
from sertone.utils.wording import format_count

DEFAULT_WINDOW_S = 4.0
SHORTEST_WINDOW_S = 1.0  # of the last window
MARGIN_S = 0.1  # added to both ends of speech, at most half of a pause


@dataclass(frozen=True, kw_only=True)
class TimelineSettings:
    """Settings for the prediction of a long recording.

    Attributes:
        segmentation: `speech` predicts only speech, `windows` all audio; None: windows if their length or hop
            is given, speech otherwise.
        window_s: length of a window, in seconds; None: DEFAULT_WINDOW_S.
        hop_s: time from one window to the next, in seconds, at most `window_s`; None: `window_s`.
        longest_s: longest piece of speech or part of a turn, in seconds; never more than the model predicts
            at once.
        shortest_s: shortest piece of speech, in seconds; anything shorter is ignored.
        gap_s: pause that ends a piece of speech, in seconds.
        threshold: probability at which speech begins.
        smoothing: number of neighbouring segments of a speaker whose predictions are averaged; odd, 1: none.
        rttm: file of speaker turns, which then are the segments.
        channels: names of the speakers, one per channel; each channel is then predicted separately.
    """

    segmentation: Literal["speech", "windows"] | None = None
    window_s: float | None = None
    hop_s: float | None = None
    longest_s: float = 10.0
    shortest_s: float = 0.25
    gap_s: float = 0.4
    threshold: float = 0.5
    smoothing: int = 1
    rttm: Path | None = None
    channels: tuple[str, ...] | None = None

    @property
    def uses_windows(self) -> bool:
        """True if the segments are windows."""
        return self.segmentation == "windows" or (self.segmentation is None and self._has_size)

    @property
    def effective_window_s(self) -> float:
        """Length of a window, in seconds."""
        return DEFAULT_WINDOW_S if self.window_s is None else self.window_s

    @property
    def effective_hop_s(self) -> float:
        """Time from one window to the next, in seconds."""
        return self.effective_window_s if self.hop_s is None else self.hop_s

    @property
    def _has_size(self) -> bool:
        return self.window_s is not None or self.hop_s is not None

    def find_problem(self) -> tuple[str, str] | None:
        """Return the first impossible setting, and the expected one; None if all are possible."""
        kinds, speech, names = (None, "speech", "windows"), self.segmentation == "speech", self.channels or ()
        window_s, hop_s = self.effective_window_s, self.effective_hop_s
        checks = [
            (self.segmentation in kinds, f"segmentation {self.segmentation!r}", "speech or windows"),
            (not (speech and self._has_size), "speech and a window or hop", "one of the two"),
            (not (self.rttm and self._has_size), "speaker turns and a window or hop", "one of the two"),
            (not (self.rttm and self.segmentation), "speaker turns and a segmentation", "one of the two"),
            (window_s >= 0.025, f"windows of {window_s} s", "at least 0.025 s"),
            (0.001 <= hop_s <= window_s, f"a hop of {hop_s} s", "more than 0, at most a window"),
            (self.longest_s >= 2, f"longest_s {self.longest_s}", "at least 2 s"),
            (0 <= self.shortest_s <= 0.5, f"shortest_s {self.shortest_s}", "0 to 0.5 s"),
            (0 <= self.gap_s <= 60, f"gap_s {self.gap_s}", "0 to 60 s"),
            (0 < self.threshold < 1, f"a threshold of {self.threshold}", "between 0 and 1"),
            (self.smoothing > 0 and self.smoothing % 2, f"smoothing over {self.smoothing}", "an odd number"),
            (not isinstance(names, str), f"channels {names!r}", "a tuple of names"),
            (len(set(names)) == len(names), f"channels {', '.join(names)}", "a different name for each"),
            (not (self.rttm and self.channels), "speaker turns and names of channels", "one of the two"),
        ]  # fmt: skip
        problems = ((problem, expected) for is_possible, problem, expected in checks if not is_possible)
        return next(problems, None)


def parse_channel_names(text: str) -> tuple[str, ...]:
    """Parse names of channels from a text such as `left=agent,right=customer` or `1=agent,2=customer`.

    Raises:
        SertoneError: `bad_channel_names`.
    """
    places = {"left": 0, "right": 1} | {str(n + 1): n for n in range(MAX_CHANNELS)}
    pairs = [[word.strip() for word in part.partition("=")[::2]] for part in text.split(",")]
    names = {places[place]: name for place, name in pairs if place in places and name}
    # Fails for unknown places, empty or missing names, and places that are given twice.
    if sorted(names) != list(range(len(pairs))):
        raise SertoneError(
            "bad_channel_names", repr(text), "a name for every channel, such as left=agent,right=customer"
        )
    return tuple(names[n] for n in range(len(names)))


@dataclass(frozen=True)
class TimelinePlan:
    """Settings that fit a model, and the speaker turns of their RTTM file.

    Attributes:
        settings: as given.
        min_samples: shortest audio that the model accepts, in samples at 16 kHz.
        longest: longest piece of speech or part of a turn, in samples at 16 kHz.
        spans: name of a recording -> its speaker turns; None for speech or windows.
        alone: whether a single recording is predicted, see `rttm.select_spans`.
    """

    settings: TimelineSettings
    min_samples: int
    longest: int
    spans: Mapping[str, Sequence[Span]] | None = None
    alone: bool = True

    @classmethod
    def from_settings(cls, settings: TimelineSettings, model: Model) -> "TimelinePlan":
        """Check settings against a model, and read the speaker turns.

        Raises:
            SertoneError: `bad_timeline`, `missing_rttm`, `bad_rttm`.
        """
        problem = settings.find_problem()
        window_s = settings.effective_window_s
        if not problem and settings.uses_windows and window_s > model.max_seconds:
            problem = f"windows of {window_s} s", f"at most the model's {model.max_seconds:g} s"
        if problem:
            raise SertoneError("bad_timeline", *problem)
        longest = _to_samples(min(settings.longest_s, model.max_seconds))
        spans = read_rttm(settings.rttm) if settings.rttm else None
        return cls(settings, model.min_samples, longest, spans)

    @property
    def mixes_channels(self) -> bool:
        """True if the channels are mixed into one."""
        return self.settings.channels is None

    def create_cutter(self, name: str, channels: int) -> Cutter:
        """Create the cutter for a recording with a number of channels.

        Raises:
            AudioError: `channel_names`, `no_turns`.
        """
        names = self.settings.channels
        if names is not None and len(names) != channels:
            problem = f"{name}: {format_count(channels, 'channel')}"
            raise AudioError("channel_names", problem, f"one for each of {', '.join(names)}")
        return Cutter([ChannelCutter(self._create_segmenter(name), speaker) for speaker in names or ("",)])

    def _create_segmenter(self, name: str) -> Segmenter:
        settings = self.settings
        if self.spans is not None:
            # Without any spans nothing is predicted, and no recording has to be named.
            spans = select_spans(self.spans, name, alone=self.alone) if self.spans else []
            return SpanSegmenter(divide_long_spans(spans, self.longest))
        if settings.uses_windows:
            window = _to_samples(settings.effective_window_s)
            shortest = max(self.min_samples, _to_samples(SHORTEST_WINDOW_S))
            return WindowSegmenter(window, _to_samples(settings.effective_hop_s), min(window, shortest))
        return SpeechSegmenter(
            SpeechDetector(),
            threshold=settings.threshold,
            longest=self.longest,
            shortest=_to_samples(settings.shortest_s),
            gap=_to_samples(settings.gap_s),
            margin=_to_samples(min(MARGIN_S, settings.gap_s / 2)),
        )


def _to_samples(seconds: float) -> int:
    return round(seconds * SAMPLING_RATE)
