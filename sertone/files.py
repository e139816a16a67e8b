"""Atomic writing, and safe reading, of text, JSON and YAML files; mappings between names.

Writing: the content goes to a temporary file, is flushed to the disk, and the file is renamed. A full disk
raises `disk_full`, and the file from before stays.
Reading: a pipe, a device or a folder is refused at once instead of blocking the program.
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
"""Error numbers of the operating system for a full disk, quota or file size."""
MAX_BYTES = 1 << 30
"""Largest file that is read into memory at once, in bytes."""
MAX_LEVELS = 100
"""Greatest depth of nested objects and lists."""
MAX_VALUES = 100_000
"""Most values of a YAML file, where every alias counts as often as it is used."""


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8, completely or not at all.

    Raises:
        SertoneError: `disk_full`.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file completely or not at all.

    Raises:
        SertoneError: `disk_full`.
    """
    temporary = path.with_name(f".{path.name}.part")
    with remove_partial_file(temporary), open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        # Without fsync a power failure after the rename could leave an empty file under the final name.
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file completely or not at all.

    Raises:
        SertoneError: `disk_full`.
    """
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


@contextlib.contextmanager
def remove_partial_file(path: Path) -> Iterator[None]:
    """Remove a partial file when writing it fails, and turn a full disk into the error `disk_full`.

    Raises:
        SertoneError: `disk_full`.
    """
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):  # report the first failure, not one of the clean-up
            path.unlink()
        if error.errno not in DISK_FULL_ERRNOS:
            raise
        raise SertoneError(
            "disk_full",
            f"{path.parent}: {error.strerror}",
            "free space for the file",
            "free some space, then run the same command again: earlier files are intact",
        ) from error


def quarantine(path: Path) -> Path:
    """Rename a damaged file, so that it is kept but not read again; return its new path."""
    candidates = (path.with_name(f"{path.name}.damaged{number}") for number in itertools.count(1))
    # lexists also sees dangling symbolic links. `exists` does not, and the rename would replace them.
    new_path = next(candidate for candidate in candidates if not os.path.lexists(candidate))
    return path.rename(new_path)


@contextlib.contextmanager
def open_regular(path: Path, code: str) -> Iterator[BinaryIO]:
    """Open a regular file for reading, and refuse everything else without blocking.

    Raises:
        SertoneError: `code`, if the path is no regular file or cannot be read.
    """
    try:
        # Opening a pipe without O_NONBLOCK would wait for a writer, perhaps for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        raise SertoneError(code, f"{path}: {error}", "a readable file") from None
    # The open descriptor is checked, not the path, which could change in between.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SertoneError(code, f"{path} is a folder, a pipe or a device", "a regular file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def require_regular(path: Path, code: str) -> None:
    """Refuse a path that is no regular file, before a library opens it.

    Raises:
        SertoneError: `code`.
    """
    with open_regular(path, code):
        pass


def read_text(path: Path, code: str, limit: int = MAX_BYTES) -> str:
    """Return the text of a regular file of at most `limit` bytes.

    Raises:
        SertoneError: `code`, if the file cannot be read, is too large, or is not UTF-8.
    """
    with open_regular(path, code) as file:
        content = file.read(limit + 1)  # one byte more tells whether the limit is exceeded
    if len(content) > limit:
        raise SertoneError(code, f"{path} has more than {limit >> 20} MB", "a smaller file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SertoneError(code, f"{path}: {error}", "UTF-8", "save it as UTF-8") from None


def load_json(path: Path, code: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        SertoneError: `code`, if the file cannot be read or holds no JSON object.
    """
    text = read_text(path, code)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SertoneError(code, f"{path}: {error}", "an intact file") from None
    if not isinstance(values, dict) or _is_deeper_than(values, MAX_LEVELS):
        content = "too many levels" if isinstance(values, dict) else type(values).__name__
        raise SertoneError(code, f"{path} holds {content}", f"a JSON object of at most {MAX_LEVELS} levels")
    return values


def _is_deeper_than(values: Any, levels: int) -> bool:
    """Return whether objects and lists are nested more deeply than a number of levels."""
    # Level by level instead of by recursion, which a hostile file could exhaust.
    parts = [values]
    for _ in range(levels):
        inner = (
            part.values() if isinstance(part, dict) else part
            for part in parts
            if isinstance(part, dict | list)
        )
        parts = [value for values in inner for value in values]
        if not parts:
            return False
    return True


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML text, which can neither run code nor grow without bounds.

    Raises:
        ValueError: if the text is no YAML, or has more than `MAX_LEVELS` levels, or more than `MAX_VALUES`
            values with aliases counted.
    """
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        # The size is checked on the node graph: constructing the document would already expand its aliases.
        node = loader.get_single_node()
        if _count_values(node, {}) > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES} values, aliases counted")
        values = None if node is None else loader.construct_document(node)
        if _is_deeper_than(values, MAX_LEVELS):
            raise ValueError(f"it has more than {MAX_LEVELS} levels")
        return values
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        position = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{error.problem or error.context}{position}") from None
    except Exception as error:  # a conversion such as `!!bool maybe` raises errors of many classes
        raise ValueError(first_line(error)) from None


def _count_values(node: Any, counts: dict[int, int]) -> int:
    """Return the number of values of a YAML node, each alias counted as the node that it repeats."""
    if id(node) not in counts:
        # A node that contains itself meets this entry while it is being counted, and exceeds the limit.
        counts[id(node)] = MAX_VALUES + 1
        parts = node.value if isinstance(getattr(node, "value", None), list) else []
        inner = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        counts[id(node)] = 1 + sum(_count_values(part, counts) for part in inner)
    return counts[id(node)]


def parse_map(text: str, what: str) -> dict[str, str]:
    """Parse a mapping such as `happy=positive,excited=positive,sad`, or load one from a YAML file.

    A name without `=` maps to itself. Names that do not occur are left out.

    Args:
        text: the pairs, or the name of a YAML file.
        what: the kind of names, for errors.

    Raises:
        SertoneError: `bad_map`.
    """
    if text.endswith((".yaml", ".yml")):
        mapping = _load_map(Path(text))
    else:
        pairs = [part.partition("=") for part in text.split(",")]
        mapping = {old.strip(): (new or old).strip() for old, _, new in pairs}
        if len(mapping) < len(pairs):
            raise SertoneError("bad_map", f"{what} {text!r}", "every name once")
    if not isinstance(mapping, dict) or not all(
        isinstance(name, str) and name for pair in mapping.items() for name in pair
    ):
        raise SertoneError(
            "bad_map", f"{what} {text!r}", "OLD=NEW,OLD=NEW or a YAML file with a mapping of names"
        )
    return mapping


def _load_map(path: Path) -> Any:
    try:
        return parse_yaml(read_text(path, "bad_map"))
    except ValueError as error:
        raise SertoneError("bad_map", f"{path}: {error}", "a YAML file with a mapping of names") from None
