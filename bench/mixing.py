"""Cost of random batches compared with batches of similar lengths: audio, operations, seconds per epoch.

    python bench/mixing.py                 4 pairs of batches per size, durations times 0.6
    python bench/mixing.py --pairs 0       no timing: only seconds of audio and operations

Model, encoder and durations are those of bench/train.py, at stage 1; Sertone trains on both sides.
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Literal

import numpy as np
from floor import Counts
from pairs import Child, Plan, compute_ratio, race
from speech import durations
from train import CHARACTERS, HIDDEN, QUICK_SCALE
from transformers import AutoConfig
from ways import Way

from sertone.training.data.batches import plan_batches

SEED = 1
"""Seed of the batches. The durations have another one, since the same seed would draw the same order."""


def plan_epoch(lengths: Sequence[float], size: int, mixing: float | Literal["random"]) -> Plan:
    """Return the batches of an epoch, drawn as in training."""
    rng = np.random.default_rng(SEED)
    return Plan(plan_batches(lengths, batch_size=size, mixing=mixing, rng=rng), lengths)


def count_operations(plan: Plan) -> int:
    """Return the operations of an epoch of stage 1 with a cached frozen prefix, padding included."""
    config = AutoConfig.for_model("wav2vec2")
    longest = [(len(batch), plan.cost(batch) / len(batch)) for batch in plan.batches]
    counts = ((size, Counts(config, int(seconds * 16000))) for size, seconds in longest)
    return sum(size * count.count_with_cache(HIDDEN, CHARACTERS, 0) for size, count in counts)


def compute_length_ratio(plan: Plan) -> float:
    """Return the mean over batches of the longest duration over the shortest."""
    durations_s = [[plan.lengths[index] for index in batch] for batch in plan.batches]
    return statistics.mean(max(batch) / min(batch) for batch in durations_s)


def main() -> None:
    """Measure and print."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    way = Way("ours", "wav2vec2", device=options.device, scale=QUICK_SCALE)
    for size in (4, 16):
        plans = [plan_epoch(durations().tolist(), size, mixing) for mixing in ("random", 0.03)]
        for name, plan in zip(("random", "0.03"), plans, strict=True):
            length_ratio = compute_length_ratio(plan)
            print(f"batch {size}, {name}: padding {plan.padding:.3f}, longest / shortest {length_ratio:.2f}")
        more = count_operations(plans[0]) / count_operations(plans[1])
        print(f"batch {size}: a random epoch has {more:.2f} times as many operations", flush=True)
        if not options.pairs:
            continue
        shorter = (durations() * QUICK_SCALE).tolist()
        both = plan_epoch(shorter, size, "random"), plan_epoch(shorter, size, 0.03)
        with Child() as random, Child() as sorted_:
            times = race(random.become(way), sorted_.become(way), both, 0, options.pairs)
        print(f"batch {size}: a random epoch takes {compute_ratio(times):.2f} times as long", flush=True)


if __name__ == "__main__":
    main()
