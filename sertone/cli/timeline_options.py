"""Options of `sertone predict` for long recordings."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from sertone.cli.common import Flag
from sertone.errors import SertoneError
from sertone.utils.wording import format_count

STEM = "{stem}"
"""Stands for the stem of a recording in the names of `--to`."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TimelineOptions:
    """Options for predictions piece by piece.

    Attributes:
        timeline: Predict recordings piece by piece, where somebody speaks. The options below imply it.
        to: File for the timeline of a recording. Its suffix chooses the format: .json, .csv, .rttm,
            .TextGrid, .eaf, .srt, .vtt, .txt (Audacity), .html, .png. May be repeated. `{stem}` in the name
            stands for the stem of each of several recordings. A file that exists is overwritten. The names
            of the files are printed instead of the predictions.
        segmentation: `speech` (voice activity, the default), or `windows`, which cover the whole recording.
        window_s: Length of a window, in seconds. Default: 4.
        hop_s: Time from one window to the next, in seconds. Default: the length of a window.
        smoothing: Number of neighbouring segments of a speaker whose predictions are averaged; an odd number.
        speakers: RTTM file of speaker turns, which are predicted instead of detected speech.
        channels: Names of the channels, each of which is a speaker: `left=agent,right=customer`.
    """

    timeline: Flag = False
    to: Annotated[list[Path], Parameter(negative="")] | None = None
    segmentation: Literal["speech", "windows"] | None = None
    window_s: float | None = None
    hop_s: float | None = None
    smoothing: int | None = None
    speakers: Path | None = None
    channels: str | None = None

    def to_settings(self) -> Any:
        """Return `TimelineSettings`, or None where no option asks for a timeline."""
        from sertone.runtime.timeline.plan import TimelineSettings, parse_channel_names

        options = {
            "segmentation": self.segmentation,
            "window_s": self.window_s,
            "hop_s": self.hop_s,
            "smoothing": self.smoothing,
            "rttm": self.speakers,
            "channels": parse_channel_names(self.channels) if self.channels else None,
        }
        settings: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        return TimelineSettings(**settings) if settings or self.timeline or self.to else None

    def resolve_targets(self, recordings: Sequence[str], *other_inputs: str | Path | None) -> list[str]:
        """Return the names of `--to`, after checking that no file is written twice or over an input.

        Args:
            recordings: the files to predict.
            other_inputs: lists and tables that are read; None: there is none.

        Raises:
            SertoneError: `many_files`, where the timelines of several recordings would go into one file;
                `bad_output`, where one would go into a file that is read;
                `unknown_suffix`, `missing_folder`, `missing_extra`.
        """
        targets = [str(path) for path in self.to or ()]
        inputs = [*recordings, self.speakers, *other_inputs] if targets else []
        # Real paths: a link or `./` must not hide that an input would be overwritten.
        input_paths = {os.path.realpath(file) for file in inputs if file}
        for target in targets:
            _check_target(target, recordings, input_paths)
        return targets


def _check_target(target: str, recordings: Sequence[str], input_paths: set[str]) -> None:
    from sertone.runtime.formats.writers import require_writable

    if len(recordings) != 1 and STEM not in target:
        problem = f"--to {target} for {format_count(len(recordings), 'recording')}"
        raise SertoneError("many_files", problem, f"a name with {STEM} in it")
    written: dict[Path, str] = {}
    # Recordings in different folders may have the same stem.
    for recording in recordings:
        path = expand_stem(target, recording)
        require_writable(path)
        if os.path.realpath(path) in input_paths:
            problem = f"--to {target} would overwrite {path}, which is read"
            raise SertoneError("bad_output", problem, "another name")
        earlier = written.setdefault(path, recording)
        if earlier != recording:
            problem = f"--to {target} is {path} both for {earlier} and for {recording}"
            raise SertoneError("many_files", problem, "another stem for each", "one call for each folder")


def expand_stem(target: str, recording: str) -> Path:
    """Return the file that a name of `--to` means for a recording."""
    return Path(target.replace(STEM, Path(recording).stem))
