"""Plan an epoch: draw utterances, speeds and augmentation, and group the utterances into batches."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from sertone.audio import SAMPLING_RATE
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.train_config import TrainConfig, TrainingConfig
from sertone.schema import Utterance
from sertone.training.data.batches import padding_factor, plan_batches
from sertone.training.data.loader import BatchItem
from sertone.training.data.waveforms import draw_seeds
from sertone.training.fit import distributed
from sertone.training.fit.memory import StepMemory


def plan_epoch(
    utterances: Sequence[Utterance],
    lengths: dict[str, int],
    withheld: Sequence[str],
    config: TrainConfig,
    memory: StepMemory,
    rng: np.random.Generator,
) -> tuple[list[list[BatchItem]], dict[str, float]]:
    """Return this process's batches of an epoch, and padding factor and counts over all processes.

    Args:
        utterances: utterances of the training set.
        lengths: samples at speed 1 by utterance id.
        withheld: the modality that each utterance withholds.
        config: the `train` part of the recipe.
        memory: limits the batches.
        rng: the random generator of the epoch, the same in all processes.
    """
    items, seconds = draw_items(utterances, lengths, withheld, config, rng)
    batches = plan_batches(
        seconds,
        batch_size=config.batch_size,
        batch_seconds=config.batch_seconds,
        mixing=config.length_mixing,
        rng=rng,
        world_size=distributed.world_size(),
        exceeds_memory=memory.exceeds_limit,
    )
    # The processes take the batches in turn.
    share = batches[distributed.rank() :: distributed.world_size()]
    counts = {
        "padding_factor": padding_factor(seconds, batches),
        "batches": len(batches),
        "bounded_batches": memory.limited_batches,
    }
    return [[items[index] for index in batch] for batch in share], counts


def draw_items(
    utterances: Sequence[Utterance],
    lengths: dict[str, int],
    withheld: Sequence[str],
    config: TrainingConfig,
    rng: np.random.Generator,
) -> tuple[list[BatchItem], list[float]]:
    """Draw the speed and the changes of every utterance for one epoch.

    Args:
        utterances: utterances of the training set.
        lengths: samples at speed 1 by utterance id.
        withheld: the modality that each utterance withholds.
        config: the `train` part of the recipe.
        rng: the random generator of the epoch.

    Returns:
        Items; their durations in seconds, after speed and crop.
    """
    speeds = rng.choice(config.playback_speeds, len(utterances)).tolist()
    seeds = draw_seeds(config, utterances, rng)
    items = [BatchItem(*row) for row in zip(utterances, speeds, withheld, seeds, strict=True)]
    longest = config.augmentation.crop_seconds or math.inf
    uncropped = (lengths[item.utterance.id] / SAMPLING_RATE / item.speed for item in items)
    return items, [min(duration, longest) for duration in uncropped]


def draw_utterances(
    utterances: Sequence[Utterance], vocabulary: Vocabulary, config: TrainConfig, rng: np.random.Generator
) -> Sequence[Utterance]:
    """Return the utterances of an epoch: all of the training set, or as many balanced ones.

    Balanced ones are drawn with replacement, and each class equally often on average. Those without a label
    are drawn as often as if each were used once.

    Args:
        utterances: utterances of the training set.
        vocabulary: finds the classes.
        config: the `train` part of the recipe.
        rng: the random generator of the epoch.
    """
    if config.sampling == "each":
        return utterances
    labels = [vocabulary.find_label("emotion", u) for u in utterances]
    counts = Counter(label for label in labels if label)
    share = sum(counts.values()) / max(1, len(counts))
    weights = np.array([share / counts[label] if label else 1.0 for label in labels])
    drawn = rng.choice(len(utterances), len(utterances), p=weights / weights.sum())
    return [utterances[index] for index in drawn]
