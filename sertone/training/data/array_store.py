"""Store arrays by key in one file, in memory or on disk, that several processes write and read.

The file only grows, and written records never change. A record counts once the header says that the file
reaches beyond it. A process that is killed while writing therefore leaves nothing half-written to read,
and readers need no lock. A record that a crash of the machine has damaged fails its checksum and is not read.
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
from typing import NamedTuple

import numpy as np

from sertone.files import DISK_FULL_ERRNOS

MAGIC = b"sertone1"
HEADER = struct.Struct("<8sQ")  # magic, end of the last record
RECORD = struct.Struct("<32s8s5QI")  # key, dtype, number of axes, four axis lengths, CRC-32
MAX_AXES = 4
ALIGNMENT = 64


class Entry(NamedTuple):
    """Location and type of one array in the file.

    Attributes:
        dtype: dtype of its numbers.
        shape: shape of the array.
        offset: offset of its first byte.
        checksum: CRC-32 of its bytes.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    checksum: int

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + int(np.prod(self.shape)) * self.dtype.itemsize


class ArrayStore:
    """Arrays of up to four axes by keys of 32 bytes.

    Unpickling opens the same file again. A store in memory lives as long as the process that created it.

    Args:
        path: the file. It is created if it does not exist, and begun anew if it is damaged or has another
            format. None: in memory.
        limit: size in bytes beyond which nothing is added.
    """

    def __init__(self, path: Path | None = None, limit: int = 1 << 62) -> None:
        self._release, self.path = (None, path) if path else _create_memory_file()
        self.limit = limit
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        self._lock = threading.RLock()
        self._index: dict[bytes, Entry] = {}
        self._verified: set[bytes] = set()
        self._indexed_end = HEADER.size  # the index covers the file up to here
        self._map: mmap.mmap | None = None
        with self._write_lock():
            if not self._is_intact():
                os.ftruncate(self._file, 0)
                self._commit(HEADER.size)

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.limit)

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # not set where __init__ has failed
            os.close(self._file)
        if release := getattr(self, "_release", None):
            release()

    @property
    def bytes_used(self) -> int:
        """The bytes written so far by all processes."""
        return self._read_end()

    def get(self, key: bytes) -> np.ndarray | None:
        """Return the array of a key, read-only; None where the store has no intact one."""
        if key not in self._index:
            self._update_index()
        if key not in self._index:
            return None
        entry = self._index[key]
        mapped = self._map
        if mapped is None or entry.end > len(mapped):  # the file has grown since it was mapped
            mapped = self._map = mmap.mmap(self._file, self._read_end(), access=mmap.ACCESS_READ)
        array = np.frombuffer(mapped, entry.dtype, int(np.prod(entry.shape)), entry.offset)
        if key not in self._verified:  # check each array once, then trust it
            if zlib.crc32(array.view(np.uint8).data) != entry.checksum:
                return None
            self._verified.add(key)
        return array.reshape(entry.shape)

    def put(self, key: bytes, array: np.ndarray) -> bool:
        """Add an array and return True, or return False where there is no room.

        An array that is already stored under the key stays as it is.
        """
        with self._write_lock():
            self._update_index()  # another process may have added records
            if key in self._index:
                return True
            start = self._indexed_end
            offset = _align(start + RECORD.size)
            end = _align(offset + array.nbytes)
            if end > self.limit:
                return False
            content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            padded_shape = (*array.shape, *[0] * (MAX_AXES - array.ndim))
            fields = (key, array.dtype.str.encode(), array.ndim, *padded_shape, zlib.crc32(content))
            try:
                _write(self._file, memoryview(RECORD.pack(*fields)), start)
                _write(self._file, content, offset)
                os.ftruncate(self._file, end)
            except OSError as error:
                if error.errno in DISK_FULL_ERRNOS:
                    return False
                raise
            self._commit(end)  # last, so that readers only see complete records
            return True

    def _update_index(self) -> None:
        """Index the records that were added since the last call."""
        end = self._read_end()
        with self._lock:
            while self._indexed_end < end:
                key, dtype, axes, *shape, checksum = RECORD.unpack(
                    os.pread(self._file, RECORD.size, self._indexed_end)
                )
                offset = _align(self._indexed_end + RECORD.size)
                kind = np.dtype(dtype.rstrip(b"\0").decode())
                self._index[key] = Entry(kind, tuple(shape[:axes]), offset, checksum)
                self._indexed_end = _align(self._index[key].end)

    def _read_end(self) -> int:
        return HEADER.unpack(os.pread(self._file, HEADER.size, 0))[1]

    def _commit(self, end: int) -> None:
        os.pwrite(self._file, HEADER.pack(MAGIC, end), 0)

    def _is_intact(self) -> bool:
        """Return True where the file has Sertone's format and its stated length."""
        header = os.pread(self._file, HEADER.size, 0)
        if len(header) < HEADER.size:
            return False
        magic, end = HEADER.unpack(header)
        return magic == MAGIC and end <= max(HEADER.size, os.fstat(self._file).st_size)

    @contextlib.contextmanager
    def _write_lock(self) -> Iterator[None]:
        """Allow one writer at a time among all threads and processes."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)


def _align(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _write(file: int, view: memoryview, offset: int) -> None:
    while view:  # the system may write less than it is given
        count = os.pwrite(file, view, offset)
        view = view[count:]
        offset += count


def _create_memory_file() -> tuple[Callable[[], None], Path]:
    """Create a file in memory (Linux) or a temporary one, and return a function that frees it, and its path.

    The path also opens the file in child processes.
    """
    if hasattr(os, "memfd_create"):
        number = os.memfd_create("sertone")
        return partial(os.close, number), Path(f"/proc/{os.getpid()}/fd/{number}")
    file = tempfile.NamedTemporaryFile(prefix="sertone")  # noqa: SIM115 - lives as long as the store
    return file.close, Path(file.name)
