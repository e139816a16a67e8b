"""Cost of a model: parameters, speed and memory.

Parameters are compared with HuBERT-large, as oliveira2023 (arXiv 2305.19184) does. Its convolutions do not
count, because they are never trained.
"""

import re
import resource
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sertone import models
from sertone.audio import SAMPLING_RATE
from sertone.models.contract import EmotionModel
from sertone.nn.batch import Batch
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.train_parts import LoraConfig
from sertone.training.fit.preparation import count_trained, freeze
from sertone.utils.processes import ChildProcess

HUBERT_LARGE = 311_228_544
"""Parameters of HuBERT-large as Hugging Face builds it, without the 4.2 M of its convolutions."""
CLIP_SECONDS = 5.0
"""Length of the clip that is timed."""
CLIP_TEXT = "that is what they told me when I came home"
"""Text of the clip, for models that use text."""
TIMING_SECONDS = 3.0
"""Time for which predictions are repeated. The fastest counts: other work of the machine slows the others."""
MIN_TIMINGS = 3
"""Number of predictions that are timed at least, however slow they are."""
PARTS = ("encoder", "text")
"""Parts of a model that are counted separately."""


def count_parameters(model: EmotionModel, lora: LoraConfig | None = None) -> dict[str, Any]:
    """Count the parameters of a model, and those that are trained.

    Args:
        model: model with encoders and stages. Afterwards it is frozen as in its last stage.
        lora: adapters that are trained instead of the encoder's layers. They count as trained, and not in
            `total`, because the trained model does not have them.

    Returns:
        `total`, `trained` in any stage, `stages` (name -> trained in it), `parts` (encoder, text, rest ->
        `total` and `trained`), and `share_of_hubert_large`, the trained ones divided by HUBERT_LARGE.
    """
    trained: dict[str, int] = {}
    stages = {}
    for stage in model.stages():
        freeze(model, stage)
        counts = count_trained(model, lora)
        stages[stage.name] = sum(counts.values())
        trained |= counts
    trained_count = sum(trained.values())
    totals = {name: weight.numel() for name, weight in model.named_parameters()}
    return {
        "total": sum(totals.values()),
        "trained": trained_count,
        "stages": stages,
        "parts": _count_parts(totals, trained),
        "share_of_hubert_large": trained_count / HUBERT_LARGE,
    }


def _count_parts(totals: Mapping[str, int], trained: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Return `total` and `trained` of each part of PARTS, and of the rest, from the counts by name."""
    parts: dict[str, dict[str, int]] = {}
    for kind, counts in {"total": totals, "trained": trained}.items():
        for name, count in counts.items():
            first = name.partition(".")[0]
            part = parts.setdefault(first if first in PARTS else "rest", {"total": 0, "trained": 0})
            part[kind] += count
    return parts


def measure_cost(
    options: Mapping[str, Any], vocabulary: Vocabulary, lora: LoraConfig | None = None
) -> dict[str, Any]:
    """Measure parameters, speed and memory of a model on one CPU core, in a separate process.

    Args:
        options: part `model` of a recipe, or of a checkpoint's metadata.
        vocabulary: vocabulary of the model.
        lora: as for `count_parameters`. Speed and memory are those of the trained model, without adapters.

    Returns:
        the result of `count_parameters`; `real_time_factor`, seconds of computing per second of audio, of the
        fastest prediction of one clip of CLIP_SECONDS; `memory_mb`, for the weights and that prediction.

    Raises:
        SertoneError: see `models.build`.
    """
    # Several cores would wait for each other where the machine has other work, which slows small models most.
    with ChildProcess({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}) as child:
        return child(measure_here, dict(options), vocabulary, lora)


def measure_here(
    options: dict[str, Any], vocabulary: Vocabulary, lora: LoraConfig | None = None
) -> dict[str, Any]:
    """Measure the cost in this process. The memory is right only in a process that has done nothing else."""
    before = _read_peak_memory()
    model = models.build(options, vocabulary).eval()
    clip = _build_clip(vocabulary)
    with torch.inference_mode():
        model(clip)  # the first prediction also allocates memory and fills caches, so it is not timed
        seconds = _time_fastest(model, clip)
    memory = (_read_peak_memory() - before) / 1e6
    return count_parameters(model, lora) | {"real_time_factor": seconds / CLIP_SECONDS, "memory_mb": memory}


def _build_clip(vocabulary: Vocabulary) -> Batch:
    """Return a batch of one clip of noise, with a text where the model uses text."""
    torch.manual_seed(0)
    samples = round(CLIP_SECONDS * SAMPLING_RATE)
    tokens, counts = vocabulary.encode_texts([CLIP_TEXT]) if vocabulary.tokenizer else (None, None)
    return Batch(0.1 * torch.randn(1, samples), torch.tensor([samples]), tokens=tokens, counts=counts)


def _time_fastest(model: EmotionModel, clip: Batch) -> float:
    """Return the seconds of the fastest prediction."""
    seconds = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < TIMING_SECONDS or len(seconds) < MIN_TIMINGS:
        started = time.perf_counter()
        model(clip)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _read_peak_memory() -> int:
    """Return the peak memory of this process in bytes."""
    # On Linux, `ru_maxrss` of a child process includes the peak of its parent, and VmHWM does not.
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS, in bytes
