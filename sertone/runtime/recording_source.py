"""The forms in which a recording can be given: a file name, the bytes of a file, an open file, or samples."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from sertone.audio import Recording, from_array
from sertone.audio.containers.source import AudioBytes
from sertone.audio.isolated import read_isolated
from sertone.errors import AudioError
from sertone.runtime.answering import build_error_prediction, build_failure_prediction
from sertone.schema import Prediction

FileSource = str | Path | AudioBytes
"""A file by its name, or its bytes."""
AudioSource = FileSource | np.ndarray
"""A file, or samples (N,) or (N, channels)."""
AnySource = str | Path | bytes | BinaryIO | AudioBytes | np.ndarray
"""The forms that callers may use."""


@dataclass(frozen=True, slots=True)
class Request:
    """One recording to predict.

    Attributes:
        source: the recording.
        sampling_rate: sampling rate of samples, in Hz; None for a file.
        text: transcript, None where it is not known.
        duration_s: stated length in seconds, None where it is not known.
    """

    source: AudioSource
    sampling_rate: int | None = None
    text: str | None = None
    duration_s: float | None = None

    @property
    def name(self) -> str:
        """Name of the recording, for predictions and messages."""
        return "<array>" if isinstance(self.source, np.ndarray) else str(self.source)


def resolve_source(source: AnySource, sampling_rate: int | None) -> AudioSource:
    """Return a recording in a form that the reader takes; an open file is read to its end.

    Raises:
        TypeError: neither a path, bytes, a binary file nor an array.
        ValueError: samples without a sampling rate.
    """
    if isinstance(source, np.ndarray):
        if sampling_rate is None:
            raise ValueError("samples need their sampling_rate in Hz")
        return source
    if isinstance(source, str | Path | AudioBytes):
        return source
    data: Any = source
    name = "<bytes>"
    if hasattr(source, "read"):
        data = data.read()
        name = str(getattr(source, "name", "<file>"))
    if not isinstance(data, bytes | bytearray | memoryview):
        expected = "one path, bytes, a file opened in binary mode, or a numpy array of samples"
        raise TypeError(f"found a {type(source).__name__}; expected {expected}")
    return AudioBytes(bytes(data), name)


def load_recording(request: Request, max_seconds: float) -> Recording:
    """Load a recording; a child process decodes files.

    Raises:
        AudioError: as `audio.read`; `too_long`, `decoder_crashed`, `decode_timeout`.
    """
    source, sampling_rate = request.source, request.sampling_rate
    if not isinstance(source, np.ndarray):
        return read_isolated(source, max_seconds)
    assert sampling_rate is not None
    # Checked before the conversion to 16 kHz mono, which would copy the whole recording.
    if source.ndim and len(source) > max_seconds * sampling_rate:
        raise AudioError("too_long", f"{len(source)} samples")
    return from_array(source, sampling_rate)


def catch_errors(request: Request, predict: Callable[[], Prediction]) -> Prediction:
    """Return the prediction, or an error of the recording as a prediction with status `error`."""
    try:
        return predict()
    except AudioError as error:
        return build_error_prediction(request.name, error)
    except Exception as error:  # one recording never ends a run
        return build_failure_prediction(request.name, error)
