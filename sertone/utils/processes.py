"""Calls in processes of their own: what kills one ends one call, not the program.

A child is a fresh interpreter. It shares nothing with the caller's `__main__`, so scripts need no
guard, and it ends when the caller does, however the caller ends.
"""

import os
import pickle
import queue
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sertone.errors import SertoneError

PACKAGE_ROOT = str(Path(__file__).parents[2])
SERVE_CODE = (
    f"import sys; sys.path.append({PACKAGE_ROOT!r}); from sertone.utils.child_process import serve; serve()"
)


class ChildDiedError(SertoneError):
    """The process of a call died: code `process_died`."""


class ChildStuckError(ChildDiedError):
    """The process of a call said nothing for too long, and was ended: code `process_stuck`."""


class ChildProcess:
    """Runs calls one after the other in a child process, which is replaced when it dies.

    Use as a context manager. Functions have to be importable, arguments and results picklable.

    Args:
        environment: variables that the child sees beside the caller's own.
        on_event: called with every value that the function hands to `emit`.
        silence_s: seconds after which a call that has neither answered nor handed anything to `emit` is ended
            with its process, whatever it is stuck in; None: it may take any time.
    """

    def __init__(
        self,
        environment: dict[str, str] | None = None,
        on_event: Callable[[Any], None] = lambda _: None,
        timeout_s: float | None = None,
    ) -> None:
        self.environment, self.on_event, self.silence_s = environment or {}, on_event, timeout_s
        self._child: subprocess.Popen | None = None
        self._lock, self._closed = threading.Lock(), False

    def __enter__(self) -> "ChildProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, function: Callable, *arguments: Any) -> Any:
        """The function's result, or its error.

        Raises:
            ChildDiedError: the process died, or was closed.
            ChildStuckError: it was ended after `silence_s`.
        """
        child = self._living(function)
        watch = _Watch(child, self.silence_s)
        try:
            kind, value = self._asked(child, (_working_folder(), function, arguments), watch)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            self._end()
            if watch.stuck:
                found = f"the process of {function.__name__} gave nothing for {self.silence_s:g} s"
                raise ChildStuckError("process_stuck", found, "an answer") from None
            raise _died(function, child.returncode) from None
        except BaseException:  # Ctrl-C, say: its answer would be taken for that of the next call
            self._end()
            raise
        finally:
            watch.end()
        if kind == "error":
            raise value
        return value

    def _asked(self, child: subprocess.Popen, call: tuple, watch: "_Watch") -> tuple[str, Any]:
        """Kind and value of the answer."""
        assert child.stdin and child.stdout
        pickle.dump(call, child.stdin)
        child.stdin.flush()
        while True:
            kind, value = pickle.load(child.stdout)
            watch.heard()
            if kind != "event":
                return kind, value
            self.on_event(value)

    def close(self) -> None:
        """Ends the child for good, also in the middle of a call."""
        self._closed = True
        self._end()

    def _living(self, function: Callable) -> subprocess.Popen:
        with self._lock:
            if self._closed:
                raise _died(function, "closed")
            if self._child is None or self._child.poll() is not None:  # also one that died between calls
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-c", SERVE_CODE],  # -P: imports nothing from the working folder
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=os.environ | self.environment,
                    start_new_session=True,  # Ctrl-C is the caller's, who then closes
                )
            return self._child

    def _end(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()


class _Watch:
    """Ends a process that says nothing for some time."""

    def __init__(self, child: subprocess.Popen, silence_s: float | None) -> None:
        self.stuck, self._child = False, child
        self._ended, self._last = threading.Event(), time.monotonic()
        if silence_s is not None:
            threading.Thread(target=self._wait, args=(silence_s,), daemon=True).start()

    def heard(self) -> None:
        """Begin the time anew."""
        self._last = time.monotonic()

    def end(self) -> None:
        """Watch no longer."""
        self._ended.set()

    def _wait(self, silence_s: float) -> None:
        while (left := self._last + silence_s - time.monotonic()) > 0:
            if self._ended.wait(left):
                return
            if time.monotonic() >= self._last + silence_s and self._has_spoken():
                self.heard()  # while this process was stopped, and could not listen
        self.stuck = True
        self._child.kill()

    def _has_spoken(self) -> bool:
        assert self._child.stdout
        return hasattr(select, "poll") and bool(select.select([self._child.stdout.fileno()], [], [], 0)[0])


def _working_folder() -> str | None:
    """Return the folder that relative paths are meant from; None where it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return None


def _died(function: Callable, status: object) -> ChildDiedError:
    found = f"the process of {function.__name__} ended with status {status}"
    return ChildDiedError("process_died", found, "it to live")


def run_parallel(
    environments: Sequence[dict[str, str]],
    function: Callable,
    calls: Iterable[tuple],
    on_event: Callable[[Any], None] = lambda _: None,
    timeout_s: float | None = None,
) -> Generator[tuple[tuple, Future], None, None]:
    """Calls a function in child processes, each of which takes the next call when it is free.

    Close the generator (`contextlib.closing`) to end the children where not all calls are waited for.

    Args:
        environments: of each child, see `Isolated`.
        function: what to call.
        calls: the arguments of each call; taken as they are needed.
        on_event: as `Isolated`; called from several threads, one at a time.
        silence_s: as `Isolated`.

    Yields:
        arguments and finished future of each call, as they come in.
    """
    lock = threading.Lock()

    def tell(value: Any) -> None:
        with lock:
            on_event(value)

    with _children([ChildProcess(environment, tell, timeout_s) for environment in environments]) as submit:
        pending: dict[Future, tuple] = {}
        for arguments in calls:
            pending[submit(function, *arguments)] = arguments
            while len(pending) > 2 * len(environments):
                yield _next(pending)
        while pending:
            yield _next(pending)


def run_in_order(
    jobs: int, function: Callable, calls: Iterable[tuple], timeout_s: float | None = None
) -> Generator[tuple[tuple, Future], None, None]:
    """As `side_by_side`, but in the order of the calls: what is slow keeps back what comes after it.

    Args:
        jobs: number of children, started when they are needed; twice as many calls are ahead of what was
            yielded, at most.
        function: what to call.
        calls: the arguments of each call; taken as they are needed.
        silence_s: as `Isolated`.

    Yields:
        arguments and future of each call.
    """
    with _children([ChildProcess(timeout_s=timeout_s) for _ in range(jobs)]) as submit:
        pending: deque[tuple[tuple, Future]] = deque()
        for arguments in calls:
            pending.append((arguments, submit(function, *arguments)))
            if len(pending) > 2 * jobs:
                yield pending.popleft()
        while pending:
            yield pending.popleft()


@contextmanager
def _children(children: Sequence[ChildProcess]) -> Iterator[Callable[..., Future]]:
    """Hands out `submit(function, *arguments)`, which calls in a child that is free; ends the children."""
    idle: queue.SimpleQueue[ChildProcess] = queue.SimpleQueue()
    for child in children:
        idle.put(child)

    def run(function: Callable, *arguments: Any) -> Any:
        child = idle.get()
        try:
            return child(function, *arguments)
        finally:
            idle.put(child)

    pool = ThreadPoolExecutor(len(children))
    try:
        yield lambda *call: pool.submit(run, *call)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.close()
        pool.shutdown()


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _next(pending: dict[Future, tuple]) -> tuple[tuple, Future]:
    """Waits for a future and takes it out."""
    done = wait(pending, return_when=FIRST_COMPLETED).done.pop()
    return pending.pop(done), done
