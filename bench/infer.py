"""Speed of a bundle on a CPU, compared with the pipeline of Hugging Face, plain ONNX Runtime and audonnx.

    python bench/infer.py --quick            a quick look: a smaller model, few recordings
    python bench/infer.py --json             the shape of wav2vec2-base; the last line is one JSON object

A checkpoint with random weights, `Wav2Vec2ForSequenceClassification` as in SUPERB's emotion recognition, is
exported in fp32, int8 and bf16. Every backend runs in a separate process. Times are taken in pairs, one
backend after the other, in alternating order; the median of the pairs counts. The recordings are in memory,
so decoding is not timed. A classifier on Whisper is compared in the same way. See docs/performance.md.
"""

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper_models
from backends import Backend, call, start
from pairs import HERE
from speech import durations
from train import describe_processor
from transformers import AutoConfig, AutoModelForAudioClassification, Wav2Vec2FeatureExtractor
from transformers.utils import logging
from whisper_models import CLIPS_S, write_whisper_models

from sertone.export.bundles import export, write_bundle
from sertone.export.precision import convert_precision
from sertone.utils.processes import ChildProcess, count_cores

SMALL = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 768}
SMALL |= {"conv_dim": [128] * 7, "num_conv_pos_embeddings": 32, "num_conv_pos_embedding_groups": 4}
TINY = SMALL | {"hidden_size": 32, "intermediate_size": 64, "conv_dim": [16] * 7, "num_hidden_layers": 2}
LABELS = dict(enumerate(("neu", "hap", "ang", "sad")))
PRECISIONS = ("fp32", "int8", "bf16")
CLIP_S = 5.0


