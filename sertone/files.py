"""Files that are written whole or not at all, and read only where they are regular files.

Writing: aside, to the disk itself, then renamed; a full disk is the error `disk_full`, and what was there
before stays.
Reading: a pipe, a device or a folder in the place of a file is refused without waiting for it.
"""

import contextlib
import errno
import itertools
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sertone.errors import SertoneError, first_line

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the operating system says where there is no room."""
MAX_BYTES = 1 << 30
"""Bytes of a file that is read whole."""
MAX_LEVELS = 100
"""Objects and lists within each other."""
MAX_VALUES = 100_000
"""Values of a YAML file, those that its aliases repeat counted again."""


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        SertoneError: `disk_full`.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        SertoneError: `disk_full`.
    """
    aside = path.with_name(f".{path.name}.part")
    with remove_partial_file(aside), open(aside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        SertoneError: `disk_full`.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


@contextlib.contextmanager
def remove_partial_file(path: Path) -> Iterator[None]:
    """Remove what a write that fails has left; where it fails for want of room, that is `disk_full`.

    Raises:
        SertoneError: `disk_full`.
    """
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):  # the first failure is the one to tell
            path.unlink()
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise SertoneError(
            "disk_full",
            f"{path.parent}: {error.strerror}",
            "room for the file",
            "make room, then run the same command again: what was saved before is intact",
        ) from error


def quarantine(path: Path) -> Path:
    """Rename what is damaged, so that nothing reads it again and nothing is lost; return its new path."""
    names = (path.with_name(f"{path.name}.damaged{number}") for number in itertools.count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    return path.rename(aside)


@contextlib.contextmanager
def open_regular(path: Path, code: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading; a pipe or a device is not waited for.

    Raises:
        SertoneError: `code`, where it is something else or cannot be read.
    """
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise SertoneError(code, f"{path}: {error}", "a file that can be read") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise SertoneError(code, f"{path} is a folder, a pipe or a device", "a regular file")
    with os.fdopen(number, "rb") as file:
        yield file


def require_regular(path: Path, code: str) -> None:
    """Refuse what is no regular file, before a library opens it.

    Raises:
        SertoneError: `code`.
    """
    with open_regular(path, code):
        pass


def read_text(path: Path, code: str, limit: int = MAX_BYTES) -> str:
    """Return the text of a regular file of at most `limit` bytes.

    Raises:
        SertoneError: `code`, where it cannot be read, is too large, or is not UTF-8.
    """
    with open_regular(path, code) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise SertoneError(code, f"{path} has more than {limit >> 20} MB", "a smaller file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SertoneError(code, f"{path}: {error}", "UTF-8", "save it as UTF-8") from None


def read_json(path: Path, code: str) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        SertoneError: `code`, where it cannot be read or holds something else.
    """
    text = read_text(path, code)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SertoneError(code, f"{path}: {error}", "an intact file") from None
    if not isinstance(values, dict) or _deeper(values, MAX_LEVELS):
        found = f"{path} holds {'too many levels' if isinstance(values, dict) else type(values).__name__}"
        raise SertoneError(code, found, f"a JSON object of at most {MAX_LEVELS} levels")
    return values


def _deeper(values: Any, levels: int) -> bool:
    """Return whether there are objects and lists within each other beyond a number of levels."""
    parts = [values]
    for _ in range(levels):
        inner = (
            part.values() if isinstance(part, dict) else part
            for part in parts
            if isinstance(part, dict | list)
        )
        if not (parts := [each for values in inner for each in values]):
            return False
    return True


def parse_yaml(text: str) -> Any:
    """Return what a YAML text holds. It can neither run code nor grow by aliases, nor hold itself.

    Raises:
        ValueError: it is no YAML, or has more than `LEVELS` levels or, aliases counted, `NODES` values.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if _size(node, {}) > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES} values, aliases counted")
        values = None if node is None else loader.construct_document(node)
        if _deeper(values, MAX_LEVELS):
            raise ValueError(f"it has more than {MAX_LEVELS} levels")
        return values
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark
        where = f", line {place.line + 1}, column {place.column + 1}" if place else ""
        raise ValueError(f"{error.problem or error.context}{where}") from None
    except Exception as error:  # whatever a conversion such as `!!bool maybe` raises
        raise ValueError(first_line(error)) from None


def _size(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node of YAML has, each alias counted as what it repeats."""
    if id(node) not in known:
        known[id(node)] = MAX_VALUES + 1  # of one that holds itself, until it is counted
        parts = node.value if isinstance(getattr(node, "value", None), list) else []
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_size(part, known) for part in inner)
    return known[id(node)]
