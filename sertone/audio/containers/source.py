"""Files as decoders see them: opened here, so that no decoder ever interprets a name.

libsndfile and FFmpeg take `-`, `pipe:0` or `http:...` as instructions. They get an open file instead, which
is a regular one: the descriptor that was looked at is the one that is read.
"""

import io
import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from sertone.errors import AudioError

_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)


class _Raw(io.RawIOBase):
    """A descriptor, whose first bytes may be replaced by others."""

    name = ""  # so that no decoder guesses a format from it

    def __init__(self, descriptor: int, size: int, head: bytes = b"", replaced: int = 0) -> None:
        self._descriptor, self._head, self._moved = descriptor, head, len(head) - replaced
        self._position, self._size = 0, size + self._moved

    def readinto(self, buffer) -> int:
        part = self._head[self._position : self._position + len(buffer)]
        if not part and self._position < self._size:
            os.lseek(self._descriptor, self._position - self._moved, os.SEEK_SET)
            part = os.read(self._descriptor, len(buffer))
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + (0, self._position, self._size)[whence]
        if position < 0:
            raise OSError(f"no position {position}")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


class OpenFile(io.BufferedReader):
    """An open descriptor, which is closed with it.

    Args:
        descriptor: of a regular file.
        length: of that file, in bytes.
        head: bytes that take the place of its first ones.
        replaced: how many.

    Attributes:
        size: in bytes.
    """

    def __init__(self, descriptor: int, length: int, head: bytes = b"", replaced: int = 0) -> None:
        self._parts = descriptor, length, head, replaced
        self.size = length + len(head) - replaced
        super().__init__(_Raw(descriptor, length, head, replaced), 1 << 16)

    def reopen(self, head: bytes = b"", replaced: int = 0) -> "OpenFile":
        """Return the same file with other bytes for its first ones, and with a position of its own."""
        descriptor, length, before, gone = self._parts
        return OpenFile(
            os.dup(descriptor), length, head + before[replaced:], gone + max(0, replaced - len(before))
        )


class RegularFile(OpenFile):
    """A regular file, opened for reading.

    Args:
        path: where it is.

    Raises:
        AudioError: `not_a_file` for folders, pipes and devices, which are not waited for.
        OSError: what cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        _require_regular(Path(path).stat(), path)  # a pipe is not even opened: its other end would notice
        descriptor = os.open(path, _FLAGS)
        try:
            status = os.fstat(descriptor)
            _require_regular(status, path)
        except BaseException:
            os.close(descriptor)
            raise
        super().__init__(descriptor, status.st_size)


@dataclass(frozen=True, slots=True)
class AudioBytes:
    """The bytes of a sound file, where others give its path.

    Attributes:
        data: all of them.
        name: for messages; nothing is opened by it.
    """

    data: bytes = field(repr=False)
    name: str = "<bytes>"

    def __str__(self) -> str:
        return self.name


class MemoryFile(OpenFile):
    """Bytes as a file without a name: in memory on Linux, elsewhere in the folder for temporary files.

    Args:
        data: of a sound file.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(_unnamed(data), len(data))


def _unnamed(data: bytes) -> int:
    """Return the descriptor of a new file that holds these bytes."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(data)
            return os.dup(file.fileno())
    descriptor = os.memfd_create("sound")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    return descriptor


def _require_regular(status: os.stat_result, path: str | Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise AudioError("not_a_file", f"{path}: {kind}", "a sound file")
