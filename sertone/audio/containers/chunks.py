"""Containers of uncompressed samples: WAV, RF64, W64, AIFF, AU, CAF and NIST. Each states their size."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from sertone.audio.containers.limits import Warnings, check_format
from sertone.audio.containers.report import ContainerReport
from sertone.audio.containers.source import OpenFile

TRAILING_TAGS = (b"TAG", b"ID3", b"APETAGEX")
"""Tags (ID3v1, ID3v2, APEv2) that programs append to sound files of any kind."""
CHUNKS_AFTER_DATA = (
    *(b"LIST", b"fact", b"bext", b"cue ", b"smpl", b"JUNK", b"iXML", b"id3 ", b"ID3 ", b"PEAK"),
)
"""Chunks that may follow the samples of a WAV file."""
FIXED_SIZE_TAGS = {1: "PCM", 3: "float", 6: "A-law", 7: "mu-law", 0xFFFE: "extensible"}
"""Format tags (`wFormatTag`) of WAV files whose frame size follows from channels and bits."""
ONE_BYTE_TAGS = (6, 7)
"""Format tags with one byte per sample, whatever number of bits the header states."""
UNKNOWN_SIZE = 0xFFFFFFFF
SMALLEST_PLACEHOLDER = 0x7FFFF000 - 36
"""Sizes from here on that exceed the file: programs write them when they do not know the size yet."""


class Layout(NamedTuple):
    """The form of the chunks of a container.

    Attributes:
        header: name and size, as a format of `struct`.
        counted_header_bytes: bytes of the header that the size includes.
        alignment: the start of every chunk is a multiple of it.
    """

    header: str
    counted_header_bytes: int = 0
    alignment: int = 2


RIFF = Layout("<4sI")  # WAV, RF64
FORM = Layout(">4sI")  # AIFF
CORE = Layout(">4sq", alignment=1)  # CAF
WAVE64 = Layout("<16sQ", counted_header_bytes=24, alignment=8)  # W64: names are 16-byte GUIDs


class Chunk(NamedTuple):
    """A chunk: its name, the start of its content, and its stated size in bytes; below 0: none."""

    name: bytes
    start: int
    size: int


def _iterate_chunks(file: OpenFile, at: int, layout: Layout) -> Iterator[Chunk]:
    """Yield the chunks of a file from a position on, up to and including the first that exceeds the file."""
    header_bytes = struct.calcsize(layout.header)
    while at + header_bytes <= file.size:
        file.seek(at)
        name, size = struct.unpack(layout.header, file.read(header_bytes))
        chunk = Chunk(name, at + header_bytes, size - layout.counted_header_bytes)
        yield chunk
        at = chunk.start + max(0, -(-chunk.size // layout.alignment) * layout.alignment)  # rounded up


def check_wav(file: OpenFile, path: Path) -> ContainerReport:
    """Compare the size of the `data` chunk of a WAV or RF64 file with the file, and check its `fmt ` chunk.

    Raises:
        AudioError: `bad_channels`, `bad_rate`.
    """
    frame_bytes = long_size = 0
    format_warnings: Warnings = {}
    compressed = False
    for chunk in _iterate_chunks(file, 12, RIFF):
        if chunk.name == b"ds64":  # RF64 (EBU Tech 3306): 64-bit sizes of the file and of `data`
            file.seek(chunk.start + 8)
            (long_size,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        elif chunk.name == b"fmt ":
            file.seek(chunk.start)
            fields = file.read(16)
            if len(fields) < 16:
                break
            numbers = struct.unpack("<HHIIHH", fields)
            frame_bytes, format_warnings = _check_format_chunk(numbers, path)
            compressed = numbers[0] not in FIXED_SIZE_TAGS
        elif chunk.name == b"data":
            if long_size and chunk.size == UNKNOWN_SIZE:
                report = _compare_sizes(file, chunk._replace(size=long_size), RIFF, frame_bytes)
            else:
                report = _check_data_chunk(file, chunk, frame_bytes)
            report.warnings = format_warnings | report.warnings
            report.has_exact_length = not compressed
            return report
    return ContainerReport()


def _check_format_chunk(fields: tuple[int, ...], path: Path) -> tuple[int, Warnings]:
    """Return the bytes of a frame (`nBlockAlign`), and a warning where it contradicts the other fields.

    Args:
        fields: `wFormatTag`, `nChannels`, `nSamplesPerSec`, `nAvgBytesPerSec`, `nBlockAlign` and
            `wBitsPerSample`.
        path: for errors.
    """
    tag, channels, rate, bytes_per_s, frame_bytes, bits = fields
    check_format(rate, channels, path)
    warnings: Warnings = {}
    expected = channels * (1 if tag in ONE_BYTE_TAGS else -(-bits // 8))
    if tag in FIXED_SIZE_TAGS and frame_bytes != expected:
        warnings["corrupt"] = (
            f"the header contradicts itself: {channels} channels of {bits} bits in frames of "
            f"{frame_bytes} bytes"
        )
    # No decoder uses the bytes per second. 0 means that the writer left them out.
    elif tag in FIXED_SIZE_TAGS and bytes_per_s not in (0, rate * frame_bytes):
        warnings["odd_header"] = (
            f"the header contradicts itself: it states {rate} frames of {frame_bytes} bytes per second, and "
            f"{bytes_per_s} bytes per second; the former is used"
        )
    return frame_bytes, warnings


def _check_data_chunk(file: OpenFile, data: Chunk, frame_bytes: int) -> ContainerReport:
    """Compare the size of the `data` chunk of a WAV file with the bytes behind its header."""
    present = file.size - data.start
    file.seek(data.start)
    # Size 0 with bytes behind it that are no other chunk: the writer did not know the size.
    is_empty = data.size == 0 and file.read(4) not in CHUNKS_AFTER_DATA
    is_placeholder = data.size >= SMALLEST_PLACEHOLDER and (data.size == UNKNOWN_SIZE or data.size > present)
    if present and (is_empty or is_placeholder):
        return _build_rf64_head(file, data.start, present)
    return _compare_sizes(file, data, RIFF, frame_bytes)


def _build_rf64_head(file: OpenFile, start: int, size: int) -> ContainerReport:
    """Return the head of an RF64 file, which has room for any size, for a WAV file that states no size.

    Args:
        file: the WAV file.
        start: start of its samples.
        size: size of its samples, in bytes: up to the end of the file.
    """
    file.seek(12)
    chunks = file.read(start - 20)  # all between "WAVE" and the header of `data`
    if chunks.startswith(b"ds64"):  # an RF64 file already: its sizes are replaced
        chunks = chunks[8 + int.from_bytes(chunks[4:8], "little") :]
    # Fields of `ds64`: its own size, size of the file, of `data`, number of samples, entries of a table.
    riff_size = size + len(chunks) + 48  # 48: "WAVE", `ds64` with its header, the header of `data`
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, riff_size, size, 0, 0)
    head = b"RF64\xff\xff\xff\xffWAVE" + sizes + chunks + b"data\xff\xff\xff\xff"
    message = "the header states no length (a streamed file); the file is read to its end"
    warnings = {"streamed_header": message}
    return ContainerReport(warnings=warnings, replacement_head=head, replaced_bytes=start)


def check_w64(file: OpenFile, path: Path) -> ContainerReport:
    """Compare the size of the `data` chunk of a Sony Wave64 file with the file."""
    return _check_first_chunk(file, 40, WAVE64, b"data")


def check_caf(file: OpenFile, path: Path) -> ContainerReport:
    """Compare the size of the `data` chunk of a Core Audio file with the file.

    A size of -1 is allowed for the last chunk: its samples go to the end of the file.
    """
    for chunk in _iterate_chunks(file, 8, CORE):
        if chunk.name == b"data" and chunk.size < 0:
            file.seek(0)
            head = file.read(chunk.start - 8) + struct.pack(">q", file.size - chunk.start)
            return ContainerReport(replacement_head=head, replaced_bytes=chunk.start)
    return _check_first_chunk(file, 8, CORE, b"data")


def _check_first_chunk(file: OpenFile, at: int, layout: Layout, name: bytes) -> ContainerReport:
    """Compare the size of the first chunk of this name with the file."""
    for chunk in _iterate_chunks(file, at, layout):
        if chunk.name.startswith(name):
            return _compare_sizes(file, chunk, layout) if chunk.size > 0 else ContainerReport()
    return ContainerReport()


def check_aiff(file: OpenFile, path: Path) -> ContainerReport:
    """Compare the sizes of an AIFF or AIFF-C file with the file.

    The length is stated twice: by the size of `SSND`, and by the `numSampleFrames` of `COMM`. The latter
    counts here only where samples are not compressed.
    """
    expected = 0
    frame_bytes = 1
    for chunk in _iterate_chunks(file, 12, FORM):
        file.seek(chunk.start)
        if chunk.name == b"COMM":
            channels, frames, bits = struct.unpack(">HIH", file.read(8).ljust(8, b"\0"))
            frame_bytes = max(1, channels * -(-bits // 8))
            compression = file.read(14)[10:]  # behind the sampling rate, a number of 80 bits
            # Only AIFF-C has a compression type; the `COMM` of AIFF has 18 bytes.
            uncompressed = chunk.size < 22 or compression in (b"NONE", b"sowt", b"twos", b"raw ")
            expected = frames * frame_bytes * uncompressed
        elif chunk.name == b"SSND":
            warnings = _compare_sizes(file, chunk, FORM).warnings
            (offset,) = struct.unpack(">I", file.read(4).ljust(4, b"\0"))
            # `SSND` begins with two numbers of 4 bytes: the offset of the first sample, and a block size.
            present = max(0, min(chunk.size, file.size - chunk.start) - 8 - offset)
            stated = max(chunk.size - 8, expected)
            return ContainerReport(
                warnings=warnings,
                present_bytes=present // frame_bytes * frame_bytes,
                stated_bytes=stated // frame_bytes * frame_bytes,
            )
    return ContainerReport()


def check_au(file: OpenFile, path: Path) -> ContainerReport:
    """Compare the data size of a Sun/NeXT file with the file."""
    file.seek(0)
    order = ">" if file.read(4) == b".snd" else "<"
    start, size = struct.unpack(f"{order}II", file.read(8).ljust(8, b"\0"))
    if size == UNKNOWN_SIZE:
        return ContainerReport()
    return _compare_sizes(file, Chunk(b"", start, size), FORM)


def check_nist(file: OpenFile, path: Path) -> ContainerReport:
    """Compare `sample_count`, `channel_count` and `sample_n_bytes` of a NIST SPHERE file with the file.

    Its header is text: the format, the size of the header, and lines such as `sample_count -i 16000`.
    """
    file.seek(0)
    lines = [line.split() for line in file.read(1024).split(b"\n")]
    numbers = {
        line[0]: int(line[2])
        for line in lines
        if len(line) == 3 and line[1] == b"-i" and line[2].isdigit()  # -i: an integer
    }
    header_bytes = int(lines[1][0]) if len(lines) > 1 and lines[1] and lines[1][0].isdigit() else 1024
    stated = 1
    for name in (b"sample_count", b"channel_count", b"sample_n_bytes"):
        stated *= numbers.get(name, 0)
    present = min(stated, max(0, file.size - header_bytes))
    return ContainerReport(present_bytes=present, stated_bytes=stated)


def _compare_sizes(file: OpenFile, samples: Chunk, layout: Layout, frame_bytes: int = 1) -> ContainerReport:
    """Compare the stated size of samples with the file, and look at the bytes behind them.

    Args:
        file: the sound file.
        samples: the chunk that holds them.
        layout: layout of the chunks.
        frame_bytes: fewer bytes behind the samples do not count.
    """
    present = max(0, file.size - samples.start)
    end = samples.start + samples.size
    surplus = present - samples.size
    # The next chunk begins at the end itself (careless writers) or at the next aligned position.
    starts = {end, end + -end % layout.alignment}
    if surplus < frame_bytes or any(_has_no_samples(file, at, layout) for at in starts):
        return ContainerReport(present_bytes=min(present, samples.size), stated_bytes=samples.size)
    message = f"{surplus} bytes lie behind the end that the header states; they are not read"
    return ContainerReport(
        warnings={"trailing_data": message}, present_bytes=samples.size, stated_bytes=samples.size
    )


def _has_no_samples(file: OpenFile, at: int, layout: Layout) -> bool:
    """Return whether only other chunks, a tag or zeros follow from a position to the end of the file.

    Names of chunks are ASCII. Where they are not, the sizes have to add up to that of the file.
    """
    file.seek(at)
    if file.read(8).startswith(TRAILING_TAGS):
        return True
    end = at
    all_ascii = all_named = True
    for chunk in _iterate_chunks(file, at, layout):
        is_ascii = [32 <= byte < 127 for byte in chunk.name[:4]]
        all_ascii = all_ascii and all(is_ascii)
        all_named = all_named and any(is_ascii)
        if not all_named or chunk.name.startswith(b"data") or chunk.start + chunk.size > file.size:
            return _is_zero_filled(file, at)
        end = chunk.start + max(0, chunk.size)
    # 24: the longest header of a chunk (W64); fewer bytes hold no chunk.
    return (
        end == file.size
        or (all_ascii and file.size - end < 24)
        or _is_zero_filled(file, end if all_ascii else at)
    )


def _is_zero_filled(file: OpenFile, at: int) -> bool:
    file.seek(at)
    return all(not any(block) for block in iter(lambda: file.read(1 << 16), b""))
