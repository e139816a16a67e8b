"""Opening sound files: a header that holds, and a stream of decoded blocks.

libsndfile reads WAV, FLAC, MP3, Ogg and AIFF; FFmpeg, through PyAV (extra `media`), the rest. What
libsndfile passes over in silence (files shorter than their header says, streams without a length) is
found here.
"""

import errno
import io
import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from sertone.errors import AudioError

MAX_CHANNELS = 8
MIN_RATE_HZ = 1000  # below it there is no speech, and resampling would fill the memory
MAX_RATE_HZ = 768_000
BLOCK = 1 << 16
CHUNKS = (b"LIST", b"fact", b"bext", b"cue ", b"smpl", b"JUNK", b"iXML", b"id3 ", b"ID3 ", b"PEAK")
"""What may follow the samples of a WAV file."""

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


Blocks = Callable[[int], Iterator[np.ndarray]]
"""First sample wanted -> decoded blocks (N, channels) from there to the end."""


def open_audio(path: Path) -> tuple[Blocks, AudioInfo, Warnings]:
    """A stream of blocks, the header, and warnings about it.

    Raises:
        AudioError: for what is no sound file, or has a header that cannot be right.
    """
    head = _head(path)
    warnings: Warnings = {}
    offset = None
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        warnings, offset = _check_wav(path)
    try:
        file = soundfile.SoundFile(io.BufferedReader(_Restated(path, *offset)) if offset else _named(path))
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: raw samples, by their name
        if head[:4] in (b"RIFF", b"fLaC", b"OggS", b"FORM"):
            raise AudioError("bad_header", f"{path}: {error}", "a sound file") from None
        return _open_av(path)
    info = AudioInfo(file.samplerate, file.channels, file.frames)
    check_format(info.sampling_rate, info.channels, path)
    if info.frames == 0:
        file.close()
        raise AudioError("no_samples", f"{path}: a header without samples", "a recording")
    warnings |= _check_length(head, path, info.frames)
    return lambda first: _sndfile_blocks(file, first, path), info, warnings


def _named(path: Path) -> Any:
    """The name as soundfile takes it also where it is not UTF-8, though its types do not say so."""
    return os.fsencode(path) if os.name == "posix" else path


def _sndfile_blocks(file: soundfile.SoundFile, first: int, path: Path) -> Iterator[np.ndarray]:
    with file:
        try:
            if file.format in ("WAV", "WAVEX", "RF64", "FLAC"):  # where seeking is exact
                first -= file.seek(min(first, file.frames))
            while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
                yield block[min(first, len(block)) :]
                first = max(0, first - len(block))
        except soundfile.LibsndfileError as error:
            raise AudioError("decode_failed", f"{path}: {error}", "intact audio") from None


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
        raise AudioError("not_audio", f"{path}: a git-LFS pointer", "the audio itself", "run `git lfs pull`")
    return head


def check_format(rate: int, channels: int, path: Path) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError("bad_channels", f"{path}: {channels} channels", f"1 to {MAX_CHANNELS}")
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise AudioError("bad_rate", f"{path}: {rate} Hz", f"{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")


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
                check_format(rate, channels, path)
                size -= 16
            elif name == b"data":
                start = file.tell()
                return _check_data(size, start, available, frame, file.read(4))
            file.seek(size + size % 2, os.SEEK_CUR)
    raise AudioError("bad_header", f"{path}: no complete WAV header", "chunks `fmt ` and `data`")


def _check_data(
    size: int, start: int, available: int, frame: int, following: bytes
) -> tuple[Warnings, tuple[int, int] | None]:
    present = available - start
    streamed = size == 0xFFFFFFFF or (size == 0 and following not in CHUNKS)
    if streamed and present:
        message = "the header gives no length (a streamed file): read to its end"
        return {"streamed_header": message}, (start, present)
    if size > present and frame:
        message = f"{present // frame} of the {size // frame} samples of its header are there"
        return {"truncated": message}, None
    return {}, None


