"""Reading recordings: any rate, channel count and container in, 16 kHz mono float32 out.

A recording is either read completely or refused with a stable code; what is doubtful about it is
said in warnings. Nothing is invented and nothing is cut without a word.

Conventions: samples are float32 in [-1, 1]; durations are seconds of the file's own clock.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soxr

from sertone.decoding import MAX_CHANNELS, AudioInfo, Warnings, check_format, open_audio
from sertone.errors import AudioError

SAMPLING_RATE = 16000
SILENCE = 1e-4  # standard deviation below which there is nothing to hear
MIN_SAMPLES = 400  # 25 ms: one frame of every encoder
SEGMENT_TOLERANCE_S = 0.025  # between a stated and the real end of a file
_FULL_SCALE = {"uint8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}  # as WAV files hold them
MAX_SECONDS = 600.0  # of one utterance; attention grows with its square


@dataclass(frozen=True, slots=True)
class Recording:
    """One utterance as a model takes it.

    Attributes:
        samples: mono, SAMPLING_RATE, float32, (N,).
        duration_s: seconds before resampling.
        sampling_rate: the file's own, in Hz.
        warnings: code -> message.
    """

    samples: np.ndarray
    duration_s: float
    sampling_rate: int
    warnings: Warnings = field(default_factory=dict)


def read(
    path: str | Path,
    *,
    start_s: float = 0.0,
    end_s: float | None = None,
    max_seconds: float = MAX_SECONDS,
) -> Recording:
    """Reads one utterance.

    Args:
        path: a file that libsndfile reads, or PyAV where the extra `media` is installed.
        start_s: where to start, in seconds.
        end_s: where to stop, in seconds; None for the end of the file.
        max_seconds: longest utterance accepted, in seconds.

    Raises:
        AudioError: with one of the codes `missing_file`, `not_a_file`, `no_permission`,
            `empty_file`, `not_audio`, `bad_header`, `bad_channels`, `bad_rate`, `no_samples`,
            `decode_failed`, `too_long`, `too_short`, `non_finite`, `bad_segment`.
    """
    path = Path(path)
    blocks, info, warnings = open_audio(path)
    _check_segment(start_s, end_s, info, path)
    first = round(start_s * info.sampling_rate)
    limit = round(max_seconds * info.sampling_rate)
    wanted = None if end_s is None else round(end_s * info.sampling_rate) - first
    samples = _collect(blocks(first), wanted, limit, path)
    if info.exact and first + len(samples) < min(info.frames, first + (wanted or info.frames)):
        raise AudioError(
            "decode_failed",
            f"{path}: decoding ended after {first + len(samples)} samples",
            f"the {info.frames} of its header",
            "the file is damaged; fetch it again",
        )
    return _prepare(samples, info.sampling_rate, warnings, path)


def from_array(samples: np.ndarray, sampling_rate: int) -> Recording:
    """A recording from samples already in memory, see `columns_of`.

    Raises:
        AudioError: as `read`, and `bad_samples`.
    """
    name = "<array>"
    columns = columns_of(samples, name)
    check_format(sampling_rate, columns.shape[1], Path(name))
    return _prepare(columns, sampling_rate, {}, Path(name))


def columns_of(samples: np.ndarray, name: str) -> np.ndarray:
    """Samples as (N, channels) float32.

    Args:
        samples: (N,) or (N, channels), floats from -1 to 1 or integers of 8, 16 or 32 bits.
        name: of the recording, for errors.

    Raises:
        AudioError: `bad_samples`.
    """
    given = np.asarray(samples)
    if given.ndim not in (1, 2) or not (given.dtype.kind == "f" or given.dtype.name in _FULL_SCALE):
        raise AudioError(
            "bad_samples",
            f"{name}: {given.dtype} samples of shape {given.shape}",
            "floats from -1 to 1 or integers of 8, 16 or 32 bits, (N,) or (N, channels)",
        )
    columns = given[:, None] if given.ndim == 1 else given
    if len(columns) <= MAX_CHANNELS < columns.shape[1]:
        found = f"{name}: {columns.shape[1]} channels of {len(columns)} samples"
        raise AudioError("bad_channels", found, "samples (N, channels)", "transpose them")
    if given.dtype.kind == "f":
        return columns.astype(np.float32, copy=False)
    middle = 128 if given.dtype == np.uint8 else 0
    return ((columns.astype(np.float64) - middle) / _FULL_SCALE[given.dtype.name]).astype(np.float32)


def inspect(path: str | Path) -> AudioInfo:
    """What the header says, without decoding.

    Raises:
        AudioError: as `read`, for what a header can show.
    """
    return open_audio(Path(path))[1]


def file_hash(path: str | Path) -> str:
    """SHA-256 of the file's bytes, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_segment(start_s: float, end_s: float | None, info: AudioInfo, path: Path) -> None:
    """Refuses what does not lie in the file; header lengths of some containers are estimates."""
    end = info.duration_s if end_s is None else end_s
    inside = end <= info.duration_s + SEGMENT_TOLERANCE_S or not info.exact
    if not (0.0 <= start_s < end and inside):
        raise AudioError(
            "bad_segment", f"{path}: {start_s} to {end_s} s", f"a stretch of its {info.duration_s:.3f} s"
        )


