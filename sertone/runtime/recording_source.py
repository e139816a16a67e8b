"""What a recording can be given as: a file by its name, the bytes of one, an open file, or samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sertone.audio.containers.source import AudioBytes
from sertone.errors import AudioError
from sertone.runtime.answering import build_error_prediction, build_failure_prediction
from sertone.schema import Prediction

FileSource = str | Path | AudioBytes
"""A file by its name, or its bytes."""
AudioSource = FileSource | np.ndarray
"""A file, or samples (N,) or (N, channels)."""
AnySource = str | Path | bytes | BinaryIO | AudioBytes | np.ndarray
"""What callers may name a recording by."""


def resolve_source(given: AnySource, sampling_rate: int | None) -> AudioSource:
    """Return a recording as the reader takes it; an open file is read to its end.

    Raises:
        TypeError: neither a path, bytes, a binary file nor an array.
        ValueError: samples without a sampling rate.
    """
    if isinstance(given, np.ndarray):
        if sampling_rate is None:
            raise ValueError("samples need their sampling_rate in Hz")
        return given
    if isinstance(given, str | Path | AudioBytes):
        return given
    data: Any = given
    name = "<bytes>"
    if hasattr(given, "read"):
        data, name = data.read(), str(getattr(given, "name", "<file>"))
    if not isinstance(data, bytes | bytearray | memoryview):
        expected = "one path, bytes, a file opened in binary mode, or a numpy array of samples"
        raise TypeError(f"found a {type(given).__name__}; expected {expected}")
    return AudioBytes(bytes(data), name)


def get_source_name(source: AudioSource) -> str:
    """Return the name of a recording, for answers and messages."""
    return "<array>" if isinstance(source, np.ndarray) else str(source)


def catch_errors(source: AudioSource, answer: Callable[[], Prediction]) -> Prediction:
    """Return the answer, or the fault of the recording as one."""
    try:
        return answer()
    except AudioError as error:
        return build_error_prediction(get_source_name(source), error)
    except Exception as error:  # one recording never ends a run
        return build_failure_prediction(get_source_name(source), error)
