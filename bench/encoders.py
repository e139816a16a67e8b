"""Size, memory and speed of encoders on a CPU: which one fits a machine.

    python bench/encoders.py            every encoder of the table in docs/models.md
    python bench/encoders.py --tiny     toy widths, to test that everything runs

The architectures are those of published models, with random weights: speed and memory are those of any
weights. Each runs in a separate process, in evaluation, on clips of 10 s, one at a time. The last line is a
JSON object.
"""

import argparse
import json
from typing import Any

import torch
from encoder_cost import ENCODERS, measure
from pairs import HERE
from train import describe_processor

from sertone.utils.processes import ChildProcess, count_cores


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="two layers, one clip")
    parser.add_argument("--threads", type=int, help="one per core if not given")
    options = parser.parse_args()
    threads = options.threads or count_cores()
    results: dict[str, Any] = {}
    for name in ENCODERS:
        with ChildProcess({"PYTHONPATH": HERE}) as child:
            results[name] = row = child(measure, name, options.tiny, threads)
        millions, hours = row["parameters"] / 1e6, row["seconds_per_hour"]
        print(f"{name}: {millions:.1f} M, {row['memory_mb']:.0f} MB, {hours:.0f} s per hour", flush=True)
    about = {"threads": threads, "torch": torch.__version__, "device": describe_processor()}
    print(json.dumps({"encoders": results} | about))


if __name__ == "__main__":
    main()
