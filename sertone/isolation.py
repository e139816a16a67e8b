"""Calls in a process of their own: what kills it ends one call, not the program.

The process runs this module as a program. It shares nothing with the caller's `__main__`, so scripts
need no guard, and starts in a fraction of a second.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from sertone.errors import AudioError


class Isolated:
    """Runs calls one after the other in a child process, which is replaced when it dies.

    Use as a context manager. Functions have to be importable, arguments and results picklable.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen | None = None

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, function: Callable, *arguments: Any) -> Any:
        """The function's result, or its error.

        Raises:
            AudioError: `decoder_crashed` where the process died.
        """
        if self._child is None:
            command = [sys.executable, "-m", "sertone.isolation"]
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._child.stdin and self._child.stdout
        try:
            pickle.dump((function, arguments), self._child.stdin)
            self._child.stdin.flush()
            answer = pickle.load(self._child.stdout)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            self._close()
            raise AudioError(
                "decoder_crashed",
                f"{arguments[0] if arguments else function}: the decoder died",
                "audio that the decoder survives",
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def serve() -> None:
    """Answers calls from standard input on standard output until the caller closes them."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders that print must not print into the answers
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = function(*arguments)
        except Exception as error:
            answer = error
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    serve()
