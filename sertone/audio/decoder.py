"""Opening sound files: a header that holds, and a stream of decoded blocks.

libsndfile reads WAV, FLAC, MP3, Ogg, AIFF and their kind; FFmpeg, through PyAV (extra `media`), the rest, and
what libsndfile refuses. What both pass over in silence (samples that are missing, damage) is found in
`containers`, and here, when all is decoded.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from sertone.audio.containers import FFMPEG_FORMATS, SNDFILE_FORMATS, check_container, skip_tags
from sertone.audio.containers.limits import (
    BLOCK_FRAMES,
    MAX_CHANNELS,
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    AudioInfo,
    Warnings,
    check_format,
)
from sertone.audio.containers.report import ContainerReport, GapDetector
from sertone.audio.containers.source import AudioBytes, MemoryFile, OpenFile, RegularFile
from sertone.errors import AudioError
from sertone.utils.extras import install_command

__all__ = [
    "BLOCK_FRAMES", "MAX_CHANNELS", "MAX_RATE_HZ", "MIN_RATE_HZ",
    "AudioFile", "AudioInfo", "Warnings", "check_format", "open_audio",
]  # fmt: skip

SEEKS = ("WAV", "WAVEX", "RF64", "FLAC")
"""Formats in which libsndfile seeks to the sample."""
CHECKED = {"PCM_S8": ("<i1", 7), "PCM_16": ("<i2", 15), "PCM_24": ("<i4", 23)}
"""Sample format of a FLAC file -> how its checksum takes the samples, and their bits beside the sign."""


ALLOWED = {
    "format_whitelist": ",".join(FFMPEG_FORMATS),
    "protocol_whitelist": "none",  # the file is open already; no other one is, nor a connection
    "fflags": "discardcorrupt",  # packets that are cut: what is missing is told
}
"""Options of FFmpeg."""


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A sound file that is open.

    Attributes:
        info: what its header says.
        warnings: what is doubtful about it; complete when the last block was taken.
        decoded: first sample wanted -> decoded blocks (N, channels) from there to the end; taken once.
        held: what has to be closed.
    """

    info: AudioInfo
    warnings: Warnings
    decoded: Callable[[int], Iterator[np.ndarray]]
    held: ExitStack

    def blocks(self, first: int) -> Iterator[np.ndarray]:
        """Yield blocks (N, channels) from a sample on, and close the file behind them."""
        with self.held:
            yield from self.decoded(first)

    def close(self) -> None:
        """Close a file of which no blocks are wanted."""
        self.held.close()


def open_audio(source: str | Path | AudioBytes) -> AudioFile:
    """Open a sound file.

    Raises:
        AudioError: for what is no sound file, or has a header that cannot be right.
    """
    held, path = ExitStack(), Path(str(source))
    try:
        file = _audio_of(held.enter_context(_opened_file(source)), path)
        return _opened(file, check_container(held.enter_context(file), path), path, held)
    except BaseException:
        held.close()
        raise


def _audio_of(file: OpenFile, path: Path) -> OpenFile:
    """Return what is behind the tags of a file."""
    head = file.read(64)
    if not head:
        raise AudioError("empty_file", f"{path}: zero bytes", "a sound file")
    if head.startswith(b"version https://git-lfs"):
        raise AudioError("not_audio", f"{path}: a git-LFS pointer", "the audio itself", "run `git lfs pull`")
    return skip_tags(file)


def _opened_file(path: str | Path | AudioBytes) -> OpenFile:
    if isinstance(path, AudioBytes):
        return MemoryFile(path.data)
    try:
        return RegularFile(path)
    except OSError as error:
        code = "no_permission" if error.errno in (errno.EACCES, errno.EPERM) else "missing_file"
        raise AudioError(code, f"{path}: {os.strerror(error.errno or 0)}") from None
    except ValueError as error:  # a name with a NUL in it
        raise AudioError("missing_file", f"{path!r}: {error}") from None


def _opened(file: OpenFile, report: ContainerReport, path: Path, held: ExitStack) -> AudioFile:
    """Open by libsndfile, or by FFmpeg what it does not know, refuses or does not read to its end."""
    refused = opened = None
    if report.sndfile_readable:
        try:
            opened = _open_sndfile(file, report, path, held)
        except AudioError as error:
            if error.code != "bad_header":
                raise
            refused = error
    if opened and not report.is_shorter_than_stated(opened.info.duration_s):
        return opened
    try:
        return _open_av(file, report, path, held)
    except AudioError as error:
        if opened:  # it guesses the length of some MP3s, and ends there
            return opened
        if refused and report.is_checked and error.code == "not_audio":
            raise AudioError("bad_header", refused.found, refused.expected, error.way_out) from None
        raise


def _open_sndfile(given: OpenFile, report: ContainerReport, path: Path, held: ExitStack) -> AudioFile:
    source = held.enter_context(given.reopen(report.replacement_head, report.replaced_bytes))
    try:
        file = held.enter_context(soundfile.SoundFile(source))
    except soundfile.LibsndfileError as error:
        raise AudioError("bad_header", f"{path}: {error.error_string}", "a sound file") from None
    if not report.is_checked and file.format not in SNDFILE_FORMATS:
        raise AudioError("bad_header", f"{path}: taken for {file.format}", "a sound file")
    info = AudioInfo(file.samplerate, file.channels, file.frames, report.has_exact_length)
    check_format(info.sampling_rate, info.channels, path)
    if info.frames == 0:
        raise AudioError("no_samples", f"{path}: a header without samples", "a recording")
    warnings = _warnings(report, info)

    def decoded(first: int) -> Iterator[np.ndarray]:
        blocks = _sndfile_blocks(file, first, path)
        if first == 0 and any(report.md5) and file.subtype in CHECKED:
            blocks = _checksummed(blocks, report.md5, file.subtype, warnings)
        return _to_the_end(blocks, first, info, report, warnings, path)

    return AudioFile(info, warnings, decoded, held)


