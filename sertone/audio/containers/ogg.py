"""Ogg: every page has a checksum and a number, and says how far the stream has come."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sertone.audio.containers.report import ContainerReport
from sertone.audio.containers.source import OpenFile

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
CONTINUED, FIRST, LAST = 1, 2, 4
"""Flags of a page that begins within a packet, and of the first and the last page of a stream."""
OPUS = b"OpusHead"
"""How a stream begins that libsndfile refuses where its last page is not there."""
MOST_FALSE = 100
"""Beginnings of pages in a row that are none, behind which no other is looked for."""
LONGEST_PAGE_S = 60.0
"""A stream whose first page ends later was cut out of a longer one."""


class Page(NamedTuple):
    """An undamaged page: its flags, position at its end (-1: none), stream, number and content."""

    flags: int
    position: int
    stream: int
    number: int
    content: bytes


@dataclass(slots=True)
class _Stream:
    """Pages of one stream that were found, and where it began and ended."""

    coding: bytes = b""
    rate: int = 0
    skipped: int = 0
    first: int = -1
    last: int = 0
    number: int = -1
    ended: bool = False

    @property
    def seconds(self) -> float:
        """Length as stated; 0: not known."""
        whole = bool(self.rate) and 0 <= self.first < LONGEST_PAGE_S * self.rate
        return max(0, self.last - self.skipped) / self.rate if whole else 0.0


@dataclass(slots=True)
class _Count:
    pages: int = 0
    bad: int = 0
    chains: int = 0
    streams: dict[int, _Stream] = field(default_factory=dict)
    finished: float = 0.0


def check_ogg(file: OpenFile, path: Path) -> ContainerReport:
    """Check the pages of an Ogg file."""
    count = _Count()
    for page in pages(file):
        count.pages += 1
        if page is None:
            count.bad += 1
        else:
            _take(page, count)
    streams = count.streams.values()
    cut = not all(each.ended for each in streams)
    refused = cut and any(each.coding == OPUS for each in streams)
    report = ContainerReport(has_exact_length=False, sndfile_readable=count.chains == 1 and not refused)
    report.stated_s = count.finished + max((each.seconds for each in streams), default=0.0)
    if cut:
        report.warnings["truncated"] = "the last page of the stream is not there"
    if count.bad:
        report.warnings["corrupt"] = f"{count.bad} of about {count.pages} pages are damaged or missing"
    report.is_intact = not report.warnings
    return report


def _take(page: Page, count: _Count) -> None:
    """Count a page, and those that are missing before it."""
    if page.flags & FIRST:
        if all(each.ended for each in count.streams.values()):
            count.chains += 1
            count.finished += max((each.seconds for each in count.streams.values()), default=0.0)
            count.streams = {}
        count.streams[page.stream] = _opened(page.content)
    stream = count.streams.get(page.stream)
    if stream is None:
        return
    count.bad += page.number != stream.number + 1
    stream.number, stream.ended = page.number, bool(page.flags & LAST)
    if page.position > 0:
        stream.first = page.position if stream.first < 0 else stream.first
        stream.last = page.position


def _opened(packet: bytes) -> _Stream:
    """Return a stream by its first packet: positions per second, and how many of them are not heard."""
    if packet.startswith(OPUS) and len(packet) >= 12:
        return _Stream(OPUS, 48000, struct.unpack_from("<H", packet, 10)[0])
    if packet.startswith(b"\x01vorbis") and len(packet) >= 16:
        return _Stream(packet[:7], struct.unpack_from("<I", packet, 12)[0])
    if packet.startswith(b"Speex") and len(packet) >= 40:
        return _Stream(packet[:7], struct.unpack_from("<I", packet, 36)[0])
    if packet.startswith(b"\x7fFLAC") and len(packet) >= 30:
        return _Stream(packet[:7], struct.unpack_from(">I", packet, 27)[0] >> 12)
    return _Stream()


def pages(file: OpenFile) -> Iterator[Page | None]:
    """Yield the pages; None for bytes between them."""
    at, lost = 0, 0
    while at + 27 <= file.size and lost <= MOST_FALSE:
        file.seek(at)
        head = file.read(27)
        if head[:5] == b"OggS\0" and head[5] <= CONTINUED | FIRST | LAST:
            sizes = file.read(head[26])
            content = file.read(sum(sizes))
            whole = len(sizes) == head[26] and len(content) == sum(sizes)
            if whole and compute_checksum(head[:22] + bytes(4) + head[26:] + sizes + content) == head[22:26]:
                yield Page(*_fields(head), content)
                at, lost = at + 27 + len(sizes) + len(content), 0
                continue
        if not lost:
            yield None
        at, lost = _next(file, at + 1), lost + 1


def _fields(head: bytes) -> tuple[int, int, int, int]:
    """Return flags, position, stream and number of a page."""
    return struct.unpack_from("<BqII", head, 5)


def _next(file: OpenFile, at: int) -> int:
    """Return where the next page may begin."""
    while True:
        file.seek(at)
        block = file.read(1 << 16)
        found = block.find(b"OggS\0")
        if found >= 0 or len(block) < 5:
            return at + found if found >= 0 else file.size
        at += len(block) - 4


def compute_checksum(page: bytes) -> bytes:
    """Return the checksum of a page, in which that field is zero, as it is written.

    Its polynomial is the one of zlib, but the bits of every byte are taken in the other order.
    """
    value = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return value.to_bytes(4, "little").translate(_MIRRORED)[::-1]
