"""Probes all layers of an encoder, side by side, and keeps what is done: `probes/LAYER.json`.

What is kept of a target names, by a hash, the features, labels, folds and code that it follows from; anything
else is probed again. One layer at a time is read into a process's memory.

Axis letters: N utterances, L layers, D width, U speakers, F sums.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from sertone.analysis.layers import linear_probes, solvers, targets
from sertone.analysis.layers.targets import Target
from sertone.errors import SertoneError
from sertone.files import write_json
from sertone.scoring import metrics, sufficient_statistics
from sertone.scoring.display import format_count
from sertone.training.data.array_store import ArrayStore
from sertone.utils.processes import count_cores, run_parallel

WORTH_CHILDREN = 20_000_000
"""Features (N times D, of all layers) from which on starting processes pays."""
ALONE = {"OMP_NUM_THREADS": "1"}
"""Of a child: several processes with a thread each wait for nobody."""


class ProbeRunner:
    """The probes of one encoder.

    Args:
        store: the features.
        keys: of all utterances, (N,).
        targets: questions about them, on the same N utterances.
        folder: where results are kept.
    """

    def __init__(
        self, store: ArrayStore, keys: Sequence[bytes], targets: Sequence[Target], folder: Path
    ) -> None:
        self.store, self.keys, self.folder = store, keys, folder
        self.targets = {target.name: target for target in targets}
        features = hashlib.sha256(b"".join(keys) + _code()).hexdigest()
        self.names = {name: f"{features} {own.fingerprint()}" for name, own in self.targets.items()}
        self.layers, self.width = store_shape(store, keys)

    def run(self, jobs: int | None, say: Callable[[str], None]) -> dict[str, list[dict[str, Any]]]:
        """Probes what is not done yet.

        Args:
            jobs: processes; None: one per core where there is much to do.
            say: told the progress.

        Returns:
            target -> of every layer `values`, (U, F), and `penalties`.
        """
        self.folder.mkdir(exist_ok=True)
        calls = [(layer, left) for layer in range(self.layers) if (left := self._left(layer))]
        if len(calls) < self.layers:
            say(f"probes from before: {format_count(self.layers - len(calls), 'layer')}")
        started = time.monotonic()
        for done, (layer, found) in enumerate(self._probed(calls, jobs), 1):
            kept = self._kept(layer)
            for name, own in found.items():
                kept[name] = {"of": self.names[name]} | own
            write_json(self.folder / f"{layer}.json", kept)
            spent = time.monotonic() - started
            say(f"probes: {done} of {format_count(len(calls), 'layer')}, {spent / done:.1f} s each")
        kept = [self._kept(layer) for layer in range(self.layers)]
        return {name: [own[name] for own in kept] for name in self.targets}

    def _left(self, layer: int) -> list[Target]:
        kept = self._kept(layer)
        return [t for name, t in self.targets.items() if kept.get(name, {}).get("of") != self.names[name]]

    def _kept(self, layer: int) -> dict[str, Any]:
        try:
            return json.loads((self.folder / f"{layer}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _probed(
        self, calls: Sequence[tuple[int, list[Target]]], jobs: int | None
    ) -> Iterable[tuple[int, dict[str, dict]]]:
        """Layer and what `probe_layer` finds, as they come in."""
        much = len(calls) * len(self.keys) * self.width >= WORTH_CHILDREN
        jobs = jobs or (count_cores() if much else 1)
        arguments = [(self.store, self.keys, *call) for call in calls]
        if jobs == 1:
            yield from ((each[2], probe_layer(*each)) for each in arguments)
            return
        environments = [ALONE] * min(jobs, len(calls))
        with contextlib.closing(run_parallel(environments, probe_layer, arguments)) as answers:
            yield from ((each[2], future.result()) for each, future in answers)


def store_shape(store: ArrayStore, keys: Sequence[bytes]) -> tuple[int, int]:
    """L+1 and D of the rows."""
    row = store.get(keys[0])
    assert row is not None, "features are extracted before they are probed"
    return row.shape[0], row.shape[1]


def probe_layer(
    store: ArrayStore, keys: Sequence[bytes], layer: int, targets: Sequence[Target]
) -> dict[str, dict[str, Any]]:
    """Probes one layer.

    Args:
        store: the features.
        keys: of all utterances.
        layer: from 0 to L.
        targets: questions about them.

    Returns:
        target -> `values`, (U, F), and `penalties`.
    """
    found = linear_probes.probe(layer_of(store, keys, layer), targets)
    return {
        target.name: {
            "values": linear_probes.sum_by_speaker(target, found[target.name]).tolist(),
            "penalties": found[target.name].penalties,
        }
        for target in targets
    }


def layer_of(store: ArrayStore, keys: Sequence[bytes], layer: int) -> np.ndarray:
    """One layer of all utterances, (N, D), float32.

    Raises:
        SertoneError: `bad_features`.
    """
    rows = [store.get(key) for key in keys]
    found = np.stack([row[layer] for row in rows if row is not None])
    if len(found) < len(rows) or not np.isfinite(found).all():
        raise SertoneError(
            "bad_features",
            f"layer {layer} of {store.path}: {format_count(len(rows) - len(found), 'row')} damaged, or not finite",
            "a finite row per utterance",
            "remove the file, and look whether the encoder's weights are sound",
        )
    return found


def _code() -> bytes:
    """Of all that decides a probe's answer."""
    modules = (linear_probes, solvers, targets, metrics, sufficient_statistics)
    files = (module.__file__ or "" for module in modules)
    code = b"".join(hashlib.sha256(Path(file).read_bytes()).digest() for file in files)
    return code + f"{np.__version__} {scipy.__version__}".encode()
