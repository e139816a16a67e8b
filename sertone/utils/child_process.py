"""The child's side of `processes`: serve the calls of the parent process."""

import contextlib
import os
import pickle
import queue
import sys
import threading
import traceback
from typing import Any

from sertone.errors import SertoneError

_replies: Any = None


def emit(value: Any) -> None:
    """Send an intermediate value to the parent process; do nothing outside a child process."""
    if _replies is not None:
        _send("event", value)


def _send(kind: str, value: Any) -> None:
    _replies.write(pickle.dumps((kind, value)))
    _replies.flush()


def serve() -> None:
    """Run the calls from standard input, and write the replies to standard output, until they are closed."""
    global _replies
    # Decoders that print to file descriptor 1 would corrupt the stream of replies, so it becomes stderr.
    _replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    calls: queue.SimpleQueue[tuple] = queue.SimpleQueue()
    threading.Thread(target=_receive_calls, args=(calls,), daemon=True).start()
    while True:
        folder, function, arguments = calls.get()
        # The parent may have changed its working folder, or the folder may be gone by now.
        with contextlib.suppress(OSError, TypeError):
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
            os._exit(0)  # the parent is gone


def _receive_calls(calls: queue.SimpleQueue) -> None:
    """Read calls in a thread, so that the end of the parent is noticed even during a long call."""
    while True:
        try:
            calls.put(pickle.load(sys.stdin.buffer))
        except EOFError:
            os._exit(0)  # the parent is gone, and nobody waits for the reply
        except BaseException as error:  # unpickling imports modules, which may even call exit
            calls.put((None, _raise, (error,)))


def _raise(error: BaseException) -> None:
    raise error
