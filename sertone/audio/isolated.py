"""Decode in a separate process: a decoder that crashes or hangs ends one recording, not the program."""

import atexit
import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sertone.audio.containers.source import AudioBytes
from sertone.audio.reader import Recording, read
from sertone.errors import AudioError, SertoneError
from sertone.utils.processes import ChildDiedError, ChildProcess, ChildStuckError, count_cores

DECODER_TIMEOUT_S = 60.0
"""Seconds without a decoded block after which a decoder is ended, also when it hangs in C code."""

_idle: queue.SimpleQueue[ChildProcess] = queue.SimpleQueue()
"""Processes that wait for the next recording."""


@contextmanager
def borrow_decoder() -> Iterator[ChildProcess]:
    """Lend an idle process that decodes, or a new one. As many stay idle as there are cores."""
    try:
        child = _idle.get_nowait()
        child.timeout_s = DECODER_TIMEOUT_S
    except queue.Empty:
        child = ChildProcess(timeout_s=DECODER_TIMEOUT_S)
    try:
        yield child
    except SertoneError:  # an ordinary result: the process is ready for the next recording
        _return_decoder(child)
        raise
    except BaseException:  # interrupted: the process may still work, and its result would go to the next call
        child.close()
        raise
    _return_decoder(child)


def _return_decoder(child: ChildProcess) -> None:
    _idle.put(child)
    if _idle.qsize() > count_cores():
        _idle.get_nowait().close()


def close_decoders() -> None:
    """End the idle processes."""
    while not _idle.empty():
        _idle.get_nowait().close()


def _forget_decoders() -> None:
    """Leave the processes to the process that started them."""
    global _idle
    _idle = queue.SimpleQueue()


atexit.register(close_decoders)
if hasattr(os, "register_at_fork"):  # not on Windows
    # A forked child would share the pipes of its parent's decoders.
    os.register_at_fork(after_in_child=_forget_decoders)


def read_isolated(path: str | Path | AudioBytes, max_seconds: float) -> Recording:
    """Read one utterance in another process.

    Raises:
        AudioError: as `audio.read`; `decoder_crashed`, `decode_timeout`.
    """
    with borrow_decoder() as decoder:
        try:
            return decoder(read_recording, path, max_seconds)
        except ChildDiedError as error:
            raise build_decoder_error(path, error) from None


def read_recording(path: str | Path | AudioBytes, max_seconds: float) -> Recording:
    """Read one utterance: `audio.read` with positional arguments, as calls of another process need them."""
    return read(path, max_seconds=max_seconds)


def build_decoder_error(path: str | Path | AudioBytes, error: ChildDiedError) -> AudioError:
    """Return the error of a recording whose process died or was ended."""
    if isinstance(error, ChildStuckError):
        return AudioError("decode_timeout", f"{path}: {error.found}", "audio that can be decoded in time")
    return AudioError("decoder_crashed", f"{path}: {error.found}", "audio that does not crash the decoder")
