"""Matroska and WebM: elements within elements, with sizes, and with checksums where the writer wrote them."""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sertone.audio.containers.report import ContainerReport
from sertone.audio.containers.source import OpenFile

SEGMENT, CLUSTER, CHECKSUM = 0x18538067, 0x1F43B675, 0xBF
LARGEST = 1 << 28
"""Bytes of an element whose checksum is computed."""


class Element(NamedTuple):
    """An element: its name, where its content starts, and its size in bytes; -1: not known."""

    name: int
    start: int
    size: int


def check_matroska(file: OpenFile, path: Path) -> ContainerReport:
    """Check the elements of a Matroska file."""
    report, damaged, count = ContainerReport(sndfile_readable=False), 0, 0
    for top in elements(file, 0, file.size):
        if top.start + top.size > file.size:
            return ContainerReport(
                present_bytes=file.size - top.start, stated_bytes=top.size, sndfile_readable=False
            )
        if top.name != SEGMENT:
            continue
        for inner in elements(file, top.start, file.size if top.size < 0 else top.start + top.size):
            if inner.start + inner.size > file.size:
                report.present_bytes, report.stated_bytes = file.size - inner.start, inner.size
            count += 1
            damaged += not _sound(file, inner)
    if damaged:
        report.warnings["corrupt"] = f"{damaged} of {count} parts of the container are damaged"
    return report


def elements(file: OpenFile, at: int, end: int) -> Iterator[Element]:
    """Yield the elements between two positions, up to and with the first that reaches beyond the end."""
    while at < end:
        file.seek(at)
        name, length = _number(file, marked=True)
        size, more = _number(file, marked=False)
        if not length or not more:
            return
        yield Element(name, at + length + more, size)
        at += length + more + max(0, size)  # the content of one whose size is not known comes next


def _number(file: OpenFile, *, marked: bool) -> tuple[int, int]:
    """Read a number of variable length, with or without the bit that marks it: its value and its bytes."""
    head = file.read(1)
    length = 9 - head[0].bit_length() if head else 0
    rest = file.read(max(0, length - 1))
    if not 1 <= length <= 8 or len(rest) < length - 1:
        return 0, 0
    value = int.from_bytes(head + rest)
    if marked:
        return value, length
    value &= (1 << 7 * length) - 1
    return (-1 if value == (1 << 7 * length) - 1 else value), length


def _sound(file: OpenFile, element: Element) -> bool:
    """Whether an element is as its checksum says, where it has one."""
    file.seek(element.start)
    if not 6 <= element.size <= LARGEST or file.read(2) != bytes([CHECKSUM, 0x84]):
        return True
    (stated,) = struct.unpack("<I", file.read(4).ljust(4, b"\0"))
    return zlib.crc32(file.read(element.size - 6)) == stated
