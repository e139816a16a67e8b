"""Ogg (RFC 3533): every page has a checksum and a number, and states how far its stream has come."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sertone.audio.containers.report import ContainerReport
from sertone.audio.containers.source import OpenFile

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Every byte with its bits in reverse order."""
CONTINUED, FIRST, LAST = 1, 2, 4
"""Flags of a page that begins within a packet, and of the first and the last page of a stream."""
OPUS = b"OpusHead"
"""Start of an Opus stream: libsndfile refuses one whose last page is missing."""
MAX_FALSE_PAGES = 100
"""Page headers in a row without an intact page, after which the rest of the file is not searched."""
LONGEST_PAGE_S = 60.0
"""A stream whose first page ends later was cut out of a longer one."""


class Page(NamedTuple):
    """An undamaged page: flags, granule position at its end (-1: none), serial, sequence number, content."""

    flags: int
    granule: int
    serial: int
    sequence: int
    content: bytes


@dataclass(slots=True)
class _Stream:
    """One logical stream: its codec, its first and last granule position, and its last page.

    Attributes:
        codec: start of its first packet; empty: unknown.
        rate: granule positions per second; 0: unknown.
        pre_skip: granule positions at the start that are not played.
        first_granule: position at the end of its first page with audio; -1: none so far.
        last_granule: position at the end of its last page.
        sequence: number of its last page.
        is_ended: whether its last page is marked as the last.
    """

    codec: bytes = b""
    rate: int = 0
    pre_skip: int = 0
    first_granule: int = -1
    last_granule: int = 0
    sequence: int = -1
    is_ended: bool = False

    @property
    def seconds(self) -> float:
        """Length by its granule positions; 0: unknown."""
        if not self.rate or not 0 <= self.first_granule < LONGEST_PAGE_S * self.rate:
            return 0.0
        return max(0, self.last_granule - self.pre_skip) / self.rate


@dataclass(slots=True)
class _PageCounts:
    """Pages of a file, and the streams of its current chain.

    Attributes:
        pages: intact pages, and places between pages that are damaged.
        bad: damaged or missing pages.
        chains: groups of streams, one behind the other.
        streams: serial number -> stream of the current chain.
        finished_s: length of the chains before it, in seconds.
    """

    pages: int = 0
    bad: int = 0
    chains: int = 0
    streams: dict[int, _Stream] = field(default_factory=dict)
    finished_s: float = 0.0

    @property
    def chain_s(self) -> float:
        """Length of the current chain, in seconds."""
        return max((stream.seconds for stream in self.streams.values()), default=0.0)


def check_ogg(file: OpenFile, path: Path) -> ContainerReport:
    """Check the checksums, the sequence numbers and the last flags of the pages of an Ogg file."""
    counts = _PageCounts()
    for page in _iterate_pages(file):
        counts.pages += 1
        if page is None:
            counts.bad += 1
        else:
            _count_page(page, counts)
    streams = counts.streams.values()
    is_cut = not all(stream.is_ended for stream in streams)
    is_cut_opus = is_cut and any(stream.codec == OPUS for stream in streams)
    # Chained streams, and Opus without its last page, are left to FFmpeg.
    readable = counts.chains == 1 and not is_cut_opus
    report = ContainerReport(has_exact_length=False, sndfile_readable=readable)
    report.stated_s = counts.finished_s + counts.chain_s
    if is_cut:
        report.warnings["truncated"] = "the last page of the stream is missing"
    if counts.bad:
        report.warnings["corrupt"] = f"{counts.bad} of about {counts.pages} pages are damaged or missing"
    report.is_intact = not report.warnings
    return report


def _count_page(page: Page, counts: _PageCounts) -> None:
    """Add a page to the counts, and the pages that are missing before it."""
    if page.flags & FIRST:
        # A new chain begins when all streams have ended; until then, streams are multiplexed.
        if all(stream.is_ended for stream in counts.streams.values()):
            counts.chains += 1
            counts.finished_s += counts.chain_s
            counts.streams = {}
        counts.streams[page.serial] = _parse_first_packet(page.content)
    stream = counts.streams.get(page.serial)
    if stream is None:
        return
    counts.bad += page.sequence != stream.sequence + 1
    stream.sequence, stream.is_ended = page.sequence, bool(page.flags & LAST)
    if page.granule > 0:  # pages of headers have 0
        stream.first_granule = page.granule if stream.first_granule < 0 else stream.first_granule
        stream.last_granule = page.granule


def _parse_first_packet(packet: bytes) -> _Stream:
    """Return a stream with the rate and the pre-skip that its first packet states."""
    if packet.startswith(OPUS) and len(packet) >= 12:
        # RFC 7845: granule positions of Opus count at 48 kHz, whatever the rate of the input.
        return _Stream(OPUS, 48000, struct.unpack_from("<H", packet, 10)[0])
    if packet.startswith(b"\x01vorbis") and len(packet) >= 16:
        return _Stream(packet[:7], struct.unpack_from("<I", packet, 12)[0])
    if packet.startswith(b"Speex") and len(packet) >= 40:
        return _Stream(packet[:7], struct.unpack_from("<I", packet, 36)[0])
    if packet.startswith(b"\x7fFLAC") and len(packet) >= 30:
        return _Stream(packet[:7], struct.unpack_from(">I", packet, 27)[0] >> 12)  # a field of 20 bits
    return _Stream()


def _iterate_pages(file: OpenFile) -> Iterator[Page | None]:
    """Yield the pages of a file; None for bytes between them."""
    at, failures = 0, 0
    while at + 27 <= file.size and failures <= MAX_FALSE_PAGES:
        page, size = _parse_page(file, at)
        if page:
            yield page
            at, failures = at + size, 0
            continue
        if not failures:
            yield None
        at, failures = _find_next_page(file, at + 1), failures + 1


def _parse_page(file: OpenFile, at: int) -> tuple[Page | None, int]:
    """Return the page at a position, and its bytes; None and 0 where there is none, or it is damaged."""
    file.seek(at)
    head = file.read(27)
    if head[:5] != b"OggS\0" or head[5] > CONTINUED | FIRST | LAST:
        return None, 0
    sizes = file.read(head[26])
    content = file.read(sum(sizes))
    if len(sizes) != head[26] or len(content) != sum(sizes):
        return None, 0
    # The checksum is that of the page with zeros in its place.
    if compute_checksum(head[:22] + bytes(4) + head[26:] + sizes + content) != head[22:26]:
        return None, 0
    flags, granule, serial, sequence = struct.unpack_from("<BqII", head, 5)
    return Page(flags, granule, serial, sequence, content), 27 + len(sizes) + len(content)


def _find_next_page(file: OpenFile, at: int) -> int:
    """Return the position at which the next page may begin, or the end of the file."""
    while True:
        file.seek(at)
        block = file.read(1 << 16)
        offset = block.find(b"OggS\0")
        if offset >= 0:
            return at + offset
        if len(block) < 5:
            return file.size
        at += len(block) - 4  # a header may lie across two blocks


def compute_checksum(page: bytes) -> bytes:
    """Return the CRC-32 of a page whose own checksum is set to zero, in the order of the file.

    The polynomial is that of zlib, but Ogg takes the bits of every byte in the other order.
    """
    value = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return value.to_bytes(4, "little").translate(_MIRRORED)[::-1]
