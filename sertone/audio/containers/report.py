"""The result of a container check: the claims of a header, compared with the bytes in the file."""

from dataclasses import dataclass, field
from typing import Any

from sertone.audio.containers.limits import Warnings

TOLERANCE_S = 0.025
"""Largest harmless difference of a stated and a real length, in seconds: codecs pad, containers round."""


@dataclass(slots=True)
class ContainerReport:
    """The findings about a sound file before anything is decoded.

    Attributes:
        is_checked: whether there is a check for this kind of container.
        warnings: code -> message.
        present_bytes: bytes of samples that the file has.
        stated_bytes: bytes of samples that the header states; 0: it states none.
        stated_s: length that the container states, in seconds; 0: it states none.
        gaps_s: seconds that are missing between the timestamps of decoded frames.
        is_intact: whether every part of the container is present and undamaged.
        has_exact_length: whether libsndfile knows the number of samples before it decodes them.
        sndfile_readable: whether libsndfile reads the whole file.
        md5: checksum of the samples, as FLAC stores it; zeros or nothing: there is none.
        replacement_head: bytes that replace the first `replaced_bytes` before libsndfile reads the file.
        replaced_bytes: number of bytes to replace.
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
        """Return the message for a truncated file.

        Args:
            frames: samples per channel that are present; 0: the number is not known.
        """
        if not frames or not self.present_bytes:
            return f"{self.present_bytes} of the {self.stated_bytes} bytes that the header states are present"
        stated_frames = round(frames * self.stated_bytes / self.present_bytes)
        return f"{frames} of the {stated_frames} samples that the header states are present"

    def is_shorter_than_stated(self, seconds: float) -> bool:
        """Return whether a length is less than the container states."""
        # The clock of the container and the clock of the samples may differ by 0.1 %.
        return seconds + TOLERANCE_S + self.stated_s / 1000 < self.stated_s


class GapDetector:
    """Compares the timestamps of decoded frames with their lengths: lost frames leave a gap.

    Attributes:
        seconds: length of all frames so far.
        missing_s: seconds that are missing between them.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.missing_s = 0.0
        self._start_s: float | None = None

    def add(self, frame: Any) -> None:
        """Add the next frame, as PyAV decodes it."""
        if frame.time is not None:
            if self._start_s is None:
                self._start_s = frame.time
            delay = frame.time - self._start_s - self.seconds
            # 0.1 %: the clock of the container may differ from that of the samples.
            if delay > TOLERANCE_S + self.seconds / 1000:
                self.missing_s = max(self.missing_s, delay)
        self.seconds += frame.samples / frame.sample_rate
