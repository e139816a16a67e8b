"""`sertone listen`: emotions of what a microphone hears, while it hears it."""

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
    from sertone.schema import Segment

CHUNK_S = 0.1
BAR = 20


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
    as_json: Annotated[Flag, Parameter(name="--json")] = False,
) -> int:
    """Listen to a microphone: one line per window until Ctrl-C, and a last line for the whole.

    This needs the extra `listen` (sounddevice) and, on Linux, the library PortAudio.

    Args:
        model: A model, as for `sertone predict`. Default: the model that comes with Sertone.
        window_s: Length of a window, in seconds.
        hop_s: Time from one window to the next, in seconds.
        seconds: Stop after this many seconds. Default: at Ctrl-C.
        microphone: Number of the device, or part of its name. Default: the system's own.
        classes: As for `sertone predict`.
        min_confidence: As for `sertone predict`.
        as_json: Print a JSON object per line: the segments, and at the end the prediction.
    """
    from sertone import load

    predictor = load(model, classes=classes, min_confidence=min_confidence)
    with _microphone(microphone, seconds) as (rate, chunks):
        stream = predictor.stream(rate, window_s=window_s, hop_s=hop_s)
        return print_stream(stream, chunks, format_json if as_json else format_text)


def print_stream(stream: "Stream", chunks: "Iterable[np.ndarray]", line: "Callable[[Segment], str]") -> int:
    """Prints a line per segment while the chunks come, and what they amount to when they end.

    Args:
        stream: of the rate of the chunks.
        chunks: samples (N,) or (N, channels), as they come.
        line: a segment as text.

    Returns:
        the exit status: 1 where too little was heard to say anything.
    """
    try:
        for chunk in chunks:
            for segment in stream.push(chunk):
                print_text(line(segment))
    except KeyboardInterrupt:
        pass  # how listening ends
    whole = stream.finish()
    for segment in whole.segments:
        print_text(line(segment))
    if line is format_json:
        print_text(json.dumps(whole.to_json(), ensure_ascii=False))
    elif whole.status == "error":
        print_status(f"error [{whole.code}] {whole.message}")
    else:
        print_text(
            f"{'the whole':>19}  {_answer(whole.label, whole.confidence, whole.unsure, whole.dimensions)}"
        )
    return int(whole.status == "error")


def format_json(segment: "Segment") -> str:
    """A segment as a JSON object."""
    return json.dumps(asdict(segment), ensure_ascii=False)


def format_text(segment: "Segment") -> str:
    """A segment as a line: its time, the label, the confidence as a bar, dimensions."""
    at = f"{segment.start_s:7.1f} - {segment.end_s:7.1f} s"
    return f"{at}  {_answer(segment.label, segment.confidence, segment.unsure, segment.dimensions)}"


def _answer(label: str | None, confidence: float | None, unsure: bool, dimensions: dict[str, float]) -> str:
    parts = [f"{name} {value:.2f}" for name, value in dimensions.items()]
    if label is not None and confidence is not None:
        bar = "█" * round(BAR * confidence)
        parts.insert(0, f"{label:<12} {bar:·<{BAR}} {confidence:4.0%}{' unsure' * unsure}")
    return "  ".join(parts) or "no answer"


@contextmanager
def _microphone(device: str | None, seconds: float | None) -> "Iterator[tuple[int, Iterator[np.ndarray]]]":
    """The rate of a microphone in Hz, and what it hears."""
    sounddevice = _sounddevice()
    chosen: Any = int(device) if device and device.isdigit() else device
    try:
        rate = int(sounddevice.query_devices(chosen, "input")["default_samplerate"])
        size = round(CHUNK_S * rate)
        with sounddevice.InputStream(rate, size, chosen, channels=1, dtype="float32") as opened:
            times = count() if seconds is None else range(max(1, round(seconds / CHUNK_S)))
            yield rate, (_heard(opened, size) for _ in times)
    except (sounddevice.PortAudioError, ValueError) as error:
        way_out = "`python -m sounddevice` lists the devices"
        raise SertoneError("no_microphone", str(error), "a device that records", way_out) from None


def _heard(opened: Any, size: int) -> "np.ndarray":
    chunk, lost = opened.read(size)
    if lost:
        print_status("warning  sound was lost: the model is slower than the microphone")
    return chunk


def _sounddevice() -> Any:
    try:
        import sounddevice  # pyright: ignore[reportMissingImports]
    except ImportError:
        found = "a microphone to listen to"
        raise SertoneError("missing_extra", found, "sounddevice", install_command("listen")) from None
    except OSError as error:
        way_out = "apt install libportaudio2, or what it is called on this system"
        raise SertoneError("no_portaudio", str(error), "the library PortAudio", way_out) from None
    return sounddevice
