"""Where a run keeps the prefixes of its folds and stages: memory or files, with a limit."""

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.nn.encoders.base import Encoder
from sertone.recipe.train_config import TrainConfig
from sertone.training.data.array_store import ArrayStore
from sertone.training.data.prefix_cache import PrefixCache
from sertone.training.data.recordings import Recordings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class PrefixCaches:
    """Where a run keeps the prefixes of its folds and stages.

    Pickled, it shares memory with the process that made it.

    Args:
        config: the `train` part of the recipe.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.limit = int(config.cache.limit_gb * 1e9)
        self.shared = ArrayStore(limit=self.limit)

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
        chosen = self.choose_layers(encoder, needs, recordings, fabric, say)
        if chosen is None:
            return None
        layers, size = chosen
        dtype = self._dtype()
        cache = PrefixCache(encoder, layers, dtype, self.shared, recordings, fabric, say)
        cache.store = self._store(cache.name, size, own=own and bool(layers))
        if layers:
            cache.features = PrefixCache(encoder, (), dtype, self.shared, recordings, fabric, say)
            path = self._path(cache.features.name)
            if self.config.cache.where == "file" and path.exists():
                cache.features.store = ArrayStore(path, self.limit)
        what = f"encoder up to layer {layers[-1]}" if layers else "front end"
        where = self.config.cache.where.replace("auto", "memory")
        say(f"output of the frozen {what} kept in {where}, up to {size:.2g} GB")
        return cache

    def choose_layers(
        self,
        encoder: Encoder,
        needs: Sequence[int],
        recordings: Recordings,
        fabric: Fabric,
        say: Callable[[str], None],
    ) -> tuple[tuple[int, ...], float] | None:
        """Which hidden states would be kept (none: the front end's features), and in how many GB.

        Args:
            encoder: on any device, frozen up to its cut.
            needs: hidden states that the model reads.
            recordings: the audio.
            fabric: device and precision.
            say: told why there is no cache.

        Returns:
            the deepest choice that fits, or None.

        Raises:
            SertoneError: as `open`.
        """
        where, limit = self.config.cache.where, self.config.cache.limit_gb
        if where == "off" or not encoder.width or not self._possible(encoder, say):
            return None
        choices: list[tuple[int, ...]] = [()]
        if encoder.cut > 0:
            choices.insert(0, tuple(sorted({n for n in needs if n < encoder.cut} | {encoder.cut})))
        sizes = [_gigabytes(encoder, layers, self._dtype(), recordings.seconds, fabric) for layers in choices]
        fitting = [pair for pair in zip(choices, sizes, strict=True) if pair[1] <= limit]
        if not fitting or (where != "auto" and len(fitting) < len(choices)):
            return self._too_small(sizes, say)
        return fitting[0]

    def _possible(self, encoder: Encoder, say: Callable[[str], None]) -> bool:
        varied = self.config.augmentation.is_active
        why = (
            "train.augmentation changes the waveforms in every epoch"
            if varied
            else encoder.explain_varying_prefix()
        )
        if why and self.config.cache.where != "auto":
            other = "take out train.augmentation" if varied else "raise model.frozen_layers"
            raise SertoneError(
                "not_cacheable",
                f"train.cache {self.config.cache.where}, but {why}",
                "an encoder whose first part is frozen and deterministic, and the same waveforms each time",
                f"{other}, or set train.cache to auto or off",
            )
        if varied:
            say(f"no cache: {why}")
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

    def _store(self, name: str, gigabytes: float, own: bool) -> ArrayStore:
        """Where to keep it: a file, or memory of the run; what no other fold can use goes with its fold."""
        if self.config.cache.where != "file":
            return ArrayStore(limit=self.limit) if own else self.shared
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if own:
            path = path.with_suffix(f".{os.getpid()}")
            store = ArrayStore(path, self.limit)
            path.unlink()  # the disk has it until the store is gone, however this process ends
            return store
        store = ArrayStore(path, self.limit)
        os.utime(path)
        _make_room(path, self.limit - gigabytes * 1e9)
        return store


def _make_room(kept: Path, limit: float) -> None:
    """Removes the files beside `kept` that were opened longest ago, until the others fit into `limit`."""
    sizes = {}
    for file in kept.parent.glob("*.prefix"):
        with contextlib.suppress(FileNotFoundError):  # another process makes room as well
            sizes[file] = file.stat()
    excess = sum(about.st_size for file, about in sizes.items() if file != kept) - limit
    for file, about in sorted(sizes.items(), key=lambda item: item[1].st_mtime):
        if excess > 0 and file != kept:
            excess -= about.st_size
            file.unlink(missing_ok=True)


def _gigabytes(
    encoder: Encoder, layers: tuple[int, ...], dtype: torch.dtype, seconds: float, fabric: Fabric
) -> float:
    """What the prefixes of so much audio take; the encoder may be on any device."""
    device = next(encoder.parameters()).device
    with torch.no_grad(), fabric.autocast():
        counts = torch.tensor([1, 2], device=device) * SAMPLING_RATE
        features, frames = encoder.front(torch.zeros(2, 2 * SAMPLING_RATE, device=device), counts)
    width = encoder.width * len(layers) if layers else features.shape[-1]
    return seconds * int(frames[1] - frames[0]) * width * dtype.itemsize / 1e9
