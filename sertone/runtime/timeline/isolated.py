"""Cut a recording in a separate process while the caller predicts the earlier pieces.

The child keeps the open recording and is asked for the next group of pieces while the caller works on the
last one. So both processes work at the same time, and each holds a group of pieces and a block at most.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sertone.audio.block_stream import stream
from sertone.audio.containers.source import AudioBytes
from sertone.audio.decoder import Warnings
from sertone.audio.isolated import build_decoder_error
from sertone.runtime.timeline.cutting import AudioPiece, PieceReader
from sertone.runtime.timeline.plan import TimelinePlan
from sertone.utils.processes import ChildDiedError, ChildProcess

_open: tuple[PieceReader, Iterator[list[AudioPiece]]] | None = None
"""In the child: the open recording, and the groups that are still to come."""


def open_piece_reader(path: str | Path | AudioBytes, plan: TimelinePlan) -> PieceReader:
    """Open a file for reading piece by piece.

    Raises:
        AudioError: as `block_stream.stream` and `TimelinePlan.create_cutter`.
    """
    sound = stream(path, mix=plan.mixes_channels)
    return PieceReader(sound, plan.create_cutter(str(path), sound.info.channels))


class IsolatedPieceReader:
    """Reads a recording piece by piece in a child process; otherwise like `PieceReader`.

    Args:
        decoder: the child process, used for nothing else meanwhile.
        path: a file.
        plan: how to cut it.

    Raises:
        AudioError: as `open_piece_reader`; `decoder_crashed` and `decode_timeout`, also while iterated.
    """

    def __init__(self, decoder: ChildProcess, path: str | Path | AudioBytes, plan: TimelinePlan) -> None:
        self._decoder = decoder
        self._path = path
        self._call(_open_in_child, path, plan)

    def __iter__(self) -> Generator[list[AudioPiece], None, None]:
        with ThreadPoolExecutor(1) as pool:
            # The child cuts the next group while the caller works on this one.
            future = pool.submit(self._call, _next_in_child)
            while group := future.result():
                future = pool.submit(self._call, _next_in_child)
                yield group

    def finish(self) -> tuple[float, Warnings]:
        """Return the length in seconds and the warnings, after all pieces were read."""
        return self._call(_finish_in_child)

    def _call(self, function: Callable, *arguments: Any) -> Any:
        try:
            return self._decoder(function, *arguments)
        except ChildDiedError as error:
            raise build_decoder_error(self._path, error) from None


def _open_in_child(path: str | Path | AudioBytes, plan: TimelinePlan) -> None:
    global _open
    _open = None  # closes a recording that its caller gave up
    reader = open_piece_reader(path, plan)
    _open = reader, iter(reader)


def _next_in_child() -> list[AudioPiece]:
    _, groups = _require_open()
    return next(groups, [])


def _finish_in_child() -> tuple[float, Warnings]:
    global _open
    reader, _ = _require_open()
    _open = None
    return reader.finish()


def _require_open() -> tuple[PieceReader, Iterator[list[AudioPiece]]]:
    """Return the open recording. A child that died between two calls was replaced by one without any."""
    if _open is None:
        raise ChildDiedError("process_died", "the process that kept the recording ended", "a live process")
    return _open
