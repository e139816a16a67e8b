"""Prediction in several processes, each with a model of its own: every process answers one file at a time."""

from collections.abc import Generator, Iterable
from concurrent.futures import Future
from contextlib import closing
from typing import TYPE_CHECKING

from sertone.runtime.answering import failed
from sertone.runtime.prefetch import Row, checked
from sertone.runtime.timeline.plan import Plan
from sertone.schema import Prediction
from sertone.utils.processes import in_order

if TYPE_CHECKING:
    from sertone.runtime.predictor import Predictor


def answers(
    predictor: "Predictor", rows: Iterable[Row], plan: Plan | None, jobs: int, *, strict: bool
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
    with closing(in_order(jobs, _answer, calls)) as futures:
        for (_, row, _), future in futures:
            yield checked(_result(row, future), row, strict=strict)


def _answer(predictor: "Predictor", row: Row, plan: Plan | None) -> Prediction:
    return predictor.answer(row, plan)


def _result(row: Row, future: Future[Prediction]) -> Prediction:
    """Return the answer; where the process died, that is this file's fault and no other's."""
    try:
        return future.result()
    except Exception as error:
        return failed(str(row.file), error)
