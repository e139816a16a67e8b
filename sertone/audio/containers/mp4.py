"""MP4, M4A and MOV: boxes, of which those that hold samples state their size."""

import struct
from pathlib import Path

from sertone.audio.containers.report import ContainerReport
from sertone.audio.containers.source import OpenFile

_HOLDING = (b"mdat", b"moov", b"moof")


def check_mp4(file: OpenFile, path: Path) -> ContainerReport:
    """Check the boxes of an MP4 file."""
    at = 0
    while at + 8 <= file.size:
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(8))
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
        size = file.size - at if size == 0 else size  # 0: to the end
        if name in _HOLDING and at + size > file.size:
            return ContainerReport(present_bytes=file.size - at, stated_bytes=size, sndfile_readable=False)
        if size < 8:
            break
        at += size
    return ContainerReport(sndfile_readable=False)
