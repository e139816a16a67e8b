"""Cost of probing the layers of an encoder, on random features with planted information.

    python bench/layers.py                   5 500 utterances, 25 layers of 1 024 features
    python bench/layers.py --layers 4        fewer layers; `seconds` are for those, `seconds_of_25` are scaled

The last line is one JSON object with the seconds for each target alone and for all together.
`cpu_seconds_of_25` is the time of all cores, which depends less on other work on the machine.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from sertone.analysis.layers.probe_jobs import ProbeRunner
from sertone.analysis.layers.targets import Target, _deal_speakers, _divide_by_speaker
from sertone.schema import Utterance
from sertone.training.data.array_store import ArrayStore
from sertone.utils.processes import count_cores

SPEAKERS, SESSIONS, FULL = 10, 5, 25
QUESTIONS = {"arousal": 0, "valence": 0, "dominance": 0, "emotion": 4, "gender": 2, "style": 2, "speaker": 10}
"""Target -> number of classes; 0 for a rating."""


def make_targets(latent: np.ndarray) -> list[Target]:
    """Return targets whose labels depend on latent variables (N, 10) and noise, in folds of two speakers."""
    rng = np.random.default_rng(1)
    numbers = rng.integers(SPEAKERS, size=len(latent))
    speakers = np.array([f"s{number}" for number in numbers])
    test_folds = numbers % SESSIONS
    parts = np.array([_divide_by_speaker(test_folds != fold, speakers) for fold in range(SESSIONS)])
    rows = np.arange(len(latent))
    targets: list[Target] = []
    for name, count in QUESTIONS.items():
        noisy = latent + rng.normal(size=latent.shape)
        labels = noisy[:, :count].argmax(1) if count else noisy[:, len(targets)]
        targets.append(Target(name, rows, labels, list("abcdefghij"[:count]), speakers, test_folds, parts))
    # Speakers cannot be recognised across speaker-disjoint folds: their utterances are divided instead.
    layout = _deal_speakers(
        [Utterance(id=str(row), path=Path(), speaker=name) for row, name in enumerate(speakers)]
    )
    classes = [f"s{number}" for number in range(SPEAKERS)]
    return [*targets[:-1], Target("speaker", rows, numbers, classes, speakers, *layout)]


def write_features(
    store: ArrayStore, utterances: int, layers: int, width: int
) -> tuple[list[bytes], np.ndarray]:
    """Write correlated features, (layers, width) per utterance; return their keys and latent variables."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(utterances, 10)).astype(np.float32)
    # Falling weights correlate the features, as those of a real encoder are.
    mixing = rng.normal(size=(10 + width, width)) * (np.arange(10 + width) + 1)[:, None] ** -0.3
    keys = [row.to_bytes(32, "little") for row in range(utterances)]
    for row, key in enumerate(keys):
        hidden = np.concatenate([np.tile(latent[row], (layers, 1)), rng.normal(size=(layers, width))], 1)
        store.put(key, (hidden @ mixing).astype(np.float32))
    return keys, latent


def main() -> None:
    """Measure and print."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--utterances", type=int, default=5500)
    parser.add_argument("--layers", type=int, default=FULL)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--targets", nargs="*", default=["arousal", "emotion", "all"])
    options = parser.parse_args()
    seconds, cpu_seconds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        store = ArrayStore(Path(folder) / "features.store")
        keys, latent = write_features(store, options.utterances, options.layers, options.width)
        targets = make_targets(latent)
        for name in options.targets:
            selected = [target for target in targets if name in ("all", target.name)]
            started = time.perf_counter()
            cpu_before = sum(os.times()[:4])  # user and system time, with that of finished children
            ProbeRunner(store, keys, selected, Path(folder) / name).run(None, lambda _: None)
            seconds[name] = time.perf_counter() - started
            cpu_seconds[name] = sum(os.times()[:4]) - cpu_before
            print(f"{name}: {seconds[name]:.1f} s", flush=True)
    factor = FULL / options.layers
    scaled = {name: spent * factor for name, spent in seconds.items()}
    scaled_cpu = {name: spent * factor for name, spent in cpu_seconds.items()}
    results = {"utterances": options.utterances, "layers": options.layers, "width": options.width}
    results |= {"cores": count_cores(), "seconds": seconds, "seconds_of_25": scaled}
    results["cpu_seconds_of_25"] = scaled_cpu
    if "all" in scaled:
        results["seconds_of_25_per_target_together"] = scaled["all"] / len(targets)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
