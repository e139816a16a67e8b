"""The output of an encoder's frozen prefix, computed once per utterance and speed, without padding.

What is kept is found again by a hash of everything it follows from: the weights and settings of the
prefix, the code that runs it, the samples, the speed, the cut, the precision. So a stale or foreign
cache is never read, and folds, seeds and runs share what is the same.

Axis letters: B batch, S hidden states, T frames, C features, D width.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from lightning_fabric import Fabric
from torch import Tensor

import sertone.nn
from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.nn.encoder import Encoder, Prefix
from sertone.recipe import TrainConfig
from sertone.schema import Utterance
from sertone.training.recordings import Recordings
from sertone.training.store import Store

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
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
        features: a cache of the front end's features, to begin from where they are known.
    """

    def __init__(
        self,
        encoder: Encoder,
        layers: tuple[int, ...],
        dtype: torch.dtype,
        store: Store,
        recordings: Recordings,
        fabric: Fabric,
        features: "PrefixCache | None" = None,
    ) -> None:
        self.encoder, self.layers, self.dtype, self.store = encoder, layers, dtype, store
        self.recordings, self.fabric, self.features = recordings, fabric, features
        self.name = _name(encoder, layers, dtype, fabric)

    def get(self, utterance: Utterance, speed: float) -> np.ndarray | None:
        """What is kept of an utterance: (T, C) or (S, T, D), bfloat16 as the int16 of its bits."""
        return self.store.get(self._key(utterance, speed))

    @torch.no_grad()
    def compute(self, utterance: Utterance, speed: float) -> np.ndarray:
        """Computes it, and keeps it if there is room."""
        with self.fabric.autocast():
            prefix = self._features(utterance, speed)
            if self.layers:
                prefix = self.encoder.deepen(prefix, self.layers)
        states = prefix.states[0].to(self.dtype).cpu().contiguous()
        kept = states.view(SHOWN[self.dtype]).numpy()
        self.store.put(self._key(utterance, speed), kept)
        return kept

    def batch(self, rows: Sequence[np.ndarray]) -> Prefix:
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
            return self.features.batch([known]).to(self.fabric.device)
        samples = waveform(self.recordings, utterance, speed, self.encoder.min_samples)
        device = self.fabric.device
        lengths = torch.tensor([len(samples)], device=device)
        return Prefix(*self.encoder.front(torch.from_numpy(samples)[None].to(device), lengths))

    def _key(self, utterance: Utterance, speed: float) -> bytes:
        text = f"{self.name} {self.recordings.hashes[utterance.id].hex()} {speed}"
        return hashlib.sha256(text.encode()).digest()


def waveform(recordings: Recordings, utterance: Utterance, speed: float, min_samples: int) -> np.ndarray:
    """Samples (N,), float32, padded with silence to what the encoder needs."""
    samples = recordings.samples(utterance, speed)
    padded = np.zeros(max(len(samples), min_samples), np.float32)
    np.multiply(samples, np.float32(1 / 32768), out=padded[: len(samples)])
    return padded


