"""Cost by hours of audio: whole epochs of a small model on corpora of 1, 2 and 4 times the size."""

import statistics
import time

import torch
from speech import MEAN_S, Speech

from sertone import models
from sertone.labels import FOUR_CLASSES
from sertone.nn.vocabulary import Vocabulary
from sertone.protocol.splits import Fold
from sertone.recipe.train_config import TrainConfig
from sertone.training.data.caches import PrefixCaches, SharedCaches
from sertone.training.fit.progress import RunProgress
from sertone.training.fit.trainer import Trainer

MODEL = {"name": "wan2025", "encoder": {"name": "compact", "width": 32, "depth": 2}, "frozen_layers": 0}


def measure_by_hours(hours: float) -> dict[str, dict[str, float]]:
    """Return seconds per epoch and gigabytes of cache, per hour of audio, at 1, 2 and 4 times `hours`."""
    # One thread, because several wait for each other where the machine has other work.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    costs = {f"{size}x": _measure(round(size * hours * 3600 / MEAN_S)) for size in (1, 2, 4)}
    torch.set_num_threads(threads)
    return costs


def _measure(count: int) -> dict[str, float]:
    speech = Speech(count)
    vocabulary = Vocabulary.from_utterances(speech.utterances, FOUR_CLASSES)
    config = TrainConfig(epochs=[1, 1], batch_seconds=60.0, speeds=[1.0], device="cpu")
    material = SharedCaches(speech, PrefixCaches(config))  # pyright: ignore[reportArgumentType]
    fold = Fold("bench", speech.utterances, [], [])
    model = models.build(MODEL, vocabulary)
    trainer = Trainer(model, vocabulary, fold, 0, config, material, None, RunProgress(1, quiet=True))  # pyright: ignore[reportArgumentType]
    stepper = trainer.begin_stage(1)
    trainer.train_epoch(stepper, [0])
    times = []
    for seed in (1, 2, 3):
        started = time.perf_counter()
        trainer.train_epoch(stepper, [seed])
        times.append(time.perf_counter() - started)
    hours = speech.seconds / 3600
    return {
        "hours": hours,
        "epoch_s_per_hour": statistics.median(times) / hours,
        "cache_gb_per_hour": material.prefixes.shared.bytes_used / 1e9 / hours,
    }
