"""What random batches cost beside batches of one length: audio computed, and seconds per epoch.

    python bench/mixing.py                 4 pairs of batches per size, durations times 0.6

The same model, encoder and durations as bench/train.py, stage 1, Sertone's way on both sides.
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Literal

import numpy as np
from speech import durations
from train import QUICK_SCALE, Child, Plan, race, ratio
from ways import Way

from sertone.training.batches import plan_batches

SEED = 1
"""Of the batches; the durations have another one."""


def plan(lengths: Sequence[float], size: int, mixing: float | Literal["random"]) -> Plan:
    """One epoch's batches, as a training draws them."""
    draw = np.random.default_rng(SEED)
    return Plan(plan_batches(lengths, batch_size=size, mixing=mixing, draw=draw), lengths)


def unlike(batches: Plan) -> float:
    """Return the mean over batches of longest over shortest."""
    seconds = [[batches.lengths[index] for index in batch] for batch in batches.batches]
    return statistics.mean(max(each) / min(each) for each in seconds)


def main() -> None:
    """Measures and prints."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    way = Way("ours", "wav2vec2", device=options.device, scale=QUICK_SCALE)
    lengths = (durations() * QUICK_SCALE).tolist()
    for size in (4, 16):
        plans = plan(lengths, size, "random"), plan(lengths, size, 0.03)
        for name, each in zip(("random", "0.03"), plans, strict=True):
            print(f"batch {size}, {name}: padding {each.padding:.3f}, longest / shortest {unlike(each):.2f}")
        with Child() as random, Child() as alike:
            times = race(random.become(way), alike.become(way), plans, 0, options.pairs)
        print(f"batch {size}: a random epoch takes {ratio(times):.2f} times as long", flush=True)


if __name__ == "__main__":
    main()
