"""Regular files, opened here so that no decoder interprets a file name.

libsndfile and FFmpeg take names such as `-`, `pipe:0` or `http:...` as instructions. They get an open file
instead. The descriptor that was checked to be a regular file is the one that is read.
"""

import io
import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from sertone.errors import AudioError

# O_NONBLOCK: a file that has become a pipe is not waited for. O_BINARY: Windows would translate line ends.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)  # each exists on some systems only


class _RawFile(io.RawIOBase):
    """A descriptor as a raw stream; other bytes may replace its first ones."""

    name = ""  # decoders would guess a format from a name

    def __init__(self, descriptor: int, length: int, head: bytes = b"", replaced_bytes: int = 0) -> None:
        self._descriptor = descriptor
        self._head = head
        self._shift = len(head) - replaced_bytes  # position in this stream minus position in the file
        self._position = 0
        self._size = length + self._shift

    def readinto(self, buffer) -> int:
        data = self._head[self._position : self._position + len(buffer)]
        if not data and self._position < self._size:
            os.lseek(self._descriptor, self._position - self._shift, os.SEEK_SET)
            data = os.read(self._descriptor, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + (0, self._position, self._size)[whence]
        if position < 0:
            raise OSError(f"position {position} is before the start of the file")
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
    """An open descriptor as a buffered file, which closes the descriptor with itself.

    Args:
        descriptor: descriptor of a regular file.
        length: length of that file, in bytes.
        head: bytes that replace the first ones of the file.
        replaced_bytes: number of bytes that `head` replaces.

    Attributes:
        size: size in bytes.
    """

    def __init__(self, descriptor: int, length: int, head: bytes = b"", replaced_bytes: int = 0) -> None:
        self._parts = descriptor, length, head, replaced_bytes
        self.size = length + len(head) - replaced_bytes
        super().__init__(_RawFile(descriptor, length, head, replaced_bytes), 1 << 16)

    def reopen(self, head: bytes = b"", replaced_bytes: int = 0) -> "OpenFile":
        """Return the same file with its own position, in which `head` replaces the first bytes.

        Args:
            head: new first bytes.
            replaced_bytes: number of bytes that they replace.
        """
        descriptor, length, old_head, old_replaced = self._parts
        # Bytes of an earlier head that reach beyond the new one stay.
        new_head = head + old_head[replaced_bytes:]
        new_replaced = old_replaced + max(0, replaced_bytes - len(old_head))
        return OpenFile(os.dup(descriptor), length, new_head, new_replaced)


class RegularFile(OpenFile):
    """A regular file, opened for reading.

    Args:
        path: path of the file.

    Raises:
        AudioError: `not_a_file` for folders, pipes and devices; none of them is waited for.
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str | Path) -> None:
        # A pipe is not even opened: the process at its other end would notice.
        _require_regular(Path(path).stat(), path)
        descriptor = os.open(path, _FLAGS)
        try:
            # The path may lead to another file by now: only the descriptor is sure.
            status = os.fstat(descriptor)
            _require_regular(status, path)
        except BaseException:
            os.close(descriptor)
            raise
        super().__init__(descriptor, status.st_size)


@dataclass(frozen=True, slots=True)
class AudioBytes:
    """The content of a sound file, accepted instead of a path.

    Attributes:
        data: the bytes of the file.
        name: for messages; no file of this name is opened.
    """

    data: bytes = field(repr=False)
    name: str = "<bytes>"

    def __str__(self) -> str:
        return self.name


class MemoryFile(OpenFile):
    """Bytes as a file without a name: in memory on Linux, in the folder for temporary files elsewhere.

    Args:
        data: the bytes of a sound file.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(_create_unnamed_file(data), len(data))


def _create_unnamed_file(data: bytes) -> int:
    """Return the descriptor of a new file with these bytes."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile(buffering=0) as file:
            file.write(data)
            return os.dup(file.fileno())  # the descriptor outlives the temporary file
    descriptor = os.memfd_create("sound")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    return descriptor


def _require_regular(status: os.stat_result, path: str | Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise AudioError("not_a_file", f"{path}: {kind}", "a sound file")
