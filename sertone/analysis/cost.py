"""What a model costs: parameters, and how fast it answers in how much memory.

The yardstick of oliveira2023 (arXiv 2305.19184) is HuBERT-large; its convolutions, which nobody trains, do
not count.
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
from sertone.training.fit.step import freeze
from sertone.utils.processes import ChildProcess

HUBERT_LARGE = 311_228_544
"""Parameters of HuBERT-large as Hugging Face builds it, without the 4.2 M of its convolutions."""
SECONDS = 5.0
"""Of the clip that is timed."""
WORDS = "that is what they told me when I came home"
"""What is said in it."""
PATIENCE = 3.0
"""Seconds for which answers are timed; the fastest counts: what else the machine does slows the others."""
PARTS = ("encoder", "text")


def count_parameters(model: EmotionModel) -> dict[str, Any]:
    """How many parameters a model has, and how many of them are trained.

    Args:
        model: with encoders and stages; what its last stage freezes is frozen here.

    Returns:
        `total`, `trained` in some stage, `stages` (name -> trained in it), `parts` (encoder, text, rest ->
        `total` and `trained`), and `share_of_hubert_large`, the trained ones by HUBERT_LARGE.
    """
    trained: set[str] = set()
    stages = {}
    for stage in model.stages():
        freeze(model, stage)
        own = {name for name, weight in model.named_parameters() if weight.requires_grad}
        stages[stage.name] = _count(model, own)
        trained |= own
    total = _count(model, trained)
    return {
        "total": _count(model),
        "trained": total,
        "stages": stages,
        "parts": _parts(model, trained),
        "share_of_hubert_large": total / HUBERT_LARGE,
    }


def _parts(model: EmotionModel, trained: set[str]) -> dict[str, dict[str, int]]:
    names: dict[str, set[str]] = {}
    for name, _ in model.named_parameters():
        first = name.split(".", 1)[0]
        names.setdefault(first if first in PARTS else "rest", set()).add(name)
    return {
        part: {"total": _count(model, own), "trained": _count(model, own & trained)}
        for part, own in names.items()
    }


def _count(model: EmotionModel, names: set[str] | None = None) -> int:
    return sum(w.numel() for name, w in model.named_parameters() if names is None or name in names)


def measure_cost(options: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """Parameters, speed and memory of a model, on one core, in a process of its own.

    One core, as several wait for each other where the machine has other work, which small models feel most.

    Args:
        options: the `model` part of a recipe, or of what a checkpoint says of itself.
        vocabulary: of the model.

    Returns:
        what `parameters` gives; `real_time_factor`, seconds of computing per second of audio, the fastest of
        the answers about one clip of SECONDS; `memory_mb`, what weights and that answer take.

    Raises:
        SertoneError: as the building.
    """
    with ChildProcess({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}) as isolated:
        return isolated(measured, dict(options), vocabulary)


def measured(options: dict[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
    """What `cost` gives; the memory is right only in a process that has done nothing else."""
    before = _peak()
    model = models.build(options, vocabulary).eval()
    clip = _clip(vocabulary)
    with torch.inference_mode():
        model(clip)
        seconds = _fastest(model, clip)
    memory = (_peak() - before) / 1e6
    return count_parameters(model) | {"real_time_factor": seconds / SECONDS, "memory_mb": memory}


def _clip(vocabulary: Vocabulary) -> Batch:
    torch.manual_seed(0)
    samples = round(SECONDS * SAMPLING_RATE)
    tokens, counts = vocabulary.encode_texts([WORDS]) if vocabulary.tokenizer else (None, None)
    return Batch(0.1 * torch.randn(1, samples), torch.tensor([samples]), tokens=tokens, counts=counts)


def _fastest(model: EmotionModel, clip: Batch) -> float:
    """Seconds of the fastest answer."""
    seconds, begun = [], time.perf_counter()
    while time.perf_counter() - begun < PATIENCE or len(seconds) < 3:
        started = time.perf_counter()
        model(clip)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _peak() -> int:
    """The most memory that this process has had, in bytes.

    Linux counts what its parent had into `ru_maxrss`, and not into VmHWM.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS, in bytes
