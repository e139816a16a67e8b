"""What sound files say of themselves, held against what is there; decoders pass much of it over in silence.

What is not in the table is read by libsndfile where it is one of `SNDFILE`, or by FFmpeg, of `FFMPEG`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sertone.audio.containers.chunks import check_aiff, check_au, check_caf, check_nist, check_w64, check_wav
from sertone.audio.containers.matroska import check_matroska
from sertone.audio.containers.mp4 import check_mp4
from sertone.audio.containers.mpeg import check_mp3, parse_frame_header
from sertone.audio.containers.ogg import check_ogg
from sertone.audio.containers.report import ContainerReport
from sertone.audio.containers.source import OpenFile

FFMPEG_FORMATS = (
    *("aac", "ac3", "aiff", "amr", "asf", "au", "avi", "caf", "eac3", "flac", "flv", "matroska,webm"),
    *("mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpeg", "mpegts", "ogg", "w64", "wav"),
    *("ape", "iff", "mpc", "mpc8", "shn", "tak", "tta", "voc", "wv"),
)
"""Containers that FFmpeg may read: none that names other files, such as playlists."""


SNDFILE_FORMATS = ("VOC", "IRCAM", "SVX", "PAF", "AVR", "HTK", "PVF", "MAT4", "MAT5", "SDS", "WVE")
"""Containers that only libsndfile looks at; it takes others for sound by their first two bytes."""


class Kind(NamedTuple):
    """A container: how it begins, what follows after eight bytes, and what checks it."""

    starts: tuple[bytes, ...]
    then: bytes
    check: Callable[[OpenFile, Path], ContainerReport]


def check_container(file: OpenFile, path: Path) -> ContainerReport:
    """Return what there is to say about a file.

    Raises:
        AudioError: `bad_channels`, `bad_rate`, `not_audio`.
    """
    file.seek(0)
    head = file.read(64)
    if parse_frame_header(head[:4]):
        return check_mp3(file, path)
    for kind in _KINDS:
        if head.startswith(kind.starts) and head.startswith(kind.then, 8):
            return kind.check(file, path)
    return check_mp4(file, path) if head[4:8] in _BOXES else ContainerReport(is_checked=False)


def skip_tags(file: OpenFile) -> OpenFile:
    """Return a file without the ID3 tags, and the zeros, in front of its audio."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        footer = 10 * bool(head[5] & 16)
        at += 10 + footer + sum((byte & 127) << 7 * (3 - n) for n, byte in enumerate(head[6:10]))
    file.seek(at)
    block = file.read(1 << 16) if at else b""
    at += len(block) - len(block.lstrip(b"\0"))
    return file.reopen(replaced=at if at < file.size else 0)


def _flac(file: OpenFile, path: Path) -> ContainerReport:
    """Take the checksum of the samples; libsndfile checks the frames."""
    file.seek(26)
    return ContainerReport(md5=file.read(16))


_KINDS = (
    Kind((b"RIFF", b"RF64"), b"WAVE", check_wav),
    Kind((b"FORM",), b"AIF", check_aiff),
    Kind((b"riff\x2e\x91\xcf\x11",), b"", check_w64),
    Kind((b".snd", b"dns."), b"", check_au),
    Kind((b"caff",), b"", check_caf),
    Kind((b"NIST_1A",), b"", check_nist),
    Kind((b"fLaC",), b"", _flac),
    Kind((b"OggS",), b"", check_ogg),
    Kind((b"\x1a\x45\xdf\xa3",), b"", check_matroska),
)
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free")