class _Restated(io.RawIOBase):
    """A WAV file whose header states the true size of its samples; as RF64, which has room for any size.

    Args:
        path: the file.
        start: where its samples start, in bytes.
        size: of its samples, in bytes.
    """

    def __init__(self, path: Path, start: int, size: int) -> None:
        self._file, self._position = io.FileIO(path), 0
        chunks = self._file.read(start)[12:-8]
        sizes = struct.pack("<4sIQQQI", b"ds64", 28, size + len(chunks) + 48, size, 0, 0)
        self._head = b"RF64\xff\xff\xff\xffWAVE" + sizes + chunks + b"data\xff\xff\xff\xff"
        self._moved = len(self._head) - start
        self._end = start + size + self._moved

    def readinto(self, buffer) -> int:
        part = self._head[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._file.seek(max(self._position, len(self._head)) - self._moved)
        count = len(part) + (self._file.readinto(memoryview(buffer)[len(part) :]) or 0)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._end)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def _check_length(head: bytes, path: Path, frames: int) -> Warnings:
    """Holds what AIFF, RF64 and Ogg say about their length against what is there."""
    stated = _stated_frames(head)
    if stated > frames:
        return {"truncated": f"{frames} of the {stated} samples of its header are there"}
    if head[:4] == b"OggS" and not _has_last_page(path):
        return {"truncated": f"{frames} samples are there; the last page of the stream is not"}
    return {}


def _stated_frames(head: bytes) -> int:
    """Samples per channel by an AIFF or RF64 header, 0 where it does not say."""
    if head[:4] == b"RF64" and head[12:16] == b"ds64":
        return struct.unpack_from("<Q", head, 36)[0]
    if head[:4] != b"FORM":
        return 0
    at = 12
    while at + 14 <= len(head) and head[at : at + 4] != b"COMM":  # other chunks may hold these letters
        size = struct.unpack_from(">I", head, at + 4)[0]
        at += 8 + size + size % 2
    return struct.unpack_from(">I", head, at + 10)[0] if at + 14 <= len(head) else 0


def _has_last_page(path: Path) -> bool:
    """Whether the last page of an Ogg file is marked as the end of its stream."""
    with open(path, "rb") as file:
        file.seek(-min(path.stat().st_size, BLOCK), os.SEEK_END)
        tail = file.read()
    at = tail.rfind(b"OggS", 0, -5)
    return at >= 0 and bool(tail[at + 5] & 4)


def _open_av(path: Path) -> tuple[Blocks, AudioInfo, Warnings]:
    """As `open_audio`, for containers only FFmpeg knows (m4a, mp4, webm)."""
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise AudioError(
            "not_audio",
            f"{path}: libsndfile does not know this format",
            "WAV, FLAC, MP3, Ogg or AIFF",
            'for m4a, mp4 and webm: pip install "sertone[media]"',
        ) from None
    try:
        container = av.open(str(path))
    except (FFmpegError, ValueError):
        raise AudioError("not_audio", f"{path}: no known audio format", "a sound file") from None
    if not container.streams.audio:
        raise AudioError("not_audio", f"{path}: no audio stream", "a sound file")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise AudioError("not_audio", f"{path}: audio in an unknown coding", "a known one")
    check_format(stream.rate or 0, stream.channels, path)
    frames = round((container.duration or 0) / 1e6 * stream.rate)  # rounded by the container
    return (
        lambda first: _av_blocks(container, first, path),
        AudioInfo(stream.rate, stream.channels, frames, exact=False),
        {},
    )


def _av_blocks(container, first: int, path: Path) -> Iterator[np.ndarray]:
    import av
    from av.error import FFmpegError

    resampler = av.AudioResampler(format="fltp")
    with container:
        try:
            for frame in container.decode(audio=0):
                for part in resampler.resample(frame):
                    block = part.to_ndarray().T
                    yield block[min(first, len(block)) :]
                    first = max(0, first - len(block))
        except (FFmpegError, ValueError) as error:  # ValueError: the format changes on the way
            raise AudioError("decode_failed", f"{path}: {error}", "intact audio") from None
