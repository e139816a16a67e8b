"""Limits and header facts of sound files, known before anything is decoded."""

from dataclasses import dataclass
from pathlib import Path

from sertone.errors import AudioError

MAX_CHANNELS = 8
MIN_RATE_HZ = 1000  # lower rates carry no speech, and resampling them to 16 kHz would fill the memory
MAX_RATE_HZ = 768_000
BLOCK_FRAMES = 1 << 16
"""Samples per channel that are decoded at once."""

Warnings = dict[str, str]
"""Warning code -> message."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The header of a sound file: `frames` are samples per channel, an estimate unless `exact`."""

    sampling_rate: int
    channels: int
    frames: int
    exact: bool = True

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sampling_rate


def check_format(rate: int, channels: int, path: Path) -> None:
    """Refuse a sampling rate or a number of channels that no recording of speech has.

    Raises:
        AudioError: `bad_channels`, `bad_rate`.
    """
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError("bad_channels", f"{path}: {channels} channels", f"1 to {MAX_CHANNELS}")
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise AudioError("bad_rate", f"{path}: {rate} Hz", f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
