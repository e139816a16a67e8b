"""Whole utterances: any sampling rate, channel count and container in, 16 kHz mono float32 out.

A recording is either read completely or refused with a stable code. Warnings say what is doubtful about it.
Nothing is invented, and nothing is cut in silence.

Conventions: samples are float32 in [-1, 1]; durations are seconds of the file's own clock.
"""

import hashlib
import math
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sertone.audio.containers.source import AudioBytes, RegularFile
from sertone.audio.converter import BlockConverter, as_columns
from sertone.audio.decoder import BLOCK_FRAMES, AudioInfo, Warnings, check_format, open_audio
from sertone.errors import AudioError

SEGMENT_TOLERANCE_S = 0.025
"""Largest harmless difference between a stated and the real end of a file, in seconds."""
MAX_SECONDS = 600.0
"""Longest utterance: the cost of attention grows with the square of its length."""
SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64"),
    *(".m4a", ".mp4", ".webm", ".mkv", ".mov", ".aac", ".wma", ".amr", ".3gp"),
)
"""Suffixes of the files that are taken from a folder; a file that is named itself may have any suffix."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One utterance in the form that a model takes.

    Attributes:
        samples: mono, SAMPLING_RATE, float32, (N,).
        duration_s: seconds before resampling.
        sampling_rate: sampling rate of the file, in Hz.
        warnings: code -> message.
    """

    samples: np.ndarray
    duration_s: float
    sampling_rate: int
    warnings: Warnings = field(default_factory=dict)


def read(
    path: str | Path | AudioBytes,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    max_seconds: float = MAX_SECONDS,
) -> Recording:
    """Read one utterance.

    Args:
        path: a file that libsndfile reads, or PyAV where the extra `media` is installed; or its bytes.
        start_s: start of the utterance, in seconds.
        end_s: end of the utterance, in seconds; None for the end of the file.
        max_seconds: longest utterance accepted, in seconds.

    Raises:
        AudioError: one of the codes `missing_file`, `not_a_file`, `no_permission`,
            `empty_file`, `not_audio`, `bad_header`, `bad_channels`, `bad_rate`, `no_samples`,
            `decode_failed`, `too_long`, `too_short`, `non_finite`, `bad_segment`.
    """
    name = Path(str(path))
    with closing(open_audio(path)) as file:
        _check_segment(start_s, end_s, file.info, name)
        first = round(start_s * file.info.sampling_rate)
        limit = round(max_seconds * file.info.sampling_rate)
        wanted = None if end_s is None else round(end_s * file.info.sampling_rate) - first
        return _collect(file.blocks(first), file.info, file.warnings, name, wanted, limit)


def from_array(samples: np.ndarray, sampling_rate: int) -> Recording:
    """Return a recording of samples in memory, see `as_columns`.

    Raises:
        AudioError: as `read`, and `bad_samples`.
    """
    name = "<array>"
    columns = as_columns(samples, name)
    info = AudioInfo(sampling_rate, columns.shape[1], len(columns))
    check_format(info.sampling_rate, info.channels, Path(name))
    starts = range(0, len(columns), BLOCK_FRAMES)
    blocks = (columns[start : start + BLOCK_FRAMES] for start in starts)
    return _collect(blocks, info, {}, Path(name))


def inspect(path: str | Path) -> AudioInfo:
    """Return the facts in the header of a file, without decoding it.

    Raises:
        AudioError: as `read`, for problems that a header shows.
    """
    with closing(open_audio(path)) as file:
        return file.info


def file_hash(path: str | Path) -> str:
    """Return the SHA-256 of a regular file's bytes, as `sha256sum` prints it.

    Raises:
        AudioError: `not_a_file`.
        OSError: it cannot be opened.
    """
    with RegularFile(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_segment(start_s: float, end_s: float | None, info: AudioInfo, path: Path) -> None:
    """Refuse a segment that does not lie in the file."""
    # The header of some containers states an estimate, or 0: any end is possible then.
    length = info.duration_s if info.exact else math.inf
    end = length if end_s is None else end_s
    if not (0.0 <= start_s < end <= length + SEGMENT_TOLERANCE_S):
        raise AudioError(
            "bad_segment", f"{path}: {start_s} to {end_s} s", f"a segment of its {info.duration_s:.3f} s"
        )


def _collect(
    blocks: Iterable[np.ndarray],
    info: AudioInfo,
    warnings: Warnings,
    path: Path,
    wanted: int | None = None,
    limit: int | None = None,
) -> Recording:
    """Convert the first `wanted` samples of a stream, or all, and stop as soon as they are there.

    Raises:
        AudioError: `too_long`, for more than `limit` samples per channel.
    """
    converter = BlockConverter(info.sampling_rate, info.channels, str(path))
    parts = []
    for block in blocks:
        parts.append(converter.push(block if wanted is None else block[: wanted - converter.input_frames]))
        if wanted is not None and converter.input_frames >= wanted:
            break
        # Checked while decoding: the header may be wrong, and a small file can hold hours of silence.
        if limit is not None and converter.input_frames > limit:
            raise AudioError(
                "too_long",
                f"{path}: more than {limit} samples",
                "a shorter utterance",
                "cut the recording into utterances (start_s, end_s in a manifest)",
            )
    parts.append(converter.finish())
    samples = np.concatenate(parts)[:, 0]
    return Recording(samples, converter.duration_s, info.sampling_rate, warnings | converter.warnings)
