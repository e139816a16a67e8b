"""The recording that a timeline file belongs to."""

import os
from dataclasses import dataclass
from pathlib import Path

MIME_TYPES = {
    ".wav": "audio/x-wav",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}
"""Suffix -> MIME type, as browsers and ELAN expect it."""


@dataclass(frozen=True)
class Media:
    """A recording that a timeline belongs to.

    Attributes:
        path: path of the file.
        link: relative path from the folder of the timeline to the recording, with forward slashes.
    """

    path: Path
    link: str

    @property
    def mime_type(self) -> str:
        """MIME type, such as `audio/mpeg`."""
        return MIME_TYPES.get(self.path.suffix.lower(), "application/octet-stream")


def link_media(audio: str | Path, timeline: Path) -> Media:
    """Return a recording with its link from the timeline file."""
    link = os.path.relpath(audio, timeline.parent)
    return Media(Path(audio), Path(link).as_posix())
