"""Prediction in several processes, each with a model of its own: every process answers one file at a time."""

from collections.abc import Generator, Iterable
from concurrent.futures import Future
from contextlib import closing
from typing import TYPE_CHECKING

from sertone.runtime.answering import build_failure_prediction
from sertone.runtime.prefetch import Request, check_prediction
from sertone.runtime.timeline.plan import TimelinePlan
from sertone.schema import Prediction
from sertone.utils.processes import run_in_order

if TYPE_CHECKING:
    from sertone.runtime.predictor import Predictor


def predict_in_processes(
    predictor: "Predictor", rows: Iterable[Request], plan: TimelinePlan | None, jobs: int, *, strict: bool
) -> Generator[Prediction, None, None]:
    """Yield one prediction per row, in the order of the rows.

    The model reaches a process by its path, once; it keeps the number of threads that it was loaded with.

    Args:
        predictor: what answers.
        rows: files, taken as they are needed.
        plan: where they are cut; None: each is answered as a whole.
        jobs: number of processes.
        strict: refuse what would be answered with a warning.
    """
    calls = ((predictor, row, plan) for row in rows)
    with closing(run_in_order(jobs, _answer, calls)) as futures:
        for (_, row, _), future in futures:
            yield check_prediction(_result(row, future), row, strict=strict)


def _answer(predictor: "Predictor", row: Request, plan: TimelinePlan | None) -> Prediction:
    return predictor.predict_request(row, plan)


def _result(row: Request, future: Future[Prediction]) -> Prediction:
    """Return the answer; where the process died, that is this file's fault and no other's."""
    try:
        return future.result()
    except Exception as error:
        return build_failure_prediction(str(row.file), error)
