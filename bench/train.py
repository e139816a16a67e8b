"""How fast `wan2025` trains here: Sertone's way against the usual way, and against what is possible.

    python bench/train.py --quick            a look, three minutes on two cores
    python bench/train.py --json             more pairs; the last line is one JSON object

Synthetic speech with IEMOCAP's 5 531 durations, random weights of the real shape. Both ways train the
same model, alternately, in processes of their own. Some batches stand for an epoch: those at evenly
spaced places of the epoch's batches in order of size; their seconds per second of computed audio times
the epoch's computed audio is the epoch's time. See docs/performance.md.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from floor import Counts, multiplication_speed
from linear import cost_by_hours
from speech import durations
from transformers import AutoConfig
from ways import Way, call, fabric_device, start

from sertone.recipe.train_config import detect_bf16_hardware
from sertone.training.data.batches import padding_factor, plan_batches
from sertone.utils.processes import ChildProcess, count_cores

HERE = str(Path(__file__).parent)
HIDDEN, CHARACTERS, FROZEN = 256, 18, 4
EPOCHS, FOLDS, SPEEDS = 100, 5, 3
QUICK_SCALE = 0.6
TINY = (("hidden_size", 32), ("num_hidden_layers", 3), ("num_attention_heads", 4), ("intermediate_size", 64))
TINY += (("conv_dim", (32,) * 7),)


class Plan:
    """Batches of one epoch.

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
        """Seconds of audio that a batch computes, padding included."""
        return len(batch) * max(self.lengths[index] for index in batch)

    def sample(self, count: int) -> list[list[int]]:
        """Batches at evenly spaced places in order of size."""
        return [self.batches[int((k + 0.5) / count * len(self.batches))] for k in range(count)]

    def epoch_s(self, batch: list[int], seconds: float) -> float:
        """An epoch's time, from that of one batch."""
        return seconds / self.cost(batch) * self.computed_s


def random_plan(lengths: Sequence[float], size: int) -> Plan:
    """Batches drawn at random: the usual way."""
    order = np.random.default_rng(0).permutation(len(lengths)).tolist()
    return Plan([order[i : i + size] for i in range(0, len(order), size)], lengths)


def bucketed_plan(lengths: Sequence[float], seconds: float) -> Plan:
    """Sertone's."""
    draw = np.random.default_rng(1)  # not the seed of the durations, whose order would be the same
    return Plan(plan_batches(lengths, batch_seconds=seconds, mixing=0.03, rng=draw), lengths)


class Child:
    """A process that trains one way, then perhaps another."""

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
        """Trains this way from now on."""
        self.process(start, way)
        return self

    def begin(self, stage: int, batches: Sequence[list[int]]) -> float:
        """Goes to a stage, fills the cache for some batches, warms up; seconds per second filled."""
        self.process(call, "begin", stage)
        filled = self.process(call, "fill", [index for batch in batches for index in batch])
        for _ in range(2):
            self.process(call, "step", batches[-1])
        return filled

    def step(self, batch: list[int]) -> float:
        """Seconds of one update."""
        return self.process(call, "step", batch)[0]

    def losses(self, batches: Sequence[list[int]]) -> list[float]:
        """Of one update after the other."""
        return [self.process(call, "step", batch)[1] for batch in batches]

    @property
    def memory(self) -> float:
        """In GB."""
        return self.process(call, "memory")


def race(
    first: Child, second: Child, plans: tuple[Plan, Plan], stage: int, count: int
) -> list[tuple[float, float]]:
    """Epoch times of two ways, in pairs: alternating, the order swapped from pair to pair."""
    samples = plans[0].sample(count), plans[1].sample(count)
    first.begin(stage, samples[0])
    second.begin(stage, samples[1])
    pairs = []
    for number, batches in enumerate(zip(*samples, strict=True)):
        found = [0.0, 0.0]
        for side in (0, 1) if number % 2 else (1, 0):
            seconds = (first, second)[side].step(batches[side])
            found[side] = plans[side].epoch_s(batches[side], seconds)
        pairs.append((found[0], found[1]))
    return pairs


def ratio(pairs: list[tuple[float, float]]) -> float:
    """Median over pairs of the first time over the second."""
    return statistics.median(first / second for first, second in pairs)