def write_models(folder: Path, shape: dict[str, Any]) -> None:
    """Write the checkpoint, and a bundle in every precision."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("wav2vec2", **shape, id2label=LABELS, use_weighted_layer_sum=True)
    model = AutoModelForAudioClassification.from_config(config, trust_remote_code=False)
    # Random weights give all recordings nearly the same probabilities; a steep classifier tells them apart.
    with torch.no_grad():
        model.classifier.weight.mul_(20.0)
    model.save_pretrained(folder / "checkpoint")
    Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder / "checkpoint")
    about = export(f"hf:{folder / 'checkpoint'}", folder / "fp32")
    for precision in PRECISIONS[1:]:
        (folder / precision).mkdir()
        convert_precision(folder / "fp32" / "model.onnx", folder / precision / "model.onnx", precision)
        write_bundle(folder / precision, about | {"precision": precision})


class Child:
    """A child process with one backend.

    Args:
        backend: its description.
    """

    def __init__(self, backend: Backend) -> None:
        self.process = ChildProcess({"PYTHONPATH": HERE, "HF_HUB_OFFLINE": "1"})
        self.process(start, backend)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()

    def __getattr__(self, method: str) -> Any:
        return lambda *arguments: self.process(call, method, *arguments)


def race(first: Child, second: Child, pairs: int) -> tuple[float, float, float]:
    """Return the median ratio of first / second over pairs, and the median seconds of each.

    Both predict the recordings that they have prepared.
    """
    # The first call of each warms up caches and allocators, and is not timed.
    first.predict()
    second.predict()
    pair_times = []
    for number in range(pairs):
        times = [0.0, 0.0]
        for side in (0, 1) if number % 2 else (1, 0):
            times[side] = (first, second)[side].predict()[0]
        pair_times.append(times)
    first_s, second_s = (statistics.median(times) for times in zip(*pair_times, strict=True))
    return statistics.median(a / b for a, b in pair_times), first_s, second_s


class Bench:
    """One run of the benchmark.

    Args:
        options: options of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        quick = options.quick or options.tiny
        self.shape = TINY if options.tiny else SMALL if options.quick else {}
        self.pairs = options.pairs or (3 if quick else 9)
        self.lengths = durations(200)[
            : options.files or (12 if options.tiny else 40 if quick else 200)
        ].tolist()
        self.long_s = options.long_s or (60.0 if options.tiny else 300.0 if quick else 3600.0)
        self.threads = options.threads or count_cores()
        size = "toy" if options.tiny else "small" if options.quick else "base"
        self.results: dict[str, Any] = {"shape": size, "threads": self.threads, "pairs": self.pairs}

    def measure(self) -> dict[str, Any]:
        """Measure everything that the module's docstring lists."""
        with tempfile.TemporaryDirectory() as place:
            write_models(Path(place), self.shape)
            self._measure(Path(place))
        self.results["device"] = describe_processor()
        names = ("torch", "transformers", "onnxruntime")
        return self.results | {"versions": {name: version(name) for name in names}}

    def _measure(self, place: Path) -> None:
        self.results["megabytes"] = {p: (place / p / "model.onnx").stat().st_size / 1e6 for p in PRECISIONS}
        pipeline = Backend("pipeline", str(place / "checkpoint"), self.threads)
        ways = {p: Backend("sertone", str(place / p), self.threads) for p in PRECISIONS}
        ways["onnxruntime"] = Backend("onnxruntime", str(place / "fp32"), self.threads)
        if importlib.util.find_spec("audonnx"):
            ways["audonnx"] = Backend("audonnx", str(place / "fp32"), self.threads)
        with ExitStack() as stack:
            usual = stack.enter_context(Child(pipeline))
            children = {name: stack.enter_context(Child(way)) for name, way in ways.items()}
            # The pipeline against itself shows how far the machine's noise moves a ratio.
            self._measure_clip(usual, children | {"null pair": stack.enter_context(Child(pipeline))})
            self._measure_directory(usual, children)
            memory = {
                name: child.get_peak_memory() for name, child in {"pipeline": usual, **children}.items()
            }
            self.results["memory_mb"] = memory
        self._measure_batches(pipeline, ways["fp32"])
        self._measure_long(pipeline, ways)
        self._measure_whisper(place)

    def _measure_clip(self, usual: Child, children: dict[str, Child]) -> None:
        scores = self.results["clip"] = {}
        for child in (usual, *children.values()):
            child.prepare([CLIP_S])
        for name, child in children.items():
            ratio, usual_s, child_s = race(usual, child, self.pairs)
            scores[name] = {"speed": ratio, "real_time_factor": child_s / CLIP_S}
            scores["pipeline"] = {"speed": 1.0, "real_time_factor": usual_s / CLIP_S}
            print(f"one clip of {CLIP_S:g} s, {name}: {ratio:.2f} times as fast as the pipeline", flush=True)

    def _measure_directory(self, usual: Child, children: dict[str, Child]) -> None:
        speeds, agreement = {}, {}
        for child in (usual, *children.values()):
            child.prepare(self.lengths)
        expected = usual.predict()[1]
        for name, child in children.items():
            speeds[name] = race(usual, child, max(1, self.pairs // 3))[0]
            agreement[name] = _compare_predictions(expected, child.predict()[1])
            print(f"{len(self.lengths)} files, {name}: {speeds[name]:.2f} times as fast", flush=True)
        self.results |= {"directory": speeds, "agreement": agreement, "files": len(self.lengths)}

    def _measure_batches(self, pipeline: Backend, ours: Backend) -> None:
        """Compare with the pipeline in batches of eight files, in their order."""
        batched = Backend(pipeline.kind, pipeline.folder, pipeline.threads, batch=8)
        with Child(batched) as usual, Child(ours) as child:
            usual.prepare(self.lengths)
            child.prepare(self.lengths)
            ratio = race(usual, child, max(1, self.pairs // 3))[0]
            self.results["directory"]["fp32 against batches of 8"] = ratio
            agreement = _compare_predictions(usual.predict()[1], child.predict()[1])
            self.results["agreement"]["pipeline, batches of 8"] = agreement
        shift = agreement["largest_difference"]
        print(
            f"fp32: {ratio:.2f} times batches of 8, whose padding moves probabilities by {shift:.3f}",
            flush=True,
        )

    def _measure_long(self, pipeline: Backend, ways: dict[str, Backend]) -> None:
        results: dict[str, Any] = {"seconds": self.long_s}
        for name, way in {"pipeline": pipeline, **ways}.items():
            with Child(way) as child:
                child.prepare([10.0])
                child.predict()
                seconds, growth_mb, _ = child.predict_long(self.long_s)
            results[name] = {"real_time_factor": seconds / self.long_s, "growth_mb": growth_mb}
            factor = f"{seconds / self.long_s:.4f} of real time"
            print(f"{self.long_s:g} s in one file, {name}: {factor}, {growth_mb:.0f} MB more", flush=True)
        self.results["long"] = results

    def _measure_whisper(self, place: Path) -> None:
        """Compare clips of several lengths, whose answers differ: the pipeline also averages over padding."""
        write_whisper_models(place, whisper_models.TINY if self.shape else whisper_models.BASE)
        pipeline = Backend("pipeline", str(place / "whisper_checkpoint"), self.threads)
        bundle = Backend("sertone", str(place / "whisper"), self.threads)
        scores = self.results["whisper"] = {}
        with Child(pipeline) as usual, Child(pipeline) as again, Child(bundle) as own:
            for seconds in CLIPS_S:
                for child in (usual, again, own):
                    child.prepare([seconds])
                ratio, usual_s, own_s = race(usual, own, self.pairs)
                null = race(usual, again, self.pairs)[0]
                scores[f"{seconds:g}"] = {
                    "speed": ratio,
                    "pipeline_s": usual_s,
                    "s": own_s,
                    "null pair": null,
                }
                print(f"Whisper, one clip of {seconds:g} s: {ratio:.2f} times as fast", flush=True)


def _compare_predictions(expected: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    equal = (expected.argmax(-1) == actual.argmax(-1)).mean()
    return {"equal_labels": float(equal), "largest_difference": float(np.abs(expected - actual).max())}


def main() -> None:
    """Measure and print."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--quick", action="store_true", help="a smaller model and fewer recordings")
    parser.add_argument("--tiny", action="store_true", help="a toy shape, to test that everything runs")
    parser.add_argument(
        "--pairs", type=int, help="of one clip (9; with --quick 3); a third of it of a directory"
    )
    parser.add_argument("--files", type=int, help="of the directory (200; with --quick 40)")
    parser.add_argument("--long-s", type=float, help="length of the long recording (3600; with --quick 300)")
    parser.add_argument("--threads", type=int, help="of every way; one per core if not given")
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    options = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    started = time.monotonic()
    results = Bench(options).measure()
    results["wall_s"] = time.monotonic() - started
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
