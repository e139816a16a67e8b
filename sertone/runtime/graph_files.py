"""The files that an ONNX graph keeps its weights in, beside itself: read from the graph without loading it.

ONNX is a protocol buffer: fields by number, of which only those are followed that lead to a tensor. Weights
in the graph itself are stepped over, so that a graph of gigabytes takes no more than one of kilobytes.
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
"""Kind of message -> field -> kind of the message in it, as onnx.proto numbers them."""
KEY, VALUE = 1, 2
DEEPEST = 100
"""Graphs within graphs."""


def list_external_files(path: Path, code: str) -> list[str]:
    """Return the names of the files that a graph refers to.

    Raises:
        SertoneError: `code`, where it is no graph.
    """
    with open_regular(path, code) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return sorted(set(_locations(content, 0, len(content), "model", 0)))
        except (ValueError, IndexError) as error:  # ValueError: also of an empty file
            raise SertoneError(code, f"{path}: {error}", "an ONNX graph") from None


def _locations(content: Buffer, start: int, end: int, kind: str, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        raise ValueError("messages within messages without end")
    for field, first, last in _fields(content, start, end):
        inner = INNER[kind].get(field)
        if inner == "entry":
            yield from _location(content, first, last)
        elif inner:
            yield from _locations(content, first, last, inner, depth + 1)


def _location(content: Buffer, start: int, end: int) -> Iterator[str]:
    parts = {field: content[first:last] for field, first, last in _fields(content, start, end)}
    if parts.get(KEY) == b"location":
        yield parts.get(VALUE, b"").decode("utf-8", "replace")


def _fields(content: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, start and end of every field that has a length."""
    while start < end:
        key, start = _varint(content, start)
        if key & 7 == 2:
            length, start = _varint(content, start)
            if start + length > end:
                raise ValueError("a field reaches beyond its message")
            yield key >> 3, start, start + length
            start += length
        elif key & 7 == 0:
            _, start = _varint(content, start)
        elif key & 7 in (1, 5):
            start += 8 if key & 7 == 1 else 4
        else:
            raise ValueError(f"a field of kind {key & 7}")


def _varint(content: Buffer, start: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[start + shift // 7]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start + shift // 7 + 1
    raise ValueError("a number without end")
