"""Containers of uncoded samples: WAV, RF64, W64, AIFF, AU, CAF and NIST. Each states their size."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sertone.audio.containers.limits import check_format
from sertone.audio.containers.report import ContainerReport
from sertone.audio.containers.source import OpenFile

TRAILING_TAGS = (b"TAG", b"ID3", b"APETAGEX")
"""What programs append to a sound file of any kind."""
BEHIND = (b"LIST", b"fact", b"bext", b"cue ", b"smpl", b"JUNK", b"iXML", b"id3 ", b"ID3 ", b"PEAK")
"""What may follow the samples of a WAV file."""
UNCODED = {1: "PCM", 3: "float", 6: "A-law", 7: "mu-law", 0xFFFE: "extensible"}
"""Codings of WAV files whose frames have the size that channels and bits say."""
LOGARITHMIC = (6, 7)
"""Those of them with a byte per sample, whatever number of bits is stated."""
UNKNOWN = 0xFFFFFFFF
LARGEST = 0x7FFFF000 - 36
"""From here on, sizes that a file does not have are what programs write who do not know them."""


class Layout(NamedTuple):
    """How chunks are written.

    Attributes:
        header: name and size, as `struct` has them.
        own: bytes of this header that the size includes.
        even: what sizes are rounded up to.
    """

    header: str
    own: int = 0
    even: int = 2


RIFF, FORM, CORE, WAVE64 = (
    Layout("<4sI"),
    Layout(">4sI"),
    Layout(">4sq", even=1),
    Layout("<16sQ", own=24, even=8),
)


class Chunk(NamedTuple):
    """A part of a file: its name, where its content starts, and its stated size in bytes, below 0: none."""

    name: bytes
    start: int
    size: int


def chunks(file: OpenFile, at: int, layout: Layout) -> Iterator[Chunk]:
    """Yield the chunks of a file from a position on, up to and with the first that reaches beyond its end."""
    head = struct.calcsize(layout.header)
    while at + head <= file.size:
        file.seek(at)
        name, size = struct.unpack(layout.header, file.read(head))
        chunk = Chunk(name, at + head, size - layout.own)
        yield chunk
        at = chunk.start + max(0, -(-chunk.size // layout.even) * layout.even)


def check_wav(file: OpenFile, path: Path) -> ContainerReport:
    """Check a WAV or RF64 file.

    Raises:
        AudioError: `bad_channels`, `bad_rate`.
    """
    frame, doubts, coded, long_size = 0, {}, False, 0
    for chunk in chunks(file, 12, RIFF):
        if chunk.name == b"ds64":
            file.seek(chunk.start + 8)
            (long_size,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        elif chunk.name == b"fmt ":
            file.seek(chunk.start)
            fields = file.read(16)
            if len(fields) < 16:
                break
            numbers = struct.unpack("<HHIIHH", fields)
            frame, doubts = _format(numbers, path)
            coded = numbers[0] not in UNCODED
        elif chunk.name == b"data":
            if long_size and chunk.size == UNKNOWN:
                report = _held(file, chunk._replace(size=long_size), RIFF, frame)
            else:
                report = _samples(file, chunk, frame)
            report.warnings, report.has_exact_length = doubts | report.warnings, not coded
            return report
    return ContainerReport()


def _format(fields: tuple[int, ...], path: Path) -> tuple[int, dict[str, str]]:
    """Bytes of a frame, and a warning where the header contradicts itself."""
    tag, channels, rate, bytes_per_s, frame, bits = fields
    check_format(rate, channels, path)
    found: dict[str, str] = {}
    expected = channels * (1 if tag in LOGARITHMIC else -(-bits // 8))
    if tag in UNCODED and frame != expected:
        found["corrupt"] = (
            f"the header contradicts itself: {channels} channels of {bits} bits in frames of {frame} bytes"
        )
    elif tag in UNCODED and bytes_per_s not in (0, rate * frame):
        found["odd_header"] = (
            f"the header contradicts itself: {rate} frames of {frame} bytes a second, and {bytes_per_s} "
            "bytes a second; the samples are read as the former says"
        )
    return frame, found


def _samples(file: OpenFile, data: Chunk, frame: int) -> ContainerReport:
    """Return what there is to say about the samples of a WAV file."""
    present = file.size - data.start
    file.seek(data.start)
    nothing = data.size == 0 and file.read(4) not in BEHIND
    beyond = data.size >= LARGEST and (data.size == UNKNOWN or data.size > present)
    if present and (nothing or beyond):
        return _streamed(file, data.start, present)
    return _held(file, data, RIFF, frame)


def _streamed(file: OpenFile, start: int, size: int) -> ContainerReport:
    """Return the header of an RF64 file, which has room for any size, for a WAV without one."""
    file.seek(12)
    inner = file.read(start - 20)
    if inner.startswith(b"ds64"):
        inner = inner[8 + int.from_bytes(inner[4:8], "little") :]
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, size + len(inner) + 48, size, 0, 0)
    head = b"RF64\xff\xff\xff\xffWAVE" + sizes + inner + b"data\xff\xff\xff\xff"
    message = "the header gives no length (a streamed file): read to its end"
    return ContainerReport(warnings={"streamed_header": message}, replacement_head=head, replaced_bytes=start)


def check_w64(file: OpenFile, path: Path) -> ContainerReport:
    """Check a Sony Wave64 file."""
    return _first(file, 40, WAVE64, b"data")


def check_caf(file: OpenFile, path: Path) -> ContainerReport:
    """Check a Core Audio file, whose samples may go to the end of it without a stated size."""
    for chunk in chunks(file, 8, CORE):
        if chunk.name == b"data" and chunk.size < 0:
            file.seek(0)
            head = file.read(chunk.start - 8) + struct.pack(">q", file.size - chunk.start)
            return ContainerReport(replacement_head=head, replaced_bytes=chunk.start)
    return _first(file, 8, CORE, b"data")


def _first(file: OpenFile, at: int, layout: Layout, name: bytes) -> ContainerReport:
    """Check the first chunk of a name."""
    for chunk in chunks(file, at, layout):
        if chunk.name.startswith(name):
            return _held(file, chunk, layout) if chunk.size > 0 else ContainerReport()
    return ContainerReport()


def check_aiff(file: OpenFile, path: Path) -> ContainerReport:
    """Check an AIFF or AIFF-C file; the former states its length twice."""
    expected, frame = 0, 1
    for chunk in chunks(file, 12, FORM):
        file.seek(chunk.start)
        if chunk.name == b"COMM":
            channels, frames, bits = struct.unpack(">HIH", file.read(8).ljust(8, b"\0"))
            frame = max(1, channels * -(-bits // 8))
            coding = file.read(14)[10:]
            uncoded = chunk.size < 22 or coding in (b"NONE", b"sowt", b"twos", b"raw ")
            expected = frames * frame * uncoded
        elif chunk.name == b"SSND":
            found = _held(file, chunk, FORM).warnings
            (offset,) = struct.unpack(">I", file.read(4).ljust(4, b"\0"))
            present = max(0, min(chunk.size, file.size - chunk.start) - 8 - offset)
            stated = max(chunk.size - 8, expected)
            return ContainerReport(
                warnings=found, present_bytes=present // frame * frame, stated_bytes=stated // frame * frame
            )
    return ContainerReport()


def check_au(file: OpenFile, path: Path) -> ContainerReport:
    """Check a Sun/NeXT file."""
    file.seek(0)
    order = ">" if file.read(4) == b".snd" else "<"
    start, size = struct.unpack(f"{order}II", file.read(8).ljust(8, b"\0"))
    return ContainerReport() if size == UNKNOWN else _held(file, Chunk(b"", start, size), FORM)


def check_nist(file: OpenFile, path: Path) -> ContainerReport:
    """Check a NIST SPHERE file, whose header is text."""
    file.seek(0)
    lines = [line.split() for line in file.read(1024).split(b"\n")]
    said = {line[0]: line[2] for line in lines if len(line) == 3 and line[1] == b"-i" and line[2].isdigit()}
    width = [int(said.get(name, b"0")) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    header = int(lines[1][0]) if len(lines) > 1 and lines[1] and lines[1][0].isdigit() else 1024
    stated = width[0] * width[1] * width[2]
    return ContainerReport(present_bytes=min(stated, max(0, file.size - header)), stated_bytes=stated)


def _held(file: OpenFile, samples: Chunk, layout: Layout, frame: int = 1) -> ContainerReport:
    """Hold the stated size of samples against the file; less than a frame behind them is nothing."""
    present, end = max(0, file.size - samples.start), samples.start + samples.size
    rest = present - samples.size
    if rest < frame or any(_accounted(file, at, layout) for at in {end, end + -end % layout.even}):
        return ContainerReport(present_bytes=min(present, samples.size), stated_bytes=samples.size)
    message = f"{rest} bytes lie behind the end that the header states; they are not read"
    return ContainerReport(
        warnings={"trailing_data": message}, present_bytes=samples.size, stated_bytes=samples.size
    )


def _accounted(file: OpenFile, at: int, layout: Layout) -> bool:
    """Whether only chunks that are no samples lie there, a tag, or zeros.

    The names of chunks are ASCII; of others, the sizes have to add up to the file's.
    """
    file.seek(at)
    if file.read(8).startswith(TRAILING_TAGS):
        return True
    last, named, written = at, True, True
    for chunk in chunks(file, at, layout):
        letters = [32 <= letter < 127 for letter in chunk.name[:4]]
        named, written = named and all(letters), written and any(letters)
        if not written or chunk.name.startswith(b"data") or chunk.start + chunk.size > file.size:
            return _zeros(file, at)
        last = chunk.start + max(0, chunk.size)
    return last == file.size or (named and file.size - last < 24) or _zeros(file, last if named else at)


def _zeros(file: OpenFile, at: int) -> bool:
    file.seek(at)
    return all(not any(block) for block in iter(lambda: file.read(1 << 16), b""))
