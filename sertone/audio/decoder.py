"""Open sound files: check the header, then stream decoded blocks.

libsndfile reads WAV, FLAC, MP3, Ogg, AIFF and similar formats. FFmpeg, through PyAV (extra `media`), reads
the others, and the files that libsndfile refuses. Both skip missing or damaged samples without an error:
`containers` finds these before decoding, and this module when the last block is decoded.
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
from sertone.audio.containers.limits import BLOCK_FRAMES, MAX_CHANNELS, AudioInfo, Warnings, check_format
from sertone.audio.containers.report import ContainerReport, GapDetector
from sertone.audio.containers.source import AudioBytes, MemoryFile, OpenFile, RegularFile
from sertone.errors import AudioError
from sertone.utils.extras import install_command

__all__ = [
    "BLOCK_FRAMES", "MAX_CHANNELS", "AudioFile", "AudioInfo", "Warnings", "check_format", "open_audio",
]  # fmt: skip

SEEKABLE_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC")
"""Formats in which libsndfile seeks to the exact sample."""
MD5_FORMATS = {"PCM_S8": ("<i1", 7), "PCM_16": ("<i2", 15), "PCM_24": ("<i4", 23)}
"""Sample format of a FLAC file -> type of the samples under its MD5, and their bits without the sign."""
FFMPEG_OPTIONS = {
    "format_whitelist": ",".join(FFMPEG_FORMATS),
    "protocol_whitelist": "none",  # the file is open already: no other file or connection is opened
    "fflags": "discardcorrupt",  # drops cut packets; the length shows what is missing
}


@dataclass(frozen=True, slots=True)
class AudioFile:
    """An open sound file.

    Attributes:
        info: facts of its header.
        warnings: code -> message; complete after the last block.
        decode: first sample wanted -> decoded blocks (N, channels) from there to the end; called once.
        resources: closed together with the file.
    """

    info: AudioInfo
    warnings: Warnings
    decode: Callable[[int], Iterator[np.ndarray]]
    resources: ExitStack

    def blocks(self, first: int) -> Iterator[np.ndarray]:
        """Yield blocks (N, channels) from a sample on, and close the file after the last one."""
        with self.resources:
            yield from self.decode(first)

    def close(self) -> None:
        """Close a file whose blocks are not needed."""
        self.resources.close()


def open_audio(source: str | Path | AudioBytes) -> AudioFile:
    """Open a sound file.

    Raises:
        AudioError: the file is no sound file, or its header cannot be right.
    """
    resources, path = ExitStack(), Path(str(source))
    try:
        file = _skip_to_audio(resources.enter_context(_open_file(source)), path)
        report = check_container(resources.enter_context(file), path)
        return _choose_decoder(file, report, path, resources)
    except BaseException:
        resources.close()
        raise


def _skip_to_audio(file: OpenFile, path: Path) -> OpenFile:
    """Return the part of a file behind its tags."""
    head = file.read(64)
    if not head:
        raise AudioError("empty_file", f"{path}: zero bytes", "a sound file")
    if head.startswith(b"version https://git-lfs"):
        raise AudioError("not_audio", f"{path}: a git-LFS pointer", "the audio itself", "run `git lfs pull`")
    return skip_tags(file)


def _open_file(path: str | Path | AudioBytes) -> OpenFile:
    if isinstance(path, AudioBytes):
        return MemoryFile(path.data)
    try:
        return RegularFile(path)
    except OSError as error:
        code = "no_permission" if error.errno in (errno.EACCES, errno.EPERM) else "missing_file"
        raise AudioError(code, f"{path}: {os.strerror(error.errno or 0)}") from None
    except ValueError as error:  # a name with a NUL in it
        raise AudioError("missing_file", f"{path!r}: {error}") from None


def _choose_decoder(file: OpenFile, report: ContainerReport, path: Path, resources: ExitStack) -> AudioFile:
    """Open a file by libsndfile, or by FFmpeg if libsndfile refuses it or stops before its end."""
    refusal = opened = None
    if report.sndfile_readable:
        try:
            opened = _open_sndfile(file, report, path, resources)
        except AudioError as error:
            if error.code != "bad_header":
                raise
            refusal = error
    if opened and not report.is_shorter_than_stated(opened.info.duration_s):
        return opened
    try:
        return _open_ffmpeg(file, report, path, resources)
    except AudioError as error:
        if opened:  # libsndfile guesses the length of some MP3s, and ends there
            return opened
        # For a known container, the error of libsndfile names the problem better than "not audio".
        if refusal and report.is_checked and error.code == "not_audio":
            raise AudioError("bad_header", refusal.found, refusal.expected, error.way_out) from None
        raise


def _open_sndfile(unread: OpenFile, report: ContainerReport, path: Path, resources: ExitStack) -> AudioFile:
    source = resources.enter_context(unread.reopen(report.replacement_head, report.replaced_bytes))
    try:
        file = resources.enter_context(soundfile.SoundFile(source))
    except soundfile.LibsndfileError as error:
        raise AudioError("bad_header", f"{path}: {error.error_string}", "a sound file") from None
    if not report.is_checked and file.format not in SNDFILE_FORMATS:
        raise AudioError("bad_header", f"{path}: taken for {file.format}", "a sound file")
    info = AudioInfo(file.samplerate, file.channels, file.frames, report.has_exact_length)
    check_format(info.sampling_rate, info.channels, path)
    if info.frames == 0:
        raise AudioError("no_samples", f"{path}: a header without samples", "a recording")
    warnings = _collect_warnings(report, info)

    def decode(first: int) -> Iterator[np.ndarray]:
        blocks = _decode_sndfile(file, first, path)
        # The MD5 is that of all samples; zeros mean that the writer computed none.
        if first == 0 and any(report.md5) and file.subtype in MD5_FORMATS:
            blocks = _verify_md5(blocks, report.md5, file.subtype, warnings)
        return _verify_length(blocks, first, info, report, warnings, path)

    return AudioFile(info, warnings, decode, resources)


def _collect_warnings(report: ContainerReport, info: AudioInfo) -> Warnings:
    """Return the warnings that are known before decoding."""
    warnings = dict(report.warnings)
    if report.stated_bytes > report.present_bytes:
        frames = info.frames if report.sndfile_readable else 0
        warnings["truncated"] = report.describe_truncation(frames)
    return warnings


def _verify_length(
    blocks: Iterable[np.ndarray],
    first: int,
    info: AudioInfo,
    report: ContainerReport,
    warnings: Warnings,
    path: Path,
) -> Iterator[np.ndarray]:
    """Yield the blocks, and compare their number of samples with the header.

    Raises:
        AudioError: `decode_failed`, where the header is exact and samples are missing.
    """
    count = min(first, info.frames) if info.exact else first
    for block in blocks:
        count += len(block)
        yield block
    if info.exact and count < info.frames:
        raise AudioError(
            "decode_failed",
            f"{path}: decoding ended after {count} samples",
            f"the {info.frames} that its header states",
            "the file is damaged; fetch it again",
        )
    seconds = count / info.sampling_rate
    is_short = report.is_shorter_than_stated(seconds)
    # An intact container with less audio than it states: pauses were left out, or packets were lost before
    # the file was written.
    if report.gaps_s or (report.is_intact and is_short):
        missing_s = report.gaps_s or report.stated_s - seconds
        lengths = f"{missing_s:.2f} s are missing between frames, {seconds:.2f} s are present"
        warnings["gaps"] = f"{lengths}: pauses that were not sent, or packets that were lost on the way"
    elif is_short and not (report.sndfile_readable and "truncated" in warnings):
        lengths = f"{seconds:.2f} of the {report.stated_s:.2f} s that the container states are present"
        warnings["truncated"] = lengths


def _decode_sndfile(file: soundfile.SoundFile, first: int, path: Path) -> Iterator[np.ndarray]:
    try:
        if first and file.format in SEEKABLE_FORMATS and file.seekable():
            first -= file.seek(min(first, file.frames))
        while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            yield block[min(first, len(block)) :]
            first = max(0, first - len(block))
    except soundfile.LibsndfileError as error:
        raise AudioError("decode_failed", f"{path}: {error.error_string}", "intact audio") from None


def _verify_md5(
    blocks: Iterable[np.ndarray], md5: bytes, subtype: str, warnings: Warnings
) -> Iterator[np.ndarray]:
    """Yield the blocks of a FLAC file, and compare the MD5 of their samples with that of the header."""
    dtype, bits = MD5_FORMATS[subtype]
    digest = hashlib.md5(usedforsecurity=False)
    for block in blocks:
        # float32 holds 24 bits exactly. The MD5 takes 1, 2 or 3 bytes of every sample, little-endian.
        integers = (block * np.float32(1 << bits)).astype(dtype)
        sample_bytes = integers.view(np.uint8).reshape(*integers.shape, -1)[..., : bits // 8 + 1]
        digest.update(sample_bytes.tobytes())
        yield block
    if digest.digest() != md5:
        warnings["corrupt"] = "the samples do not match the checksum in the header"


def _open_ffmpeg(file: OpenFile, report: ContainerReport, path: Path, resources: ExitStack) -> AudioFile:
    """Open a file that only FFmpeg reads (m4a, mp4, webm, Speex), as `open_audio`."""
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
    source = resources.enter_context(file.reopen())
    try:
        container = resources.enter_context(av.open(source, mode="r", options=FFMPEG_OPTIONS))
    except (FFmpegError, ValueError):
        raise AudioError("not_audio", f"{path}: no known audio format", "a sound file") from None
    if not container.streams.audio:
        raise AudioError("not_audio", f"{path}: no audio stream", "a sound file")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise AudioError("not_audio", f"{path}: audio of an unknown codec", "a known one")
    check_format(stream.rate or 0, stream.channels, path)
    report.stated_s = report.stated_s or _get_stated_length_s(container, stream)
    frames = round(max(report.stated_s, (container.duration or 0) / 1e6) * stream.rate)
    info = AudioInfo(stream.rate, stream.channels, frames, exact=False)
    warnings = _collect_warnings(report, info)

    def decode(first: int) -> Iterator[np.ndarray]:
        blocks = _decode_ffmpeg(container, first, report, path)
        return _verify_length(blocks, first, info, report, warnings, path)

    return AudioFile(info, warnings, decode, resources)


def _get_stated_length_s(container: Any, stream: Any) -> float:
    """Return the stated length of an audio stream in seconds, 0 where only that of all streams is known."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0  # from microseconds


def _decode_ffmpeg(container: Any, first: int, report: ContainerReport, path: Path) -> Iterator[np.ndarray]:
    import av
    from av.error import FFmpegError

    resampler, gaps = av.AudioResampler(format="fltp"), GapDetector()  # fltp: float32, by channel
    try:
        for block in _merge_frames(_decode_frames(container, resampler, gaps)):
            yield block[min(first, len(block)) :]
            first = max(0, first - len(block))
    except (FFmpegError, OSError, ValueError) as error:  # ValueError: the format changes on the way
        raise AudioError("decode_failed", f"{path}: {error}", "intact audio") from None
    report.gaps_s = gaps.missing_s


def _decode_frames(container: Any, resampler: Any, gaps: GapDetector) -> Iterator[np.ndarray]:
    for frame in container.decode(audio=0):
        gaps.add(frame)
        yield from (part.to_ndarray().T for part in resampler.resample(frame))


def _merge_frames(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Merge small frames: each costs as much to check as a large one."""
    parts, count = [], 0
    for frame in frames:
        parts.append(frame)
        count += len(frame)
        if count >= BLOCK_FRAMES // 4:
            yield np.concatenate(parts)
            parts, count = [], 0
    if parts:
        yield np.concatenate(parts)
