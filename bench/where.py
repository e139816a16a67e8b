"""Time of a training step by kind of operation, one bar per way of training, as an SVG.

python bench/where.py docs/training_time.svg
"""

import argparse
import os
import statistics
from collections import defaultdict
from dataclasses import replace
from html import escape
from pathlib import Path

from pairs import Plan, plan_bucketed, plan_random
from speech import durations
from torch.profiler import ProfilerActivity, profile
from ways import TrainingRun, Way

from sertone.utils.processes import ChildProcess

KINDS = {
    "matrix products": ("::mm", "addmm", "bmm", "dot_product"),
    "convolutions": ("conv",),
    "dropout masks": ("bernoulli", "random_", "::ge"),
    "optimizer": ("adamw", "addcdiv", "addcmul", "lerp", "sqrt"),
    "norms, GELU, softmax": ("norm", "gelu", "softmax"),
    "copies and the rest": ("",),
}
COLOURS = ("#3b6fb6", "#7aa6d8", "#d98c3f", "#8a6bb0", "#5f9e6e", "#9a9a9a")
WIDTH, LEFT, ROW = 720, 210, 44


def measure_kinds(way: Way, plan: Plan, stage: int, warm: int = 5) -> dict[str, float]:
    """Return kind of operation -> seconds per second of speech, on a batch of median size."""
    run = TrainingRun(way)
    (batch,) = plan.sample(1)
    run.begin(stage)
    run.fill(batch)
    for _ in range(warm):
        run.step(batch)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run.step(batch)
    speech_s = plan.cost(batch) / plan.padding
    seconds: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        # The first matching kind counts, so the order of KINDS matters; the last kind matches everything.
        kind = next(k for k, parts in KINDS.items() if any(part in event.key for part in parts))
        seconds[kind] += event.self_cpu_time_total / 1e6 / speech_s
    return {kind: seconds[kind] for kind in KINDS}


def draw_bars(bars: dict[str, dict[str, float]]) -> str:
    """Return horizontal bars as an SVG."""
    total = max(sum(parts.values()) for parts in bars.values())
    scale = (WIDTH - LEFT - 60) / total
    body = []
    for row, (name, parts) in enumerate(bars.items()):
        x, y = float(LEFT), 10 + row * ROW
        body.append(f'<text x="{LEFT - 8}" y="{y + 19}" text-anchor="end">{escape(name)}</text>')
        for colour, (kind, seconds) in zip(COLOURS, parts.items(), strict=True):
            title = f"<title>{kind}: {seconds:.3f} s per second of speech</title>"
            place = f'x="{x:.1f}" y="{y}" width="{seconds * scale:.1f}" height="28"'
            body.append(f'<rect {place} fill="{colour}">{title}</rect>')
            x += seconds * scale
        body.append(f'<text x="{x + 6:.1f}" y="{y + 19}">{sum(parts.values()):.2f} s</text>')
    bottom = 10 + len(bars) * ROW
    for number, (colour, kind) in enumerate(zip(COLOURS, KINDS, strict=True)):
        x, y = 20 + number % 3 * 230, bottom + 14 + number // 3 * 22
        body.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        body.append(f'<text x="{x + 18}" y="{y}">{kind}</text>')
    alt = "; ".join(f"{name} {sum(parts.values()):.2f} s" for name, parts in bars.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 48}" role="img" '
        f'font-family="sans-serif" font-size="13" fill="#808080">'
        f"<title>Seconds of computing per second of speech: {escape(alt)}</title>{''.join(body)}</svg>\n"
    )


def main() -> None:
    """Profile each way in a separate process, and write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    lengths = durations().tolist()
    ours, usual = plan_bucketed(lengths, 4 * statistics.mean(lengths)), plan_random(lengths, 4)
    base = Way("ours", "wav2vec2", device="cpu")
    tutorial = replace(base, usual=True, precision="32-true")
    ways: dict[str, tuple[Way, Plan, int]] = {
        "usual way, stage 1": (tutorial, usual, 0),
        "Sertone, stage 1": (base, ours, 0),
        "Sertone, stage 2": (base, ours, 1),
    }
    bars = {}
    # A child process cannot import a function of `__main__`, so it is imported by the module's name.
    from where import measure_kinds as importable

    for name, arguments in ways.items():
        with ChildProcess({"PYTHONPATH": os.fspath(Path(__file__).parent)}) as child:
            bars[name] = child(importable, *arguments)
        print(name, {kind: round(seconds, 3) for kind, seconds in bars[name].items()}, flush=True)
    options.out.write_text(draw_bars(bars), encoding="utf-8")


if __name__ == "__main__":
    main()
