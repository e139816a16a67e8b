"""Decode the next files while the model runs: several files at a time, in separate processes, in order."""

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import tee
from typing import Any

from sertone.audio import SEGMENT_TOLERANCE_S, Recording, isolated
from sertone.runtime.answering import empty_answer
from sertone.runtime.recording_source import FileSource, Request
from sertone.schema import Prediction
from sertone.utils.processes import ChildDiedError, count_cores, run_in_order

MAX_DECODERS = 4
"""Most processes that decode."""


def build_requests(
    files: Iterable[FileSource], texts: Iterable[str | None] | None, durations: Iterable[float | None] | None
) -> Iterator[Request]:
    """Yield a request per file.

    Raises:
        ValueError: the numbers of files, texts and durations differ.
    """
    columns: dict[str, Iterable[Any] | None] = {"text": texts, "duration_s": durations}
    present = {name: values for name, values in columns.items() if values is not None}
    for file, *values in zip(files, *present.values(), strict=True):
        yield Request(file, **dict(zip(present, values, strict=True)))


def drop_texts(texts: Iterable[str | None]) -> Iterator[None]:
    """Yield None for each text; warn once that the texts have no effect."""
    has_warned = False
    for text in texts:
        if text and not has_warned:
            warnings.warn("the model uses only audio; texts have no effect", stacklevel=2)
            has_warned = True
        yield None


def decode_ahead(
    requests: Iterable[Request], max_seconds: float
) -> Generator[tuple[Request, Callable[[], Recording]], None, None]:
    """Yield every request of a file with a function that returns its recording.

    The function raises as `audio.read` does, and where the decoder died.
    """
    ahead, behind = tee(requests)
    calls = ((request.source, max_seconds) for request in ahead)
    decoders = min(count_cores(), MAX_DECODERS)
    # `run_in_order` takes requests ahead of their results, so a second iterator yields them again.
    with closing(
        run_in_order(decoders, isolated.read_recording, calls, isolated.DECODER_TIMEOUT_S)
    ) as futures:
        for request, (_, future) in zip(behind, futures, strict=True):
            yield request, partial(_get_recording, request.name, future)


def _get_recording(name: str, future: Future[Recording]) -> Recording:
    try:
        return future.result()
    except ChildDiedError as error:
        raise isolated.build_decoder_error(name, error) from None


def check_prediction(prediction: Prediction, request: Request, *, strict: bool) -> Prediction:
    """Return a prediction after the checks of `predict_files`.

    Args:
        prediction: prediction of the request.
        request: may state the length of the recording; another length is a warning.
        strict: whether a warning becomes an error.
    """
    checked = _compare_duration(prediction, request.duration_s)
    if strict and checked.status == "warning":
        return replace(checked, status="error", **empty_answer(), segments=[], speakers=[])
    return checked


def _compare_duration(prediction: Prediction, stated_s: float | None) -> Prediction:
    """Add a warning where a recording is not as long as stated."""
    if stated_s is None or prediction.duration_s is None or prediction.status == "error":
        return prediction
    if abs(stated_s - prediction.duration_s) <= SEGMENT_TOLERANCE_S:
        return prediction
    warning = f"{prediction.duration_s:.3f} s; the table says {stated_s:.3f} s"
    message = f"{prediction.message}; {warning}" if prediction.message else warning
    return replace(prediction, status="warning", code=prediction.code or "other_duration", message=message)
