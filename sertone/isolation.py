"""Calls in a process of their own: what kills it ends one call, not the program."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from sertone.errors import AudioError


class Isolated:
    """Runs calls one after the other in a child process, which is replaced when it dies.

    Use as a context manager. Functions and arguments have to be picklable.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, function: Callable, *arguments: Any) -> Any:
        """The function's result, or its error.

        Raises:
            AudioError: `decoder_crashed` where the process died.
        """
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            return self._pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            self._close()
            raise AudioError(
                "decoder_crashed",
                f"{arguments[0] if arguments else function}: the decoder died",
                "audio that the decoder survives",
            ) from None

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
