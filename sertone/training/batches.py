"""Batches of utterances of about the same length: little padding, the same order from the same seed."""

from collections.abc import Sequence

import numpy as np

from sertone.errors import SertoneError
from sertone.figures import counted


def plan_batches(
    lengths: Sequence[float],
    *,
    batch_size: int | None = None,
    batch_seconds: float | None = None,
    mixing: float = 0.0,
    draw: np.random.Generator | None = None,
    ranks: int = 1,
) -> list[list[int]]:
    """Groups utterances by length.

    Args:
        lengths: of the utterances, in seconds.
        batch_size: utterances per batch; or else
        batch_seconds: seconds per batch, padding included. One utterance longer than that is a batch
            of its own.
        mixing: standard deviation by which logarithmic lengths are moved at random before sorting. 0.03
            lets batches differ by epoch and pads little; 1 mixes all lengths and pads much.
        draw: shuffles; without it the batches come in order of length.
        ranks: processes that take the batches in turn; all get equally many, of about the same length at
            the same time.

    Returns:
        Indices into `lengths`; every one is in exactly one batch.

    Raises:
        SertoneError: `too_few_utterances` for so many ranks.
    """
    keys = np.asarray(lengths, dtype=float)
    if draw is not None:
        keys = keys * np.exp(mixing * draw.standard_normal(len(keys)))
    batches: list[list[int]] = [[]]
    longest = 0.0
    for index in np.argsort(keys, kind="stable").tolist():
        longest = max(longest, lengths[index])
        count = len(batches[-1]) + 1
        over = count > batch_size if batch_size else count * longest > (batch_seconds or 0.0)
        if batches[-1] and over:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    batches = _divisible([batch for batch in batches if batch], ranks)
    turns = [batches[start : start + ranks] for start in range(0, len(batches), ranks)]
    if draw is not None:
        draw.shuffle(turns)
    return [batch for turn in turns for batch in turn]


def _divisible(batches: list[list[int]], ranks: int) -> list[list[int]]:
    """Halves the fullest batches until all ranks get equally many."""
    while len(batches) % ranks:
        fullest = max(range(len(batches)), key=lambda number: len(batches[number]))
        half = len(batches[fullest]) // 2
        if not half:
            raise SertoneError(
                "too_few_utterances",
                f"{counted(len(batches), 'utterance')} for {counted(ranks, 'rank')}",
                "at least one batch for each, and equally many",
                "use fewer ranks",
            )
        batches[fullest : fullest + 1] = [batches[fullest][:half], batches[fullest][half:]]
    return batches


def padding_factor(lengths: Sequence[float], batches: Sequence[Sequence[int]]) -> float:
    """Computed seconds per second of speech: 1 without padding."""
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    return float(padded / sum(lengths))
