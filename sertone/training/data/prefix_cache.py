"""The output of an encoder's frozen prefix, computed once per utterance and speed, without padding.

What is kept is found again by a hash of everything it follows from: the weights and settings of the
prefix, the code that runs it, the samples, the speed, the cut, the precision. So a stale or foreign
cache is never read, and folds, seeds and runs share what is the same.

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
from sertone.training.data import recordings as recordings_code
from sertone.training.data.array_store import ArrayStore
from sertone.training.data.recordings import Recordings

SHOWN = {torch.float32: torch.float32, torch.bfloat16: torch.int16}
"""As what numpy, which has no bfloat16, holds the bits."""


class PrefixCache:
    """What the prefix of one encoder, as it is now, gives.

    Args:
        encoder: on the device of `fabric`, frozen up to its cut.
        layers: hidden states that are kept; empty: the features of the front end.
        dtype: of what is kept.
        store: where.
        recordings: the audio.
        fabric: device and precision of the computing.
        say: told once when there is no more room.
        features: a cache of the front end's features, to begin from where they are known.
    """

    full = False

    def __init__(
        self,
        encoder: Encoder,
        layers: tuple[int, ...],
        dtype: torch.dtype,
        store: ArrayStore,
        recordings: Recordings,
        fabric: Fabric,
        say: Callable[[str], None],
        features: "PrefixCache | None" = None,
    ) -> None:
        self.encoder, self.layers, self.dtype, self.store = encoder, layers, dtype, store
        self.recordings, self.fabric, self.say, self.features = recordings, fabric, say, features
        self.name = hash_prefix(encoder, layers, dtype, fabric)

    def get(self, utterance: Utterance, speed: float) -> np.ndarray | None:
        """What is kept of an utterance: (T, C) or (S, T, D), bfloat16 as the int16 of its bits."""
        return self.store.get(self._key(utterance, speed))

    @torch.no_grad()
    def compute(self, utterance: Utterance, speed: float) -> np.ndarray:
        """Computes it, and keeps it if there is room."""
        with self.fabric.autocast():
            prefix = self._features(utterance, speed)
            if self.layers:
                prefix = self.encoder.run_frozen_layers(prefix, self.layers)
        states = prefix.states[0].to(self.dtype).cpu().contiguous()
        kept = states.view(SHOWN[self.dtype]).numpy()
        if not self.store.put(self._key(utterance, speed), kept) and not self.full:
            self.full = True
            self.say("the cache of the frozen prefix is full; what does not fit is computed each time")
        return kept

    def collate(self, rows: Sequence[np.ndarray]) -> Prefix:
        """Pads what is kept of B utterances to one prefix."""
        frames = [row.shape[-2] for row in rows]
        *states, _, width = rows[0].shape
        padded = np.zeros((len(rows), *states, max(frames), width), rows[0].dtype)
        for target, row in zip(padded, rows, strict=True):
            target[..., : row.shape[-2], :] = row
        return Prefix(torch.from_numpy(padded).view(self.dtype), torch.tensor(frames), self.layers)

    def _features(self, utterance: Utterance, speed: float) -> Prefix:
        known = self.features.get(utterance, speed) if self.features else None
        if self.features and known is not None:
            return self.features.collate([known]).to(self.fabric.device)
        samples = load_waveform(self.recordings, utterance, speed, self.encoder.min_samples)
        device = self.fabric.device
        lengths = torch.tensor([len(samples)], device=device)
        return Prefix(*self.encoder.front(torch.from_numpy(samples)[None].to(device), lengths))

    def _key(self, utterance: Utterance, speed: float) -> bytes:
        text = f"{self.name} {self.recordings.hashes[utterance.id].hex()} {speed}"
        return hashlib.sha256(text.encode()).digest()


def load_waveform(
    recordings: Recordings,
    utterance: Utterance,
    speed: float,
    min_samples: int,
    change: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Return samples (N,), float32, padded with silence to what the encoder needs.

    Args:
        recordings: the audio.
        utterance: whose.
        speed: at which it is played.
        min_samples: that the encoder needs.
        change: applied to the samples before they are padded; None: nothing.
    """
    samples = recordings.samples(utterance, speed)
    samples = change(samples) if change else samples
    padded = np.zeros(max(len(samples), min_samples), np.float32)
    np.multiply(samples, np.float32(1 / 32768), out=padded[: len(samples)])
    return padded


def hash_prefix(encoder: Encoder, layers: tuple[int, ...], dtype: torch.dtype, fabric: Fabric) -> str:
    """Hash of everything that the prefix's output follows from, but for the audio."""
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
    """Hash of everything that some hidden states follow from, but for the input.

    Args:
        description: of the encoder, without its weights.
        modules: whose weights they follow from.
        layers: which they are.
        dtype: as which they are kept.
        fabric: device and precision of the computing.
    """
    about = {
        "encoder": description,
        "weights": _weights_hash(modules),
        "code": _code_hash(),
        "versions": [torch.__version__, transformers.__version__, soxr.__version__],
        "layers": layers,
        "precision": [str(dtype), str(fabric._precision.precision)],
        "device": fabric.device.type,
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def _weights_hash(modules: Iterable[torch.nn.Module]) -> str:
    found = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(_bytes(tensor))
    return found.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data


def _code_hash() -> str:
    """Of `sertone.nn` and of what makes its input: another front end is another prefix."""
    found = hashlib.sha256()
    own = (Path(__file__), Path(recordings_code.__file__))
    for path in sorted([*Path(sertone.nn.__path__[0]).rglob("*.py"), *own]):
        found.update(path.read_bytes())
    return found.hexdigest()
