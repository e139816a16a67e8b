"""Schedule learning rates over a stage (warm-up, linear, cosine, NewBob annealing), and end it early."""

import math
from collections.abc import Sequence
from itertools import pairwise

from sertone.recipe.train_config import TrainConfig
from sertone.recipe.train_parts import NewBobConfig


def schedule_factor(kind: str, warmup: float, progress: float) -> float:
    """Return the factor of a learning rate after a share of a stage.

    Args:
        kind: `train.schedule`.
        warmup: share of the stage in which the rate rises from zero.
        progress: share of the stage already done.
    """
    if progress < warmup:
        return progress / warmup
    rest = (progress - warmup) / (1 - warmup)
    if kind == "linear":
        return 1 - rest
    # Half a cosine wave, from 1 down to 0.
    return 0.5 * (1 + math.cos(math.pi * rest)) if kind == "cosine" else 1.0


def annealing_factor(config: TrainConfig, epochs: Sequence[dict]) -> float:
    """Return the factor of all learning rates for the next epoch of a stage; 1 without NewBob.

    The factor depends on the history only, so a resumed training has the same.

    Args:
        config: the `train` part of the recipe.
        epochs: history of the stage so far. The validation `score` of an epoch counts, or else its `loss`.
    """
    if config.schedule != "newbob":
        return 1.0
    scores = [epoch["score"] if "score" in epoch else -epoch["loss"] for epoch in epochs]
    # The loss of an epoch whose steps were all skipped is NaN.
    return newbob_factor([score for score in scores if math.isfinite(score)], config.newbob)


def newbob_factor(scores: Sequence[float], config: NewBobConfig) -> float:
    """Return NewBob's factor: the rates fall once for every epoch that improved too little on the one before.

    The rule is that of SpeechBrain's IEMOCAP recipe, with its threshold and factor as defaults.

    Args:
        scores: one per epoch; higher is better, so losses are negated.
        config: threshold and factor.
    """
    stalled = sum(score - previous < config.threshold * abs(previous) for previous, score in pairwise(scores))
    return config.factor**stalled


def has_stalled(config: TrainConfig, epochs: Sequence[dict]) -> bool:
    """Return whether a stage ends early: `patience` epochs in a row were no better than the best before them.

    Args:
        config: the `train` part of the recipe.
        epochs: history of the stage so far. Epochs without a validation `score` never end it.
    """
    scores = [epoch["score"] for epoch in epochs if "score" in epoch]
    if config.patience is None or not scores:
        return False
    return len(scores) - 1 - scores.index(max(scores)) >= config.patience
