"""The recording beside what is written about it."""

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
"""Suffix -> type, as browsers and ELAN know it."""


@dataclass(frozen=True)
class Media:
    """A recording that a timeline belongs to.

    Attributes:
        path: of the file.
        link: from the folder of the timeline to the recording, with forward slashes.
    """

    path: Path
    link: str

    @property
    def mime_type(self) -> str:
        """Such as `audio/mpeg`."""
        return MIME_TYPES.get(self.path.suffix.lower(), "application/octet-stream")


def link_media(audio: str | Path, written: Path) -> Media:
    """A recording, as seen from a file that is written about it."""
    link = os.path.relpath(audio, written.parent)
    return Media(Path(audio), Path(link).as_posix())
