"""Cutting in a process of its own: a decoder that crashes ends one recording, not the program.

The child keeps the open recording and is asked for the next pieces while the caller answers the last ones, so
both have work, and the memory is that of a piece and a block on either side.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sertone.blocks import stream
from sertone.decoding import Warnings
from sertone.errors import AudioError
from sertone.isolation import ChildDiedError, Isolated
from sertone.runtime.cutting import Piece, Pieces
from sertone.runtime.plan import Plan

_open: tuple[Pieces, Iterator[list[Piece]]] | None = None
"""In the child: the recording that is being cut, and what is left of it."""


def open_pieces(path: str | Path, plan: Plan) -> Pieces:
    """A file as the pieces of a plan.

    Raises:
        AudioError: as `blocks.stream` and `Plan.cutter`.
    """
    sound = stream(path, mix=plan.mix)
    return Pieces(sound, plan.cutter(str(path), sound.info.channels))


class PiecesApart:
    """The same, cut in a child process.

    Args:
        isolated: the child process, used for nothing else meanwhile.
        path: a file.
        plan: how it is cut.

    Raises:
        AudioError: as `open_pieces`; `decoder_crashed`, also while iterated.
    """

    def __init__(self, isolated: Isolated, path: str | Path, plan: Plan) -> None:
        self._isolated, self._path = isolated, path
        self._call(_begin, path, plan)

    def __iter__(self) -> Generator[list[Piece], None, None]:
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._call, _more)
            while group := coming.result():
                coming = ahead.submit(self._call, _more)
                yield group

    def ending(self) -> tuple[float, Warnings]:
        """Seconds of the recording and warnings about it, when all was taken."""
        return self._call(_ending)

    def _call(self, function: Callable, *arguments: Any) -> Any:
        try:
            return self._isolated(function, *arguments)
        except ChildDiedError as error:
            raise decoder_crashed(self._path, error) from None


def decoder_crashed(path: str | Path, error: ChildDiedError) -> AudioError:
    """What is said of a recording whose process died."""
    return AudioError("decoder_crashed", f"{path}: {error.found}", "audio that the decoder survives")


def _begin(path: str | Path, plan: Plan) -> None:
    global _open
    pieces = open_pieces(path, plan)
    _open = pieces, iter(pieces)


def _more() -> list[Piece]:
    return next(_opened()[1], [])


def _ending() -> tuple[float, Warnings]:
    return _opened()[0].ending()


def _opened() -> tuple[Pieces, Iterator[list[Piece]]]:
    """A child that died between two calls was replaced by one that knows of no recording."""
    if _open is None:
        raise ChildDiedError("process_died", "the process that kept the recording ended", "it to live")
    return _open
