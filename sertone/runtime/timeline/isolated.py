"""Decoding in a process of its own: a decoder that crashes or hangs ends one recording, not the program.

For a timeline the child keeps the open recording and is asked for the next pieces while the caller answers
the last ones, so both have work, and the memory is that of a piece and a block on either side.
"""

import atexit
import os
import queue
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sertone import audio
from sertone.audio import Recording
from sertone.audio.block_stream import stream
from sertone.audio.containers.source import AudioBytes
from sertone.audio.decoder import Warnings
from sertone.errors import AudioError, SertoneError
from sertone.runtime.timeline.cutting import AudioPiece, PieceReader
from sertone.runtime.timeline.plan import TimelinePlan
from sertone.utils.processes import ChildDiedError, ChildProcess, ChildStuckError, count_cores

DECODER_TIMEOUT_S = 60.0
"""Seconds without a decoded block after which a decoder is ended: whatever it is stuck in, also in C."""

_idle: queue.SimpleQueue[ChildProcess] = queue.SimpleQueue()
"""Processes that wait for the next recording."""


@contextmanager
def borrow_decoder() -> Iterator[ChildProcess]:
    """Lend a process that decodes: one that is idle, or a new one. As many are kept as there are cores."""
    try:
        child = _idle.get_nowait()
        child.silence_s = DECODER_TIMEOUT_S
    except queue.Empty:
        child = ChildProcess(timeout_s=DECODER_TIMEOUT_S)
    try:
        yield child
    except SertoneError:  # an answer like any other
        _put_back(child)
        raise
    except BaseException:  # interrupted: it may still be at work, and answer whoever comes next
        child.close()
        raise
    _put_back(child)


def _put_back(child: ChildProcess) -> None:
    _idle.put(child)
    if _idle.qsize() > count_cores():
        _idle.get_nowait().close()


def close_decoders() -> None:
    """End the processes that are idle."""
    while not _idle.empty():
        _idle.get_nowait().close()


def _forget() -> None:
    """Leave the processes to the one that started them."""
    global _idle
    _idle = queue.SimpleQueue()


atexit.register(close_decoders)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def read_isolated(path: str | Path | AudioBytes, max_seconds: float) -> Recording:
    """Read one utterance in another process.

    Raises:
        AudioError: as `audio.read`; `decoder_crashed`, `decode_timeout`.
    """
    with borrow_decoder() as isolated:
        try:
            return isolated(read_recording, path, max_seconds)
        except ChildDiedError as error:
            raise build_decoder_error(path, error) from None


def read_recording(path: str | Path | AudioBytes, max_seconds: float) -> Recording:
    """As `audio.read`, with arguments for another process."""
    return audio.read(path, max_seconds=max_seconds)


_open: tuple[PieceReader, Iterator[list[AudioPiece]]] | None = None
"""In the child: the recording that is being cut, and what is left of it."""


def open_piece_reader(path: str | Path | AudioBytes, plan: TimelinePlan) -> PieceReader:
    """A file as the pieces of a plan.

    Raises:
        AudioError: as `blocks.stream` and `Plan.cutter`.
    """
    sound = stream(path, mix=plan.mixes_channels)
    return PieceReader(sound, plan.create_cutter(str(path), sound.info.channels))


class IsolatedPieceReader:
    """The same, cut in a child process.

    Args:
        isolated: the child process, used for nothing else meanwhile.
        path: a file.
        plan: how it is cut.

    Raises:
        AudioError: as `open_pieces`; `decoder_crashed` and `decode_timeout`, also while iterated.
    """

    def __init__(self, isolated: ChildProcess, path: str | Path | AudioBytes, plan: TimelinePlan) -> None:
        self._isolated, self._path = isolated, path
        self._call(_begin, path, plan)

    def __iter__(self) -> Generator[list[AudioPiece], None, None]:
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._call, _more)
            while group := coming.result():
                coming = ahead.submit(self._call, _more)
                yield group

    def finish(self) -> tuple[float, Warnings]:
        """Seconds of the recording and warnings about it, when all was taken."""
        return self._call(_ending)

    def _call(self, function: Callable, *arguments: Any) -> Any:
        try:
            return self._isolated(function, *arguments)
        except ChildDiedError as error:
            raise build_decoder_error(self._path, error) from None


def build_decoder_error(path: str | Path | AudioBytes, error: ChildDiedError) -> AudioError:
    """Return what is said of a recording whose process died or was ended."""
    if isinstance(error, ChildStuckError):
        return AudioError("decode_timeout", f"{path}: {error.found}", "audio that the decoder gets through")
    return AudioError("decoder_crashed", f"{path}: {error.found}", "audio that the decoder survives")


def _begin(path: str | Path | AudioBytes, plan: TimelinePlan) -> None:
    global _open
    _open = None
    pieces = open_piece_reader(path, plan)
    _open = pieces, iter(pieces)


def _more() -> list[AudioPiece]:
    return next(_opened()[1], [])


def _ending() -> tuple[float, Warnings]:
    global _open
    ending, _open = _opened()[0].finish(), None
    return ending


def _opened() -> tuple[PieceReader, Iterator[list[AudioPiece]]]:
    """A child that died between two calls was replaced by one that knows of no recording."""
    if _open is None:
        raise ChildDiedError("process_died", "the process that kept the recording ended", "it to live")
    return _open