def side_by_side(ours: Child, way: Way, samples: list[list[int]]) -> float:
    """Updates per second of folds that share the cores or the card over those of one fold alone."""
    jobs = FOLDS if torch.cuda.is_available() else min(FOLDS, count_cores())
    one = sum(ours.step(batch) for batch in samples)
    with ExitStack() as stack, ThreadPoolExecutor(jobs) as pool:
        children = [stack.enter_context(Child(max(1, count_cores() // jobs))) for _ in range(jobs)]
        list(pool.map(lambda child: child.become(way).begin(0, samples), children))
        started = time.perf_counter()
        list(pool.map(lambda child: [child.step(batch) for batch in samples], children))
        spent = time.perf_counter() - started
    return jobs * one / spent


def loss_distances(child: Child, ours: Way, steps: int) -> tuple[float, float]:
    """Mean relative distance from the loss curve in fp32: of that in bf16, and of other dropout masks.

    From the same random weights on the same batches. There is no warm-up, so the curves are rough, and
    the second number says how much of the first is chance.
    """
    batches = [[3 * step, 3 * step + 1, 3 * step + 2] for step in range(steps)]
    curves = []
    for precision, seed in (("32-true", 0), ("bf16-mixed", 0), ("32-true", 1)):
        child.become(replace(ours, precision=precision, scale=0.3))
        child.process(call, "begin", 0)
        child.process(call, "seed", seed)
        curves.append(child.losses(batches))
    exact, rounded, other = map(np.array, curves)
    return float(np.abs(rounded / exact - 1).mean()), float(np.abs(other / exact - 1).mean())


class Bench:
    """One run of the benchmark.

    Args:
        options: of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        scale = QUICK_SCALE if options.quick else 1.0
        shape = TINY if options.tiny else ()
        self.quick, self.count = options.quick, options.pairs or (2 if options.quick else 8)
        self.lengths = (durations() * scale).tolist()
        self.device = fabric_device(options.device)
        self.config = AutoConfig.for_model(options.family, **dict(shape))
        self.base = Way("ours", options.family, shape, device=options.device, scale=scale)
        self.bf16 = detect_bf16_hardware(options.device)
        budget = 60.0 if self.device.type == "cuda" else 4 * statistics.mean(self.lengths)
        self.plan, self.random = bucketed_plan(self.lengths, budget), random_plan(self.lengths, 4)
        self.found: dict = {"family": options.family, "shape": "toy" if options.tiny else "base"}
        self.found |= {"quick": options.quick, "batch_s": budget, "pairs": self.count}
        self.found["precision"] = "bf16-mixed" if self.bf16 else "32-true"

    def measure(self) -> dict:
        """Everything; see the module."""
        shape = f"{self.found['family']}, {self.found['shape']} shape"
        because = f"by {self.bf16}" if self.bf16 else "because nothing here multiplies in bf16"
        print(f"{shape}, on {self.device.type}, {self.found['precision']} {because}", flush=True)
        with Child() as other, Child() as ours:
            self._against_the_usual_way(other, ours)
            self._left_out(other, ours)
            self._others(other, ours)
        self.found["linear"] = cost_by_hours(0.02 if self.quick else 0.1)
        hours = {size: f"{cost['epoch_s_per_hour']:.2f}" for size, cost in self.found["linear"].items()}
        print(f"seconds per epoch and hour of audio, compact encoder: {hours}", flush=True)
        return self.found | floor_and_whole(self.found, self.lengths, self.config, self.device, self.plan)

    def _against_the_usual_way(self, other: Child, ours: Child) -> None:
        usual = replace(self.base, usual=True, precision="32-true")
        totals = np.zeros((self.count, 2))
        other.become(usual)
        ours.become(self.base)
        for stage in (0, 1):
            pairs = race(other, ours, (self.random, self.plan), stage, self.count)
            totals += np.array(pairs) / 2
            self._tell(f"speedup_stage_{stage + 1}", ratio(pairs), "times the usual way per epoch")
        self._tell("speedup_vs_usual", ratio([(a, b) for a, b in totals.tolist()]), "over both stages")
        self.found["memory_gb"] = {"usual": other.memory, "ours": ours.memory}
        usual_s, ours_s = np.median(totals, 0).tolist()
        self.found["seconds_per_epoch"] = {"usual": usual_s, "ours": ours_s}
        steps = len(self.random.batches), len(self.plan.batches)
        self.found["seconds_per_step"] = {"usual": usual_s / steps[0], "ours": ours_s / steps[1]}
        if self.device.type == "cuda":
            for precision in ("32-true", "bf16-mixed"):
                other.become(replace(usual, precision=precision))
                pairs = race(other, ours, (random_plan(self.lengths, 32), self.plan), 0, self.count)
                self._tell(f"speedup_vs_usual_32_{precision}", ratio(pairs), "times batches of 32, stage 1")

    def _left_out(self, other: Child, ours: Child) -> None:
        """How many times as long an epoch of stage 1 takes without each measure."""
        shares = self.found["shares"] = {}
        some = max(1, self.count // 2)
        measures = [
            ("kernels", {"kernels": "torch"}, self.plan),
            ("cache", {"cache": "off"}, self.plan),
            ("buckets", {}, self.random),
        ]
        if self.bf16:
            measures.append(("precision", {"precision": "32-true"}, self.plan))
        for name, changes, plan in measures:
            other.become(replace(self.base, **changes))
            shares[name] = ratio(race(other, ours, (plan, self.plan), 0, some))
            print(f"without {name}: {shares[name]:.2f} times as long", flush=True)
        samples = self.plan.sample(some)
        self.found["fill_s_per_audio_s"] = ours.begin(0, samples)
        shares["side_by_side"] = side_by_side(ours, self.base, samples)
        gain = f"{shares['side_by_side']:.2f} times as many updates per second"
        print(f"folds side by side: {gain}", flush=True)

    def _others(self, other: Child, ours: Child) -> None:
        if not self.quick:
            other.become(replace(self.base, compiled=True))
            pairs = race(other, ours, (self.plan, self.plan), 0, max(1, self.count // 2))
            self._tell("with_torch_compile", ratio(pairs), "times as long")
        if not self.bf16:
            return
        rounding, chance = loss_distances(other, self.base, 3 if self.quick else 10)
        self._tell("loss_distance_bf16", rounding, "relative distance of the loss curves in bf16 and fp32")
        self._tell("loss_distance_dropout", chance, "of two in fp32 with other dropout masks")

    def _tell(self, name: str, value: float, meaning: str) -> None:
        self.found[name] = value
        print(f"{name}: {value:.3g} {meaning}", flush=True)


def floor_and_whole(
    found: dict, lengths: Sequence[float], config: Any, device: torch.device, plan: Plan
) -> dict:
    """Least time for the operations of an epoch, and what the whole experiment would take here."""
    kinds = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if found["precision"] == "bf16-mixed" else {})
    speed = {name: multiplication_speed(device, dtype) for name, dtype in kinds.items()}
    counts = [Counts(config, int(seconds * 16000)) for seconds in lengths]
    needed = [sum(c.cached(HIDDEN, CHARACTERS, frozen) for c in counts) for frozen in (0, FROZEN)]
    floor_s = statistics.mean(needed) / max(speed.values())
    epoch_s = found["seconds_per_epoch"]["ours"]
    fills_s = (1 + FOLDS) * SPEEDS * sum(lengths) * found["fill_s_per_audio_s"]
    hours = (FOLDS * 2 * EPOCHS * 0.8 * epoch_s + fills_s) / 3600
    usual = statistics.mean(
        sum(c.usual(HIDDEN, CHARACTERS, frozen) for c in counts) for frozen in (0, FROZEN)
    )
    return {
        "operations_per_epoch": {"stage_1": needed[0], "stage_2": needed[1], "usual_without_padding": usual},
        "operations_per_second": speed,
        "floor_s_per_epoch": floor_s,
        "floor_fraction": floor_s / epoch_s,
        "padding_factor": plan.padding,
        "padding_factor_60s": bucketed_plan(lengths, 60.0).padding,
        "padding_factor_usual": random_plan(lengths, 4).padding,
        "whole_experiment_hours_here": hours,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else processor(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{count_cores()} cores, {name}, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    """Measures and prints."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    quick = f"two pairs, durations times {QUICK_SCALE:g}"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--pairs", type=int, help="pairs of batches per stage (8; with --quick 2)")
    parser.add_argument("--family", choices=("wav2vec2", "hubert", "wavlm"), default="wav2vec2")
    parser.add_argument("--tiny", action="store_true", help="a toy shape, to see that everything runs")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    options = parser.parse_args()
    started = time.monotonic()
    found = Bench(options).measure()
    found["wall_s"] = time.monotonic() - started
    print(
        f"\n{found['speedup_vs_usual']:.2f} times the usual way per epoch; padding factor "
        f"{found['padding_factor']:.3f} ({found['padding_factor_60s']:.3f} at 60 s per batch, usual "
        f"{found['padding_factor_usual']:.2f}); {found['floor_fraction']:.0%} of what the matrix products "
        f"alone would allow on {found['device']}"
    )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
