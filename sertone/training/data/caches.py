"""Caches that the folds and stages of a run share: decoded audio, and the outputs of frozen prefixes."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from lightning_fabric import Fabric

from sertone.audio import SAMPLING_RATE
from sertone.errors import SertoneError
from sertone.nn.encoders.base import Encoder
from sertone.recipe.train_config import TrainConfig
from sertone.training.data.array_store import ArrayStore
from sertone.training.data.prefix_cache import PrefixCache
from sertone.training.data.recordings import Recordings
from sertone.training.data.waveforms import Waveforms

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class PrefixCaches:
    """The prefix caches of a run's folds and stages, in memory or files, up to a limit.

    Unpickling shares memory with the process that created it.

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
        fold_specific: bool,
        waveforms: Waveforms,
        fabric: Fabric,
        say: Callable[[str], None],
    ) -> PrefixCache | None:
        """Return the cache of one stage, or None; its size is reported before it is filled.

        Args:
            encoder: encoder on its device, frozen up to its cut.
            needs: hidden states that the model uses.
            fold_specific: True where this fold has trained the prefix, so that no other fold has the same.
            waveforms: the audio.
            fabric: device and precision.
            say: receives a line with the size, or with the reason why there is no cache.

        Raises:
            SertoneError: `not_cacheable`, `cache_too_small`, where the recipe asks for `memory` or `file`.
        """
        choice = self.choose_layers(encoder, needs, waveforms.recordings, fabric, say)
        if choice is None:
            return None
        layers, size = choice
        dtype = self._choose_dtype()
        cache = PrefixCache(encoder, layers, dtype, self.shared, waveforms, fabric, say)
        fold_specific = (fold_specific and bool(layers)) or waveforms.is_fold_specific
        cache.store = self._open_store(cache.name, size, fold_specific=fold_specific)
        if layers:
            # An earlier stage or run with a shallower cut may have stored the features of the front end.
            cache.features = PrefixCache(encoder, (), dtype, self.shared, waveforms, fabric, say)
            path = self._make_path(cache.features.name)
            if self.config.cache.where == "file" and path.exists():
                cache.features.store = ArrayStore(path, self.limit)
        part = f"encoder up to layer {layers[-1]}" if layers else "front end"
        where = self.config.cache.where.replace("auto", "memory")
        say(f"output of the frozen {part} kept in {where}, up to {size:.2g} GB")
        return cache

    def choose_layers(
        self,
        encoder: Encoder,
        needs: Sequence[int],
        recordings: Recordings,
        fabric: Fabric,
        say: Callable[[str], None],
    ) -> tuple[tuple[int, ...], float] | None:
        """Return the hidden states to store (none: the front end's features), and their size in GB.

        Args:
            encoder: encoder on any device, frozen up to its cut.
            needs: hidden states that the model uses.
            recordings: the audio.
            fabric: device and precision.
            say: receives a line with the reason why there is no cache.

        Returns:
            The deepest choice that fits, or None.

        Raises:
            SertoneError: as `open`.
        """
        where, limit = self.config.cache.where, self.config.cache.limit_gb
        if where == "off" or not encoder.width or not self._is_cacheable(encoder, say):
            return None
        choices: list[tuple[int, ...]] = [()]
        if encoder.cut > 0:
            # The suffix starts at the cut; the model also uses some of the states below it.
            choices.insert(0, tuple(sorted({n for n in needs if n < encoder.cut} | {encoder.cut})))
        dtype = self._choose_dtype()
        seconds = recordings.seconds
        if self.config.versions:  # and the unchanged recordings, for validation and test
            seconds = seconds * self.config.versions + sum(recordings.lengths.values()) / SAMPLING_RATE
        sizes = [_estimate_gb(encoder, layers, dtype, seconds, fabric) for layers in choices]
        fitting = [pair for pair in zip(choices, sizes, strict=True) if pair[1] <= limit]
        if not fitting or (where != "auto" and len(fitting) < len(choices)):
            return self._report_too_small(sizes, say)
        return fitting[0]

    def _is_cacheable(self, encoder: Encoder, say: Callable[[str], None]) -> bool:
        """Return True where the prefix gives the same output at every step.

        Raises:
            SertoneError: `not_cacheable`, where the recipe asks for `memory` or `file`.
        """
        varies = self.config.changes_waveforms and self.config.versions is None
        reason = encoder.explain_varying_prefix()
        if varies:
            reason = "train.augmentation or train.perturb changes the waveforms in every epoch"
        if reason and self.config.cache.where != "auto":
            remedy = "set train.versions: 4" if varies else "raise model.frozen_layers"
            raise SertoneError(
                "not_cacheable",
                f"train.cache is {self.config.cache.where}, but {reason}",
                "an encoder whose first part is frozen and deterministic, and the same waveforms each time",
                f"{remedy}, or set train.cache to auto or off",
            )
        if varies:
            say(f"no cache: {reason}; set train.versions to keep some versions of each utterance")
        return not reason

    def _report_too_small(self, sizes: list[float], say: Callable[[str], None]) -> None:
        limit = f"train.cache.limit_gb is {self.config.cache.limit_gb:g}"
        if self.config.cache.where != "auto":
            raise SertoneError(
                "cache_too_small",
                f"the output of the frozen prefix takes {sizes[0]:.2g} GB; {limit}",
                "enough room for the output",
                "raise the limit, set train.cache.precision to bf16, use fewer train.speeds or versions, "
                "or set train.cache to auto or off",
            )
        say(f"no cache: the front end's output takes {sizes[-1]:.2g} GB; {limit}")

    def _choose_dtype(self) -> torch.dtype:
        default = "bf16" if self.config.precision == "bf16-mixed" else "fp32"
        return DTYPES[self.config.cache.precision or default]

    def _make_path(self, name: str) -> Path:
        return Path(self.config.cache.folder).expanduser() / f"{name}.prefix"

    def _open_store(self, name: str, gigabytes: float, fold_specific: bool) -> ArrayStore:
        """Open a file or the memory of the run; a store that no other fold can use ends with its fold."""
        if self.config.cache.where != "file":
            return ArrayStore(limit=self.limit) if fold_specific else self.shared
        path = self._make_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if fold_specific:
            path = path.with_suffix(f".{os.getpid()}")
            store = ArrayStore(path, self.limit)
            path.unlink()  # the file stays on the disk until the store closes, however this process ends
            return store
        store = ArrayStore(path, self.limit)
        os.utime(path)  # mark it as used last, so that other runs delete it last
        _make_room(path, self.limit - gigabytes * 1e9)
        return store


