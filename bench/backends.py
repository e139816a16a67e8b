"""The inference backends that `infer.py` compares; each runs in a separate process."""

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
class Backend:
    """The description of a backend.

    Attributes:
        kind: `pipeline` (of transformers), `sertone`, `onnxruntime` with its default settings, or `audonnx`.
        folder: folder of the checkpoint for the pipeline, of a bundle for the others.
        threads: threads for one recording.
        batch: batch size of the pipeline.
    """

    kind: str
    folder: str
    threads: int
    batch: int = 1


def make_clip(seconds: float, seed: int = 0) -> np.ndarray:
    """Return a changing tone in noise, (N,), always the same for the same seed."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (120 + 7 * (seed % 20)) * time_s + 3 * np.sin(5 * time_s))
    return (0.1 * tone + 0.01 * rng.standard_normal(len(time_s))).astype(np.float32)


class LoadedBackend:
    """A backend that is ready to predict.

    Args:
        backend: its description.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._predict = _LOADERS[backend.kind](backend)
        self._predict_long = _load_timeline(backend) if backend.kind == "sertone" else self._predict_windows
        self._clips: list[np.ndarray] = []

    def prepare(self, lengths_s: Sequence[float]) -> None:
        """Make recordings outside the measured time."""
        self._clips = [make_clip(seconds, seed) for seed, seconds in enumerate(lengths_s)]

    def predict(self) -> tuple[float, np.ndarray]:
        """Return the seconds for all prepared recordings, and the probabilities (R, K)."""
        started = time.perf_counter()
        probabilities = self._predict(self._clips)
        return time.perf_counter() - started, np.asarray(probabilities)

    def predict_long(self, seconds: float) -> tuple[float, float, np.ndarray]:
        """Predict one long recording in windows.

        Returns:
            seconds, growth of peak memory in MB, and probabilities (R, K).
        """
        samples = np.tile(make_clip(60.0), int(np.ceil(seconds / 60)))[: round(seconds * RATE)]
        before_mb = get_peak_mb()
        started = time.perf_counter()
        probabilities = self._predict_long(samples)
        return time.perf_counter() - started, get_peak_mb() - before_mb, probabilities

    def _predict_windows(self, samples: np.ndarray) -> np.ndarray:
        """Predict window by window, as users of the other backends write it by hand."""
        size = round(WINDOW_S * RATE)
        windows = (samples[start : start + size] for start in range(0, len(samples), size))
        return np.concatenate([self._predict([window]) for window in windows])

    def get_peak_memory(self) -> float:
        """Return the peak memory so far, in MB."""
        return get_peak_mb()


def get_peak_mb() -> float:
    """Return the largest resident memory of this process, in MB."""
    # getrusage would also count the memory of the process from which this one was forked.
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) / 1024 if match else 0.0


def _load_pipeline(backend: Backend) -> Any:
    import torch
    from transformers import pipeline

    torch.set_num_threads(backend.threads)
    classifier: Any = pipeline(
        "audio-classification", model=backend.folder, top_k=None, trust_remote_code=False
    )
    config = classifier.model.config
    names = [config.id2label[index] for index in range(config.num_labels)]

    def predict(clips: Sequence[np.ndarray]) -> list[list[float]]:
        inputs = [{"raw": samples, "sampling_rate": RATE} for samples in clips]
        outputs = classifier(inputs, batch_size=backend.batch)
        # The pipeline sorts its classes by score, so they are brought back to the model's order.
        by_name = [{part["label"]: part["score"] for part in parts} for parts in outputs]
        return [[scores[name] for name in names] for scores in by_name]

    return predict


def _load_sertone(backend: Backend) -> Any:
    import sertone

    # The clips are noise; with the check for speech no model would run.
    predictor = sertone.load(backend.folder, threads=backend.threads, any_sound=True)
    return lambda clips: [list(predictor.predict(c, RATE).probabilities.values()) for c in clips]


def _load_timeline(backend: Backend) -> Any:
    """Return a function that predicts the same windows with Sertone's timeline."""
    import sertone
    from sertone.runtime.timeline.plan import TimelineSettings

    predictor = sertone.load(backend.folder, threads=backend.threads, any_sound=True)
    settings = TimelineSettings(segmentation="windows", window_s=WINDOW_S)

    def predict(samples: np.ndarray) -> np.ndarray:
        segments = predictor.timeline(samples, RATE, settings=settings).segments
        return np.asarray([list(segment.probabilities.values()) for segment in segments])

    return predict


def _load_onnxruntime(backend: Backend) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = backend.threads
    session = onnxruntime.InferenceSession(Path(backend.folder) / "model.onnx", options)

    def predict(clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.asarray(session.run(["probabilities"], {"waveforms": c[None]})[0])[0] for c in clips]

    return predict


def _load_audonnx(backend: Backend) -> Any:
    import audonnx  # pyright: ignore[reportMissingImports]
    import onnx

    graph = onnx.load(Path(backend.folder) / "model.onnx")
    # audonnx requires a graph with a fixed batch size of one recording.
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model = audonnx.Model(graph, num_workers=backend.threads)
    return lambda clips: [model(clip, RATE, outputs="probabilities")[0] for clip in clips]


_LOADERS = {
    "pipeline": _load_pipeline,
    "sertone": _load_sertone,
    "onnxruntime": _load_onnxruntime,
    "audonnx": _load_audonnx,
}
_loaded: LoadedBackend | None = None


def start(backend: Backend) -> None:
    """Load a backend in this process."""
    global _loaded
    _loaded = LoadedBackend(backend)


def call(method: str, *arguments: Any) -> Any:
    """Call a method of the loaded backend."""
    return getattr(_loaded, method)(*arguments)
