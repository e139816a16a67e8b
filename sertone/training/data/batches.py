"""Batches of utterances of about the same length, or of any: the same from the same seed."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from sertone.errors import SertoneError
from sertone.scoring.display import format_count


def plan_batches(
    lengths: Sequence[float],
    *,
    batch_size: int | None = None,
    batch_seconds: float | None = None,
    mixing: float | Literal["random"] = 0.0,
    rng: np.random.Generator | None = None,
    world_size: int = 1,
    exceeds_memory: Callable[[int, float], bool] = lambda _count, _longest: False,
) -> list[list[int]]:
    """Groups utterances by length, or at random.

    Args:
        lengths: of the utterances, in seconds.
        batch_size: utterances per batch; or else
        batch_seconds: seconds per batch, padding included. One utterance longer than that is a batch
            of its own.
        mixing: standard deviation by which logarithmic lengths are moved at random before sorting. 0.03
            lets batches differ by epoch and pads little; 1 mixes nearly all lengths and pads much. `random`:
            the lengths play no part in the order.
        draw: shuffles; without it the batches come in order of length.
        ranks: processes that take the batches in turn; all get equally many, of about the same length at
            the same time, unless they are mixed.
        too_much: whether so many utterances of up to so many seconds exceed the memory of a batch; one that
            does alone is a batch of its own.

    Returns:
        Indices into `lengths`; every one is in exactly one batch.

    Raises:
        SertoneError: `too_few_utterances` for so many ranks.
    """
    batches: list[list[int]] = [[]]
    longest = 0.0
    for index in _order(lengths, mixing, rng):
        longest = max(longest, lengths[index])
        count = len(batches[-1]) + 1
        over = count > batch_size if batch_size else count * longest > (batch_seconds or 0.0)
        if batches[-1] and (over or exceeds_memory(count, longest)):
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    batches = _divisible([batch for batch in batches if batch], world_size)
    turns = [batches[start : start + world_size] for start in range(0, len(batches), world_size)]
    if rng is not None:
        rng.shuffle(turns)
    return [batch for turn in turns for batch in turn]


def _order(
    lengths: Sequence[float], mixing: float | Literal["random"], draw: np.random.Generator | None
) -> list[int]:
    """Return the order in which batches are filled."""
    keys = np.asarray(lengths, dtype=float)
    if draw is not None:
        moved = draw.standard_normal(len(keys))
        keys = moved if mixing == "random" else keys * np.exp(mixing * moved)
    return np.argsort(keys, kind="stable").tolist()


def _divisible(batches: list[list[int]], ranks: int) -> list[list[int]]:
    """Halves the fullest batches until all ranks get equally many."""
    while len(batches) % ranks:
        fullest = max(range(len(batches)), key=lambda number: len(batches[number]))
        half = len(batches[fullest]) // 2
        if not half:
            raise SertoneError(
                "too_few_utterances",
                f"{format_count(len(batches), 'utterance')} for {format_count(ranks, 'rank')}",
                "at least one batch for each, and equally many",
                "use fewer ranks",
            )
        batches[fullest : fullest + 1] = [batches[fullest][:half], batches[fullest][half:]]
    return batches


def padding_factor(lengths: Sequence[float], batches: Sequence[Sequence[int]]) -> float:
    """Computed seconds per second of speech: 1 without padding."""
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    return float(padded / sum(lengths))
