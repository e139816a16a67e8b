"""What random batches cost beside batches of one length: audio computed, operations, seconds per epoch.

    python bench/mixing.py                 4 pairs of batches per size, durations times 0.6
    python bench/mixing.py --pairs 0       without the clock: seconds of audio and operations alone

The same model, encoder and durations as bench/train.py, stage 1, Sertone's way on both sides.
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Literal

import numpy as np
from floor import Counts
from speech import durations
from train import CHARACTERS, HIDDEN, QUICK_SCALE, Child, Plan, race, ratio
from transformers import AutoConfig
from ways import Way

from sertone.training.data.batches import plan_batches

SEED = 1
"""Of the batches; the durations have another one."""


def plan(lengths: Sequence[float], size: int, mixing: float | Literal["random"]) -> Plan:
    """One epoch's batches, as a training draws them."""
    draw = np.random.default_rng(SEED)
    return Plan(plan_batches(lengths, batch_size=size, mixing=mixing, rng=draw), lengths)


def operations(batches: Plan) -> int:
    """Return those of an epoch of stage 1 with the frozen prefix cached, padding included."""
    config = AutoConfig.for_model("wav2vec2")
    longest = [(len(batch), batches.cost(batch) / len(batch)) for batch in batches.batches]
    counts = ((size, Counts(config, int(seconds * 16000))) for size, seconds in longest)
    return sum(size * each.cached(HIDDEN, CHARACTERS, 0) for size, each in counts)


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
    for size in (4, 16):
        plans = [plan(durations().tolist(), size, mixing) for mixing in ("random", 0.03)]
        for name, each in zip(("random", "0.03"), plans, strict=True):
            print(f"batch {size}, {name}: padding {each.padding:.3f}, longest / shortest {unlike(each):.2f}")
        more = operations(plans[0]) / operations(plans[1])
        print(f"batch {size}: a random epoch has {more:.2f} times as many operations", flush=True)
        if not options.pairs:
            continue
        shorter = (durations() * QUICK_SCALE).tolist()
        both = plan(shorter, size, "random"), plan(shorter, size, 0.03)
        with Child() as random, Child() as alike:
            times = race(random.become(way), alike.become(way), both, 0, options.pairs)
        print(f"batch {size}: a random epoch takes {ratio(times):.2f} times as long", flush=True)


if __name__ == "__main__":
    main()
