"""Checks of sound files before they are decoded: headers, compared with the bytes in the file.

`chunks` checks WAV, RF64, W64, AIFF, AU, CAF and NIST files; `ogg`, `mpeg`, `mp4` and `matroska` check the
formats of their names. Decoders skip missing or damaged samples without an error. A file of a kind without a
check is read by libsndfile if it is one of `SNDFILE_FORMATS`, or by FFmpeg if it is one of `FFMPEG_FORMATS`.
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
"""Containers that FFmpeg may read. None of them can name other files, as playlists do."""


SNDFILE_FORMATS = ("VOC", "IRCAM", "SVX", "PAF", "AVR", "HTK", "PVF", "MAT4", "MAT5", "SDS", "WVE")
"""Containers without a check that libsndfile may read. It takes others by two bytes that many files have."""


class ContainerFormat(NamedTuple):
    """A kind of container: its first bytes, its bytes 8 and following, and the check of its headers."""

    magic: tuple[bytes, ...]
    form_type: bytes
    check: Callable[[OpenFile, Path], ContainerReport]


def check_container(file: OpenFile, path: Path) -> ContainerReport:
    """Check the headers of a sound file.

    Raises:
        AudioError: `bad_channels`, `bad_rate`, `not_audio`.
    """
    file.seek(0)
    head = file.read(64)
    if parse_frame_header(head[:4]):
        return check_mp3(file, path)
    for kind in _FORMATS:
        if head.startswith(kind.magic) and head.startswith(kind.form_type, 8):
            return kind.check(file, path)
    if head[4:8] in _MP4_BOXES:
        return check_mp4(file, path)
    return ContainerReport(is_checked=False)


def skip_tags(file: OpenFile) -> OpenFile:
    """Return a file without the ID3v2 tags, and the zeros behind them, that precede its audio."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        footer = 10 * bool(head[5] & 16)  # flag: the header is repeated behind the tag
        # The size is "synchsafe": four bytes of seven bits each.
        size = sum((byte & 127) << 7 * (3 - place) for place, byte in enumerate(head[6:10]))
        at += 10 + footer + size
    file.seek(at)
    padding = file.read(1 << 16) if at else b""
    at += len(padding) - len(padding.lstrip(b"\0"))
    return file.reopen(replaced_bytes=at if at < file.size else 0)


def _check_flac(file: OpenFile, path: Path) -> ContainerReport:
    """Return the MD5 of the samples, the last field of STREAMINFO; libsndfile checks the frames itself."""
    file.seek(26)
    return ContainerReport(md5=file.read(16))


_FORMATS = (
    ContainerFormat((b"RIFF", b"RF64"), b"WAVE", check_wav),
    ContainerFormat((b"FORM",), b"AIF", check_aiff),
    ContainerFormat((b"riff\x2e\x91\xcf\x11",), b"", check_w64),
    ContainerFormat((b".snd", b"dns."), b"", check_au),
    ContainerFormat((b"caff",), b"", check_caf),
    ContainerFormat((b"NIST_1A",), b"", check_nist),
    ContainerFormat((b"fLaC",), b"", _check_flac),
    ContainerFormat((b"OggS",), b"", check_ogg),
    ContainerFormat((b"\x1a\x45\xdf\xa3",), b"", check_matroska),  # the ID of an EBML header
)
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free")
"""Names of the boxes with which an MP4 or MOV file may begin."""
