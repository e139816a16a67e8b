"""MP3: frame follows frame, and a first one may say how many there are."""

import struct
from pathlib import Path
from typing import NamedTuple

from sertone.audio.containers.chunks import TRAILING_TAGS
from sertone.audio.containers.report import ContainerReport
from sertone.audio.containers.source import OpenFile
from sertone.errors import AudioError

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Version (3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5) -> sampling rates in Hz."""
_KBITS = {
    (True, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Whether it is MPEG-1, and layer as it is written (3: I, 1: III) -> kilobits per second by index, from 1."""
ENOUGH = 3
"""Frames in a row that make an MP3 of some bytes."""


class Frame(NamedTuple):
    """What a header says: bytes of the frame, samples per channel, samples per second."""

    size: int
    samples: int
    rate: int


def parse_frame_header(head: bytes) -> Frame | None:
    """Return what a header of four bytes says, None where it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    kbits, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 0 or kbits in (0, 15) or rate == 3:
        return None
    hertz, bits_per_s = _RATES[version][rate], 1000 * _KBITS[version == 3, layer][kbits - 1]
    if layer == 3:
        return Frame((12 * bits_per_s // hertz + padding) * 4, 384, hertz)
    samples = 576 if layer == 1 and version != 3 else 1152
    return Frame(samples // 8 * bits_per_s // hertz + padding, samples, hertz)


class Contents(NamedTuple):
    """What a first frame says that holds no sound.

    Attributes:
        frames: how many follow.
        padding: samples of them that the encoder put in.
        sound: whether it is as its own checksum says.
    """

    frames: int
    padding: int
    sound: bool


def check_mp3(file: OpenFile, path: Path) -> ContainerReport:
    """Check that frame follows frame to the end of an MP3 file, and that there are as many as it says.

    Raises:
        AudioError: `not_audio`, where no frame follows another.
    """
    at, count, samples, damaged, last = 0, 0, 0, 0, None
    while at + 4 <= file.size and not _ended(file, at):
        found = _frame_at(file, at)
        if found is None:
            damaged, at = damaged + 1, _next(file, at + 1)
        else:
            count, samples, at, last = count + 1, samples + found.samples, at + found.size, found
    if last is None or count < ENOUGH:
        raise AudioError("not_audio", f"{path}: {counted(count)} of MP3", "a sound file")
    contents, cut = _contents(file), at > file.size
    report = _report(count - cut - bool(contents), contents, damaged, cut)
    heard = samples - last.samples * (cut + bool(contents)) - (contents.padding if contents else 0)
    report.stated_s = max(0, heard) / last.rate
    return report


def counted(frames: int) -> str:
    """Return the number of frames in words."""
    return f"{frames} frame{'s' * (frames != 1)}"


def _report(count: int, contents: Contents | None, damaged: int, cut: bool) -> ContainerReport:
    report, stated = (
        ContainerReport(has_exact_length=contents is not None),
        contents.frames if contents else 0,
    )
    if cut or count < stated:
        of = f" of the {stated} frames of its header are" if stated else " whole frames are"
        report.warnings["truncated"] = f"{count}{of} there"
    if damaged:
        report.warnings["corrupt"] = f"{counted(count)}, with damage at {damaged} places between them"
    elif contents and count > stated:
        report.warnings["corrupt"] = f"{counted(count)} are there; the header says {stated}"
    elif contents and not contents.sound:
        report.warnings["corrupt"] = "the first frame, which states the length, is damaged"
    return report


def _contents(file: OpenFile) -> Contents | None:
    """Read the table of contents in the first frame, as LAME and FFmpeg write it.

    LAME's checksum is of all that is before it, FFmpeg's of the first 190 bytes before it was filled in.
    """
    file.seek(0)
    head = file.read(400)
    place = max(head.find(b"Xing", 0, 200), head.find(b"Info", 0, 200))
    if place < 0 or len(head) < place + 156:
        return None
    flags, frames = struct.unpack_from(">II", head, place + 4)
    if not flags & 1:
        return None
    more = place + 12 + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
    if head[more : more + 3] not in (b"LAM", b"Lav"):
        return Contents(frames, 0, sound=True)
    delays = int.from_bytes(head[more + 21 : more + 24])
    (stated,) = struct.unpack_from(">H", head, more + 34)
    sound = stated in (_crc16(head[: more + 34]), _crc16(head[: more + 34].ljust(190, b"\0")[:190]))
    return Contents(frames, (delays >> 12) + (delays & 0xFFF), sound)


def _crc16(data: bytes) -> int:
    """Return the checksum of a table of contents."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value


def _frame_at(file: OpenFile, at: int) -> Frame | None:
    file.seek(at)
    return parse_frame_header(file.read(4))


def _ended(file: OpenFile, at: int) -> bool:
    """Whether only tags or zeros follow."""
    file.seek(at)
    head = file.read(8)
    return head.startswith((*TRAILING_TAGS, b"LYRICS")) or not (any(head) or any(file.read(1 << 16)))


def _next(file: OpenFile, at: int) -> int:
    """Return where the next frame is that another one follows."""
    while True:
        file.seek(at)
        block = file.read(1 << 16)
        for place in range(len(block) - 3):
            if block[place] == 0xFF and (found := parse_frame_header(block[place : place + 4])):
                behind = at + place + found.size
                if behind + 4 > file.size or _frame_at(file, behind):
                    return at + place
        if len(block) < 1 << 16:
            return file.size
        at += len(block) - 3
