"""Decoding ahead of the model: several files at a time, in processes of their own, in the order given."""

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import tee
from typing import NamedTuple

from sertone.audio import SEGMENT_TOLERANCE_S, Recording
from sertone.runtime.answering import empty_answer
from sertone.runtime.recording_source import FileSource
from sertone.runtime.timeline import isolated
from sertone.schema import Prediction
from sertone.utils.processes import ChildDiedError, count_cores, run_in_order

MAX_DECODERS = 4


class Request(NamedTuple):
    """A file, and what is said of it."""

    file: FileSource
    text: str | None
    duration_s: float | None


def build_requests(
    files: Iterable[FileSource], texts: Iterable[str | None] | None, durations: Iterable[float | None] | None
) -> Iterator[Request]:
    """Raises ValueError where there are not as many texts or durations as files."""
    given = {"text": texts, "duration_s": durations}
    there = {name: values for name, values in given.items() if values is not None}
    for file, *said in zip(files, *there.values(), strict=True):
        yield Request(file, **(dict.fromkeys(given) | dict(zip(there, said, strict=True))))


def drop_texts(texts: Iterable[str | None]) -> Iterator[None]:
    """None in the place of each; says once that they make no difference."""
    told = False
    for text in texts:
        if text and not told:
            warnings.warn("the model hears only; texts make no difference", stacklevel=2)
            told = True
        yield None


def decode_ahead(
    rows: Iterable[Request], max_seconds: float
) -> Generator[tuple[Request, Callable[[], Recording]], None, None]:
    """Every row with what gives its recording, or raises as `audio.read` and where the decoder died."""
    ahead, behind = tee(rows)
    calls = ((row.file, max_seconds) for row in ahead)
    with closing(
        run_in_order(
            min(count_cores(), MAX_DECODERS), isolated.read_recording, calls, isolated.DECODER_TIMEOUT_S
        )
    ) as futures:
        for row, (_, future) in zip(behind, futures, strict=True):
            yield row, partial(_result, row.file, future)


def check_prediction(made: Prediction, row: Request, *, strict: bool) -> Prediction:
    """Return a prediction as it is handed out.

    Args:
        made: about the row's file.
        row: which may say how long the recording is: a difference is a warning.
        strict: whether a warning is an error.
    """
    held = _held_against(made, row.duration_s)
    if strict and held.status == "warning":
        return replace(held, status="error", **empty_answer(), segments=[], speakers=[])
    return held


def _held_against(made: Prediction, stated_s: float | None) -> Prediction:
    """Add a warning where a recording is not as long as is said."""
    if stated_s is None or made.duration_s is None or made.status == "error":
        return made
    if abs(stated_s - made.duration_s) <= SEGMENT_TOLERANCE_S:
        return made
    found = {}
    found["other_duration"] = f"{made.duration_s:.3f} s; the table says {stated_s:.3f} s"
    (code, message), *_ = found.items()
    said = f"{made.message}; {message}" if made.message else message
    return replace(made, status="warning", code=made.code or code, message=said)


def _result(file: FileSource, future: Future[Recording]) -> Recording:
    try:
        return future.result()
    except ChildDiedError as error:
        raise isolated.build_decoder_error(file, error) from None
