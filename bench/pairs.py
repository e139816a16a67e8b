"""Training in pairs: batches of an epoch, child processes that train, and the ratio of their times."""

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ways import Way, call, start

from sertone.training.data.batches import padding_factor, plan_batches
from sertone.utils.processes import ChildProcess

HERE = str(Path(__file__).parent)


class Plan:
    """The batches of one epoch.

    Args:
        batches: indices into the durations.
        lengths: durations in seconds.
    """

    def __init__(self, batches: list[list[int]], lengths: Sequence[float]) -> None:
        self.lengths = lengths
        self.batches = sorted(batches, key=self.cost)
        self.padding = padding_factor(lengths, batches)
        self.computed_s = sum(map(self.cost, batches))

    def cost(self, batch: list[int]) -> float:
        """Return the seconds of audio that a batch computes, padding included."""
        return len(batch) * max(self.lengths[index] for index in batch)

    def sample(self, count: int) -> list[list[int]]:
        """Return evenly spaced batches of the epoch, sorted by size."""
        return [self.batches[int((k + 0.5) / count * len(self.batches))] for k in range(count)]

    def epoch_s(self, batch: list[int], seconds: float) -> float:
        """Return the time of an epoch, estimated from that of one batch."""
        return seconds / self.cost(batch) * self.computed_s


def plan_random(lengths: Sequence[float], size: int) -> Plan:
    """Return batches drawn at random, the usual way."""
    order = np.random.default_rng(0).permutation(len(lengths)).tolist()
    return Plan([order[i : i + size] for i in range(0, len(order), size)], lengths)


def plan_bucketed(lengths: Sequence[float], seconds: float) -> Plan:
    """Return Sertone's batches of similar lengths."""
    rng = np.random.default_rng(1)  # the seed of the durations would draw the same order again
    return Plan(plan_batches(lengths, batch_seconds=seconds, mixing=0.03, rng=rng), lengths)


class Child:
    """A child process that trains in one way, and can change to another."""

    def __init__(self, threads: int | None = None) -> None:
        environment = {"PYTHONPATH": HERE, "HF_HUB_OFFLINE": "1"}
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        self.process = ChildProcess(environment)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()

    def become(self, way: Way) -> "Child":
        """Train in this way from now on."""
        self.process(start, way)
        return self

    def begin(self, stage: int, batches: Sequence[list[int]]) -> float:
        """Enter a stage, fill the cache for some batches, and warm up.

        Returns:
            seconds of filling the cache per second of audio.
        """
        self.process(call, "begin", stage)
        seconds = self.process(call, "fill", [index for batch in batches for index in batch])
        for _ in range(2):
            self.process(call, "step", batches[-1])
        return seconds

    def step(self, batch: list[int]) -> float:
        """Return the seconds of one update."""
        return self.process(call, "step", batch)[0]

    def train(self, batches: Sequence[list[int]]) -> list[float]:
        """Return the losses of consecutive updates."""
        return [self.process(call, "step", batch)[1] for batch in batches]

    @property
    def memory(self) -> float:
        """Peak memory in GB."""
        return self.process(call, "memory")


def race(
    first: Child, second: Child, plans: tuple[Plan, Plan], stage: int, count: int
) -> list[tuple[float, float]]:
    """Return the epoch times of two ways in pairs, measured in alternating order."""
    samples = plans[0].sample(count), plans[1].sample(count)
    first.begin(stage, samples[0])
    second.begin(stage, samples[1])
    pairs = []
    for number, batches in enumerate(zip(*samples, strict=True)):
        times = [0.0, 0.0]
        for side in (0, 1) if number % 2 else (1, 0):
            seconds = (first, second)[side].step(batches[side])
            times[side] = plans[side].epoch_s(batches[side], seconds)
        pairs.append((times[0], times[1]))
    return pairs


def compute_ratio(pairs: list[tuple[float, float]]) -> float:
    """Return the median over pairs of the first time over the second."""
    return statistics.median(first / second for first, second in pairs)