def _make_room(current: Path, limit: float) -> None:
    """Delete the files beside `current` that were opened longest ago, until the others fit into `limit`."""
    stats = {}
    for file in current.parent.glob("*.prefix"):
        with contextlib.suppress(FileNotFoundError):  # another process makes room as well
            stats[file] = file.stat()
    excess = sum(stat.st_size for file, stat in stats.items() if file != current) - limit
    for file, stat in sorted(stats.items(), key=lambda item: item[1].st_mtime):
        if excess > 0 and file != current:
            excess -= stat.st_size
            file.unlink(missing_ok=True)


def _estimate_gb(
    encoder: Encoder, layers: tuple[int, ...], dtype: torch.dtype, seconds: float, fabric: Fabric
) -> float:
    """Return the size in GB of the prefixes of some seconds of audio; the encoder may be on any device."""
    device = next(encoder.parameters()).device
    # The difference of two lengths gives the frames per second without the frames lost at the edges.
    with torch.no_grad(), fabric.autocast():
        counts = torch.tensor([1, 2], device=device) * SAMPLING_RATE
        features, frames = encoder.front(torch.zeros(2, 2 * SAMPLING_RATE, device=device), counts)
    width = encoder.width * len(layers) if layers else features.shape[-1]
    return seconds * int(frames[1] - frames[0]) * width * dtype.itemsize / 1e9


@dataclass(frozen=True)
class SharedCaches:
    """The caches that the processes of a run share; unpickling opens the same memory again.

    Attributes:
        recordings: decoded audio.
        prefixes: outputs of frozen prefixes.
    """

    recordings: Recordings
    prefixes: PrefixCaches

    @classmethod
    def from_train_config(cls, config: TrainConfig) -> Self:
        """Create empty caches, as large as the recipe allows."""
        return cls(Recordings(config.audio_cache_gb, config.playback_speeds), PrefixCaches(config))
