"""The child's side of `processes`: it answers the calls of the process that started it."""

import contextlib
import os
import pickle
import queue
import sys
import threading
import traceback
from typing import Any

from sertone.errors import SertoneError

_answers: Any = None


def emit(value: Any) -> None:
    """Sends a value to the caller before the answer; does nothing outside a child."""
    if _answers is not None:
        _send("event", value)


def _send(kind: str, value: Any) -> None:
    _answers.write(pickle.dumps((kind, value)))
    _answers.flush()


def serve() -> None:
    """Answers calls from standard input on standard output until the caller closes them."""
    global _answers
    _answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # decoders that print must not print into the answers
    calls: queue.SimpleQueue[tuple] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(calls,), daemon=True).start()
    while True:
        folder, function, arguments = calls.get()
        with contextlib.suppress(OSError, TypeError):  # one that may not be entered, or was removed
            os.chdir(folder)
        try:
            kind, value = "answer", function(*arguments)
        except Exception as error:
            if not isinstance(error, SertoneError):
                error.add_note(f"In the child process:\n{traceback.format_exc()}")
            kind, value = "error", error
        try:
            _send(kind, value)
        except OSError:
            os._exit(0)  # as below


def _listen(calls: queue.SimpleQueue) -> None:
    while True:
        try:
            calls.put(pickle.load(sys.stdin.buffer))
        except EOFError:
            os._exit(0)  # the caller is gone, and with it whoever wants the answer
        except BaseException as error:  # what was sent cannot be had here: the call's error, also an exit
            calls.put((None, _raise, (error,)))


def _raise(error: BaseException) -> None:
    raise error
