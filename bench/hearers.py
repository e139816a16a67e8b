"""The ways of answering that `infer.py` compares; each runs in a process of its own."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16000
WINDOW_S = 10.0


@dataclass(frozen=True)
class Hearer:
    """One way.

    Attributes:
        kind: `pipeline` (of transformers), `sertone`, `onnxruntime` with its default settings, `audonnx`.
        folder: of the checkpoint for the pipeline, else of a bundle.
        threads: of one recording's arithmetic.
        batch: recordings at a time, for the pipeline.
    """

    kind: str
    folder: str
    threads: int
    batch: int = 1


def clip(seconds: float, seed: int = 0) -> np.ndarray:
    """A changing tone in noise, the same for the same seed: (N,)."""
    draw, time_s = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (120 + 7 * (seed % 20)) * time_s + 3 * np.sin(5 * time_s))
    return (0.1 * tone + 0.01 * draw.standard_normal(len(time_s))).astype(np.float32)


class Running:
    """A way that is loaded.

    Args:
        hearer: which.
    """

    def __init__(self, hearer: Hearer) -> None:
        self.hearer = hearer
        self._answer = _LOADERS[hearer.kind](hearer)
        self._whole = _timeline(hearer) if hearer.kind == "sertone" else self._by_windows
        self._clips: list[np.ndarray] = []

    def prepare(self, lengths_s: Sequence[float]) -> None:
        """Makes recordings, which the clock does not count."""
        self._clips = [clip(seconds, seed) for seed, seconds in enumerate(lengths_s)]

    def answer(self) -> tuple[float, np.ndarray]:
        """Seconds for all that was prepared, and the probabilities (R, K)."""
        started = time.perf_counter()
        found = self._answer(self._clips)
        return time.perf_counter() - started, np.asarray(found)

    def whole(self, seconds: float) -> tuple[float, float, np.ndarray]:
        """One long recording in windows; seconds, growth of peak memory in MB, probabilities (R, K)."""
        samples = np.tile(clip(60.0), int(np.ceil(seconds / 60)))[: round(seconds * RATE)]
        before, started = peak_mb(), time.perf_counter()
        found = self._whole(samples)
        return time.perf_counter() - started, peak_mb() - before, found

    def _by_windows(self, samples: np.ndarray) -> np.ndarray:
        """What a user of the other ways writes by hand."""
        size = round(WINDOW_S * RATE)
        windows = (samples[start : start + size] for start in range(0, len(samples), size))
        return np.concatenate([self._answer([window]) for window in windows])

    def memory(self) -> float:
        """Peak so far, in MB."""
        return peak_mb()


def peak_mb() -> float:
    """Largest resident memory of this process, in MB; getrusage would count what it was forked from."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def _pipeline(hearer: Hearer) -> Any:
    import torch
    from transformers import pipeline

    torch.set_num_threads(hearer.threads)
    running: Any = pipeline("audio-classification", model=hearer.folder, top_k=None, trust_remote_code=False)
    names = [running.model.config.id2label[index] for index in range(running.model.config.num_labels)]

    def answer(clips: Sequence[np.ndarray]) -> list[list[float]]:
        given = [{"raw": samples, "sampling_rate": RATE} for samples in clips]
        found = running(given, batch_size=hearer.batch)
        by_name = [{part["label"]: part["score"] for part in parts} for parts in found]
        return [[scores[name] for name in names] for scores in by_name]

    return answer


def _sertone(hearer: Hearer) -> Any:
    import sertone

    predictor = sertone.load(hearer.folder, threads=hearer.threads)
    return lambda clips: [list(predictor.predict(c, RATE).probabilities.values()) for c in clips]


def _timeline(hearer: Hearer) -> Any:
    """The same windows, by the way of our own for long recordings."""
    import sertone
    from sertone.runtime.timeline.plan import TimelineSettings

    predictor = sertone.load(hearer.folder, threads=hearer.threads)
    settings = TimelineSettings(segmentation="windows", window_s=WINDOW_S)

    def whole(samples: np.ndarray) -> np.ndarray:
        segments = predictor.timeline(samples, RATE, settings=settings).segments
        return np.asarray([list(segment.probabilities.values()) for segment in segments])

    return whole


def _onnxruntime(hearer: Hearer) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = hearer.threads
    session = onnxruntime.InferenceSession(Path(hearer.folder) / "model.onnx", options)

    def answer(clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.asarray(session.run(["probabilities"], {"waveforms": c[None]})[0])[0] for c in clips]

    return answer


def _audonnx(hearer: Hearer) -> Any:
    import audonnx  # pyright: ignore[reportMissingImports]
    import onnx

    graph = onnx.load(Path(hearer.folder) / "model.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1  # it knows graphs of one recording only
    model = audonnx.Model(graph, num_workers=hearer.threads)
    return lambda clips: [model(clip, RATE, outputs="probabilities")[0] for clip in clips]


_LOADERS = {
    "pipeline": _pipeline,
    "sertone": _sertone,
    "onnxruntime": _onnxruntime,
    "audonnx": _audonnx,
}
_running: Running | None = None


def start(hearer: Hearer) -> None:
    """Makes this process answer one way."""
    global _running
    _running = Running(hearer)


def call(method: str, *arguments: Any) -> Any:
    """Calls a method of what `start` made."""
    return getattr(_running, method)(*arguments)
