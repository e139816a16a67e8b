"""What sound files say of themselves, held against what is there; decoders pass much of it over in silence.

A container that is not in the table is read by FFmpeg alone, whose own list is `FFMPEG`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sertone.containers.chunks import aiff, au, caf, nist, w64, wav
from sertone.containers.matroska import matroska
from sertone.containers.mp4 import mp4
from sertone.containers.mpeg import frame, mp3
from sertone.containers.ogg import ogg
from sertone.containers.report import Report
from sertone.containers.source import RegularFile

FFMPEG = (
    *("aac", "ac3", "aiff", "amr", "asf", "au", "avi", "caf", "eac3", "flac", "flv", "matroska,webm"),
    *("mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpeg", "mpegts", "ogg", "w64", "wav"),
)
"""Containers that FFmpeg may read: none that names other files, such as playlists."""


class Kind(NamedTuple):
    """A container: how it begins, what follows after eight bytes, and what checks it."""

    starts: tuple[bytes, ...]
    then: bytes
    check: Callable[[RegularFile, Path], Report]


def check(file: RegularFile, head: bytes, path: Path) -> Report | None:
    """Return what there is to say about a file, None where it is in no container of the table.

    Raises:
        AudioError: `bad_header`, `bad_channels`, `bad_rate`, `not_audio`.
    """
    if frame(head[:4]):
        return mp3(file, path)
    for kind in _KINDS:
        if head.startswith(kind.starts) and head.startswith(kind.then, 8):
            return kind.check(file, path)
    return mp4(file, path) if head[4:8] in _BOXES else None


def _flac(file: RegularFile, path: Path) -> Report:
    """Take the checksum of the samples; libsndfile checks the frames."""
    file.seek(26)
    return Report(md5=file.read(16))


_KINDS = (
    Kind((b"RIFF", b"RF64"), b"WAVE", wav),
    Kind((b"FORM",), b"AIF", aiff),
    Kind((b"riff\x2e\x91\xcf\x11",), b"", w64),
    Kind((b".snd", b"dns."), b"", au),
    Kind((b"caff",), b"", caf),
    Kind((b"NIST_1A",), b"", nist),
    Kind((b"fLaC",), b"", _flac),
    Kind((b"OggS",), b"", ogg),
    Kind((b"ID3",), b"", mp3),
    Kind((b"\x1a\x45\xdf\xa3",), b"", matroska),
)
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free")
