"""Reading recordings: any rate, channel count and container in, 16 kHz mono float32 out.

A recording is either read completely or refused with a stable code; what is doubtful about it is
said in warnings. Nothing is invented and nothing is cut without a word.

Conventions: samples are float32 in [-1, 1]; durations are seconds of the file's own clock.
"""

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr

from sertone.errors import AudioError

SAMPLING_RATE = 16000
MIN_SAMPLES = 400  # 25 ms: one frame of every encoder
MAX_SECONDS = 600.0  # of one utterance; attention grows with its square
MAX_CHANNELS = 8
MAX_RATE_HZ = 768_000
BLOCK = 1 << 16

Warnings = dict[str, str]
"""Code of a warning -> what was found."""


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


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says; `frames` are samples per channel."""

    sampling_rate: int
    channels: int
    frames: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.frames / self.sampling_rate


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
    blocks, info, warnings = _open(path)
    first = round(start_s * info.sampling_rate)
    last = None if end_s is None else round(end_s * info.sampling_rate)
    limit = first + round(max_seconds * info.sampling_rate)
    samples = _collect(blocks, first, last, limit, path)
    if not len(samples) and first:
        raise AudioError("bad_segment", f"{path}: no samples after {start_s} s", "start_s in file")
    if info.frames > 0 and last is None and first + len(samples) < info.frames:
        raise AudioError(
            "decode_failed",
            f"{path}: {len(samples)} samples decoded",
            f"the {info.frames} of its header",
            "the file is damaged; fetch it again",
        )
    return _prepare(samples, info.sampling_rate, warnings, path)


def from_array(samples: np.ndarray, sampling_rate: int) -> Recording:
    """A recording from samples already in memory, (N,) or (N, channels).

    Raises:
        AudioError: as `read`.
    """
    columns = np.asarray(samples, dtype=np.float32).reshape(len(samples), -1)
    name = Path("<array>")
    _check_format(sampling_rate, columns.shape[1], name)
    return _prepare(columns, sampling_rate, {}, name)


def inspect(path: str | Path) -> AudioInfo:
    """What the header says, without decoding.

    Raises:
        AudioError: as `read`, for what a header can show.
    """
    blocks, info, _ = _open(Path(path))
    blocks.close()
    return info


def file_hash(path: str | Path) -> str:
    """SHA-256 of the file's bytes, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _collect(
    blocks: Iterable[np.ndarray], first: int, last: int | None, limit: int, path: Path
) -> np.ndarray:
    """Samples first..last of a stream of blocks, (N, channels); stops as soon as it has them."""
    parts, position = [], 0
    for block in blocks:
        begin, end = max(first - position, 0), len(block) if last is None else last - position
        parts.append(block[begin : max(end, 0)])
        position += len(block)
        if last is not None and position >= last:
            break
        if position > limit:
            raise AudioError(
                "too_long",
                f"{path}: more than {limit - first} samples",
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
    mono = columns.mean(1)
    warnings = warnings | _doubts(columns, mono)
    samples = soxr.resample(mono, rate, SAMPLING_RATE) if rate != SAMPLING_RATE else mono
    if len(samples) < MIN_SAMPLES:
        raise AudioError(
            "too_short", f"{path}: {len(samples)} samples at 16 kHz", f"at least {MIN_SAMPLES}"
        )
    return Recording(samples.astype(np.float32, copy=False), len(columns) / rate, rate, warnings)


def _doubts(columns: np.ndarray, mono: np.ndarray) -> Warnings:
    """Warnings about the signal itself."""
    found = {}
    clipped = float((np.abs(columns) >= 0.999).mean())
    if clipped > 0.01:
        found["clipped"] = f"{clipped:.1%} of the samples are at full scale"
    loudest = columns.std(0).max()
    if loudest < 1e-4:
        found["no_speech"] = "the recording is silent or constant"
    elif mono.std() < 0.1 * loudest:
        found["anti_phase"] = "the channels cancel each other when mixed"
    return found


def _open(path: Path) -> tuple[Iterator[np.ndarray], AudioInfo, Warnings]:
    """A stream of blocks (N, channels), the header, and warnings about it."""
    head = _head(path)
    warnings: Warnings = {}
    offset = None
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        warnings, offset = _check_wav(path)
    try:
        file = soundfile.SoundFile(_restated(path, *offset) if offset else path)
    except soundfile.LibsndfileError as error:
        if head[:4] in (b"RIFF", b"fLaC", b"OggS", b"FORM"):
            raise AudioError("bad_header", f"{path}: {error.error_string}", "a sound file") from None
        return _open_av(path)
    info = AudioInfo(file.samplerate, file.channels, file.frames)
    _check_format(info.sampling_rate, info.channels, path)
    if info.frames == 0:
        file.close()
        raise AudioError("no_samples", f"{path}: a header without samples", "a recording")
    return _sndfile_blocks(file, path), info, warnings


def _sndfile_blocks(file: soundfile.SoundFile, path: Path) -> Iterator[np.ndarray]:
    with file:
        while True:
            try:
                block = file.read(BLOCK, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise AudioError("decode_failed", f"{path}: {error}", "intact audio") from None
            if not len(block):
                return
            yield block


def _head(path: Path) -> bytes:
    """The first bytes of a regular, readable, non-empty file."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise AudioError("not_a_file", f"{path}: {kind}", "a sound file")
        with open(path, "rb") as file:
            head = file.read(200)
    except OSError as error:
        code = "no_permission" if error.errno in (errno.EACCES, errno.EPERM) else "missing_file"
        raise AudioError(code, f"{path}: {os.strerror(error.errno or 0)}") from None
    if not head:
        raise AudioError("empty_file", f"{path}: zero bytes", "a sound file")
    if head.startswith(b"version https://git-lfs"):
        raise AudioError(
            "not_audio", f"{path}: a git-LFS pointer", "the audio itself", "run `git lfs pull`"
        )
    return head


def _check_format(rate: int, channels: int, path: Path) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError("bad_channels", f"{path}: {channels} channels", f"1 to {MAX_CHANNELS}")
    if not 1 <= rate <= MAX_RATE_HZ:
        raise AudioError("bad_rate", f"{path}: {rate} Hz", f"1 to {MAX_RATE_HZ} Hz")


def _check_wav(path: Path) -> tuple[Warnings, tuple[int, int] | None]:
    """Holds a WAV header against the file.

    Returns:
        Warnings, and (offset, size) of the data where its stated size has to be replaced.
    """
    available = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(12)
        frame = 0
        while len(chunk := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            if name == b"fmt ":
                fields = file.read(16)
                if len(fields) < 16:
                    break
                _, channels, rate, _, frame, _ = struct.unpack("<HHIIHH", fields)
                _check_format(rate, channels, path)
                size -= 16
            elif name == b"data":
                return _check_data(size, file.tell(), available, frame)
            file.seek(size + size % 2, os.SEEK_CUR)
    raise AudioError("bad_header", f"{path}: no complete WAV header", "chunks `fmt ` and `data`")


def _check_data(
    size: int, start: int, available: int, frame: int
) -> tuple[Warnings, tuple[int, int] | None]:
    present = available - start
    if size in (0, 0xFFFFFFFF) and present:
        message = "the header gives no length (a streamed file): read to its end"
        return {"streamed_header": message}, (start, present)
    if size > present and frame:
        message = f"{present // frame} of the {size // frame} samples of its header are there"
        return {"truncated": message}, None
    return {}, None


def _restated(path: Path, start: int, size: int):
    """The file in memory with the true size of its data chunk in the header."""
    import io

    content = bytearray(path.read_bytes())
    content[start - 4 : start] = struct.pack("<I", min(size, 0xFFFFFFFE))
    return io.BytesIO(content)


def _open_av(path: Path) -> tuple[Iterator[np.ndarray], AudioInfo, Warnings]:
    """As `_open`, for containers only FFmpeg knows (m4a, mp4, webm)."""
    try:
        import av
    except ImportError:
        raise AudioError(
            "not_audio",
            f"{path}: libsndfile does not know this format",
            "WAV, FLAC, MP3, Ogg or AIFF",
            'for m4a, mp4 and webm: pip install "sertone[media]"',
        ) from None
    try:
        container = av.open(str(path))
    except (av.FFmpegError, ValueError):
        raise AudioError("not_audio", f"{path}: no known audio format", "a sound file") from None
    if not container.streams.audio:
        raise AudioError("not_audio", f"{path}: no audio stream", "a sound file")
    stream = container.streams.audio[0]
    _check_format(stream.rate or 0, stream.channels, path)
    # Containers state durations in rounded units: a frame count is not to be had before decoding.
    return _av_blocks(container, path), AudioInfo(stream.rate, stream.channels, 0), {}


def _av_blocks(container, path: Path) -> Iterator[np.ndarray]:
    import av

    resampler = av.AudioResampler(format="fltp")
    with container:
        try:
            for frame in container.decode(audio=0):
                for part in resampler.resample(frame):
                    yield part.to_ndarray().T
        except av.FFmpegError as error:
            raise AudioError("decode_failed", f"{path}: {error}", "intact audio") from None
