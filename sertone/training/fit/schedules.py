"""Learning rates over a stage of the training: warm-up, cosine, NewBob annealing."""

import math
from collections.abc import Sequence
from itertools import pairwise

from sertone.recipe.train_config import NewBobConfig, TrainConfig


def schedule_factor(kind: str, warmup: float, progress: float) -> float:
    """Return the factor of a learning rate after a share of a stage.

    Args:
        kind: `train.schedule`.
        warmup: share of the stage in which the rate rises from zero.
        progress: share of the stage already done.
    """
    if progress < warmup:
        return progress / warmup
    if kind != "cosine":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def annealing_factor(config: TrainConfig, epochs: Sequence[dict]) -> float:
    """Return the factor of all learning rates for the next epoch of a stage; 1 without NewBob.

    It follows from the history alone, so a resumed training has the same.

    Args:
        config: the `train` part of the recipe.
        epochs: history of the stage so far; `score`, or else `loss`, tells how good an epoch was.
    """
    if config.schedule != "newbob":
        return 1.0
    scores = [epoch["score"] if "score" in epoch else -epoch["loss"] for epoch in epochs]
    return newbob_factor([score for score in scores if math.isfinite(score)], config.newbob)


def newbob_factor(scores: Sequence[float], config: NewBobConfig) -> float:
    """Return NewBob's factor: one annealing for every epoch that was too little better than the one before.

    The rule as SpeechBrain's IEMOCAP recipe uses it, with its threshold and factor as defaults.

    Args:
        scores: one per epoch, the higher the better; losses are negated.
        config: threshold and factor.
    """
    stalled = sum(now - before < config.threshold * abs(before) for before, now in pairwise(scores))
    return config.factor**stalled
