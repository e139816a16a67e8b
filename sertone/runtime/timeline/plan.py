"""How a long recording is answered: what the user chose, held against what the model can."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sertone.audio import SAMPLING_RATE
from sertone.audio.decoder import MAX_CHANNELS
from sertone.errors import AudioError, SertoneError
from sertone.runtime.answering import Model
from sertone.runtime.timeline.cutting import ChannelCutter, Cutter
from sertone.runtime.timeline.rttm import Turn, read_rttm, select_spans
from sertone.runtime.timeline.segmentation import (
    Segmenter,
    SpanSegmenter,
    SpeechSegmenter,
    WindowSegmenter,
    divide_long_spans,
    load_speech_detector,
)
from sertone.scoring.display import format_count

DEFAULT_WINDOW_S = 4.0
SHORTEST_WINDOW_S = 1.0  # of the last window
MARGIN_S = 0.1  # added to both ends of speech, at most half of a pause


@dataclass(frozen=True, kw_only=True)
class TimelineSettings:
    """How a long recording is answered.

    Attributes:
        segmentation: `speech` answers where somebody speaks, `windows` everything; None: windows where
            their length or hop is given, speech otherwise.
        window_s: length of a window, in seconds; None: WINDOW_S.
        hop_s: from one window to the next, in seconds, at most `window_s`; None: `window_s`.
        longest_s: of speech or part of a turn that is answered at once, in seconds; never more than the model
            answers at once.
        shortest_s: what is shorter is no speech, in seconds.
        gap_s: pause that ends a stretch of speech, in seconds.
        threshold: probability at which speech begins.
        smoothing: answers of so many neighbouring segments of a speaker are averaged; odd, 1: none.
        rttm: file of speaker turns, which are answered instead.
        channels: names of the speakers, one per channel; each channel is then answered by itself.
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
        """Whether windows are answered."""
        return self.segmentation == "windows" or (self.segmentation is None and self._sized)

    @property
    def effective_window_s(self) -> float:
        """Length of a window, in seconds."""
        return DEFAULT_WINDOW_S if self.window_s is None else self.window_s

    @property
    def effective_hop_s(self) -> float:
        """From one window to the next, in seconds."""
        return self.effective_window_s if self.hop_s is None else self.hop_s

    @property
    def _sized(self) -> bool:
        return self.window_s is not None or self.hop_s is not None

    def find_problem(self) -> tuple[str, str] | None:
        """What cannot be, and what is expected."""
        kinds, speech, names = (None, "speech", "windows"), self.segmentation == "speech", self.channels or ()
        checks = [
            (self.segmentation in kinds, f"segmentation {self.segmentation!r}", "speech or windows"),
            (not (speech and self._sized), "speech and a window or hop", "one of the two"),
            (not (self.rttm and self._sized), "speaker turns and a window or hop", "one of the two"),
            (not (self.rttm and self.segmentation), "speaker turns and a segmentation", "one of the two"),
            (self.effective_window_s >= 0.025, f"windows of {self.effective_window_s} s", "at least 0.025 s"),
            (0.001 <= self.effective_hop_s <= self.effective_window_s, f"a hop of {self.effective_hop_s} s", "more than 0, at most a window"),
            (self.longest_s >= 2, f"stretches of {self.longest_s} s", "at least 2 s"),
            (0 <= self.shortest_s <= 0.5, f"shortest_s {self.shortest_s}", "0 to 0.5 s"),
            (0 <= self.gap_s <= 60, f"gap_s {self.gap_s}", "0 to 60 s"),
            (0 < self.threshold < 1, f"a threshold of {self.threshold}", "between 0 and 1"),
            (self.smoothing > 0 and self.smoothing % 2, f"smoothing over {self.smoothing}", "an odd number"),
            (not isinstance(names, str), f"channels {names!r}", "a tuple of names"),
            (len(set(names)) == len(names), f"channels {', '.join(names)}", "a name of its own for each"),
            (not (self.rttm and self.channels), "speaker turns and names of channels", "one of the two"),
        ]  # fmt: skip
        return next(((found, expected) for good, found, expected in checks if not good), None)


def parse_channel_names(text: str) -> tuple[str, ...]:
    """Names of channels from words such as `left=agent,right=customer` or `1=agent,2=customer`.

    Raises:
        SertoneError: `bad_channel_names`.
    """
    places = {"left": 0, "right": 1} | {str(n + 1): n for n in range(MAX_CHANNELS)}
    pairs = [[word.strip() for word in part.partition("=")[::2]] for part in text.split(",")]
    names = {places[place]: name for place, name in pairs if place in places and name}
    if sorted(names) != list(range(len(pairs))):
        raise SertoneError(
            "bad_channel_names", repr(text), "a name for every channel, such as left=agent,right=customer"
        )
    return tuple(names[n] for n in range(len(names)))


@dataclass(frozen=True)
class TimelinePlan:
    """Settings that fit a model, and the turns of their RTTM file.

    Attributes:
        settings: as given.
        min_samples: of the model, at 16 kHz.
        longest: of a stretch of speech or a part of a turn, in samples at 16 kHz.
        turns: of all recordings; None where speech or windows are answered.
        alone: whether one recording is answered, see `turns.turns_of`.
    """

    settings: TimelineSettings
    min_samples: int
    longest: int
    turns: Sequence[Turn] | None = None
    alone: bool = True

    @classmethod
    def from_settings(cls, settings: TimelineSettings, model: Model) -> "TimelinePlan":
        """Holds settings against a model, and reads the turns.

        Raises:
            SertoneError: `bad_timeline`, `missing_rttm`, `bad_rttm`.
        """
        problem = settings.find_problem()
        if not problem and settings.uses_windows and settings.effective_window_s > model.max_seconds:
            problem = (
                f"windows of {settings.effective_window_s} s",
                f"at most the model's {model.max_seconds:g} s",
            )
        if problem:
            raise SertoneError("bad_timeline", *problem)
        longest = _samples(min(settings.longest_s, model.max_seconds))
        return cls(settings, model.min_samples, longest, read_rttm(settings.rttm) if settings.rttm else None)

    @property
    def mixes_channels(self) -> bool:
        """Whether channels are mixed into one."""
        return self.settings.channels is None

    def create_cutter(self, name: str, channels: int) -> Cutter:
        """What cuts a recording with so many channels.

        Raises:
            AudioError: `channel_names`, `no_turns`.
        """
        names = self.settings.channels
        if names is not None and len(names) != channels:
            raise AudioError(
                "channel_names",
                f"{name}: {format_count(channels, 'channel')}",
                f"one for each of {', '.join(names)}",
            )
        return Cutter([ChannelCutter(self._segmenter(name), speaker) for speaker in names or ("",)])

    def _segmenter(self, name: str) -> Segmenter:
        s = self.settings
        if self.turns is not None:
            own = select_spans(self.turns, name, alone=self.alone) if self.turns else []
            return SpanSegmenter(divide_long_spans(own, self.longest))
        if s.uses_windows:
            window, shortest = (
                _samples(s.effective_window_s),
                max(self.min_samples, _samples(SHORTEST_WINDOW_S)),
            )
            return WindowSegmenter(window, _samples(s.effective_hop_s), min(window, shortest))
        return SpeechSegmenter(
            load_speech_detector(),
            threshold=s.threshold,
            longest=self.longest,
            shortest=_samples(s.shortest_s),
            gap=_samples(s.gap_s),
            margin=_samples(min(MARGIN_S, s.gap_s / 2)),
        )


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLING_RATE)
