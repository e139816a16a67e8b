"""What is known of a sound file before it is decoded, and what no sound file may be."""

from dataclasses import dataclass
from pathlib import Path

from sertone.errors import AudioError

MAX_CHANNELS = 8
MIN_RATE_HZ = 1000  # below it there is no speech, and resampling would fill the memory
MAX_RATE_HZ = 768_000
BLOCK_FRAMES = 1 << 16
"""Samples per channel that are decoded at once."""

Warnings = dict[str, str]
"""Code of a warning -> what was found."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says: `frames` are samples per channel, estimated where not `exact`."""

    sampling_rate: int
    channels: int
    frames: int
    exact: bool = True

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sampling_rate


def check_format(rate: int, channels: int, path: Path) -> None:
    """Refuse what is no speech.

    Raises:
        AudioError: `bad_channels`, `bad_rate`.
    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError("bad_channels", f"{path}: {channels} channels", f"1 to {MAX_CHANNELS}")
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise AudioError("bad_rate", f"{path}: {rate} Hz", f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
