"""`sertone listen`: the emotion of what a microphone records, while it records."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sertone.cli.common import USE, Flag, app
from sertone.errors import SertoneError
from sertone.utils.extras import install_command
from sertone.utils.terminal import print_status, print_text

if TYPE_CHECKING:
    import numpy as np

    from sertone.runtime.timeline.streaming import Stream
    from sertone.schema import Prediction, Segment

CHUNK_S = 0.1
"""Seconds that are read from the microphone at once."""
BAR_WIDTH = 20
"""Characters of the bar that shows a confidence of 1."""


@app.command(group=USE)
def listen(
    model: str | None = None,
    /,
    *,
    window_s: float = 3.0,
    hop_s: float = 1.0,
    seconds: float | None = None,
    microphone: str | None = None,
    classes: str | None = None,
    min_confidence: float | None = None,
    any_sound: Flag = False,
    as_json: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Predict emotions live from a microphone: a line per window until Ctrl-C, and a last line for the whole.

    This needs the extra `listen` (sounddevice) and, on Linux, the library PortAudio.

    Args:
        model: A model, as for `sertone predict`. Default: the model that comes with Sertone.
        window_s: Length of a window, in seconds.
        hop_s: Time from one window to the next, in seconds.
        seconds: Stop after this many seconds. Default: at Ctrl-C.
        microphone: Number of the device, or part of its name. Default: the system's own.
        classes: As for `sertone predict`.
        min_confidence: As for `sertone predict`.
        any_sound: As for `sertone predict`.
        as_json: Print a JSON object per line: the segments, and at the end the prediction.
    """
    from sertone import load

    predictor = load(model, classes=classes, min_confidence=min_confidence, any_sound=any_sound)
    with _open_microphone(microphone, seconds) as (rate, chunks):
        stream = predictor.stream(rate, window_s=window_s, hop_s=hop_s)
        return print_stream(stream, chunks, format_json if as_json else format_text)


def print_stream(
    stream: "Stream", chunks: "Iterable[np.ndarray]", format_line: "Callable[[Segment], str]"
) -> int:
    """Print a line per segment while chunks arrive, and the prediction of the whole at the end.

    Args:
        stream: stream with the sampling rate of the chunks.
        chunks: samples (N,) or (N, channels), as they arrive.
        format_line: turns a segment into a line of text.

    Returns:
        the exit status: 1 where there was too little audio for a prediction.
    """
    try:
        for chunk in chunks:
            for segment in stream.push(chunk):
                print_text(format_line(segment))
    except KeyboardInterrupt:
        pass  # Ctrl-C is how listening ends
    prediction = stream.finish()
    for segment in prediction.segments:
        print_text(format_line(segment))
    if format_line is format_json:
        print_text(json.dumps(prediction.to_json(), ensure_ascii=False))
    elif prediction.status == "error":
        print_status(f"error [{prediction.code}] {prediction.message}")
    else:
        print_text(f"{'the whole':>19}  {_format_prediction(prediction)}")
    return int(prediction.status == "error")


def format_json(segment: "Segment") -> str:
    """Return a segment as a JSON object."""
    return json.dumps(asdict(segment), ensure_ascii=False)


def format_text(segment: "Segment") -> str:
    """Return a segment as a line: its time, the label, the confidence as a bar, dimensions."""
    times = f"{segment.start_s:7.1f} - {segment.end_s:7.1f} s"
    return f"{times}  {_format_prediction(segment)}"


def _format_prediction(prediction: "Prediction | Segment") -> str:
    label, confidence = prediction.label, prediction.confidence
    parts = [f"{name} {value:.2f}" for name, value in prediction.dimensions.items()]
    if label is not None and confidence is not None:
        bar = "█" * round(BAR_WIDTH * confidence)
        suffix = " unsure" if prediction.unsure else ""
        parts.insert(0, f"{label:<12} {bar:·<{BAR_WIDTH}} {confidence:4.0%}{suffix}")
    return "  ".join(parts) or "no answer"


@contextmanager
def _open_microphone(
    device: str | None, seconds: float | None
) -> "Iterator[tuple[int, Iterator[np.ndarray]]]":
    """Yield the sampling rate of a microphone in Hz, and its chunks of samples (N, 1)."""
    sounddevice = _import_sounddevice()
    index_or_name: Any = int(device) if device and device.isdigit() else device
    try:
        rate = int(sounddevice.query_devices(index_or_name, "input")["default_samplerate"])
        size = round(CHUNK_S * rate)
        with sounddevice.InputStream(rate, size, index_or_name, channels=1, dtype="float32") as microphone:
            times = count() if seconds is None else range(max(1, round(seconds / CHUNK_S)))
            yield rate, (_record_chunk(microphone, size) for _ in times)
    except (sounddevice.PortAudioError, ValueError) as error:
        way_out = "`python -m sounddevice` lists the devices"
        raise SertoneError("no_microphone", str(error), "a device that records", way_out) from None


def _record_chunk(microphone: Any, size: int) -> "np.ndarray":
    chunk, overflowed = microphone.read(size)
    if overflowed:
        print_status("warning  audio was lost: the model is slower than the microphone")
    return chunk


def _import_sounddevice() -> Any:
    try:
        import sounddevice  # pyright: ignore[reportMissingImports]
    except ImportError:
        problem = "sounddevice, which records from the microphone, is not installed"
        raise SertoneError("missing_extra", problem, way_out=install_command("listen")) from None
    except OSError as error:  # sounddevice loads PortAudio when it is imported
        way_out = "apt install libportaudio2, or what it is called on this system"
        raise SertoneError("no_portaudio", str(error), "the library PortAudio", way_out) from None
    return sounddevice
