"""The files beside an ONNX graph that hold its weights, listed without loading the graph.

ONNX is a protocol buffer. The code follows only the fields that lead to a tensor, by their numbers, and skips
weights inside the graph. So a graph of gigabytes takes as little memory as one of kilobytes.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from sertone.errors import SertoneError
from sertone.files import open_regular

Buffer = bytes | mmap.mmap
INNER: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
"""Kind of message -> field number -> kind of the message inside, with the numbers of onnx.proto."""
KEY, VALUE = 1, 2
"""Field numbers of an entry (StringStringEntryProto)."""
MAX_DEPTH = 100
"""Deepest nesting of graphs."""
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers: the lower three bits of a field's key."""


def list_external_files(path: Path, code: str) -> list[str]:
    """Return the names of the files that a graph refers to.

    Raises:
        SertoneError: `code`, where the file is no ONNX graph.
    """
    with open_regular(path, code) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return sorted(set(_find_locations(content, 0, len(content), "model", 0)))
        except (ValueError, IndexError) as error:  # ValueError: also of an empty file
            raise SertoneError(code, f"{path}: {error}", "an ONNX graph") from None


def _find_locations(content: Buffer, start: int, end: int, kind: str, depth: int) -> Iterator[str]:
    """Yield the file names in a message and in the messages inside it."""
    if depth > MAX_DEPTH:  # a crafted file could exhaust the stack
        raise ValueError("messages are nested without end")
    for field, first, last in _iterate_fields(content, start, end):
        inner = INNER[kind].get(field)
        if inner == "entry":
            yield from _parse_location(content, first, last)
        elif inner:
            yield from _find_locations(content, first, last, inner, depth + 1)


def _parse_location(content: Buffer, start: int, end: int) -> Iterator[str]:
    parts = {field: content[first:last] for field, first, last in _iterate_fields(content, start, end)}
    if parts.get(KEY) == b"location":
        yield parts.get(VALUE, b"").decode("utf-8", "replace")


def _iterate_fields(content: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of every field with a length; skip the others."""
    while start < end:
        key, start = _parse_varint(content, start)
        number, wire_type = key >> 3, key & 7
        if wire_type == LENGTH:
            length, start = _parse_varint(content, start)
            if start + length > end:
                raise ValueError("a field reaches beyond its message")
            yield number, start, start + length
            start += length
        elif wire_type == VARINT:
            _, start = _parse_varint(content, start)
        elif wire_type in (FIXED64, FIXED32):
            start += 8 if wire_type == FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {wire_type}")


def _parse_varint(content: Buffer, start: int) -> tuple[int, int]:
    """Return a variable-length integer and the position after it: 7 bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):  # at most ten bytes
        byte = content[start + shift // 7]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start + shift // 7 + 1
    raise ValueError("a number without end")