def _warnings(report: ContainerReport, info: AudioInfo) -> Warnings:
    """Return what can be said before anything is decoded."""
    found = dict(report.warnings)
    if report.stated_bytes > report.present_bytes:
        found["truncated"] = report.describe_truncation(info.frames if report.sndfile_readable else 0)
    return found


def _to_the_end(
    blocks: Iterable[np.ndarray],
    first: int,
    info: AudioInfo,
    report: ContainerReport,
    warnings: Warnings,
    path: Path,
) -> Iterator[np.ndarray]:
    """Hand on the blocks, and hold their sum against the header; less than an exact one is an error."""
    count = min(first, info.frames) if info.exact else first
    for block in blocks:
        count += len(block)
        yield block
    if info.exact and count < info.frames:
        raise AudioError(
            "decode_failed",
            f"{path}: decoding ended after {count} samples",
            f"the {info.frames} of its header",
            "the file is damaged; fetch it again",
        )
    seconds = count / info.sampling_rate
    if report.gaps_s or (report.is_intact and report.is_shorter_than_stated(seconds)):
        missing_s = report.gaps_s or report.stated_s - seconds
        between = f"{missing_s:.2f} s are missing between frames, {seconds:.2f} s are there"
        warnings["gaps"] = f"{between}: pauses that were not sent, or packets that were lost on the way"
    elif report.is_shorter_than_stated(seconds) and not (report.sndfile_readable and "truncated" in warnings):
        found = f"{seconds:.2f} of the {report.stated_s:.2f} s of its container are there"
        warnings["truncated"] = found


def _sndfile_blocks(file: soundfile.SoundFile, first: int, path: Path) -> Iterator[np.ndarray]:
    try:
        if first and file.format in SEEKS and file.seekable():
            first -= file.seek(min(first, file.frames))
        while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            yield block[min(first, len(block)) :]
            first = max(0, first - len(block))
    except soundfile.LibsndfileError as error:
        raise AudioError("decode_failed", f"{path}: {error.error_string}", "intact audio") from None


def _checksummed(
    blocks: Iterable[np.ndarray], md5: bytes, subtype: str, warnings: Warnings
) -> Iterator[np.ndarray]:
    """Hand on the blocks of a FLAC file, and hold their checksum against that of its header."""
    (kind, bits), digest = CHECKED[subtype], hashlib.md5(usedforsecurity=False)
    for block in blocks:
        integers = (block * np.float32(1 << bits)).astype(kind)
        taken = integers.view(np.uint8).reshape(*integers.shape, -1)[..., : bits // 8 + 1]
        digest.update(taken.tobytes())
        yield block
    if digest.digest() != md5:
        warnings["corrupt"] = "the samples are not those of the checksum in the header"


def _open_av(file: OpenFile, report: ContainerReport, path: Path, held: ExitStack) -> AudioFile:
    """As `open_audio`, for containers and codings that only FFmpeg knows (m4a, mp4, webm, Speex)."""
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise AudioError(
            "not_audio",
            f"{path}: libsndfile does not know this format",
            "WAV, FLAC, MP3, Ogg or AIFF",
            f"for m4a, mp4, webm and Speex: {install_command('media')}",
        ) from None
    source = held.enter_context(file.reopen())
    try:
        container = held.enter_context(av.open(source, mode="r", options=ALLOWED))
    except (FFmpegError, ValueError):
        raise AudioError("not_audio", f"{path}: no known audio format", "a sound file") from None
    if not container.streams.audio:
        raise AudioError("not_audio", f"{path}: no audio stream", "a sound file")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise AudioError("not_audio", f"{path}: audio in an unknown coding", "a known one")
    check_format(stream.rate or 0, stream.channels, path)
    report.stated_s = report.stated_s or _stated(container, stream)
    frames = round(max(report.stated_s, (container.duration or 0) / 1e6) * stream.rate)
    info = AudioInfo(stream.rate, stream.channels, frames, exact=False)
    warnings = _warnings(report, info)

    def decoded(first: int) -> Iterator[np.ndarray]:
        blocks = _av_blocks(container, first, report, path)
        return _to_the_end(blocks, first, info, report, warnings, path)

    return AudioFile(info, warnings, decoded, held)


def _stated(container: Any, stream: Any) -> float:
    """Return the length of an audio stream in seconds, 0 where only that of all streams is known."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


def _av_blocks(container: Any, first: int, report: ContainerReport, path: Path) -> Iterator[np.ndarray]:
    import av
    from av.error import FFmpegError

    resampler, clock = av.AudioResampler(format="fltp"), GapDetector()
    try:
        for block in _joined(_frames(container, resampler, clock)):
            yield block[min(first, len(block)) :]
            first = max(0, first - len(block))
    except (FFmpegError, OSError, ValueError) as error:  # ValueError: the format changes on the way
        raise AudioError("decode_failed", f"{path}: {error}", "intact audio") from None
    report.gaps_s = clock.missing_s


def _frames(container: Any, resampler: Any, clock: GapDetector) -> Iterator[np.ndarray]:
    for frame in container.decode(audio=0):
        clock.add(frame)
        yield from (part.to_ndarray().T for part in resampler.resample(frame))


def _joined(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Join small frames, each of which costs as much to check as a large one."""
    parts, count = [], 0
    for frame in frames:
        parts.append(frame)
        count += len(frame)
        if count >= BLOCK_FRAMES // 4:
            yield np.concatenate(parts)
            parts, count = [], 0
    if parts:
        yield np.concatenate(parts)