class PrefixCaches:
    """Where a run keeps the prefixes of its folds and stages.

    Pickled, it shares memory with the process that made it.

    Args:
        config: the `train` part of the recipe.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.limit = int(config.cache.limit_gb * 1e9)
        self.shared = Store(limit=self.limit)

    def open(
        self,
        encoder: Encoder,
        needs: Sequence[int],
        own: bool,
        recordings: Recordings,
        fabric: Fabric,
        say: Callable[[str], None],
    ) -> PrefixCache | None:
        """The cache of one stage, or None; its size is told before it is filled.

        Args:
            encoder: on its device, frozen up to its cut.
            needs: hidden states that the model reads.
            own: the prefix has been trained in this fold, so that no other fold has the same.
            recordings: the audio.
            fabric: device and precision.
            say: told the size, or why there is no cache.

        Raises:
            SertoneError: `not_cacheable`, `cache_too_small`, where `memory` or `file` was asked for.
        """
        where = self.config.cache.where
        if where == "off" or not self._possible(encoder):
            return None
        dtype = self._dtype()
        choices = [()]
        if encoder.cut > 0:
            choices.insert(0, tuple(sorted({n for n in needs if n < encoder.cut} | {encoder.cut})))
        sizes = [_gigabytes(encoder, layers, dtype, recordings.seconds, fabric) for layers in choices]
        fitting = [pair for pair in zip(choices, sizes, strict=True) if pair[1] <= self.config.cache.limit_gb]
        if not fitting or (where != "auto" and len(fitting) < len(choices)):
            return self._too_small(sizes, say)
        layers, size = fitting[0]
        cache = PrefixCache(encoder, layers, dtype, self.shared, recordings, fabric)
        cache.store = self._store(cache.name, size, own=own and bool(layers))
        if layers:
            cache.features = PrefixCache(encoder, (), dtype, self.shared, recordings, fabric)
            if where == "file" and self._path(cache.features.name).exists():
                cache.features.store = Store(self._path(cache.features.name), self.limit)
        what = f"encoder up to layer {layers[-1]}" if layers else "front end"
        say(f"output of the frozen {what} kept in {where.replace('auto', 'memory')}, up to {size:.2g} GB")
        return cache

    def _possible(self, encoder: Encoder) -> bool:
        why = encoder.changing()
        if why and self.config.cache.where != "auto":
            raise SertoneError(
                "not_cacheable",
                f"train.cache {self.config.cache.where}, but {why}",
                "an encoder whose first part is frozen and deterministic",
                "raise model.frozen_layers, or set train.cache to auto or off",
            )
        return not why

    def _too_small(self, sizes: list[float], say: Callable[[str], None]) -> None:
        limit = f"train.cache.limit_gb is {self.config.cache.limit_gb:g}"
        if self.config.cache.where != "auto":
            raise SertoneError(
                "cache_too_small",
                f"the output of the frozen prefix takes {sizes[0]:.2g} GB; {limit}",
                "room for it",
                "raise the limit, set train.cache.precision to bf16, take fewer train.speeds, or set "
                "train.cache to auto or off",
            )
        say(f"no cache: the front end's output takes {sizes[-1]:.2g} GB; {limit}")

    def _dtype(self) -> torch.dtype:
        default = "bf16" if self.config.precision == "bf16-mixed" else "fp32"
        return DTYPES[self.config.cache.precision or default]

    def _path(self, name: str) -> Path:
        return Path(self.config.cache.folder).expanduser() / f"{name}.prefix"

    def _store(self, name: str, gigabytes: float, own: bool) -> Store:
        """Where to keep it: a file, memory of this fold that is given back, or memory of the run."""
        if self.config.cache.where != "file":
            return Store(limit=self.limit) if own else self.shared
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        others = sorted(path.parent.glob("*.prefix"), key=lambda file: file.stat().st_mtime)
        others = [file for file in others if file != path]
        excess = sum(file.stat().st_size for file in others) + gigabytes * 1e9 - self.limit
        for file in others:
            if excess > 0:
                excess -= file.stat().st_size
                file.unlink()
        return Store(path, self.limit)


def _gigabytes(
    encoder: Encoder, layers: tuple[int, ...], dtype: torch.dtype, seconds: float, fabric: Fabric
) -> float:
    """What the prefixes of so much audio take."""
    with torch.no_grad(), fabric.autocast():
        counts = torch.tensor([1, 2], device=fabric.device) * SAMPLING_RATE
        features, frames = encoder.front(torch.zeros(2, 2 * SAMPLING_RATE, device=fabric.device), counts)
    width = encoder.width * len(layers) if layers else features.shape[-1]
    return seconds * int(frames[1] - frames[0]) * width * dtype.itemsize / 1e9


def _name(encoder: Encoder, layers: tuple[int, ...], dtype: torch.dtype, fabric: Fabric) -> str:
    """Hash of everything that the prefix's output follows from, but for the audio."""
    cut = layers[-1] if layers else 0
    about = {
        "encoder": encoder.describe(),
        "weights": _weights_hash([module for part in encoder.parts()[: cut + 1] for module in part]),
        "code": _code_hash(),
        "versions": [torch.__version__, transformers.__version__],
        "layers": layers,
        "precision": [str(dtype), str(fabric._precision.precision)],
        "device": fabric.device.type,
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def _weights_hash(modules: list[torch.nn.Module]) -> str:
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
    """Of `sertone.nn`: another front end is another prefix."""
    found = hashlib.sha256()
    for path in sorted(Path(sertone.nn.__path__[0]).glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
