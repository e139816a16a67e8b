"""Options of `sertone predict` for long recordings."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from sertone.cli.common import Flag
from sertone.errors import SertoneError
from sertone.scoring.display import format_count

STEM = "{stem}"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TimelineOptions:
    """How recordings are answered piece by piece.

    Attributes:
        timeline: answer recordings piece by piece, where somebody speaks; the other options of this kind
            ask for it too.
        to: file to write the timeline of the one recording to; its suffix chooses the format: .json, .csv,
            .rttm, .TextGrid, .eaf, .srt, .vtt, .txt (Audacity), .html, .png. May be repeated; `{stem}` in its
            name stands for that of each of several recordings. A file that is there is written again. The
            names of the files are printed in the place of the answers.
        segmentation: `speech` (voice activity, the default) or `windows`, which answers everything.
        window_s: length of a window, in seconds; 4 if not given.
        hop_s: from one window to the next, in seconds; as long as a window if not given.
        smoothing: answers of so many neighbouring segments of a speaker are averaged; an odd number.
        speakers: RTTM file of speaker turns, which are answered instead.
        channels: names of the channels, each of which is a speaker: `left=agent,right=customer`.
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
        """`TimelineSettings`; None where nothing of the kind is asked for."""
        from sertone.runtime.timeline.plan import TimelineSettings, parse_channel_names

        asked = {
            "segmentation": self.segmentation,
            "window_s": self.window_s,
            "hop_s": self.hop_s,
            "smoothing": self.smoothing,
            "rttm": self.speakers,
            "channels": parse_channel_names(self.channels) if self.channels else None,
        }
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        return TimelineSettings(**given) if given or self.timeline or self.to else None

    def resolve_targets(self, recordings: Sequence[str], *others: str | Path | None) -> list[str]:
        """What `--to` names, held against the recordings and the other files that are read.

        Raises:
            SertoneError: `many_files`, where the timelines of several would go into one file; `bad_output`,
                where one would go into a file that is read;
                `unknown_suffix`, `missing_folder`, `missing_extra`.
        """
        from sertone.runtime.formats.writers import require_writable

        names = [str(path) for path in self.to or ()]
        given = [file for file in (*recordings, self.speakers, *others) if file and names]
        read = {os.path.realpath(file) for file in given}
        for name in names:
            if len(recordings) != 1 and STEM not in name:
                found = f"--to {name} for {format_count(len(recordings), 'recording')}"
                raise SertoneError("many_files", found, f"a name with {STEM} in it")
            made: dict[Path, str] = {}
            for recording in recordings:
                path = expand_stem(name, recording)
                require_writable(path)
                if os.path.realpath(path) in read:
                    raise SertoneError("bad_output", f"--to {name} is {path}, which is read", "another name")
                if (other := made.setdefault(path, recording)) != recording:
                    found = f"--to {name} is {path} both for {other} and for {recording}"
                    raise SertoneError(
                        "many_files", found, "another stem for each", "one call for each folder"
                    )
        return names


def expand_stem(target: str, recording: str) -> Path:
    """The file that `--to` means for a recording."""
    return Path(target.replace(STEM, Path(recording).stem))
