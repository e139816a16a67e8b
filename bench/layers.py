"""What probing the layers of an encoder costs, on random features in which something is planted.

    python bench/layers.py                   5 500 utterances, 25 layers of 1 024 features
    python bench/layers.py --layers 4        fewer layers; `seconds` are for those, `seconds_of_25` scaled

The last line is one JSON object: seconds per target asked alone, and of all together; `cpu_seconds_of_25` are
those of all cores, which other work on the machine lengthens less.
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
"""Target -> its classes; none of a rating."""


def targets(latent: np.ndarray) -> list[Target]:
    """Labels that follow from hidden variables, (N, 10), with noise; five folds of two speakers."""
    draw = np.random.default_rng(1)
    numbers = draw.integers(SPEAKERS, size=len(latent))
    speakers = np.array([f"s{number}" for number in numbers])
    tested = numbers % SESSIONS
    parts = np.array([_divide_by_speaker(tested != fold, speakers) for fold in range(SESSIONS)])
    rows, made = np.arange(len(latent)), []
    for name, kinds in QUESTIONS.items():
        noisy = latent + draw.normal(size=latent.shape)
        labels = noisy[:, :kinds].argmax(1) if kinds else noisy[:, len(made)]
        made.append(Target(name, rows, labels, list("abcdefghij"[:kinds]), speakers, tested, parts))
    dealt = _deal_speakers(
        [Utterance(id=str(row), path=Path(), speaker=name) for row, name in enumerate(speakers)]
    )
    classes = [f"s{number}" for number in range(SPEAKERS)]
    return [*made[:-1], Target("speaker", rows, numbers, classes, speakers, *dealt)]


def features(store: ArrayStore, utterances: int, layers: int, width: int) -> tuple[list[bytes], np.ndarray]:
    """Correlated features, (layers, width) per utterance, and the hidden variables planted in them."""
    draw = np.random.default_rng(0)
    latent = draw.normal(size=(utterances, 10)).astype(np.float32)
    mixing = draw.normal(size=(10 + width, width)) * (np.arange(10 + width) + 1)[:, None] ** -0.3
    keys = [row.to_bytes(32, "little") for row in range(utterances)]
    for row, key in enumerate(keys):
        hidden = np.concatenate([np.tile(latent[row], (layers, 1)), draw.normal(size=(layers, width))], 1)
        store.put(key, (hidden @ mixing).astype(np.float32))
    return keys, latent


def main() -> None:
    """Measures and prints."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--utterances", type=int, default=5500)
    parser.add_argument("--layers", type=int, default=FULL)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--targets", nargs="*", default=["arousal", "emotion", "all"])
    options = parser.parse_args()
    seconds, busy = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        store = ArrayStore(Path(folder) / "features.store")
        keys, latent = features(store, options.utterances, options.layers, options.width)
        asked = targets(latent)
        for name in options.targets:
            own = [target for target in asked if name in ("all", target.name)]
            started, before = time.perf_counter(), sum(os.times()[:4])
            ProbeRunner(store, keys, own, Path(folder) / name).run(None, lambda _: None)
            seconds[name], busy[name] = time.perf_counter() - started, sum(os.times()[:4]) - before
            print(f"{name}: {seconds[name]:.1f} s", flush=True)
    scaled, cpu = (
        {name: spent * FULL / options.layers for name, spent in each.items()} for each in (seconds, busy)
    )
    found = {"utterances": options.utterances, "layers": options.layers, "width": options.width}
    found |= {"cores": count_cores(), "seconds": seconds, "seconds_of_25": scaled, "cpu_seconds_of_25": cpu}
    if "all" in scaled:
        found["seconds_of_25_per_target_together"] = scaled["all"] / len(asked)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
