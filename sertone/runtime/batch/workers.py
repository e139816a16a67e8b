"""Prediction in several processes, each with its own model. Each process predicts one file at a time."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import closing

from sertone.errors import SertoneError
from sertone.runtime.answering import build_failure_prediction
from sertone.runtime.prefetch import check_prediction
from sertone.runtime.recording_source import Request
from sertone.runtime.timeline.plan import TimelinePlan
from sertone.schema import Prediction
from sertone.utils.processes import run_in_order

MAX_JOBS = 256
"""Maximum number of parallel processes."""


def require_jobs(jobs: int, *, recognises: bool) -> None:
    """Refuse an impossible number of processes, and more than one beside speech recognition.

    Raises:
        SertoneError: `bad_jobs`.
    """
    if not 1 <= jobs <= MAX_JOBS:
        raise SertoneError("bad_jobs", f"{jobs} jobs", f"1 to {MAX_JOBS}")
    if jobs > 1 and recognises:
        raise SertoneError("bad_jobs", f"{jobs} jobs and speech recognition", "one of the two")


def predict_in_processes(
    predict: Callable[[Request, TimelinePlan | None], Prediction],
    requests: Iterable[Request],
    plan: TimelinePlan | None,
    jobs: int,
    *,
    strict: bool,
) -> Generator[Prediction, None, None]:
    """Yield one prediction per request, in the order of the requests.

    The model reaches a process by its path, once. It keeps the number of threads that it was loaded with.

    Args:
        predict: `Predictor.predict_request` of the predictor, which is sent to the processes.
        requests: taken as they are needed.
        plan: how to cut the files; None: each is predicted as a whole.
        jobs: number of processes.
        strict: whether a warning becomes an error.
    """
    calls = ((request, plan) for request in requests)
    with closing(run_in_order(jobs, predict, calls)) as futures:
        for (request, _), future in futures:
            yield check_prediction(_get_prediction(request, future), request, strict=strict)


def _get_prediction(request: Request, future: Future[Prediction]) -> Prediction:
    """Return the prediction. The death of a process is an error of its file alone."""
    try:
        return future.result()
    except Exception as error:
        return build_failure_prediction(request.name, error)
