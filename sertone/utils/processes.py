"""Function calls in child processes: a crash ends one call, not the program.

A child is a fresh interpreter. It does not import the caller's `__main__`, so scripts need no `__main__`
guard, and it ends when the caller ends, even if the caller is killed.
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
    """The process of a call sent nothing for too long, and was ended: code `process_stuck`."""


class ChildProcess:
    """A child process that runs calls one after the other, and is replaced when it dies.

    Use it as a context manager. Functions must be importable, arguments and results picklable.

    Args:
        environment: environment variables of the child, added to those of the caller.
        on_event: called with every value that the function passes to `emit`.
        timeout_s: seconds without a result or an event after which the process is ended; None: no limit.
    """

    def __init__(
        self,
        environment: dict[str, str] | None = None,
        on_event: Callable[[Any], None] = lambda _: None,
        timeout_s: float | None = None,
    ) -> None:
        self.environment = environment or {}
        self.on_event = on_event
        self.timeout_s = timeout_s
        self._child: subprocess.Popen | None = None
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> "ChildProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, function: Callable, *arguments: Any) -> Any:
        """Return the function's result, or raise its error.

        Raises:
            ChildDiedError: if the process died, or was closed.
            ChildStuckError: if the process was ended after `timeout_s`.
        """
        child = self._get_running_child(function)
        watchdog = _Watchdog(child, self.timeout_s)
        try:
            kind, value = self._exchange(child, (_get_working_folder(), function, arguments), watchdog)
        except (EOFError, BrokenPipeError, pickle.UnpicklingError):
            self._end()
            if watchdog.expired:
                found = f"the process of {function.__name__} sent nothing for {self.timeout_s:g} s"
                raise ChildStuckError("process_stuck", found, "a result") from None
            raise _build_died_error(function, child.returncode) from None
        except BaseException:
            # After Ctrl-C, for instance, the reply is still on its way, and the next call would receive it.
            self._end()
            raise
        finally:
            watchdog.stop()
        if kind == "error":
            raise value
        return value

    def _exchange(self, child: subprocess.Popen, call: tuple, watchdog: "_Watchdog") -> tuple[str, Any]:
        """Send a call, and return kind and value of the reply."""
        assert child.stdin and child.stdout
        pickle.dump(call, child.stdin)
        child.stdin.flush()
        while True:
            kind, value = pickle.load(child.stdout)
            watchdog.restart()
            if kind != "event":
                return kind, value
            self.on_event(value)

    def close(self) -> None:
        """End the child for good, even in the middle of a call."""
        self._closed = True
        self._end()

    def _get_running_child(self, function: Callable) -> subprocess.Popen:
        with self._lock:
            if self._closed:
                raise _build_died_error(function, "closed")
            if self._child is None or self._child.poll() is not None:  # it may have died between calls
                self._child = subprocess.Popen(
                    [sys.executable, "-P", "-c", SERVE_CODE],  # -P: do not import from the working folder
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=os.environ | self.environment,
                    start_new_session=True,  # Ctrl-C reaches only the caller, which then closes the child
                )
            return self._child

    def _end(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()


class _Watchdog:
    """A thread that ends a process which sends nothing for some time."""

    def __init__(self, child: subprocess.Popen, timeout_s: float | None) -> None:
        self.expired = False
        self._child = child
        self._stopped = threading.Event()
        self._last_reply = time.monotonic()
        if timeout_s is not None:
            threading.Thread(target=self._wait, args=(timeout_s,), daemon=True).start()

    def restart(self) -> None:
        """Restart the clock after a reply."""
        self._last_reply = time.monotonic()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()

    def _wait(self, timeout_s: float) -> None:
        while (remaining := self._last_reply + timeout_s - time.monotonic()) > 0:
            if self._stopped.wait(remaining):
                return
            # A reply may wait in the pipe unread, if this process itself was suspended in the meantime.
            if time.monotonic() >= self._last_reply + timeout_s and self._has_unread_reply():
                self.restart()
        self.expired = True
        self._child.kill()

    def _has_unread_reply(self) -> bool:
        assert self._child.stdout
        # Only POSIX systems, which also have `poll`, can select pipes.
        return hasattr(select, "poll") and bool(select.select([self._child.stdout.fileno()], [], [], 0)[0])


def _get_working_folder() -> str | None:
    """Return the folder to which relative paths refer; None if it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return None


def _build_died_error(function: Callable, status: object) -> ChildDiedError:
    found = f"the process of {function.__name__} ended with status {status}"
    return ChildDiedError("process_died", found, "a running process")


def run_parallel(
    environments: Sequence[dict[str, str]],
    function: Callable,
    calls: Iterable[tuple],
    on_event: Callable[[Any], None] = lambda _: None,
    timeout_s: float | None = None,
) -> Generator[tuple[tuple, Future], None, None]:
    """Call a function in several child processes; every idle process takes the next call.

    Close the generator (`contextlib.closing`) to end the children before all calls are finished.

    Args:
        environments: environment variables of each child, see `ChildProcess`.
        function: the function to call.
        calls: arguments of each call, consumed when they are needed.
        on_event: as in `ChildProcess`; called from several threads, one at a time.
        timeout_s: as in `ChildProcess`.

    Yields:
        arguments and finished future of each call, in the order in which the calls finish.
    """
    lock = threading.Lock()

    def forward(value: Any) -> None:
        with lock:
            on_event(value)

    children = [ChildProcess(environment, forward, timeout_s) for environment in environments]
    with _pool_children(children) as submit:
        pending: dict[Future, tuple] = {}
        for arguments in calls:
            pending[submit(function, *arguments)] = arguments
            # Two calls per child keep all of them busy without consuming all arguments at once.
            while len(pending) > 2 * len(environments):
                yield _pop_finished(pending)
        while pending:
            yield _pop_finished(pending)


def run_in_order(
    jobs: int, function: Callable, calls: Iterable[tuple], timeout_s: float | None = None
) -> Generator[tuple[tuple, Future], None, None]:
    """Call a function in several child processes, and yield the calls in their order.

    A slow call delays the results after it.

    Args:
        jobs: number of children, started when they are needed. At most twice as many calls run ahead of the
            consumer.
        function: the function to call.
        calls: arguments of each call, consumed when they are needed.
        timeout_s: as in `ChildProcess`.

    Yields:
        arguments and future of each call.
    """
    with _pool_children([ChildProcess(timeout_s=timeout_s) for _ in range(jobs)]) as submit:
        pending: deque[tuple[tuple, Future]] = deque()
        for arguments in calls:
            pending.append((arguments, submit(function, *arguments)))
            if len(pending) > 2 * jobs:
                yield pending.popleft()
        while pending:
            yield pending.popleft()


@contextmanager
def _pool_children(children: Sequence[ChildProcess]) -> Iterator[Callable[..., Future]]:
    """Yield `submit(function, *arguments)`, which calls in an idle child; end the children at the exit."""
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
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pop_finished(pending: dict[Future, tuple]) -> tuple[tuple, Future]:
    """Wait for a future to finish, and remove it from the pending ones."""
    done = wait(pending, return_when=FIRST_COMPLETED).done.pop()
    return pending.pop(done), done