def _collect(blocks: Iterable[np.ndarray], wanted: int | None, limit: int, path: Path) -> np.ndarray:
    """The first `wanted` samples of a stream, or all: (N, channels). Stops as soon as it has them."""
    parts, count = [], 0
    for block in blocks:
        parts.append(block if wanted is None else block[: wanted - count])
        count += len(parts[-1])
        if wanted is not None and count >= wanted:
            break
        if count > limit:
            raise AudioError(
                "too_long",
                f"{path}: more than {limit} samples",
                "a shorter utterance",
                "cut the recording into utterances (start_s, end_s in a manifest)",
            )
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _prepare(columns: np.ndarray, rate: int, warnings: Warnings, path: Path) -> Recording:
    """Checks, mixes and resamples: (N, channels) -> Recording."""
    if not len(columns):
        raise AudioError("no_samples", f"{path}: no samples", "a recording")
    if not np.isfinite(columns).all():
        raise AudioError("non_finite", f"{path}: NaN or infinite samples", "finite samples")
    mono, doubts = columns.mean(1), Doubts()
    doubts.add(columns, mono)
    warnings = warnings | doubts.warnings()
    samples = soxr.resample(mono, rate, SAMPLING_RATE) if rate != SAMPLING_RATE else mono
    if len(samples) < MIN_SAMPLES:
        raise AudioError("too_short", f"{path}: {len(samples)} samples at 16 kHz", f"at least {MIN_SAMPLES}")
    return Recording(samples.astype(np.float32, copy=False), len(columns) / rate, rate, warnings)


def silent(samples: np.ndarray) -> bool:
    """Whether there is nothing to hear in samples (N,)."""
    return bool(samples.std() < SILENCE)


class Doubts:
    """What is doubtful about a signal, gathered block by block."""

    def __init__(self) -> None:
        self._count, self._clipped, self._peak = 0, 0, 0.0
        self._sum: np.ndarray | float = 0.0
        self._squares: np.ndarray | float = 0.0

    def add(self, columns: np.ndarray, mono: np.ndarray) -> None:
        """Takes a block, channels (N, C) and their mean (N,)."""
        signals = np.stack([*columns.T, mono]).astype(np.float64)  # by channel: sums along memory are fast
        self._count += len(columns)
        loudness = np.abs(columns)
        self._clipped += int((loudness >= 0.999).sum())
        self._peak = max(self._peak, float(loudness.max(initial=0.0)))
        self._sum = self._sum + signals.sum(1)
        self._squares = self._squares + np.square(signals).sum(1)

    def warnings(self, *, mixed: bool = True) -> Warnings:
        """Of all that was taken; whether it is mixed or used by channel."""
        found: Warnings = {}
        count = max(1, self._count)
        variances = np.atleast_1d(self._squares / count - np.square(self._sum / count))
        *spreads, spread = np.sqrt(np.maximum(0, variances))
        clipped = self._clipped / (count * max(1, len(spreads)))
        if self._peak > 4:  # floats may go a little beyond full scale
            found["not_scaled"] = f"samples up to {self._peak:.0f}; expected -1 to 1"
        elif clipped > 0.01:
            found["clipped"] = f"{clipped:.1%} of the samples are at full scale"
        loudest = max(spreads, default=0.0)
        if loudest < SILENCE:
            found["no_speech"] = "the recording is silent or constant"
        elif mixed and spread < 0.1 * loudest:
            found["anti_phase"] = "the channels cancel each other when mixed"
        return found
