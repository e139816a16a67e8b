"""What a container says of itself, held against the bytes that are there."""

from dataclasses import dataclass, field
from typing import Any

from sertone.audio.containers.limits import Warnings

TOLERANCE_S = 0.025
"""Seconds that a stated and a real length may differ by: padding of codecs, rounding of containers."""


@dataclass(slots=True)
class ContainerReport:
    """What was found before anything is decoded.

    Attributes:
        known: whether the container is one that is checked.
        warnings: code -> message.
        present: bytes of the samples that are there.
        stated: bytes of the samples by the header; 0: it does not say.
        stated_s: length by the container in seconds; 0: it does not say.
        gaps_s: seconds that the times of decoded frames leave out.
        unbroken: whether every part of the container was found, and is intact.
        exact: whether libsndfile knows the number of samples beforehand.
        sndfile: whether libsndfile reads all of it.
        md5: checksum of the samples, as FLAC has it; zeros or nothing: none.
        head: bytes that have to replace the first `replaced` ones before libsndfile reads the file.
        replaced: how many.
    """

    is_checked: bool = True
    warnings: Warnings = field(default_factory=dict)
    present_bytes: int = 0
    stated_bytes: int = 0
    stated_s: float = 0.0
    gaps_s: float = 0.0
    is_intact: bool = False
    has_exact_length: bool = True
    sndfile_readable: bool = True
    md5: bytes = b""
    replacement_head: bytes = b""
    replaced_bytes: int = 0

    def describe_truncation(self, frames: int) -> str:
        """Return what is said of a file that is cut; `frames` are there, 0: it is not known how many."""
        if not frames or not self.present_bytes:
            return f"{self.present_bytes} of the {self.stated_bytes} bytes of its header are there"
        return f"{frames} of the {round(frames * self.stated_bytes / self.present_bytes)} samples of its header are there"

    def is_shorter_than_stated(self, seconds: float) -> bool:
        """Whether so much is less than the container states; a clock of its own may run 0.1 % faster."""
        return seconds + TOLERANCE_S + self.stated_s / 1000 < self.stated_s


class GapDetector:
    """Holds the times of decoded frames against their lengths: frames that were lost leave a gap."""

    def __init__(self) -> None:
        self.seconds, self.missing_s, self._begun = 0.0, 0.0, None

    def add(self, frame: Any) -> None:
        """Take the next frame."""
        if frame.time is not None:
            if self._begun is None:
                self._begun = frame.time
            late = frame.time - self._begun - self.seconds
            if late > TOLERANCE_S + self.seconds / 1000:
                self.missing_s = max(self.missing_s, late)
        self.seconds += frame.samples / frame.sample_rate
