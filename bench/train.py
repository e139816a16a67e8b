"""Training speed of `wan2025` on this machine, compared with the usual way and with the possible minimum.

    python bench/train.py --quick            a quick look, three minutes on two cores
    python bench/train.py --json             more pairs; the last line is one JSON object

The data are synthetic speech with IEMOCAP's 5 531 durations; the encoder has real shape and random weights.
Both ways train the same model alternately, in separate processes. A sample of batches represents an epoch:
the batches are sorted by size, and the sample is evenly spaced. The time of an epoch is the sample's time per
second of computed audio, times the computed audio of the epoch. See docs/performance.md.
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
from floor import Counts, measure_product_speed
from linear import measure_by_hours
from pairs import Child, Plan, compute_ratio, plan_bucketed, plan_random, race
from speech import durations
from transformers import AutoConfig
from ways import Way, call, resolve_device

from sertone.recipe.precision import detect_bf16_hardware
from sertone.utils.processes import count_cores

HIDDEN, CHARACTERS, FROZEN = 256, 18, 4
EPOCHS, FOLDS, SPEEDS = 100, 5, 3
QUICK_SCALE = 0.6
TINY = (("hidden_size", 32), ("num_hidden_layers", 3), ("num_attention_heads", 4), ("intermediate_size", 64))
TINY += (("conv_dim", (32,) * 7),)


def measure_parallel_folds(ours: Child, way: Way, samples: list[list[int]]) -> float:
    """Return the updates per second of folds in parallel over those of one fold alone."""
    jobs = FOLDS if torch.cuda.is_available() else min(FOLDS, count_cores())
    one = sum(ours.step(batch) for batch in samples)
    with ExitStack() as stack, ThreadPoolExecutor(jobs) as pool:
        children = [stack.enter_context(Child(max(1, count_cores() // jobs))) for _ in range(jobs)]
        list(pool.map(lambda child: child.become(way).begin(0, samples), children))
        started = time.perf_counter()
        list(pool.map(lambda child: [child.step(batch) for batch in samples], children))
        spent = time.perf_counter() - started
    return jobs * one / spent


def measure_loss_distances(child: Child, ours: Way, steps: int) -> tuple[float, float]:
    """Return mean relative distances from the loss curve in fp32: for bf16, and for other dropout masks.

    All curves start from the same random weights and use the same batches. There is no warm-up, so the curves
    are rough; the second number shows how much of the first is chance.
    """
    batches = [[3 * step, 3 * step + 1, 3 * step + 2] for step in range(steps)]
    curves = []
    for precision, seed in (("32-true", 0), ("bf16-mixed", 0), ("32-true", 1)):
        child.become(replace(ours, precision=precision, scale=0.3))
        child.process(call, "begin", 0)
        child.process(call, "seed", seed)
        curves.append(child.train(batches))
    fp32, bf16, fp32_other_masks = map(np.array, curves)
    rounding = float(np.abs(bf16 / fp32 - 1).mean())
    chance = float(np.abs(fp32_other_masks / fp32 - 1).mean())
    return rounding, chance


class Bench:
    """One run of the benchmark.

    Args:
        options: options of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        scale = QUICK_SCALE if options.quick else 1.0
        shape = TINY if options.tiny else ()
        self.quick = options.quick
        self.count = options.pairs or (2 if options.quick else 8)
        self.lengths = (durations() * scale).tolist()
        self.device = resolve_device(options.device)
        self.config = AutoConfig.for_model(options.family, **dict(shape))
        self.base = Way("ours", options.family, shape, device=options.device, scale=scale)
        self.bf16 = detect_bf16_hardware(options.device)
        budget = 60.0 if self.device.type == "cuda" else 4 * statistics.mean(self.lengths)
        self.plan = plan_bucketed(self.lengths, budget)
        self.random = plan_random(self.lengths, 4)
        self.results: dict = {"family": options.family, "shape": "toy" if options.tiny else "base"}
        self.results |= {"quick": options.quick, "batch_s": budget, "pairs": self.count}
        self.results["precision"] = "bf16-mixed" if self.bf16 else "32-true"

    def measure(self) -> dict:
        """Measure everything that the module's docstring lists."""
        shape = f"{self.results['family']}, {self.results['shape']} shape"
        reason = f"by {self.bf16}" if self.bf16 else "because this machine has no bf16 products"
        print(f"{shape}, on {self.device.type}, {self.results['precision']} {reason}", flush=True)
        with Child() as other, Child() as ours:
            self._compare_with_usual(other, ours)
            self._measure_ablations(other, ours)
            self._measure_precision(other, ours)
        self.results["linear"] = measure_by_hours(0.02 if self.quick else 0.1)
        hours = {size: f"{cost['epoch_s_per_hour']:.2f}" for size, cost in self.results["linear"].items()}
        print(f"seconds per epoch and hour of audio, compact encoder: {hours}", flush=True)
        limits = estimate_limits(self.results, self.lengths, self.config, self.device, self.plan)
        return self.results | limits

    def _compare_with_usual(self, other: Child, ours: Child) -> None:
        usual = replace(self.base, usual=True, precision="32-true")
        totals = np.zeros((self.count, 2))
        other.become(usual)
        ours.become(self.base)
        for stage in (0, 1):
            pairs = race(other, ours, (self.random, self.plan), stage, self.count)
            totals += np.array(pairs) / 2
            self._record(f"speedup_stage_{stage + 1}", compute_ratio(pairs), "times the usual way per epoch")
        self._record(
            "speedup_vs_usual", compute_ratio([(a, b) for a, b in totals.tolist()]), "over both stages"
        )
        self.results["memory_gb"] = {"usual": other.memory, "ours": ours.memory}
        usual_s, ours_s = np.median(totals, 0).tolist()
        self.results["seconds_per_epoch"] = {"usual": usual_s, "ours": ours_s}
        steps = len(self.random.batches), len(self.plan.batches)
        self.results["seconds_per_step"] = {"usual": usual_s / steps[0], "ours": ours_s / steps[1]}
        if self.device.type == "cuda":
            for precision in ("32-true", "bf16-mixed"):
                other.become(replace(usual, precision=precision))
                pairs = race(other, ours, (plan_random(self.lengths, 32), self.plan), 0, self.count)
                self._record(
                    f"speedup_vs_usual_32_{precision}", compute_ratio(pairs), "times batches of 32, stage 1"
                )

    def _measure_ablations(self, other: Child, ours: Child) -> None:
        """Measure how much longer an epoch of stage 1 takes without each of Sertone's measures."""
        shares = self.results["shares"] = {}
        half = max(1, self.count // 2)
        measures = [
            ("kernels", {"kernels": "torch"}, self.plan),
            ("cache", {"cache": "off"}, self.plan),
            ("buckets", {}, self.random),
        ]
        if self.bf16:
            measures.append(("precision", {"precision": "32-true"}, self.plan))
        for name, changes, plan in measures:
            other.become(replace(self.base, **changes))
            shares[name] = compute_ratio(race(other, ours, (plan, self.plan), 0, half))
            print(f"without {name}: {shares[name]:.2f} times as long", flush=True)
        samples = self.plan.sample(half)
        self.results["fill_s_per_audio_s"] = ours.begin(0, samples)
        shares["side_by_side"] = measure_parallel_folds(ours, self.base, samples)
        gain = f"{shares['side_by_side']:.2f} times as many updates per second"
        print(f"folds in parallel: {gain}", flush=True)

    def _measure_precision(self, other: Child, ours: Child) -> None:
        if not self.quick:
            other.become(replace(self.base, compiled=True))
            pairs = race(other, ours, (self.plan, self.plan), 0, max(1, self.count // 2))
            self._record("with_torch_compile", compute_ratio(pairs), "times as long")
        if not self.bf16:
            return
        rounding, chance = measure_loss_distances(other, self.base, 3 if self.quick else 10)
        self._record("loss_distance_bf16", rounding, "relative distance of the loss curves in bf16 and fp32")
        self._record("loss_distance_dropout", chance, "between two in fp32 with other dropout masks")

    def _record(self, name: str, value: float, meaning: str) -> None:
        self.results[name] = value
        print(f"{name}: {value:.3g} {meaning}", flush=True)


def estimate_limits(
    results: dict, lengths: Sequence[float], config: Any, device: torch.device, plan: Plan
) -> dict:
    """Return the least time for the operations of an epoch, and the time of the whole experiment here."""
    dtypes = {"fp32": torch.float32}
    if results["precision"] == "bf16-mixed":
        dtypes["bf16"] = torch.bfloat16
    speed = {name: measure_product_speed(device, dtype) for name, dtype in dtypes.items()}
    counts = [Counts(config, int(seconds * 16000)) for seconds in lengths]
    needed = [sum(c.count_with_cache(HIDDEN, CHARACTERS, frozen) for c in counts) for frozen in (0, FROZEN)]
    floor_s = statistics.mean(needed) / max(speed.values())
    epoch_s = results["seconds_per_epoch"]["ours"]
    # Stage 1 fills the cache once for all folds; stage 2 has other frozen weights in each fold.
    fills_s = (1 + FOLDS) * SPEEDS * sum(lengths) * results["fill_s_per_audio_s"]
    hours = (FOLDS * 2 * EPOCHS * 0.8 * epoch_s + fills_s) / 3600
    usual = statistics.mean(
        sum(c.count_without_cache(HIDDEN, CHARACTERS, frozen) for c in counts) for frozen in (0, FROZEN)
    )
    return {
        "operations_per_epoch": {"stage_1": needed[0], "stage_2": needed[1], "usual_without_padding": usual},
        "operations_per_second": speed,
        "floor_s_per_epoch": floor_s,
        "floor_fraction": floor_s / epoch_s,
        "padding_factor": plan.padding,
        "padding_factor_60s": plan_bucketed(lengths, 60.0).padding,
        "padding_factor_usual": plan_random(lengths, 4).padding,
        "whole_experiment_hours_here": hours,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else describe_processor(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def describe_processor() -> str:
    """Return cores, model and vector instructions of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{count_cores()} cores, {name}, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    """Measure and print."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    quick = f"two pairs, durations times {QUICK_SCALE:g}"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--pairs", type=int, help="pairs of batches per stage (8; with --quick 2)")
    parser.add_argument("--family", choices=("wav2vec2", "hubert", "wavlm"), default="wav2vec2")
    parser.add_argument("--tiny", action="store_true", help="a toy shape, to test that everything runs")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    options = parser.parse_args()
    started = time.monotonic()
    results = Bench(options).measure()
    results["wall_s"] = time.monotonic() - started
    print(
        f"\n{results['speedup_vs_usual']:.2f} times the usual way per epoch; padding factor "
        f"{results['padding_factor']:.3f} ({results['padding_factor_60s']:.3f} at 60 s per batch, usual "
        f"{results['padding_factor_usual']:.2f}); {results['floor_fraction']:.0%} of what matrix products "
        f"alone would allow on {results['device']}"
    )
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
