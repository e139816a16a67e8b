"""Arrays by key in one file, in memory or on disk, that several processes write and read.

The file grows by records and never changes what it holds: a record counts once the header says that
the file reaches beyond it. So a process that is killed while writing leaves nothing half-written to
read, and readers need no lock. What a crash of the machine has spoilt fails its checksum and is not read.
Arrays are read through a memory map, without a copy.

    header    magic, end of the last record
    record    key, dtype, shape, checksum, then the array from the next multiple of 64 bytes
"""

import contextlib
import fcntl
import mmap
import os
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from sertone.files import DISK_FULL_ERRNOS

MAGIC = b"sertone1"
HEADER = struct.Struct("<8sQ")
RECORD = struct.Struct("<32s8s5QI")
ALIGNMENT = 64


class ArrayStore:
    """Arrays of up to four axes by keys of 32 bytes.

    Pickled, it opens the same file again. A store in memory lives as long as the process that made it.

    Args:
        path: the file; made if need be, and begun anew if it is damaged or something else. None: in
            memory.
        limit: bytes beyond which nothing is added.
    """

    def __init__(self, path: Path | None = None, limit: int = 1 << 62) -> None:
        self._let_go, self.path = (None, path) if path else _memory_file()
        self.limit = limit
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        self._lock = threading.RLock()
        self._known: dict[bytes, tuple[np.dtype, tuple[int, ...], int, int]] = {}
        self._checked: set[bytes] = set()
        self._seen = HEADER.size
        self._map: mmap.mmap | None = None
        with self._alone():
            if not self._sound():
                os.ftruncate(self._file, 0)
                self._commit(HEADER.size)

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.limit)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)
        if let_go := getattr(self, "_let_go", None):
            let_go()

    @property
    def bytes_used(self) -> int:
        """Bytes written, by whichever process."""
        return self._end()

    def get(self, key: bytes) -> np.ndarray | None:
        """The array of a key, read-only, or None where there is none that is whole."""
        if key not in self._known:
            self._catch_up()
        if key not in self._known:
            return None
        dtype, shape, offset, checksum = self._known[key]
        count = int(np.prod(shape))
        mapped = self._map
        if mapped is None or offset + count * dtype.itemsize > len(mapped):
            mapped = self._map = mmap.mmap(self._file, self._end(), access=mmap.ACCESS_READ)
        found = np.frombuffer(mapped, dtype, count, offset)
        if key not in self._checked:
            if zlib.crc32(found.view(np.uint8).data) != checksum:
                return None
            self._checked.add(key)
        return found.reshape(shape)

    def put(self, key: bytes, array: np.ndarray) -> bool:
        """Adds an array; False where there is no room. What is there already stays."""
        with self._alone():
            self._catch_up()
            if key in self._known:
                return True
            start = self._seen
            offset = _aligned(start + RECORD.size)
            end = _aligned(offset + array.nbytes)
            if end > self.limit:
                return False
            bits = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            shape = (*array.shape, *[0] * (4 - array.ndim))
            about = (key, array.dtype.str.encode(), array.ndim, *shape, zlib.crc32(bits))
            try:
                _write(self._file, memoryview(RECORD.pack(*about)), start)
                _write(self._file, bits, offset)
                os.ftruncate(self._file, end)
            except OSError as error:
                if error.errno in DISK_FULL_ERRNOS:
                    return False
                raise
            self._commit(end)
            return True

    def _catch_up(self) -> None:
        """Learns of the records that were added since the last look."""
        end = self._end()
        with self._lock:
            while self._seen < end:
                key, dtype, axes, *shape, checksum = RECORD.unpack(
                    os.pread(self._file, RECORD.size, self._seen)
                )
                kind, shape = np.dtype(dtype.rstrip(b"\0").decode()), tuple(shape[:axes])
                offset = _aligned(self._seen + RECORD.size)
                self._known[key] = kind, shape, offset, checksum
                self._seen = _aligned(offset + int(np.prod(shape)) * kind.itemsize)

    def _end(self) -> int:
        return HEADER.unpack(os.pread(self._file, HEADER.size, 0))[1]

    def _commit(self, end: int) -> None:
        os.pwrite(self._file, HEADER.pack(MAGIC, end), 0)

    def _sound(self) -> bool:
        """Whether the file is one of ours and whole."""
        head = os.pread(self._file, HEADER.size, 0)
        if len(head) < HEADER.size:
            return False
        magic, end = HEADER.unpack(head)
        return magic == MAGIC and end <= max(HEADER.size, os.fstat(self._file).st_size)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time, over threads and processes."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _write(file: int, view: memoryview, offset: int) -> None:
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _memory_file() -> tuple[Callable[[], None], Path]:
    """A file that is nowhere on disk (Linux) or deleted at the end: how to end it, its path for children."""
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("sertone")
        return partial(os.close, number), Path(f"/proc/{os.getpid()}/fd/{number}")
    file = tempfile.NamedTemporaryFile(prefix="sertone")  # noqa: SIM115 - lives as long as the store
    return file.close, Path(file.name)
