"""MP4, M4A and MOV: boxes (ISO/IEC 14496-12), each of which states its size."""

import struct
from pathlib import Path

from sertone.audio.containers.report import ContainerReport
from sertone.audio.containers.source import OpenFile

_CHECKED_BOXES = (b"mdat", b"moov", b"moof")
"""Boxes without which samples are missing: the media data, and the tables that locate samples in it."""


def check_mp4(file: OpenFile, path: Path) -> ContainerReport:
    """Compare the size of the boxes `mdat`, `moov` and `moof` with the end of an MP4 file."""
    at = 0
    while at + 8 <= file.size:
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(8))
        if size == 1:  # a 64-bit size follows the name
            (size,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
        if size == 0:  # the box goes to the end of the file
            size = file.size - at
        if name in _CHECKED_BOXES and at + size > file.size:
            return ContainerReport(present_bytes=file.size - at, stated_bytes=size, sndfile_readable=False)
        if size < 8:  # less than its own header: not a box
            break
        at += size
    return ContainerReport(sndfile_readable=False)
