"""Matroska and WebM (RFC 9559): nested EBML elements with a size, and a CRC-32 if the writer adds one."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sertone.audio.containers.report import ContainerReport
from sertone.audio.containers.source import OpenFile

SEGMENT_ID = 0x18538067
"""The element that holds all media data."""
CRC32_HEADER = bytes([0xBF, 0x84])
"""ID and size (4 bytes) of a CRC-32 element, always the first in its parent."""
MAX_CHECKED_BYTES = 1 << 28
"""Size of the largest element whose checksum is computed: it is read into memory at once."""


class Element(NamedTuple):
    """An EBML element: its ID, the start of its data, and the size of its data in bytes; -1: unknown."""

    id: int
    start: int
    size: int


def check_matroska(file: OpenFile, path: Path) -> ContainerReport:
    """Compare the sizes and CRC-32s of the elements of a Matroska file with the file."""
    report = ContainerReport(sndfile_readable=False)
    damaged = count = 0
    for top in _iterate_elements(file, 0, file.size):
        if top.start + top.size > file.size:
            report.present_bytes, report.stated_bytes = file.size - top.start, top.size
            return report
        if top.id != SEGMENT_ID:
            continue
        end = file.size if top.size < 0 else top.start + top.size
        for element in _iterate_elements(file, top.start, end):
            if element.start + element.size > file.size:
                report.present_bytes, report.stated_bytes = file.size - element.start, element.size
            count += 1
            damaged += not _has_right_checksum(file, element)
    if damaged:
        report.warnings["corrupt"] = f"{damaged} of {count} parts of the container are damaged"
    return report


def _iterate_elements(file: OpenFile, at: int, end: int) -> Iterator[Element]:
    """Yield the elements between two positions, up to and including the first that exceeds the end."""
    while at < end:
        file.seek(at)
        identifier, id_bytes = _parse_vint(file, keep_marker=True)
        size, size_bytes = _parse_vint(file, keep_marker=False)
        if not id_bytes or not size_bytes:
            return
        yield Element(identifier, at + id_bytes + size_bytes, size)
        # Elements inside one of unknown size are read as its successors.
        at += id_bytes + size_bytes + max(0, size)


def _parse_vint(file: OpenFile, *, keep_marker: bool) -> tuple[int, int]:
    """Read an EBML variable-size integer (RFC 8794, section 4).

    Args:
        file: open file, positioned at the first byte of the number.
        keep_marker: whether the marker bit belongs to the value, as it does in element IDs.

    Returns:
        value (-1: reserved for an unknown size) and number of bytes (0: not a number).
    """
    head = file.read(1)
    # The number of leading zero bits of the first byte, plus one, is the number of bytes.
    length = 9 - head[0].bit_length() if head else 0
    tail = file.read(max(0, length - 1))
    if not 1 <= length <= 8 or len(tail) < length - 1:
        return 0, 0
    value = int.from_bytes(head + tail)
    if keep_marker:
        return value, length
    all_ones = (1 << 7 * length) - 1
    value &= all_ones
    return (-1 if value == all_ones else value), length


def _has_right_checksum(file: OpenFile, element: Element) -> bool:
    """Return whether the CRC-32 of an element is that of its data; True where it has none."""
    file.seek(element.start)
    if not 6 <= element.size <= MAX_CHECKED_BYTES or file.read(2) != CRC32_HEADER:
        return True
    (stated,) = struct.unpack("<I", file.read(4).ljust(4, b"\0"))
    return zlib.crc32(file.read(element.size - 6)) == stated
