"""Probes of all layers of an encoder, several at a time, with results on disk: `probes/LAYER.json`.

The result of a target holds a hash of the features, labels, folds and code that it follows from. Targets with
another hash are probed again. A process holds one layer in memory at a time.

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
from sertone.training.data.array_store import ArrayStore
from sertone.utils.processes import count_cores, run_parallel
from sertone.utils.wording import format_count

MIN_PARALLEL_FEATURES = 20_000_000
"""Number of features (N times D, of all layers) from which on it pays to start processes."""
CHILD_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
"""Environment of each process. With one thread each, several processes do not compete for cores."""


class ProbeRunner:
    """Runner of the probes of one encoder.

    Args:
        store: the features.
        keys: keys of all utterances, (N,).
        targets: targets to probe, on the same N utterances.
        folder: for the results.
    """

    def __init__(
        self, store: ArrayStore, keys: Sequence[bytes], targets: Sequence[Target], folder: Path
    ) -> None:
        self.store = store
        self.keys = keys
        self.folder = folder
        self.targets = {target.name: target for target in targets}
        origin = hashlib.sha256(b"".join(keys) + _hash_code()).hexdigest()
        self.hashes = {
            name: f"{origin} {target.compute_fingerprint()}" for name, target in self.targets.items()
        }
        self.layers, self.width = get_store_shape(store, keys)

    def run(self, jobs: int | None, say: Callable[[str], None]) -> dict[str, list[dict[str, Any]]]:
        """Probe what has no result yet.

        Args:
            jobs: number of processes; None: one per core where there is much to do.
            say: receives progress lines.

        Returns:
            target -> `values`, (U, F), and `penalties` of every layer.
        """
        self.folder.mkdir(exist_ok=True)
        calls = [(layer, missing) for layer in range(self.layers) if (missing := self._list_missing(layer))]
        if len(calls) < self.layers:
            say(f"probes from before: {format_count(self.layers - len(calls), 'layer')}")
        started = time.monotonic()
        for number, (layer, layer_results) in enumerate(self._probe_layers(calls, jobs), 1):
            # Targets of earlier runs stay in the file.
            saved = self._load_results(layer)
            for name, result in layer_results.items():
                saved[name] = {"of": self.hashes[name]} | result
            # After each layer, so that an interrupted run keeps the finished ones.
            write_json(self.folder / f"{layer}.json", saved)
            elapsed = time.monotonic() - started
            say(f"probes: {number} of {format_count(len(calls), 'layer')}, {elapsed / number:.1f} s each")
        results = [self._load_results(layer) for layer in range(self.layers)]
        return {name: [layer_results[name] for layer_results in results] for name in self.targets}

    def _list_missing(self, layer: int) -> list[Target]:
        """Return the targets without a current result in a layer."""
        saved = self._load_results(layer)
        return [t for name, t in self.targets.items() if saved.get(name, {}).get("of") != self.hashes[name]]

    def _load_results(self, layer: int) -> dict[str, Any]:
        """Return the saved results of a layer. Return none where the file is missing or damaged."""
        try:
            return json.loads((self.folder / f"{layer}.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _probe_layers(
        self, calls: Sequence[tuple[int, list[Target]]], jobs: int | None
    ) -> Iterable[tuple[int, dict[str, dict]]]:
        """Yield layer and result of `probe_layer`, in the order in which layers finish."""
        is_large = len(calls) * len(self.keys) * self.width >= MIN_PARALLEL_FEATURES
        jobs = jobs or (count_cores() if is_large else 1)
        arguments = [(self.store, self.keys, layer, targets) for layer, targets in calls]
        if jobs == 1:
            for store, keys, layer, targets in arguments:
                yield layer, probe_layer(store, keys, layer, targets)
            return
        environments = [CHILD_ENVIRONMENT] * min(jobs, len(calls))
        # Closing the generator ends the processes, also where an error ends this loop early.
        with contextlib.closing(run_parallel(environments, probe_layer, arguments)) as finished:
            for call, future in finished:
                yield call[2], future.result()


def get_store_shape(store: ArrayStore, keys: Sequence[bytes]) -> tuple[int, int]:
    """Return L+1 and D of the rows of a store."""
    row = store.get(keys[0])
    assert row is not None, "features are extracted before they are probed"
    return row.shape[0], row.shape[1]


def probe_layer(
    store: ArrayStore, keys: Sequence[bytes], layer: int, targets: Sequence[Target]
) -> dict[str, dict[str, Any]]:
    """Probe one layer for some targets.

    Args:
        store: the features.
        keys: keys of all utterances.
        layer: layer from 0 to L.
        targets: targets to probe.

    Returns:
        target -> `values`, (U, F), and `penalties`.
    """
    outputs = linear_probes.probe(load_layer(store, keys, layer), targets)
    return {
        target.name: {
            "values": linear_probes.sum_by_speaker(target, outputs[target.name]).tolist(),
            "penalties": outputs[target.name].penalties,
        }
        for target in targets
    }


def load_layer(store: ArrayStore, keys: Sequence[bytes], layer: int) -> np.ndarray:
    """Load one layer of all utterances, (N, D), float32.

    Raises:
        SertoneError: `bad_features`.
    """
    rows = [store.get(key) for key in keys]
    features = np.stack([row[layer] for row in rows if row is not None])
    if len(features) < len(rows) or not np.isfinite(features).all():
        damaged = format_count(len(rows) - len(features), "row")
        raise SertoneError(
            "bad_features",
            f"layer {layer} of {store.path}: {damaged} damaged, or not finite",
            "a finite row per utterance",
            "remove the file, and check that the encoder's weights are finite",
        )
    return features


def _hash_code() -> bytes:
    """Return hashes of the code and versions that decide the predictions of a probe."""
    modules = (linear_probes, solvers, targets, metrics, sufficient_statistics)
    files = (module.__file__ or "" for module in modules)
    code = b"".join(hashlib.sha256(Path(file).read_bytes()).digest() for file in files)
    return code + f"{np.__version__} {scipy.__version__}".encode()
