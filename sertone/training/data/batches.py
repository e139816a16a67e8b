"""Group utterances into batches, by length or at random; the same seed gives the same batches."""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from sertone.errors import SertoneError
from sertone.utils.wording import format_count


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
    """Group utterances by length, or at random.

    Give either `batch_size` or `batch_seconds`.

    Args:
        lengths: lengths of the utterances, in seconds.
        batch_size: utterances per batch.
        batch_seconds: seconds per batch, padding included. A longer utterance is a batch by itself.
        mixing: the standard deviation of the random numbers that are added to logarithmic lengths before
            sorting. 0.03 lets batches differ by epoch and pads little; 1 mixes nearly all lengths and pads
            much. `random` ignores the lengths.
        rng: shuffles the batches. Without it they come in order of length.
        world_size: the number of processes that take the batches in turn. All get the same number of
            batches. Batches taken at the same time have about the same length, unless `mixing` is large.
        exceeds_memory: returns True where so many utterances of up to so many seconds exceed the memory of a
            batch. A single utterance that does is a batch by itself.

    Returns:
        Indices into `lengths`; every index is in exactly one batch.

    Raises:
        SertoneError: `too_few_utterances` for so many processes.
    """
    batches: list[list[int]] = [[]]
    longest = 0.0
    for index in _sort_indices(lengths, mixing, rng):
        longest = max(longest, lengths[index])
        count = len(batches[-1]) + 1
        # Padding makes every utterance of a batch as long as the longest one.
        full = count > batch_size if batch_size else count * longest > (batch_seconds or 0.0)
        if batches[-1] and (full or exceeds_memory(count, longest)):
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    batches = _make_divisible([batch for batch in batches if batch], world_size)
    # Shuffle groups of one batch per process, so that no process waits for a much longer batch of another.
    groups = [batches[start : start + world_size] for start in range(0, len(batches), world_size)]
    if rng is not None:
        rng.shuffle(groups)
    return [batch for group in groups for batch in group]


def _sort_indices(
    lengths: Sequence[float], mixing: float | Literal["random"], rng: np.random.Generator | None
) -> list[int]:
    """Return the order in which batches are filled."""
    keys = np.asarray(lengths, dtype=float)
    if rng is not None:
        noise = rng.standard_normal(len(keys))
        keys = noise if mixing == "random" else keys * np.exp(mixing * noise)
    # A stable sort keeps the order of equal lengths, so that all machines fill the same batches.
    return np.argsort(keys, kind="stable").tolist()


def _make_divisible(batches: list[list[int]], world_size: int) -> list[list[int]]:
    """Halve the fullest batches until every process gets the same number of batches."""
    while len(batches) % world_size:
        fullest = max(range(len(batches)), key=lambda number: len(batches[number]))
        half = len(batches[fullest]) // 2
        if not half:
            raise SertoneError(
                "too_few_utterances",
                f"{format_count(len(batches), 'utterance')} for {world_size} processes",
                "at least one batch for every process, and the same number for each",
                "use fewer processes",
            )
        batches[fullest : fullest + 1] = [batches[fullest][:half], batches[fullest][half:]]
    return batches


def padding_factor(lengths: Sequence[float], batches: Sequence[Sequence[int]]) -> float:
    """Return the computed seconds per second of speech: 1 without padding."""
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    return float(padded / sum(lengths))
