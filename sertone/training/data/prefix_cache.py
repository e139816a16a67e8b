"""Cache the output of an encoder's frozen prefix: once per utterance, speed and version, without padding.

The key of an entry is a hash of everything that its values depend on: the weights and settings of the prefix,
the code that runs it, the samples, the speed, the cut, the precision. A stale or foreign entry is therefore
never read, and folds, seeds and runs share entries.

Axis letters: B batch, S hidden states, T frames, C features, D width.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
import transformers
from lightning_fabric import Fabric
from torch import Tensor

import sertone.nn
from sertone.nn.encoders.base import Encoder, Prefix
from sertone.schema import Utterance
from sertone.training.data.array_store import ArrayStore
from sertone.training.data.waveforms import Waveforms

INPUT_CODE = ("prefix_cache.py", "recordings.py", "waveforms.py")
"""The files of this folder that the output of a prefix depends on."""
STORAGE_DTYPES = {torch.float32: torch.float32, torch.bfloat16: torch.int16}
"""The type under which numpy, which has no bfloat16, stores the bits."""


class PrefixCache:
    """The prefix outputs of one encoder with its present weights and cut.

    Args:
        encoder: encoder on the device of `fabric`, frozen up to its cut.
        layers: hidden states to store; empty: the features of the front end.
        dtype: dtype of the stored numbers.
        store: for the entries.
        waveforms: the audio.
        fabric: device and precision of the computation.
        say: receives one line when the store is full.
        features: a cache of the front end's features, from which a computation starts where it has them.
    """

    full = False  # set once the store has no room, so that the line about it appears once

    def __init__(
        self,
        encoder: Encoder,
        layers: tuple[int, ...],
        dtype: torch.dtype,
        store: ArrayStore,
        waveforms: Waveforms,
        fabric: Fabric,
        say: Callable[[str], None],
        features: "PrefixCache | None" = None,
    ) -> None:
        self.encoder = encoder
        self.layers = layers
        self.dtype = dtype
        self.store = store
        self.waveforms = waveforms
        self.fabric = fabric
        self.say = say
        self.features = features
        self.name = hash_prefix(encoder, layers, dtype, fabric)

    def get(self, utterance: Utterance, speed: float, seed: int | None = None) -> np.ndarray | None:
        """Return an entry, (T, C) or (S, T, D), or None; bfloat16 comes as the int16 of its bits.

        Args:
            utterance: utterance of the entry.
            speed: speed at which it is played.
            seed: seed of the changes of its waveform; None: the waveform as it is.
        """
        return self.store.get(self._make_key(utterance, speed, seed))

    @torch.no_grad()
    def compute(self, utterance: Utterance, speed: float, seed: int | None = None) -> np.ndarray:
        """Compute the entry of an utterance (see `get`), and store it if there is room."""
        with self.fabric.autocast():
            prefix = self._load_features(utterance, speed, seed)
            if self.layers:
                prefix = self.encoder.run_frozen_layers(prefix, self.layers)
        # A batch of one needs no padding, so the entry has exactly the utterance's frames.
        states = prefix.states[0].to(self.dtype).cpu().contiguous()
        entry = states.view(STORAGE_DTYPES[self.dtype]).numpy()
        if not self.store.put(self._make_key(utterance, speed, seed), entry) and not self.full:
            self.full = True
            self.say("the cache of the frozen prefix is full: outputs that do not fit are computed each time")
        return entry

    def collate(self, entries: Sequence[np.ndarray]) -> Prefix:
        """Pad the entries of B utterances to one prefix."""
        frames = [entry.shape[-2] for entry in entries]
        *states, _, width = entries[0].shape
        padded = np.zeros((len(entries), *states, max(frames), width), entries[0].dtype)
        for target, entry in zip(padded, entries, strict=True):
            target[..., : entry.shape[-2], :] = entry
        return Prefix(torch.from_numpy(padded).view(self.dtype), torch.tensor(frames), self.layers)

    def _load_features(self, utterance: Utterance, speed: float, seed: int | None) -> Prefix:
        """Return the features of the front end, from their cache where it has them."""
        if self.features:
            entry = self.features.get(utterance, speed, seed)
            if entry is not None:
                return self.features.collate([entry]).to(self.fabric.device)
        samples = self.waveforms.load(utterance, speed, self.encoder.min_samples, seed)
        device = self.fabric.device
        lengths = torch.tensor([len(samples)], device=device)
        return Prefix(*self.encoder.front(torch.from_numpy(samples)[None].to(device), lengths))

    def _make_key(self, utterance: Utterance, speed: float, seed: int | None) -> bytes:
        text = f"{self.name} {self.waveforms.make_key(utterance, speed, seed)}"
        return hashlib.sha256(text.encode()).digest()


def hash_prefix(encoder: Encoder, layers: tuple[int, ...], dtype: torch.dtype, fabric: Fabric) -> str:
    """Return a hash of everything except the audio that the output of the prefix depends on."""
    cut = layers[-1] if layers else 0
    modules = [module for part in encoder.parts()[: cut + 1] for module in part]
    return hash_states(encoder.describe(), modules, layers, dtype, fabric)


def hash_states(
    description: dict[str, Any],
    modules: Iterable[torch.nn.Module],
    layers: tuple[int, ...],
    dtype: torch.dtype,
    fabric: Fabric,
) -> str:
    """Return a hash of everything except the input that some hidden states depend on.

    Args:
        description: description of the encoder, without its weights.
        modules: that compute the states.
        layers: numbers of the hidden states.
        dtype: dtype of the stored numbers.
        fabric: device and precision of the computation.
    """
    dependencies = {
        "encoder": description,
        "weights": _hash_weights(modules),
        "code": _hash_code(),
        # Other versions may round differently.
        "versions": [torch.__version__, transformers.__version__, soxr.__version__],
        "layers": layers,
        "precision": [str(dtype), str(fabric._precision.precision)],
        "device": fabric.device.type,
    }
    return hashlib.sha256(json.dumps(dependencies, sort_keys=True, default=str).encode()).hexdigest()


def _hash_weights(modules: Iterable[torch.nn.Module]) -> str:
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_view_bytes(tensor))
    return digest.hexdigest()


def _view_bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data  # as bytes, since numpy has no bfloat16


def _hash_code() -> str:
    """Return a hash of the code in `sertone.nn` and of the code that loads its input."""
    digest = hashlib.sha256()
    input_code = [Path(__file__).with_name(name) for name in INPUT_CODE]
    for path in sorted([*Path(sertone.nn.__path__[0]).rglob("*.py"), *input_code]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
