"""MP3: frames in a row, whose first one may be a Xing header that states their number."""

import struct
from pathlib import Path
from typing import NamedTuple

from sertone.audio.containers.chunks import TRAILING_TAGS
from sertone.audio.containers.report import ContainerReport
from sertone.audio.containers.source import OpenFile
from sertone.errors import AudioError

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Version bits (3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5) -> sampling rates in Hz, by index."""
_KBITS = {
    (True, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Whether it is MPEG-1, and the layer bits (3: I, 2: II, 1: III) -> kilobits per second, by index from 1."""
MIN_FRAMES = 3
"""Frames in a row from which on bytes are taken for an MP3: random bytes may form one or two."""


class FrameHeader(NamedTuple):
    """A frame header: bytes of the frame, samples per channel, samples per second."""

    size: int
    samples: int
    rate: int


def parse_frame_header(head: bytes) -> FrameHeader | None:
    """Return the frame header in four bytes (ISO/IEC 11172-3, 2.4.1.3); None where they are none."""
    # The first 11 bits are ones: the syncword.
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate_index, rate_index, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    # These values are reserved, or, for the bitrate index 0, of a free format that states no size.
    if version == 1 or layer == 0 or bitrate_index in (0, 15) or rate_index == 3:
        return None
    rate = _RATES[version][rate_index]
    bits_per_s = 1000 * _KBITS[version == 3, layer][bitrate_index - 1]
    if layer == 3:  # layer I counts in slots of four bytes
        return FrameHeader((12 * bits_per_s // rate + padding) * 4, 384, rate)
    samples = 576 if layer == 1 and version != 3 else 1152
    return FrameHeader(samples // 8 * bits_per_s // rate + padding, samples, rate)


class XingHeader(NamedTuple):
    """The first frame of an MP3 that holds no audio but states the length of the file.

    Attributes:
        frames: number of frames that follow.
        padding: samples that the encoder added to the audio, at its start and end.
        is_intact: whether its own checksum is right.
    """

    frames: int
    padding: int
    is_intact: bool


def check_mp3(file: OpenFile, path: Path) -> ContainerReport:
    """Follow the frames of an MP3 file to its end, and compare their number with its Xing header.

    Raises:
        AudioError: `not_audio`, where no frame follows another.
    """
    at = count = samples = damaged = 0
    last: FrameHeader | None = None
    while at + 4 <= file.size and not _is_end(file, at):
        header = _parse_frame_at(file, at)
        if header is None:
            damaged += 1
            at = _find_next_frame(file, at + 1)
        else:
            count += 1
            samples += header.samples
            at += header.size
            last = header
    if last is None or count < MIN_FRAMES:
        raise AudioError("not_audio", f"{path}: {_format_frame_count(count)} of MP3", "a sound file")
    xing = _parse_xing_header(file)
    truncated = at > file.size
    report = _compare_frames(count - truncated - bool(xing), xing, damaged, truncated)
    # Neither the Xing header nor a truncated last frame nor the encoder's padding is audio.
    not_audio = last.samples * (truncated + bool(xing)) + (xing.padding if xing else 0)
    report.stated_s = max(0, samples - not_audio) / last.rate
    return report


def _format_frame_count(frames: int) -> str:
    return f"{frames} frame{'s' * (frames != 1)}"


def _compare_frames(count: int, xing: XingHeader | None, damaged: int, truncated: bool) -> ContainerReport:
    """Compare the number of whole frames with the Xing header.

    Args:
        count: frames with audio.
        xing: None: the file has no Xing header.
        damaged: places at which no frame follows another.
        truncated: whether the last frame exceeds the file.
    """
    report = ContainerReport(has_exact_length=xing is not None)
    stated = xing.frames if xing else 0
    frames = _format_frame_count(count)
    if truncated or count < stated:
        report.warnings["truncated"] = (
            f"{count} of the {stated} frames that the header states are present"
            if stated
            else f"{count} whole frames are present"
        )
    if damaged:
        report.warnings["corrupt"] = f"{frames}, with damage at {damaged} places between them"
    elif xing and count > stated:
        report.warnings["corrupt"] = f"{frames} are present; the header states {stated}"
    elif xing and not xing.is_intact:
        report.warnings["corrupt"] = "the first frame, which states the length, is damaged"
    return report


def _parse_xing_header(file: OpenFile) -> XingHeader | None:
    """Return the Xing or Info header in the first frame, with the extension of LAME or FFmpeg (Lavf, Lavc).

    None where it is absent, or states no number of frames.
    """
    file.seek(0)
    head = file.read(400)
    start = max(head.find(b"Xing", 0, 200), head.find(b"Info", 0, 200))
    if start < 0 or len(head) < start + 156:
        return None
    flags, frames = struct.unpack_from(">II", head, start + 4)
    if not flags & 1:  # bit 0: the number of frames is there
        return None
    # Optional fields: bit 1 bytes of the file, bit 2 table of 100 seek points, bit 3 quality.
    lame = start + 12 + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
    if head[lame : lame + 3] not in (b"LAM", b"Lav"):
        return XingHeader(frames, 0, is_intact=True)
    # Two numbers of 12 bits: samples added at the start, and at the end.
    delays = int.from_bytes(head[lame + 21 : lame + 24])
    (stated,) = struct.unpack_from(">H", head, lame + 34)
    # LAME's checksum covers all bytes before it; FFmpeg's the first 190 bytes before it is filled in.
    lame_crc, ffmpeg_crc = _crc16(head[: lame + 34]), _crc16(head[: lame + 34].ljust(190, b"\0")[:190])
    return XingHeader(frames, (delays >> 12) + (delays & 0xFFF), stated in (lame_crc, ffmpeg_crc))


def _crc16(data: bytes) -> int:
    """Return the CRC-16 of a LAME header: polynomial 0x8005, bits reflected (0xA001)."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value


def _parse_frame_at(file: OpenFile, at: int) -> FrameHeader | None:
    file.seek(at)
    return parse_frame_header(file.read(4))


def _is_end(file: OpenFile, at: int) -> bool:
    """Return whether a tag, or nothing but zeros, follows."""
    file.seek(at)
    head = file.read(8)
    return head.startswith((*TRAILING_TAGS, b"LYRICS")) or not (any(head) or any(file.read(1 << 16)))


def _find_next_frame(file: OpenFile, at: int) -> int:
    """Return the position of the next frame that another frame follows, or the end of the file."""
    while True:
        file.seek(at)
        block = file.read(1 << 16)
        for offset in range(len(block) - 3):
            if block[offset] == 0xFF and (header := parse_frame_header(block[offset : offset + 4])):
                end = at + offset + header.size
                # Bytes of audio may look like a frame header: a second frame has to follow.
                if end + 4 > file.size or _parse_frame_at(file, end):
                    return at + offset
        if len(block) < 1 << 16:
            return file.size
        at += len(block) - 3  # a header may lie across two blocks
