"""Batches of utterances of about the same length: little padding, the same order from the same seed."""

from collections.abc import Sequence

import numpy as np

JITTER = 0.03
"""Share by which lengths are moved at random before sorting, so that batches differ by epoch."""


def plan_batches(
    lengths: Sequence[float],
    *,
    batch_size: int | None = None,
    batch_seconds: float | None = None,
    draw: np.random.Generator | None = None,
) -> list[list[int]]:
    """Groups utterances by length.

    Args:
        lengths: of the utterances, in seconds.
        batch_size: utterances per batch; or else
        batch_seconds: seconds per batch, padding included. One utterance longer than that is a batch
            of its own.
        draw: shuffles; without it the batches come in order of length.

    Returns:
        Indices into `lengths`; every one is in exactly one batch.
    """
    keys = np.asarray(lengths, dtype=float)
    if draw is not None:
        keys = keys * draw.uniform(1 - JITTER, 1 + JITTER, len(keys))
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
    if draw is not None:
        draw.shuffle(batches)
    return [batch for batch in batches if batch]


def padding_factor(lengths: Sequence[float], batches: Sequence[Sequence[int]]) -> float:
    """Computed seconds per second of speech: 1 without padding."""
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)
    return float(padded / sum(lengths))
