"""Batches for the device, made ahead of their time, from cached prefixes or from waveforms, and from text."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from sertone.nn.batch import Batch
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.train_config import Augmentation
from sertone.schema import Utterance
from sertone.training.data.augmentation import augment
from sertone.training.data.prefix_cache import PrefixCache, load_waveform
from sertone.training.data.recordings import Recordings

AHEAD = 3
"""Batches made in advance."""


class BatchItem(NamedTuple):
    """What a batch takes of an utterance.

    Attributes:
        utterance: which.
        speed: at which it is played.
        withheld: `audio`, `text` or nothing.
        seed: of the augmentation; None: the waveform as it is.
    """

    utterance: Utterance
    speed: float = 1.0
    withheld: str = ""
    seed: int | None = None


class Loader:
    """Makes batches in a thread beside the training; what a cache lacks is computed when it is needed.

    The thread uses numpy alone: torch's own threads belong to the training.

    Args:
        recordings: decoded audio.
        vocabulary: of the targets.
        min_samples: that the encoder needs.
        cache: of the encoder's prefix.
        soft: annotators' votes as targets of emotion.
        augmentation: of the waveforms of rows that have a seed.

    Attributes:
        waited: seconds that the training has waited for batches.
    """

    def __init__(
        self,
        recordings: Recordings,
        vocabulary: Vocabulary,
        min_samples: int,
        cache: PrefixCache | None = None,
        *,
        soft: bool = False,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.recordings, self.vocabulary, self.min_samples = recordings, vocabulary, min_samples
        self.cache, self.soft = cache, soft
        self.augmentation = augmentation or Augmentation()
        self.waited = 0.0

    def pop_waited(self) -> float:
        """Seconds waited since the last call."""
        waited, self.waited = self.waited, 0.0
        return waited

    def batches(self, plan: Sequence[Sequence[BatchItem]], tasks: Sequence[str]) -> Iterator[Batch]:
        """Batches on the CPU, in the order of the plan.

        Args:
            plan: the utterances of each batch.
            tasks: whose targets are wanted.
        """
        with ThreadPoolExecutor(1) as thread:
            made = deque(thread.submit(self._make, rows) for rows in plan[:AHEAD])
            for number, rows in enumerate(plan):
                if number + AHEAD < len(plan):
                    made.append(thread.submit(self._make, plan[number + AHEAD]))
                started = time.monotonic()
                batch = made.popleft().result()
                self.waited += time.monotonic() - started
                utterances = [row.utterance for row in rows]
                targets = {t: self.vocabulary.make_targets(t, utterances, soft=self.soft) for t in tasks}
                read = self._read(rows) if self.vocabulary.tokenizer else {}
                yield replace(batch or self._computed(rows), targets=targets, **read)

    def _make(self, rows: Sequence[BatchItem]) -> Batch | None:
        """A batch without targets and text; None where the cache lacks one of the rows."""
        if all(row.withheld == "audio" for row in rows):
            return Batch(None, self._lengths(rows))
        if self.cache is None:
            waveforms = [self._waveform(row) for row in rows]
            padded = np.zeros((len(rows), max(map(len, waveforms))), np.float32)
            for target, samples in zip(padded, waveforms, strict=True):
                target[: len(samples)] = samples
            return Batch(torch.from_numpy(padded), torch.tensor([len(each) for each in waveforms]))
        kept = [each for row in rows if (each := self.cache.get(row.utterance, row.speed)) is not None]
        return self._from_cache(rows, kept) if len(kept) == len(rows) else None

    def _waveform(self, row: BatchItem) -> np.ndarray:
        change = None
        if row.seed is not None:
            change = partial(augment, seed=row.seed, config=self.augmentation)
        return load_waveform(self.recordings, row.utterance, row.speed, self.min_samples, change)

    def _computed(self, rows: Sequence[BatchItem]) -> Batch:
        """A batch from the cache, which computes what it lacks."""
        assert self.cache is not None
        known = [self.cache.get(row.utterance, row.speed) for row in rows]
        kept = [
            self.cache.compute(row.utterance, row.speed) if each is None else each
            for row, each in zip(rows, known, strict=True)
        ]
        return self._from_cache(rows, kept)

    def _from_cache(self, rows: Sequence[BatchItem], kept: Sequence[np.ndarray]) -> Batch:
        assert self.cache is not None
        return Batch(None, self._lengths(rows), prefix=self.cache.collate(kept))

    def _lengths(self, rows: Sequence[BatchItem]) -> torch.Tensor:
        return torch.tensor([round(self.recordings.lengths[r.utterance.id] / r.speed) for r in rows])

    def _read(self, rows: Sequence[BatchItem]) -> dict[str, Any]:
        """The text of a batch, where there is any, and who may be heard, where not all may."""
        texts = [None if row.withheld == "text" else row.utterance.text for row in rows]
        tokens, counts = self.vocabulary.encode_texts(texts)
        read: dict[str, Any] = {"tokens": tokens, "counts": counts} if counts.any() else {}
        if any(row.withheld == "audio" for row in rows):
            read["audio_mask"] = torch.tensor([row.withheld != "audio" for row in rows])
        return read
